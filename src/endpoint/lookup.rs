//! Resolves an endpoint's name. IPv4 and IPv6 addresses are looked up concurrently, so that a resolver that never answers for
//! one family does not delay the other.
//!
//! Requests of all workers share a pending lookup. The system's resolver blocks, so each lookup has its own thread: at most two
//! per endpoint. Process exit does not wait for them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::error::ConnectError;

/// The time to wait for IPv6 addresses once there are IPv4 addresses. Source: RFC 8305 section 3.
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// Looks up the addresses of one name.
pub(super) struct Lookup {
    ipv4: Family,
    ipv6: Family,
    port: u16,
}

/// The addresses that were found first, and the pending lookup of the other family.
pub(super) struct Found {
    /// In the order in which they are tried.
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) more: Option<Later>,
}

/// A lookup that may not have ended yet.
pub(super) struct Later {
    outcome: watch::Receiver<Option<Outcome>>,
    port: u16,
}

type Outcome = Result<Vec<IpAddr>, Arc<io::Error>>;

/// Blocks until the addresses of a name are known.
type Resolve = fn(&str) -> io::Result<Vec<IpAddr>>;

/// The lookups of one address family.
struct Family {
    host: Arc<str>,
    resolve: Resolve,
    /// The last lookup.
    latest: Mutex<Option<watch::Receiver<Option<Outcome>>>>,
}

impl Lookup {
    /// Makes the lookup of a host: a name or an address.
    pub(super) fn new(host: &str, port: u16) -> Self {
        Self::with(host, port, resolve_ipv4, resolve_ipv6)
    }

    fn with(host: &str, port: u16, ipv4: Resolve, ipv6: Resolve) -> Self {
        let host: Arc<str> = host.into();
        let family = |resolve| Family { host: Arc::clone(&host), resolve, latest: Mutex::default() };
        Self { ipv4: family(ipv4), ipv6: family(ipv6), port }
    }

    /// Finds addresses within `time`.
    ///
    /// # Errors
    /// [`ConnectError::Dns`] and [`ConnectError::DnsTimeout`].
    pub(super) async fn find(&self, time: Duration) -> Result<Found, ConnectError> {
        if let Ok(address) = self.ipv4.host.parse() {
            return Ok(Found { addresses: vec![SocketAddr::new(address, self.port)], more: None });
        }
        tokio::time::timeout(time, self.look_up()).await.unwrap_or(Err(ConnectError::DnsTimeout(time)))
    }

    async fn look_up(&self) -> Result<Found, ConnectError> {
        let (mut ipv4, mut ipv6) = (self.ipv4.join(self.port), self.ipv6.join(self.port));
        tokio::select! {
            biased;
            first = ipv6.outcome() => match first {
                Ok(addresses) => Ok(Found { addresses, more: Some(ipv4) }),
                Err(_) => ipv4.alone().await,
            },
            first = ipv4.outcome() => match first {
                Ok(addresses) => match tokio::time::timeout(RESOLUTION_DELAY, ipv6.outcome()).await {
                    Ok(Ok(preferred)) => Ok(Found { addresses: alternating(preferred, addresses), more: None }),
                    Ok(Err(_)) => Ok(Found { addresses, more: None }),
                    Err(_late) => Ok(Found { addresses, more: Some(ipv6) }),
                },
                Err(_) => ipv6.alone().await,
            },
        }
    }
}

impl Later {
    /// Waits for the addresses; there is at least one.
    pub(super) async fn outcome(&mut self) -> Result<Vec<SocketAddr>, ConnectError> {
        let outcome = match self.outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone(),
            // Its thread panicked.
            Err(_gone) => None,
        };
        let failed = |err| ConnectError::Dns(Box::new(err));
        let addresses = outcome.unwrap_or_else(|| Ok(Vec::new())).map_err(failed)?;
        if addresses.is_empty() {
            return Err(failed(Arc::new(io::Error::other("the name has no address"))));
        }
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, self.port)).collect())
    }

    async fn alone(&mut self) -> Result<Found, ConnectError> {
        Ok(Found { addresses: self.outcome().await?, more: None })
    }
}

impl Family {
    /// Joins the pending lookup, or starts one.
    fn join(&self, port: u16) -> Later {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let under_way = latest.as_ref().filter(|latest| latest.borrow().is_none() && latest.has_changed().is_ok());
        let outcome = match under_way {
            Some(under_way) => under_way.clone(),
            None => self.start(),
        };
        *latest = Some(outcome.clone());
        Later { outcome, port }
    }

    fn start(&self) -> watch::Receiver<Option<Outcome>> {
        let (report, outcome) = watch::channel(None);
        let (host, resolve, reported) = (Arc::clone(&self.host), self.resolve, report.clone());
        // Ends when the system's resolver returns, or with the process.
        let thread = std::thread::Builder::new().name(String::from("lookup"));
        let started = thread.spawn(move || report.send_replace(Some(resolve(&host).map_err(Arc::new))));
        if let Err(err) = started {
            reported.send_replace(Some(Err(Arc::new(err))));
        }
        outcome
    }
}

fn resolve_ipv4(host: &str) -> io::Result<Vec<IpAddr>> {
    resolve(host, socket2::Domain::IPV4)
}

fn resolve_ipv6(host: &str) -> io::Result<Vec<IpAddr>> {
    resolve(host, socket2::Domain::IPV6)
}

fn resolve(host: &str, family: socket2::Domain) -> io::Result<Vec<IpAddr>> {
    let hints = dns_lookup::AddrInfoHints {
        address: family.into(),
        socktype: socket2::Type::STREAM.into(),
        flags: 0,
        protocol: 0,
    };
    let found = dns_lookup::getaddrinfo(Some(host), None, Some(hints))?;
    found.map(|found| found.map(|found| found.sockaddr.ip())).collect()
}

/// Puts addresses of two families in the order in which they are tried. Source: RFC 8305 section 4.
fn alternating(preferred: Vec<SocketAddr>, others: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let (mut preferred, mut others) = (preferred.into_iter(), others.into_iter());
    let mut all = Vec::new();
    while preferred.len() + others.len() > 0 {
        all.extend(preferred.next());
        all.extend(others.next());
    }
    all
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const PORT: u16 = 443;
    const MINUTE: Duration = Duration::from_secs(60);

    #[expect(clippy::unnecessary_wraps, reason = "it stands for the system's resolver")]
    fn one(_: &str) -> io::Result<Vec<IpAddr>> {
        Ok(vec![[192, 0, 2, 1].into(), [192, 0, 2, 2].into()])
    }

    #[expect(clippy::unnecessary_wraps, reason = "it stands for the system's resolver")]
    fn six(_: &str) -> io::Result<Vec<IpAddr>> {
        Ok(vec![[0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()])
    }

    fn unknown(_: &str) -> io::Result<Vec<IpAddr>> {
        Err(io::Error::other("no such name"))
    }

    fn never(_: &str) -> io::Result<Vec<IpAddr>> {
        loop {
            std::thread::park();
        }
    }

    fn texts(found: &Found) -> Vec<String> {
        found.addresses.iter().map(|address| address.ip().to_string()).collect()
    }

    #[tokio::test]
    async fn family_that_is_never_answered_does_not_hold_up_the_other() {
        let found = Lookup::with("name", PORT, one, never).find(MINUTE).await.unwrap();
        assert_eq!(texts(&found), ["192.0.2.1", "192.0.2.2"]);
        assert!(found.more.is_some(), "it may still come");
        let found = Lookup::with("name", PORT, never, six).find(MINUTE).await.unwrap();
        assert_eq!(texts(&found), ["2001:db8::1"]);
    }

    #[tokio::test]
    async fn families_are_tried_by_turns_and_one_without_addresses_is_left_out() {
        let mut ipv4 = Family { host: "name".into(), resolve: one, latest: Mutex::default() }.join(PORT);
        let mut ipv6 = Family { host: "name".into(), resolve: six, latest: Mutex::default() }.join(PORT);
        let all = alternating(ipv6.outcome().await.unwrap(), ipv4.outcome().await.unwrap());
        let all: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(all, ["[2001:db8::1]:443", "192.0.2.1:443", "192.0.2.2:443"]);
        let found = Lookup::with("name", PORT, one, unknown).find(MINUTE).await.unwrap();
        assert_eq!(texts(&found), ["192.0.2.1", "192.0.2.2"]);
        let found = Lookup::with("name", PORT, unknown, six).find(MINUTE).await.unwrap();
        assert_eq!(texts(&found), ["2001:db8::1"]);
    }

    #[tokio::test]
    async fn name_without_addresses_and_name_without_an_answer_are_errors_of_their_own() {
        let failed = Lookup::with("name", PORT, unknown, unknown).find(MINUTE).await.err().unwrap();
        assert!(matches!(failed, ConnectError::Dns(_)), "{failed:?}");
        let short = Duration::from_millis(10);
        let failed = Lookup::with("name", PORT, never, never).find(short).await.err().unwrap();
        assert_eq!(failed.to_string(), "name resolution of the endpoint did not finish within 10ms");
        let failed = Lookup::with("name", PORT, never, unknown).find(short).await.err().unwrap();
        assert!(matches!(failed, ConnectError::DnsTimeout(_)), "{failed:?}");
    }

    #[tokio::test]
    async fn lookup_that_is_under_way_is_shared_and_the_next_one_is_new() {
        static LOOKUPS: AtomicUsize = AtomicUsize::new(0);
        static ANSWERS: AtomicUsize = AtomicUsize::new(0);
        fn counted(name: &str) -> io::Result<Vec<IpAddr>> {
            LOOKUPS.fetch_add(1, Ordering::SeqCst);
            while ANSWERS.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            one(name)
        }
        let lookup = Lookup::with("name", PORT, counted, unknown);
        let finds = futures_util::future::join_all((0..100).map(|_| lookup.find(MINUTE)));
        let answer = async { ANSWERS.store(1, Ordering::SeqCst) };
        let (found, ()) = tokio::join!(finds, answer);
        assert!(found.iter().all(|found| texts(found.as_ref().unwrap()) == ["192.0.2.1", "192.0.2.2"]));
        assert_eq!(LOOKUPS.load(Ordering::SeqCst), 1);
        lookup.find(MINUTE).await.unwrap();
        assert_eq!(LOOKUPS.load(Ordering::SeqCst), 2, "an answer is not kept");
    }

    #[tokio::test]
    async fn addresses_and_names_of_this_host_are_found() {
        for (host, expected) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("localhost", "127.0.0.1")] {
            let found = Lookup::new(host, PORT).find(MINUTE).await.unwrap();
            let mut all = texts(&found);
            if let Some(mut more) = found.more
                && let Ok(more) = more.outcome().await
            {
                all.extend(more.iter().map(|address| address.ip().to_string()));
            }
            assert!(all.iter().any(|address| address == expected), "{host}: {all:?}");
        }
    }
}
