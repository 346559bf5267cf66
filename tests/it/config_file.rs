//! Unusable configuration files (a pipe, a folder, too large, half-written) and unknown variables. In every case
//! the gateway answers probes and handles signals.

use std::path::Path;
use std::time::Duration;

use signalr_gateway::sandbox::GatewayConfig;

use crate::support::{BROADCAST_BODY, Caller, HarnessBuilder, Process, broadcast_request, run, run_in, wait_until};

fn make_fifo(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Waits until the gateway has refused its configuration file because of this. Asserts that probes and calls are answered.
async fn assert_refused(process: &Process, because: &str) {
    wait_until(&format!("the file is refused because it {because}"), async || {
        process.status().await["refused_reload"].as_str().is_some_and(|reason| reason.contains(because)).then_some(())
    })
    .await;
    Caller::connect(process.admin()).await.call("GET", "/livez").await.assert_status(200);
    Caller::connect(process.listener()).await.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
}

#[tokio::test]
async fn configuration_file_that_becomes_a_pipe_blocks_neither_probes_nor_signals() {
    let builder = HarnessBuilder::start().await;
    let files = builder.write_files(&GatewayConfig::default());
    let process = Process::start_gateway(&files.config, &[]).await;
    process.wait_until_credentials_are("ready").await;
    std::fs::remove_file(&files.config).unwrap();
    make_fifo(&files.config);
    // The gateway polls the file every two seconds, and keeps its configuration without a word.
    tokio::time::sleep(Duration::from_secs(5)).await;
    process.hang_up().await;
    assert_refused(&process, "is not a regular file").await;

    // A folder, a file that is far too large and one that is not text are each rejected.
    std::fs::remove_file(&files.config).unwrap();
    let folder = || std::fs::create_dir(&files.config).unwrap();
    let large = || std::fs::File::create(&files.config).unwrap().set_len((64 << 20) + 1).unwrap();
    let binary = || std::fs::write(&files.config, b"\xff[\x00").unwrap();
    let utf16 = || std::fs::write(&files.config, b"\xff\xfe[\x00").unwrap();
    let kinds: [(&str, &dyn Fn()); 4] = [
        ("is a folder", &folder),
        ("is larger than", &large),
        ("is not UTF-8 text", &binary),
        ("is UTF-16, must be UTF-8", &utf16),
    ];
    for (expected, make) in kinds {
        make();
        process.hang_up().await;
        assert_refused(&process, expected).await;
        if files.config.is_dir() {
            std::fs::remove_dir(&files.config).unwrap();
        }
    }
    process.terminate().await;
    assert!(process.wait().await.0.success());
}

#[tokio::test]
async fn reads_a_configuration_pipe_once_and_does_not_wait_for_it_at_a_reload() {
    let builder = HarnessBuilder::start().await;
    let files = builder.write_files(&GatewayConfig::default());
    let text = std::fs::read(&files.config).unwrap();
    let pipe = builder.folder.path().join("pipe.toml");
    make_fifo(&pipe);
    let writer = {
        let pipe = pipe.clone();
        std::thread::spawn(move || std::fs::write(pipe, text).unwrap())
    };
    let process = Process::start_gateway(&pipe, &[]).await;
    writer.join().unwrap();
    process.hang_up().await;
    assert_refused(&process, "was read once and cannot be reloaded").await;
    process.terminate().await;
    assert!(process.wait().await.0.success());
}

#[tokio::test]
async fn refuses_to_start_with_an_unusable_configuration_file() {
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("large.toml");
    std::fs::write(&large, vec![b'#'; (64 << 20) + 1]).unwrap();
    for (path, expected) in
        [(folder.path(), "is a folder"), (&large, "is larger than"), (Path::new("/dev/zero"), "is larger than")]
    {
        let finished = run(&["run", "--config", path.to_str().unwrap()]).await;
        assert_eq!(finished.code, Some(2), "{finished:?}");
        assert!(finished.stderr.contains(expected), "{finished:?}");
    }
}

#[tokio::test]
async fn refuses_to_start_when_the_ready_file_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let (victim, link) = (folder.path().join("victim"), folder.path().join("link"));
    std::fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, &link).unwrap();
    let nowhere = folder.path().join("nowhere/ready.json");
    for (path, expected) in [(&link, "is a symbolic link"), (&nowhere, "its folder must exist")] {
        for command in ["run", "sandbox"] {
            let finished = run(&[command, "--ready-file", path.to_str().unwrap()]).await;
            assert_eq!(finished.code, Some(2), "{finished:?}");
            assert!(finished.stderr.contains(expected), "{finished:?}");
        }
    }
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
}

#[tokio::test]
async fn warns_of_an_unknown_environment_variable_and_ignores_it() {
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/config/examples/managed-identity.toml");
    let check = async |variable: (&str, &str)| run_in(&[variable], &["check", "--config", config]).await;
    let finished = check(("SIGNALR_GATEWAY_VERSION", "1.2")).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(
        finished.stderr.contains("SIGNALR_GATEWAY_VERSION: is not a configuration key and is ignored"),
        "{finished:?}"
    );
    let finished = check(("SIGNALR_GATEWAY_FORWARDING__CLIENT_ADDRESS", "True")).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let finished = check(("SIGNALR_GATEWAY_LISTENERS__DEFAULT__ALLOWED_HOSTS", "a.example,b.example")).await;
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.stderr.contains(r#"write a list: ["a", "b"]"#), "{finished:?}");
    let finished = check(("SIGNALR_GATEWAY_LIMITS__MAX_BODI", "1")).await;
    assert_eq!(finished.code, Some(2), "{finished:?}");
}
