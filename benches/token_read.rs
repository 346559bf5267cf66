//! Measures reading the current bearer, alone and while another worker reads it too.
//!
//! Catches a lock or a contended counter in reading the token. The second thread reads as fast as it can, unlike any
//! real load; the reference count of the shared header value is visible here, and a lock would cost ten times as much.

#![expect(clippy::expect_used, reason = "a bench that cannot be set up has nothing to measure")]

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use signalr_gateway::credential::{
    BearerSource, CredentialId, CredentialKind, CredentialSettings, Credentials, RequestUrl,
};
use signalr_gateway::metrics::Metrics;

const URL: RequestUrl<'_> =
    RequestUrl { origin: "https://contoso-east.service.signalr.net", path: "/api/hubs/chat/:send" };

/// Makes each of `threads` threads read `reads` bearers, and returns the time of the slowest.
fn read(source: &dyn BearerSource, threads: usize, reads: u64) -> Duration {
    let start = Barrier::new(threads);
    let read = || {
        start.wait();
        let began = Instant::now();
        for _ in 0..reads {
            black_box(source.current(black_box(URL)));
        }
        began.elapsed()
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..threads).map(|_| scope.spawn(read)).collect();
        readers.into_iter().map(|reader| reader.join().expect("a reader does not panic")).max().unwrap_or_default()
    })
}

fn token_read(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder for the token");
    let path = folder.path().join("token");
    std::fs::write(&path, "x".repeat(1500)).expect("the token is written");
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let metrics = Metrics::new().expect("metrics");
    let id = CredentialId::without_tenant("bearer");
    let settings = CredentialSettings { id: id.clone(), kind: CredentialKind::TokenFile { path }, object_id: None };
    let credentials = Credentials::build(&[settings], metrics.token(), control.handle()).expect("a credential");
    let source = credentials.get(&id).expect("the credential is there");
    control.block_on(source.acquire()).expect("the token is read");
    assert!(source.current(URL).is_some(), "there is a bearer to read");

    let mut group = criterion.benchmark_group("token_read");
    for threads in [1, 2] {
        group.bench_with_input(BenchmarkId::from_parameter(threads), &threads, |bencher, threads| {
            bencher.iter_custom(|reads| read(&*source, *threads, reads));
        });
    }
    group.finish();
}

criterion_group!(benches, token_read);
criterion_main!(benches);
