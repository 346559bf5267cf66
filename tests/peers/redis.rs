//! Redis, as the store of idempotency keys that replicas share: what a repeat at another replica gets, and what happens while
//! the store is killed, restarted or paused.

mod random_faults;

use std::net::SocketAddr;
use std::path::PathBuf;

use futures_util::future::join_all;
use signalr_gateway::sandbox::{Entry, Fault, FaultKind, GatewayConfig};
use tempfile::TempDir;

use super::server::{Server, folder, free_address};
use super::support::{
    BROADCAST_BODY, Caller, HarnessBuilder, Process, RawConnection, Response, broadcast_request, run, wait_until,
    with_timeout,
};

const KEY: &str = "8e03978e-40d5-43dd-bc93-6894a57f9324";
const PATH: &str = "/api/hubs";
const PASSWORD: &str = "correct-horse-battery";

/// A Redis server that writes each key to its disk before it answers.
struct Redis {
    server: Server,
    address: SocketAddr,
    more: Vec<String>,
    folder: TempDir,
}

impl Redis {
    async fn start(more: &[&str]) -> Self {
        let (folder, address) = (folder(), free_address());
        let more: Vec<String> = more.iter().map(|&argument| argument.to_owned()).collect();
        let server = Self::spawn(&folder, address, &more).await;
        Self { server, address, more, folder }
    }

    async fn spawn(folder: &TempDir, address: SocketAddr, more: &[String]) -> Server {
        let port = address.port().to_string();
        let mut arguments = vec!["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always"];
        if !more.iter().any(|argument| argument == "--tls-port") {
            arguments.extend(["--port", &port]);
        }
        arguments.extend(more.iter().map(String::as_str));
        Server::start("/usr/bin/redis-server", &arguments, address, folder.path()).await
    }

    /// Kills the server and starts it again with the keys on its disk.
    async fn restart(&mut self) {
        self.server.kill();
        self.server = Self::spawn(&self.folder, self.address, &self.more).await;
    }

    fn url(&self) -> String {
        format!("redis://{}/0", self.address)
    }

    /// Waits until the server has this many keys.
    async fn wait_for_keys(&self, count: usize) {
        wait_until(&format!("there are {count} keys"), async || {
            let mut connection = RawConnection::connect(self.address).await;
            let size = connection.write("DBSIZE\r\n").await.read_to(b"\r\n").await?;
            (size == format!(":{count}\r\n").as_bytes()).then_some(())
        })
        .await;
    }
}

/// Replicas of a gateway in front of one sandbox.
struct Replicas {
    builder: HarnessBuilder,
    processes: Vec<Process>,
    configs: Vec<PathBuf>,
    _folders: Vec<TempDir>,
}

impl Replicas {
    /// Starts replicas whose `[idempotency]` table has these lines.
    async fn start(count: usize, pick: &str, idempotency: &str, more: &str) -> Self {
        let builder = HarnessBuilder::start().await;
        let (mut processes, mut configs, mut folders) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..count {
            let folder = tempfile::tempdir().unwrap();
            let more = format!(
                "[[routes]]\nname = \"both\"\npick = \"{pick}\"\nendpoints = [\"east\", \"west\"]\n\
                 [idempotency]\n{idempotency}\n{more}"
            );
            let config = GatewayConfig { more, ..GatewayConfig::default() };
            let files = builder.sandbox.write_files(folder.path(), &config).unwrap();
            let process = Process::start_gateway(&files.config, &[]).await;
            process.wait_until_credentials_are("ready").await;
            processes.push(process);
            configs.push(files.config);
            folders.push(folder);
        }
        Self { builder, processes, configs, _folders: folders }
    }

    fn listener(&self, replica: usize) -> SocketAddr {
        self.processes[replica].listener()
    }

    fn faults(&self, endpoint: &str, fault: Fault) {
        self.builder.sandbox.endpoint(endpoint).unwrap().server.faults().set(fault.on_path(PATH));
    }

    fn arrivals(&self, endpoint: &str) -> Vec<Entry> {
        let entries = self.builder.sandbox.endpoint(endpoint).unwrap().server.journal().entries();
        entries.into_iter().filter(|entry| entry.target.contains(":send")).collect()
    }

    fn sent(&self) -> usize {
        self.arrivals("east").len() + self.arrivals("west").len()
    }

    async fn wait_until_sent(&self, count: usize) {
        wait_until("the calls arrive", async || (self.sent() >= count).then_some(())).await;
    }

    /// Stops the replicas in order. Returns their logs.
    async fn stop(&mut self) -> Vec<String> {
        for process in &self.processes {
            process.terminate().await;
        }
        let mut logs = Vec::new();
        for process in self.processes.drain(..) {
            let (status, log) = process.wait().await;
            assert!(status.success(), "{status}: {log}");
            logs.push(log);
        }
        logs
    }

    async fn store_is(&self, replica: usize, state: &str) {
        let process = &self.processes[replica];
        wait_until(&format!("the store is {state}"), async || {
            let status = process.status().await;
            (status["idempotency_store"]["state"] == state).then_some(())
        })
        .await;
    }
}

async fn keyed(listener: SocketAddr, key: &str, body: &str) -> Response {
    let head = broadcast_request().header("idempotency-key", key);
    Caller::connect(listener).await.send(head, body.to_owned()).await
}

fn is_replay(response: &Response) -> bool {
    response.header("signalr-gateway-replayed").is_some()
}

fn signal(process: u32, signal: &str) {
    let status = std::process::Command::new("kill").args([signal, &process.to_string()]).status().unwrap();
    assert!(status.success());
}

#[tokio::test]
async fn repeat_at_another_replica_gets_the_earlier_outcome() {
    let redis = Redis::start(&[]).await;
    for (pick, sent) in [("first", 1), ("all", 2)] {
        let replicas = Replicas::start(2, pick, &format!("store = \"{}\"", redis.url()), "").await;
        let key = format!("{KEY}-{pick}");
        assert!(!is_replay(keyed(replicas.listener(0), &key, BROADCAST_BODY).await.assert_status(202)));
        for replica in [1, 0, 1] {
            assert!(is_replay(keyed(replicas.listener(replica), &key, BROADCAST_BODY).await.assert_status(202)));
        }
        let other = r#"{"target":"other","arguments":[]}"#;
        keyed(replicas.listener(1), &key, other).await.assert_gateway_error(422, "key_reused");
        assert_eq!(replicas.sent(), sent, "{pick}");

        // Side by side, one is sent and the others wait for it.
        replicas.faults("east", Fault::times(1, FaultKind::Delay { delay_ms: 300 }));
        let key = format!("{key}-2");
        let calls = (0..6).map(|number| keyed(replicas.listener(number % 2), &key, BROADCAST_BODY));
        let replays = join_all(calls).await.iter().filter(|one| is_replay(one.assert_status(202))).count();
        assert_eq!((replays, replicas.sent()), (5, 2 * sent), "{pick}");

        // A response that was lost is never sent again, by no replica.
        replicas.faults("east", Fault::times(1, FaultKind::LoseAnswer));
        let key = format!("{key}-3");
        let first = keyed(replicas.listener(0), &key, BROADCAST_BODY).await;
        assert_eq!(first.gateway_error().0, 502, "{pick}");
        let again = keyed(replicas.listener(1), &key, BROADCAST_BODY).await.gateway_error();
        assert_eq!(again.1, if pick == "all" { "partial_delivery" } else { "outcome_unknown" });
        assert_eq!(replicas.sent(), 3 * sent, "{pick}");
    }
}

#[tokio::test]
async fn while_the_store_is_out_calls_with_a_key_are_refused_or_go_on_locally_and_others_do_not_notice() {
    for (choice, is_refused) in [("refuse", true), ("local", false)] {
        let mut redis = Redis::start(&[]).await;
        let idempotency =
            format!("store = \"{}\"\nwhen_store_is_out = \"{choice}\"\nstore_timeout = \"5s\"", redis.url());
        let replicas = Replicas::start(1, "first", &idempotency, "").await;
        keyed(replicas.listener(0), KEY, BROADCAST_BODY).await.assert_status(202);
        replicas.store_is(0, "ok").await;
        redis.server.kill();
        for number in 0..3 {
            let response = keyed(replicas.listener(0), "during the outage", BROADCAST_BODY).await;
            if is_refused {
                response.assert_gateway_error(503, "store_unavailable");
                assert_eq!(response.header("retry-after"), Some("1"));
            } else {
                assert_eq!(is_replay(response.assert_status(202)), number > 0);
            }
        }
        assert_eq!(replicas.sent(), if is_refused { 1 } else { 2 });
        Caller::connect(replicas.listener(0)).await.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
        replicas.store_is(0, "out").await;
        let metrics = replicas.processes[0].metrics().await;
        assert!(metrics.sum("idempotency_store_errors_total", &[("operation", "claim")]) >= 3.0);
        assert!(metrics.sum("idempotency_store_up", &[]) < 0.5);
        redis.restart().await;
        replicas.store_is(0, "ok").await;
        // The key of before the outage is on the disk.
        assert!(is_replay(keyed(replicas.listener(0), KEY, BROADCAST_BODY).await.assert_status(202)));
    }
}

#[tokio::test]
async fn outcome_is_recorded_before_the_caller_is_answered() {
    let redis = Redis::start(&[]).await;
    let idempotency = format!("store = \"{}\"\nstore_timeout = \"2s\"", redis.url());
    let replicas = Replicas::start(2, "first", &idempotency, "").await;
    // Long enough to stop the store before the response.
    replicas.faults("east", Fault::times(1, FaultKind::Delay { delay_ms: 3000 }));
    let (response, ()) = tokio::join!(keyed(replicas.listener(0), KEY, BROADCAST_BODY), async {
        replicas.wait_until_sent(1).await;
        signal(redis.server.id(), "-STOP");
    });
    // It was accepted, and is not recorded.
    response.assert_gateway_error(504, "outcome_unknown");
    keyed(replicas.listener(1), KEY, BROADCAST_BODY).await.assert_gateway_error(503, "store_unavailable");
    signal(redis.server.id(), "-CONT");
    // The first replica goes on trying.
    wait_until("the outcome is recorded", async || {
        let response = keyed(replicas.listener(1), KEY, BROADCAST_BODY).await;
        (response.status == 202).then(|| assert!(is_replay(&response)))
    })
    .await;
    assert_eq!(replicas.sent(), 1);
}

#[tokio::test]
async fn replica_whose_claim_was_taken_over_can_no_longer_send() {
    let redis = Redis::start(&[]).await;
    let timeouts = "[timeouts]\nrequest = \"40s\"\ntry = \"30s\"\n";
    let idempotency = format!("store = \"{}\"", redis.url());
    let limits = "[limits]\nqueue_time = \"30s\"\nendpoint_max_requests = 1\n";
    let replicas = Replicas::start(1, "first", &idempotency, &format!("{limits}{timeouts}")).await;
    let other = Replicas::start(1, "first", &idempotency, timeouts).await;
    // Occupies the only permit of the first replica, so that the call with a key claims and waits.
    replicas.faults("east", Fault::times(1, FaultKind::Delay { delay_ms: 14_000 }));
    replicas.faults("west", Fault::always(FaultKind::Hang));
    let listener = replicas.listener(0);
    let occupying =
        tokio::spawn(async move { Caller::connect(listener).await.send(broadcast_request(), BROADCAST_BODY).await });
    replicas.wait_until_sent(1).await;
    redis.wait_for_keys(0).await;
    let late = tokio::spawn(async move { keyed(listener, KEY, BROADCAST_BODY).await });
    redis.wait_for_keys(1).await;
    // It waits for longer than the lease of its claim: another replica takes the claim over.
    let taken_over = with_timeout("the other replica", keyed(other.listener(0), KEY, BROADCAST_BODY)).await;
    assert!(!is_replay(taken_over.assert_status(202)));
    occupying.await.unwrap().assert_status(202);
    late.await.unwrap().assert_gateway_error(409, "key_in_use");
    assert_eq!((replicas.sent(), other.sent()), (1, 1));
}

#[tokio::test]
async fn store_is_reached_with_a_password_over_tls_or_a_unix_socket() {
    let certificates = folder();
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let file = |name: &str, content: &str| {
        let path = certificates.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (pem, secret) = (file("cert.pem", &key.cert.pem()), file("key.pem", &key.signing_key.serialize_pem()));
    let (password, wrong) = (file("password", PASSWORD), file("wrong", "another-password-12"));
    let socket = certificates.path().join("redis.sock").to_str().unwrap().to_owned();

    let plain = Redis::start(&["--requirepass", PASSWORD, "--unixsocket", &socket, "--unixsocketperm", "777"]).await;
    let port = free_address().port().to_string();
    let tls = {
        let (folder, address) = (folder(), SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap())));
        let more = ["--port", "0", "--tls-port", &port, "--tls-cert-file", &pem, "--tls-key-file", &secret];
        let more: Vec<String> = more.into_iter().chain(["--tls-auth-clients", "no"]).map(str::to_owned).collect();
        let server = Redis::spawn(&folder, address, &more).await;
        Redis { server, address, more, folder }
    };
    let address = tls.address;
    let (unix, over_tls) = (format!("unix://{socket}"), format!("rediss://localhost:{}", address.port()));
    for (store, more, problem, fix) in [
        (plain.url(), format!("password = {{ file = \"{password}\" }}"), None, ""),
        (plain.url(), format!("username = \"default\"\npassword = {{ file = \"{password}\" }}"), None, ""),
        (unix, format!("password = {{ file = \"{password}\" }}"), None, ""),
        (over_tls.clone(), format!("ca_file = \"{pem}\""), None, ""),
        (plain.url(), String::new(), Some("refuses the user or the password"), "idempotency.password"),
        (
            plain.url(),
            format!("password = {{ file = \"{wrong}\" }}"),
            Some("refuses the user or the password"),
            "ACL LIST",
        ),
        (over_tls.clone(), String::new(), Some("TLS connection to the store failed"), "idempotency.ca_file"),
        (format!("redis://{}", free_address()), String::new(), Some("cannot be reached"), "firewalls"),
    ] {
        let replicas = Replicas::start(1, "first", &format!("store = \"{store}\"\n{more}"), "").await;
        let response = keyed(replicas.listener(0), KEY, BROADCAST_BODY).await;
        let config = replicas.configs[0].to_str().unwrap();
        let doctor = run(&["doctor", "--config", config]).await;
        match problem {
            None => {
                assert!(response.status == 202, "{store} {more}: {response:?} {}", replicas.processes[0].log());
                assert_eq!(doctor.code, Some(0), "{}", doctor.stdout);
            }
            Some(problem) => {
                response.assert_gateway_error(503, "store_unavailable");
                assert_eq!(doctor.code, Some(1), "{}", doctor.stdout);
                assert!(doctor.stdout.contains(problem) && doctor.stdout.contains(fix), "{}", doctor.stdout);
                replicas.store_is(0, "out").await;
                let log = replicas.processes[0].log();
                assert!(log.contains("the idempotency store is out") && log.contains(problem), "{log}");
            }
        }
        let log = replicas.processes[0].log();
        for secret in [PASSWORD, "another-password-12"] {
            assert!(!log.contains(secret) && !doctor.stdout.contains(secret), "a password was shown");
        }
    }
}

#[tokio::test]
async fn start_warns_of_a_store_that_may_lose_keys() {
    let redis =
        Redis::start(&["--appendfsync", "everysec", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]).await;
    let replicas = Replicas::start(1, "first", &format!("store = \"{}\"", redis.url()), "").await;
    wait_until("the warnings are logged", async || {
        let log = replicas.processes[0].log();
        (log.contains("appendfsync everysec") && log.contains("maxmemory-policy allkeys-lru")).then_some(())
    })
    .await;
}
