//! Exchanges whose caller is gone. Where the request was sent completely, the answer is read and forgotten, so that the
//! connection can be used again; a caller that cancels does not cost a connection each time.

use std::future::poll_fn;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::http1::{Broken, Connection, UploadBody};
use super::store::Abandoned;

/// How long the rest of an exchange may take.
const TIME: Duration = Duration::from_secs(2);
/// The most that is read of an answer, in bytes.
const MOST_BYTES: usize = 64 * 1024;
/// The most exchanges of one pool that are finished side by side; the connections of more are closed. Chosen: as many idle
/// connections as a worker keeps by default.
const MOST: usize = 128;

/// Finishes the exchanges that are received. Ends with the pool that sends them.
pub(super) async fn finish_all<B: UploadBody>(mut abandoned: mpsc::UnboundedReceiver<Abandoned<B>>) {
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            next = abandoned.recv() => match next {
                Some(next) if under_way.len() < MOST => under_way.push(finish(next)),
                Some(one_too_many) => drop(one_too_many),
                None => return,
            },
            Some(()) = under_way.next() => {}
        }
    }
}

async fn finish<B: UploadBody>(abandoned: Abandoned<B>) {
    let Abandoned { mut exchange, store, is_answered } = abandoned;
    let connection = &mut exchange.connection;
    if !is_answered && connection.is_unsent() {
        connection.withdraw();
    } else if !connection.is_written() || !is_read(connection, is_answered).await {
        return;
    }
    store.give_back(exchange);
}

/// Reads what is left of an answer. Returns whether all of it came.
async fn is_read<B: UploadBody>(connection: &mut Connection<B>, is_answered: bool) -> bool {
    let rest = async {
        if !is_answered {
            poll_fn(|cx| connection.poll_answer(cx)).await?;
        }
        let mut read = 0;
        while let Some(piece) = poll_fn(|cx| connection.poll_body(cx)).await {
            read += piece?.len();
            if read > MOST_BYTES {
                return Ok(false);
            }
        }
        Ok(true)
    };
    let rest: Result<Result<bool, Broken>, _> = tokio::time::timeout(TIME, rest).await;
    matches!(rest, Ok(Ok(true)))
}
