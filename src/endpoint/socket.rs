//! A byte stream to an endpoint: TCP, or TLS over it, directly or through a proxy.

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::egress::Carrier;
use crate::write_batch::Batched;

/// A byte stream to an endpoint, plain or over TLS. TLS is boxed because it is ten times as large.
pub(super) type Socket<S> = Either<Carrier<S>, Box<TlsStream<Carrier<S>>>>;

/// Returns the number of bytes that the socket has accepted; `None` while some are in the write batch.
pub(super) fn written(socket: &Socket<Batched<TcpStream>>) -> Option<u64> {
    let carrier = match socket {
        Socket::Left(plain) => plain,
        Socket::Right(secured) => secured.get_ref().0,
    };
    match carrier {
        Carrier::Left(tcp) => tcp.written(),
        Carrier::Right(proxy) => proxy.get_ref().0.written(),
    }
}

/// Returns whether a socket may have input. Makes no system call: checks the readiness that the runtime has observed and the
/// input that TLS has already decrypted.
pub(super) fn may_have_input(socket: &mut Socket<Batched<TcpStream>>) -> bool {
    match socket {
        Socket::Left(plain) => carrier_may_have_input(plain),
        Socket::Right(secured) => {
            let (carrier, tls) = secured.get_mut();
            carrier_may_have_input(carrier) || has_input(tls)
        }
    }
}

fn carrier_may_have_input(carrier: &mut Carrier<Batched<TcpStream>>) -> bool {
    match carrier {
        Carrier::Left(tcp) => tcp.is_readable(),
        Carrier::Right(proxy) => {
            let (tcp, tls) = proxy.get_mut();
            tcp.is_readable() || has_input(tls)
        }
    }
}

/// Returns whether TLS has decrypted input, or the peer has closed it or broken the protocol.
fn has_input(tls: &mut rustls::ClientConnection) -> bool {
    let is_silent = |state: rustls::IoState| state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed();
    !tls.process_new_packets().is_ok_and(is_silent)
}
