use super::*;

/// Runs a script in a shell.
async fn sh(script: &str) -> Result<Secret, CommandError> {
    run(script, Duration::from_secs(20)).await
}

async fn run(script: &str, timeout: Duration) -> Result<Secret, CommandError> {
    let arguments = vec!["-c", script];
    Program { path: Path::new("/bin/sh"), arguments, environment: vec!["PATH"], timeout }.run().await
}

#[tokio::test]
async fn returns_stdout_and_provides_no_input() {
    assert_eq!(sh("cat; printf 'a token'").await.unwrap().expose(), "a token");
}

#[tokio::test]
async fn passes_only_the_listed_variables() {
    let output = sh("env").await.unwrap();
    let names: Vec<&str> = output.expose().lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    // The shell sets these variables itself.
    let unexpected = names.iter().filter(|name| !["PATH", "PWD", "SHLVL", "_", "OLDPWD"].contains(name));
    assert_eq!(unexpected.count(), 0, "{names:?}");
    assert!(names.contains(&"PATH"));
}

#[tokio::test]
async fn passes_arguments_unchanged() {
    let arguments = vec!["-c", "printf '%s' \"$1\"", "sh", "$(id); a b'\"\n"];
    let program =
        Program { path: Path::new("sh"), arguments, environment: vec!["PATH"], timeout: Duration::from_secs(20) };
    assert_eq!(program.run().await.unwrap().expose(), "$(id); a b'\"\n");
}

#[tokio::test]
async fn a_failure_shows_the_exit_code_and_the_end_of_stderr_without_tokens() {
    let err =
        sh("printf 'never shown'; printf 'one\\n\\033[31mtwo eyJhbGciOiJSUzI1NiJ9.e30.c2ln\\n' >&2; exit 3").await;
    let err = err.unwrap_err();
    assert!(err.is_transient());
    assert_eq!(err.to_string(), "/bin/sh failed with exit status: 3: one [31mtwo …");
    let err = sh("i=0; while [ $i -lt 20000 ]; do echo noise; i=$((i+1)); done >&2; echo last words >&2; exit 1").await;
    let text = err.unwrap_err().to_string();
    assert!(text.ends_with("noise last words") && text.len() < 700, "{text}");
    assert_eq!(sh("exit 7").await.unwrap_err().to_string(), "/bin/sh failed with exit status: 7");
    let killed = sh("kill -9 $$").await.unwrap_err().to_string();
    assert!(killed.starts_with("/bin/sh failed with signal: 9"), "{killed}");
}

#[test]
fn first_word_is_dropped_only_from_stderr_that_may_be_cut() {
    let stderr = |length: usize| format!("cut {}", "x".repeat(length - 4));
    assert!(mask_stderr(stderr(MAX_STDERR - 1).as_bytes(), b"").starts_with("cut "));
    assert!(!mask_stderr(stderr(MAX_STDERR).as_bytes(), b"").contains("cut"));
}

#[tokio::test]
async fn kills_a_program_that_prints_too_much() {
    let err = sh("while :; do echo 0123456789012345678901234567890123456789; done").await.unwrap_err();
    assert!(matches!(err, CommandError::OutputTooLarge { .. }) && !err.is_transient(), "{err}");
}

#[tokio::test]
async fn reports_a_missing_program() {
    let program = Program {
        path: Path::new("/nowhere/get-token"),
        arguments: Vec::new(),
        environment: Vec::new(),
        timeout: Duration::from_secs(20),
    };
    let err = program.run().await.unwrap_err();
    assert!(!err.is_transient());
    assert_eq!(
        err.to_string(),
        "/nowhere/get-token cannot be started: check that it is installed, executable and in PATH"
    );
}

/// Waits until a process has written its id and that of its child to a file.
async fn ids(file: &Path) -> Vec<i32> {
    loop {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let ids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        if ids.len() == 2 && text.ends_with('\n') {
            return ids;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn wait_until_gone(id: i32) {
    let process = rustix::process::Pid::from_raw(id);
    let is_there = || process.is_some_and(|process| rustix::process::test_kill_process(process).is_ok());
    // A killed process is a zombie until its parent waits for it.
    let is_dead = || {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("State:") && line.contains('Z'))
    };
    for _ in 0..2000 {
        if !is_there() || is_dead() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("process {id} still runs");
}

#[tokio::test]
async fn cancelling_kills_a_program_and_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ids");
    // The child keeps the pipes open after the program has ended.
    let script = format!("sleep 1000 & echo $! > {0}; echo $$ >> {0}; wait", file.display());
    let running = tokio::spawn(async move { run(&script, Duration::from_secs(1000)).await.map(drop) });
    let ids = ids(&file).await;
    // Aborting the task cancels the run.
    running.abort();
    for id in ids {
        wait_until_gone(id).await;
    }
    let err = run("sleep 1000", Duration::from_millis(200)).await.unwrap_err();
    assert_eq!(err.to_string(), "/bin/sh did not end within 200ms and was killed");
}
