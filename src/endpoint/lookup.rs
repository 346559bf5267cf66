//! Resolves an endpoint's host name. IPv4 and IPv6 addresses are looked up concurrently, so an unresponsive lookup of one family
//! does not delay the other.
//!
//! Connection attempts of all workers share a pending lookup, and its answer for a second, so that a burst of connections asks
//! once. Failures are not kept. The system's resolver blocks, so each lookup runs on its own thread: at most two per endpoint.
//! Process exit does not wait for these threads.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::error::ConnectError;

/// The time to wait for IPv6 addresses once there are IPv4 addresses. Source: RFC 8305 section 3.
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// The time for which an answer is shared. Chosen: connections are opened in bursts, and a changed answer is followed within
/// a second, as long as the system's resolver does not keep it either.
const ANSWER_LIFE: Duration = Duration::from_secs(1);

/// The resolver of one host name.
pub(super) struct Lookup {
    ipv4: Family,
    ipv6: Family,
    port: u16,
}

/// The addresses that are known first, and the pending lookup of the other family.
pub(super) struct Resolved {
    /// The addresses, in the order in which they are tried.
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) pending: Option<PendingLookup>,
}

/// A lookup of one address family that may not have finished.
pub(super) struct PendingLookup {
    answer: watch::Receiver<Option<Answer>>,
    port: u16,
}

/// The outcome of a finished lookup, and when it finished.
#[derive(Clone)]
struct Answer {
    outcome: Outcome,
    at: Instant,
}

type Outcome = Result<Vec<IpAddr>, Arc<io::Error>>;

/// A blocking function that returns the addresses of a host name.
type Resolve = fn(&str) -> io::Result<Vec<IpAddr>>;

/// The lookups of one address family.
struct Family {
    host: Arc<str>,
    resolve: Resolve,
    /// The most recent lookup.
    latest: Mutex<Option<watch::Receiver<Option<Answer>>>>,
}

impl Lookup {
    /// Creates the resolver of a host, which is a name or an IP address.
    pub(super) fn new(host: &str, port: u16) -> Self {
        Self::with(host, port, resolve_ipv4, resolve_ipv6)
    }

    fn with(host: &str, port: u16, ipv4: Resolve, ipv6: Resolve) -> Self {
        let host: Arc<str> = host.into();
        let family = |resolve| Family { host: Arc::clone(&host), resolve, latest: Mutex::default() };
        Self { ipv4: family(ipv4), ipv6: family(ipv6), port }
    }

    /// Resolves the host name within `timeout`.
    ///
    /// # Errors
    /// [`ConnectError::Dns`] or [`ConnectError::DnsTimeout`].
    pub(super) async fn resolve(&self, timeout: Duration) -> Result<Resolved, ConnectError> {
        if let Ok(address) = self.ipv4.host.parse() {
            return Ok(Resolved { addresses: vec![SocketAddr::new(address, self.port)], pending: None });
        }
        if let Some(addresses) = localhost_addresses(&self.ipv4.host) {
            let addresses = addresses.map(|address| SocketAddr::new(address, self.port)).into();
            return Ok(Resolved { addresses, pending: None });
        }
        match tokio::time::timeout(timeout, self.look_up()).await {
            Ok(Ok(resolved)) => Ok(resolved),
            Ok(Err(err)) => {
                [&self.ipv4, &self.ipv6].into_iter().for_each(Family::forget);
                Err(err)
            }
            Err(_late) => Err(ConnectError::DnsTimeout(timeout)),
        }
    }

    /// Returns whether connections wait for the first addresses.
    pub(super) fn is_pending(&self) -> bool {
        let families = [&self.ipv4, &self.ipv6];
        families.iter().any(|family| family.is_pending()) && !families.iter().any(|family| family.has_addresses())
    }

    async fn look_up(&self) -> Result<Resolved, ConnectError> {
        let (mut ipv4, mut ipv6) = (self.ipv4.join(self.port), self.ipv6.join(self.port));
        tokio::select! {
            biased;
            first = ipv6.outcome() => match first {
                Ok(addresses) => Ok(Resolved { addresses, pending: Some(ipv4) }),
                Err(_) => ipv4.resolved().await,
            },
            first = ipv4.outcome() => match first {
                Ok(addresses) => match tokio::time::timeout(RESOLUTION_DELAY, ipv6.outcome()).await {
                    Ok(Ok(preferred)) => Ok(Resolved { addresses: alternating(preferred, addresses), pending: None }),
                    Ok(Err(_)) => Ok(Resolved { addresses, pending: None }),
                    Err(_late) => Ok(Resolved { addresses, pending: Some(ipv6) }),
                },
                Err(_) => ipv6.resolved().await,
            },
        }
    }
}

impl PendingLookup {
    /// Waits for the addresses. A lookup without any address fails.
    pub(super) async fn outcome(&mut self) -> Result<Vec<SocketAddr>, ConnectError> {
        let outcome = match self.answer.wait_for(Option::is_some).await {
            Ok(answer) => answer.as_ref().map(|answer| answer.outcome.clone()),
            // The lookup's thread panicked.
            Err(_gone) => None,
        };
        let failed = |err| ConnectError::Dns(Box::new(err));
        let addresses = outcome.unwrap_or_else(|| Ok(Vec::new())).map_err(failed)?;
        if addresses.is_empty() {
            return Err(failed(Arc::new(io::Error::other("the name has no address"))));
        }
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, self.port)).collect())
    }

    async fn resolved(&mut self) -> Result<Resolved, ConnectError> {
        Ok(Resolved { addresses: self.outcome().await?, pending: None })
    }
}

impl Family {
    /// Joins the pending lookup or takes the latest answer, or starts a lookup.
    fn join(&self, port: u16) -> PendingLookup {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |answer: &Answer| answer.at.elapsed() < ANSWER_LIFE;
        let shared =
            latest.as_ref().filter(|latest| is_running(latest) || latest.borrow().as_ref().is_some_and(is_fresh));
        let answer = match shared {
            Some(shared) => shared.clone(),
            None => self.start(),
        };
        *latest = Some(answer.clone());
        PendingLookup { answer, port }
    }

    /// Forgets the latest answer. A pending lookup continues.
    fn forget(&self) {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).take_if(|latest| !is_running(latest));
    }

    fn is_pending(&self) -> bool {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(is_running)
    }

    fn has_addresses(&self) -> bool {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.as_ref().is_some_and(|latest| latest.borrow().as_ref().is_some_and(|answer| answer.outcome.is_ok()))
    }

    fn start(&self) -> watch::Receiver<Option<Answer>> {
        let (report, answer) = watch::channel(None);
        let finished = |outcome| Some(Answer { outcome, at: Instant::now() });
        let (host, resolve, reported) = (Arc::clone(&self.host), self.resolve, report.clone());
        // The thread ends when the system's resolver returns, or with the process.
        let thread = std::thread::Builder::new().name(String::from("lookup"));
        let started = thread.spawn(move || report.send_replace(finished(resolve(&host).map_err(Arc::new))));
        if let Err(err) = started {
            reported.send_replace(finished(Err(Arc::new(err))));
        }
        answer
    }
}

/// Returns whether a lookup has not finished. Its thread may have panicked.
fn is_running(lookup: &watch::Receiver<Option<Answer>>) -> bool {
    lookup.borrow().is_none() && lookup.has_changed().is_ok()
}

/// Returns the loopback addresses for a name below `localhost`, such as `east.localhost`. Not every system's resolver knows these
/// names, and none should ask a DNS server for them. Source: RFC 6761 section 6.3.
pub fn localhost_addresses(host: &str) -> Option<[IpAddr; 2]> {
    let (_, top) = host.rsplit_once('.')?;
    top.eq_ignore_ascii_case("localhost").then_some([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
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

/// Alternates the addresses of two families, which is the order in which they are tried. Source: RFC 8305 section 4.
pub(super) fn alternating(preferred: Vec<SocketAddr>, others: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let (mut preferred, mut others) = (preferred.into_iter(), others.into_iter());
    let mut all = Vec::new();
    while preferred.len() + others.len() > 0 {
        all.extend(preferred.next());
        all.extend(others.next());
    }
    all
}

#[cfg(test)]
impl PendingLookup {
    /// Returns a lookup whose addresses are sent later.
    pub(super) fn late(port: u16) -> (Self, impl FnOnce(Vec<IpAddr>)) {
        let (report, answer) = watch::channel(None);
        let send =
            move |addresses| drop(report.send_replace(Some(Answer { outcome: Ok(addresses), at: Instant::now() })));
        (Self { answer, port }, send)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    const PORT: u16 = 443;
    const MINUTE: Duration = Duration::from_secs(60);

    #[expect(clippy::unnecessary_wraps, reason = "it has the signature of a resolver")]
    fn ipv4_addresses(_: &str) -> io::Result<Vec<IpAddr>> {
        Ok(vec![[192, 0, 2, 1].into(), [192, 0, 2, 2].into()])
    }

    #[expect(clippy::unnecessary_wraps, reason = "it has the signature of a resolver")]
    fn ipv6_address(_: &str) -> io::Result<Vec<IpAddr>> {
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

    fn texts(found: &Resolved) -> Vec<String> {
        found.addresses.iter().map(|address| address.ip().to_string()).collect()
    }

    #[tokio::test]
    async fn unresponsive_lookup_of_one_family_does_not_delay_the_other() {
        let found = Lookup::with("name", PORT, ipv4_addresses, never).resolve(MINUTE).await.unwrap();
        assert_eq!(texts(&found), ["192.0.2.1", "192.0.2.2"]);
        assert!(found.pending.is_some(), "the lookup of the other family is still pending");
        let found = Lookup::with("name", PORT, never, ipv6_address).resolve(MINUTE).await.unwrap();
        assert_eq!(texts(&found), ["2001:db8::1"]);
    }

    #[tokio::test]
    async fn addresses_of_both_families_alternate_and_a_failed_lookup_is_ignored() {
        let mut ipv4 = Family { host: "name".into(), resolve: ipv4_addresses, latest: Mutex::default() }.join(PORT);
        let mut ipv6 = Family { host: "name".into(), resolve: ipv6_address, latest: Mutex::default() }.join(PORT);
        let all = alternating(ipv6.outcome().await.unwrap(), ipv4.outcome().await.unwrap());
        let all: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(all, ["[2001:db8::1]:443", "192.0.2.1:443", "192.0.2.2:443"]);
        let found = Lookup::with("name", PORT, ipv4_addresses, unknown).resolve(MINUTE).await.unwrap();
        assert_eq!(texts(&found), ["192.0.2.1", "192.0.2.2"]);
        let found = Lookup::with("name", PORT, unknown, ipv6_address).resolve(MINUTE).await.unwrap();
        assert_eq!(texts(&found), ["2001:db8::1"]);
    }

    #[tokio::test]
    async fn unknown_name_and_unresponsive_resolver_are_different_errors() {
        let failed = Lookup::with("name", PORT, unknown, unknown).resolve(MINUTE).await.err().unwrap();
        assert!(matches!(failed, ConnectError::Dns(_)), "{failed:?}");
        let short = Duration::from_millis(10);
        let failed = Lookup::with("name", PORT, never, never).resolve(short).await.err().unwrap();
        assert_eq!(failed.to_string(), "name resolution of the endpoint did not finish within 10ms");
        let failed = Lookup::with("name", PORT, never, unknown).resolve(short).await.err().unwrap();
        assert!(matches!(failed, ConnectError::DnsTimeout(_)), "{failed:?}");
    }

    #[tokio::test]
    async fn lookup_and_its_addresses_are_shared_for_a_while_and_failures_are_not() {
        static LOOKUPS: AtomicUsize = AtomicUsize::new(0);
        static FAILED: AtomicUsize = AtomicUsize::new(0);
        static IS_FINISHED: AtomicBool = AtomicBool::new(false);
        fn failing(name: &str) -> io::Result<Vec<IpAddr>> {
            FAILED.fetch_add(1, Ordering::SeqCst);
            unknown(name)
        }
        fn counted(name: &str) -> io::Result<Vec<IpAddr>> {
            LOOKUPS.fetch_add(1, Ordering::SeqCst);
            while !IS_FINISHED.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            ipv4_addresses(name)
        }
        let lookup = Lookup::with("name", PORT, counted, failing);
        assert!(!lookup.is_pending());
        let lookups = futures_util::future::join_all((0..100).map(|_| lookup.resolve(MINUTE)));
        let finish = async {
            assert!(lookup.is_pending());
            IS_FINISHED.store(true, Ordering::SeqCst);
        };
        let (found, ()) = tokio::join!(lookups, finish);
        assert!(found.iter().all(|found| texts(found.as_ref().unwrap()) == ["192.0.2.1", "192.0.2.2"]));
        assert!(!lookup.is_pending());
        // The other family has no address, which is part of the answer.
        let lookups = || (LOOKUPS.load(Ordering::SeqCst), FAILED.load(Ordering::SeqCst));
        assert_eq!(lookups(), (1, 1));
        let age = |by: Duration| {
            for family in [&lookup.ipv4, &lookup.ipv6] {
                let (report, answer) = watch::channel(None);
                let mut latest = family.latest.lock().unwrap();
                let known = latest.as_ref().unwrap().borrow().clone().unwrap();
                report.send_replace(Some(Answer { at: Instant::now().checked_sub(by).unwrap(), ..known }));
                *latest = Some(answer);
            }
        };
        age(Duration::ZERO);
        lookup.resolve(MINUTE).await.unwrap();
        assert_eq!(lookups(), (1, 1), "the answer was not shared");
        age(ANSWER_LIFE);
        lookup.resolve(MINUTE).await.unwrap();
        assert_eq!(lookups(), (2, 2), "an old answer was used");

        let lookup = Lookup::with("name", PORT, failing, failing);
        for expected in [4, 6] {
            assert!(lookup.resolve(MINUTE).await.is_err());
            assert_eq!(FAILED.load(Ordering::SeqCst), expected, "a failure was kept");
        }
    }

    #[tokio::test]
    async fn names_below_localhost_are_this_host_without_a_lookup() {
        for (host, expected) in [("east.localhost", true), ("a.b.LOCALHOST", true), ("localhost.example", false)] {
            let found = Lookup::with(host, PORT, unknown, unknown).resolve(MINUTE).await;
            let addresses = found.map(|found| texts(&found)).unwrap_or_default();
            assert_eq!(addresses == ["127.0.0.1", "::1"], expected, "{host}: {addresses:?}");
        }
    }

    #[tokio::test]
    async fn ip_addresses_and_localhost_are_resolved() {
        for (host, expected) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("localhost", "127.0.0.1")] {
            let found = Lookup::new(host, PORT).resolve(MINUTE).await.unwrap();
            let mut all = texts(&found);
            if let Some(mut pending) = found.pending
                && let Ok(addresses) = pending.outcome().await
            {
                all.extend(addresses.iter().map(|address| address.ip().to_string()));
            }
            assert!(all.iter().any(|address| address == expected), "{host}: {all:?}");
        }
    }

    #[test]
    fn each_family_is_resolved_to_its_own_addresses() {
        assert_eq!(resolve_ipv4("127.0.0.1").unwrap(), ["127.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(resolve_ipv6("::1").unwrap(), ["::1".parse::<IpAddr>().unwrap()]);
        assert!(resolve_ipv4("::1").is_err() && resolve_ipv6("127.0.0.1").is_err());
    }
}
