//! Finishes exchanges that were dropped before their end. If the request was sent completely, the response is read and discarded,
//! so that the connection can be reused and cancelled calls do not cost a connection each.

use std::future::poll_fn;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::http1::{Connection, Http1Error, UploadBody};
use super::store::{Abandoned, Finishing};

/// The timeout of the rest of an exchange.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The maximum number of bytes that are read of a response body.
const MAX_BYTES: usize = 64 * 1024;
/// The maximum number of exchanges of one pool that are finished concurrently; the connections of further ones are closed. It is
/// counted for each pool, so that an endpoint that hangs takes nothing from another.
/// Chosen: the default number of idle connections of a worker.
const MAX_CONCURRENT: usize = 128;

/// Finishes the exchanges of all pools of a worker. Returns when the last pool is dropped.
pub(super) async fn finish_all<B: UploadBody>(mut abandoned: mpsc::UnboundedReceiver<Abandoned<B>>) {
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            next = abandoned.recv() => match next {
                Some(next) => match next.store.start_finishing(MAX_CONCURRENT) {
                    Some(finishing) => running.push(finish(next, finishing)),
                    None => drop(next),
                },
                None => return,
            },
            Some(()) = running.next() => {}
        }
    }
}

/// Holds `_finishing` until the exchange has ended.
async fn finish<B: UploadBody>(abandoned: Abandoned<B>, _finishing: Finishing<B>) {
    let Abandoned { connection: mut tracked, store, has_head } = abandoned;
    let connection = &mut tracked.connection;
    if !has_head && connection.is_unsent() {
        connection.withdraw();
    } else if !connection.is_written() || !read_rest(connection, has_head).await {
        return;
    }
    store.put_back(tracked);
}

/// Reads the rest of a response. Returns whether it is complete.
async fn read_rest<B: UploadBody>(connection: &mut Connection<B>, has_head: bool) -> bool {
    let rest = async {
        if !has_head {
            poll_fn(|cx| connection.poll_response(cx)).await?;
        }
        let mut read = 0;
        while let Some(piece) = poll_fn(|cx| connection.poll_body(cx)).await {
            read += piece?.len();
            if read > MAX_BYTES {
                return Ok(false);
            }
        }
        Ok(true)
    };
    let rest: Result<Result<bool, Http1Error>, _> = tokio::time::timeout(TIMEOUT, rest).await;
    matches!(rest, Ok(Ok(true)))
}
