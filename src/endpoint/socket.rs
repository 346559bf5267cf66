//! A byte stream to an endpoint: TCP, or TLS over it.

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::write_batch::Batched;

/// A byte stream to an endpoint, plain or over TLS. TLS is boxed because it is ten times as large.
pub(super) type Socket<S> = Either<S, Box<TlsStream<S>>>;

/// Returns the number of bytes that the socket has accepted; `None` while some are in the write batch.
pub(super) fn written(socket: &Socket<Batched<TcpStream>>) -> Option<u64> {
    match socket {
        Socket::Left(plain) => plain.written(),
        Socket::Right(secured) => secured.get_ref().0.written(),
    }
}

/// Returns whether a socket may have input. Makes no system call: checks the readiness that the runtime has observed and the
/// input that TLS has already decrypted.
pub(super) fn may_have_input(socket: &mut Socket<Batched<TcpStream>>) -> bool {
    match socket {
        Socket::Left(plain) => plain.is_readable(),
        Socket::Right(secured) => {
            let (tcp, tls) = secured.get_mut();
            let is_silent = |state: rustls::IoState| state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed();
            tcp.is_readable() || !tls.process_new_packets().is_ok_and(is_silent)
        }
    }
}
