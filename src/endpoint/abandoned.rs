//! Exchanges whose caller is gone. If the request was sent completely, the response is read and dropped, so that the connection
//! can be reused and cancelled calls do not cost a connection each.

use std::future::poll_fn;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::http1::{Connection, Http1Error, UploadBody};
use super::store::Abandoned;

/// The time that the rest of an exchange may take.
const TIME: Duration = Duration::from_secs(2);
/// The most bytes that are read of a response.
const MOST_BYTES: usize = 64 * 1024;
/// The most exchanges of one pool that are finished concurrently; the connections of more are closed. Chosen: the default
/// number of idle connections of a worker.
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

/// Reads the rest of a response. Returns whether it is complete.
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
    let rest: Result<Result<bool, Http1Error>, _> = tokio::time::timeout(TIME, rest).await;
    matches!(rest, Ok(Ok(true)))
}
