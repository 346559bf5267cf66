//! Whether a proxy accepts a user name and password. All clients that send the same ones to the same proxy share the answer:
//! endpoints, credentials and exporters, also those of a previous configuration.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use http::{HeaderValue, StatusCode};

use super::error::{RefusalKind, TunnelError};

/// How long a user name and password that the proxy has refused are not sent again. Chosen: proxies and directories lock an account
/// after some wrong tries in a few minutes.
const REFUSED_FOR: Duration = Duration::from_secs(60);

/// How long connections wait for the proxy's answer to the first one. Chosen: a proxy refuses a password at once, but may try for
/// long to reach a destination.
const FIRST_ANSWER: Duration = Duration::from_secs(1);

/// The answers that clients share, by a digest of the proxy's address and of the header value.
static SHARED: Mutex<Option<HashMap<[u8; 32], Weak<Acceptance>>>> = Mutex::new(None);

/// Whether a proxy accepts one user name and password.
#[derive(Debug, Default)]
pub(super) struct Acceptance {
    answer: Mutex<Answer>,
    /// Held by a connection that sends them while the proxy has not accepted them.
    first: tokio::sync::Mutex<()>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Answer {
    /// Not sent yet.
    #[default]
    Unknown,
    Accepted,
    Refused(Instant, StatusCode),
}

impl Acceptance {
    /// Returns what is known of a header value that is sent to the proxy at an address.
    pub(super) fn of(address: &str, value: &HeaderValue) -> Arc<Self> {
        let mut digest = digest::Context::new(&digest::SHA256);
        // Neither contains a line break.
        digest.update(address.as_bytes());
        digest.update(b"\n");
        digest.update(value.as_bytes());
        let mut key = [0; 32];
        key.copy_from_slice(digest.finish().as_ref());
        let mut shared = lock(&SHARED);
        let shared = shared.get_or_insert_default();
        if let Some(known) = shared.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        shared.retain(|_, known| known.strong_count() > 0);
        let new = Arc::new(Self::default());
        shared.insert(key, Arc::downgrade(&new));
        new
    }

    /// Waits until the proxy has answered a connection that sends them already, unless it has accepted them before or takes long.
    /// The next connection waits as long as the returned guard is held.
    ///
    /// # Errors
    /// [`TunnelError::RefusedBefore`] if the proxy has refused them a moment ago.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn admit(&self) -> Result<Option<tokio::sync::MutexGuard<'_, ()>>, TunnelError> {
        if self.is_accepted() {
            return Ok(None);
        }
        let turn = tokio::time::timeout(FIRST_ANSWER, self.first.lock()).await.ok();
        let answer = *lock(&self.answer);
        match answer {
            Answer::Refused(at, status) => match REFUSED_FOR.checked_sub(at.elapsed()) {
                Some(wait) => Err(TunnelError::RefusedBefore { status, wait }),
                None => Ok(turn),
            },
            Answer::Accepted => Ok(None),
            Answer::Unknown => Ok(turn),
        }
    }

    /// Records what came of sending them.
    pub(super) fn record(&self, opened: &Result<(), TunnelError>) {
        let answer = match opened {
            Err(TunnelError::Refused(refusal)) if refusal.kind() == RefusalKind::WrongCredentials => {
                Answer::Refused(Instant::now(), refusal.status)
            }
            Ok(()) | Err(TunnelError::Refused(_)) => Answer::Accepted,
            Err(_no_answer) => return,
        };
        *lock(&self.answer) = answer;
    }

    fn is_accepted(&self) -> bool {
        matches!(*lock(&self.answer), Answer::Accepted)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
