//! Connects to the first address of a host that accepts. An address that drops packets delays the connection by a quarter of a
//! second, not by the whole timeout.
//!
//! Source: RFC 8305 section 5 ("happy eyeballs").

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::lookup::{Resolved, alternating};

/// The delay before the next address is tried concurrently. Source: RFC 8305 section 5.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// The idle time before TCP keep-alive probes, which detect an unreachable peer.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

/// Connects to the first address that accepts, and cancels the other attempts.
///
/// # Errors
/// The error of the last attempt, if all have failed.
///
/// # Cancel safety
/// Safe: pending attempts are cancelled.
pub(super) async fn connect(resolved: Resolved) -> io::Result<TcpStream> {
    let Resolved { addresses, mut pending } = resolved;
    let mut untried = VecDeque::from(addresses);
    let mut attempts = FuturesUnordered::new();
    let mut last_error = None;
    let mut next_at = Instant::now();
    loop {
        if attempts.is_empty() {
            next_at = Instant::now();
            if untried.is_empty() {
                let late = match &mut pending {
                    Some(late) => tokio::time::timeout(ATTEMPT_DELAY, late.outcome()).await.ok().and_then(Result::ok),
                    None => None,
                };
                pending = None;
                untried.extend(late.into_iter().flatten());
            }
            if untried.is_empty() {
                return Err(last_error.unwrap_or_else(|| io::Error::other("the host has no address")));
            }
        }
        let late = async {
            match &mut pending {
                Some(late) => late.outcome().await.unwrap_or_default(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(ended) = attempts.next() => match ended {
                Ok(connected) => return Ok(connected),
                Err(err) => {
                    last_error = Some(err);
                    next_at = Instant::now();
                }
            },
            () = tokio::time::sleep_until(next_at), if !untried.is_empty() => {
                attempts.extend(untried.pop_front().map(attempt));
                next_at = Instant::now() + ATTEMPT_DELAY;
            }
            found = late => {
                pending = None;
                // The addresses that were tried are of the other family.
                untried = alternating(found, untried.into()).into();
            }
        }
    }
}

async fn attempt(address: SocketAddr) -> io::Result<TcpStream> {
    let connected = TcpStream::connect(address).await?;
    connected.set_nodelay(true)?;
    SockRef::from(&connected).set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE))?;
    Ok(connected)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;
    use crate::endpoint::lookup::PendingLookup;

    fn loopback(last: u8, port: u16) -> SocketAddr {
        (Ipv4Addr::new(127, 0, 0, last), port).into()
    }

    /// Returns an address that drops packets because its accept queue is full.
    async fn silent() -> (SocketAddr, impl Sized) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&loopback(1, 0).into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let mut queued = Vec::new();
        while let Ok(connected) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            queued.push(connected.unwrap());
        }
        (address, (socket, queued))
    }

    /// Returns an address that refuses connections.
    async fn refusing() -> SocketAddr {
        TcpListener::bind(loopback(1, 0)).await.unwrap().local_addr().unwrap()
    }

    fn resolved(addresses: &[SocketAddr]) -> Resolved {
        Resolved { addresses: addresses.to_vec(), pending: None }
    }

    #[tokio::test]
    async fn addresses_that_drop_packets_or_refuse_do_not_delay_the_others() {
        let listener = TcpListener::bind(loopback(1, 0)).await.unwrap();
        let accepting = listener.local_addr().unwrap();
        let (silent, _held) = silent().await;
        let refusing = refusing().await;
        for addresses in
            [&[silent, accepting][..], &[refusing, accepting], &[silent, refusing, accepting], &[accepting, silent]]
        {
            let connected = tokio::time::timeout(Duration::from_secs(20), connect(resolved(addresses))).await.unwrap();
            assert_eq!(connected.unwrap().peer_addr().unwrap(), accepting, "{addresses:?}");
        }
    }

    #[tokio::test]
    async fn addresses_of_a_late_lookup_are_tried_before_the_rest_of_the_other_family() {
        let listener = TcpListener::bind(loopback(1, 0)).await.unwrap();
        let accepting = listener.local_addr().unwrap();
        let (silent, _held) = silent().await;
        // All of them would take longer than the test waits.
        let addresses = vec![silent; 400];
        let (pending, send) = PendingLookup::late(accepting.port());
        let resolved = Resolved { addresses, pending: Some(pending) };
        let late = async {
            tokio::time::sleep(ATTEMPT_DELAY / 2).await;
            send(vec![accepting.ip()]);
        };
        let connecting = tokio::time::timeout(Duration::from_secs(20), connect(resolved));
        let (connected, ()) = tokio::join!(connecting, late);
        assert_eq!(connected.unwrap().unwrap().peer_addr().unwrap(), accepting);

        // All addresses of the first family refuse while the other is being looked up.
        let (pending, send) = PendingLookup::late(accepting.port());
        let resolved = Resolved { addresses: vec![refusing().await], pending: Some(pending) };
        let (connected, ()) = tokio::join!(connect(resolved), async { send(vec![accepting.ip()]) });
        assert_eq!(connected.unwrap().peer_addr().unwrap(), accepting);
    }

    #[tokio::test]
    async fn error_is_returned_if_all_addresses_refuse() {
        let refused = connect(resolved(&[refusing().await, refusing().await])).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
