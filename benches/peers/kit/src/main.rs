//! `peers-kit upstream`, `peers-kit load` and `peers-kit bare`. All end when their standard input is closed, so that
//! none outlives the script that started it.

mod bare;
mod load;
mod upstream;
mod wire;

use std::collections::HashMap;
use std::error::Error;
use std::process::ExitCode;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// `--name value` pairs.
struct Options(HashMap<String, String>);

impl Options {
    fn parse(words: impl Iterator<Item = String>) -> Result<Self> {
        let words: Vec<String> = words.collect();
        let pair = |pair: &[String]| match pair {
            [name, value] if name.starts_with("--") => Ok((name[2..].to_owned(), value.clone())),
            other => Err(format!("expected `--name value`, found `{}`", other.join(" "))),
        };
        Ok(Self(words.chunks(2).map(pair).collect::<std::result::Result<_, _>>()?))
    }

    fn text(&self, name: &str) -> Result<&str> {
        self.0.get(name).map(String::as_str).ok_or_else(|| format!("--{name} is missing").into())
    }

    fn number<T: std::str::FromStr<Err: Error + 'static>>(&self, name: &str) -> Result<T> {
        Ok(self.text(name)?.parse()?)
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("error: {err}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let command = words.next();
    let options = Options::parse(words)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = async {
        match command.as_deref() {
            Some("upstream") => upstream::serve(&options).await,
            Some("bare") => bare::serve(&options).await,
            Some("load") => load::generate(&options).await,
            _ => Err("the commands are `upstream`, `load` and `bare`".into()),
        }
    };
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        tokio::select! {
            result = work => result,
            () = wire::stdin_closed() => Ok(()),
        }
    })?;
    // Dropping the runtime would wait for the thread that reads standard input.
    runtime.shutdown_background();
    Ok(())
}
