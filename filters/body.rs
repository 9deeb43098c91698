//! Collect: the whole request body, bounded and timed, before an upstream is chosen.
//!
//! Pingora 0.9 has no hook for this. A body that is read in `request_filter` is forwarded only if
//! the session's retry buffer holds something, and that buffer holds at most 64 KiB. So a small
//! sentinel is left in it, and [`inject`] swaps the sentinel for the real body in
//! `request_body_filter`, on every try. `tests/body.rs` is the tripwire for a new Pingora; once
//! Pingora's `set_buffered_body` (PR #816) is released it replaces all of this.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;
use pingora::proxy::Session;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::verdict::{Denial, Reason};

/// Pingora's `BODY_BUF_LIMIT`: what the retry buffer can hold.
const RETRY_BUFFER: usize = 64 * 1024;
/// What is read of a refused body so that the client gets to see the answer.
const DRAIN: usize = 1 << 20;
/// A dummy request whose one byte of body becomes the sentinel.
const SENTINEL: &[u8] = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nX";
/// Unit of the memory budget, so that a semaphore can count any configured size.
const PAGE: usize = 4096;

/// How much and how long.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "made from the configuration")]
pub struct Limits {
    /// Bytes of one body.
    pub max_bytes: usize,
    /// Time for the whole body.
    pub deadline: Duration,
}

/// Memory for all bodies that are held at one time.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Semaphore>);

/// Part of the [`Budget`], given back on drop.
#[derive(Debug, Default)]
#[must_use = "the memory counts as free once this is dropped"]
pub struct Held(Option<OwnedSemaphorePermit>);

impl Budget {
    /// A budget of this many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let pages = usize::try_from(bytes).unwrap_or(usize::MAX) / PAGE;
        Self(Arc::new(Semaphore::new(pages.clamp(1, Semaphore::MAX_PERMITS))))
    }

    fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Denial> {
        let pages = u32::try_from(bytes.div_ceil(PAGE)).unwrap_or(u32::MAX);
        Arc::clone(&self.0).try_acquire_many_owned(pages).map_err(|_| {
            Denial::new(Reason::Overloaded, "the gateway holds too many request bodies")
                .retry_after(Duration::from_secs(1))
                .closing()
        })
    }
}

impl Held {
    /// Makes sure that this many bytes are accounted for.
    fn grow(&mut self, budget: &Budget, bytes: usize) -> Result<(), Denial> {
        let have = self.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits) * PAGE;
        if bytes <= have {
            return Ok(());
        }
        // Doubling keeps the number of trips to the semaphore logarithmic.
        let more = budget.take((bytes - have).max(have))?;
        match &mut self.0 {
            Some(held) => held.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }
}

/// Reads the whole body.
///
/// # Errors
/// [`Reason::PayloadTooLarge`], before a byte is read where the length is announced;
/// [`Reason::RequestTimeout`]; [`Reason::Overloaded`] when the budget is used up;
/// [`Reason::InvalidRequest`] when the client breaks off.
pub async fn collect(
    session: &mut Session,
    limits: Limits,
    budget: &Budget,
) -> Result<(Bytes, Held), Denial> {
    let announced = announced_length(session.req_header());
    if announced.is_some_and(|length| length > limits.max_bytes as u64) {
        return Err(too_large(limits));
    }
    let reading = read(session, limits, budget, announced);
    match tokio::time::timeout(limits.deadline, reading).await {
        Ok(Err(denial)) if denial.reason() == Reason::PayloadTooLarge => {
            drain(session, limits.deadline).await;
            Err(denial)
        }
        Ok(result) => result,
        Err(_) => Err(too_slow()),
    }
}

/// Whether the client announces a body at all.
#[must_use]
pub fn is_announced(head: &RequestHeader) -> bool {
    head.headers.contains_key(http::header::TRANSFER_ENCODING)
        || announced_length(head).is_some_and(|length| length > 0)
}

/// Puts the collected body in the place of the sentinel; for `request_body_filter`.
pub fn inject(collected: &Bytes, chunk: &mut Option<Bytes>, end_of_stream: bool) {
    // `None` would mean the end of the body, an empty chunk means nothing yet.
    *chunk = Some(if end_of_stream { collected.clone() } else { Bytes::new() });
}

async fn read(
    session: &mut Session,
    limits: Limits,
    budget: &Budget,
    announced: Option<u64>,
) -> Result<(Bytes, Held), Denial> {
    if expects_continue(session.req_header()) && !session.as_downstream_mut().is_body_done() {
        session
            .as_downstream_mut()
            .write_continue_response()
            .await
            .map_err(|error| broken_off(&error))?;
    }
    let mut held = Held::default();
    held.grow(budget, announced.map_or(PAGE, |length| length as usize))?;
    let mut body = BytesMut::new();
    let mut armed = false;
    while !session.as_downstream_mut().is_body_done() {
        armed = armed || arm(session, announced, body.len());
        let Some(chunk) = next_chunk(session, armed && !body.is_empty()).await? else { break };
        if body.len() + chunk.len() > limits.max_bytes {
            return Err(too_large(limits));
        }
        held.grow(budget, body.len() + chunk.len())?;
        body.extend_from_slice(&chunk);
    }
    if !body.is_empty() && session.as_downstream().get_retry_buffer().is_none() {
        plant_sentinel(session).await?;
    }
    Ok((body.freeze(), held))
}

/// Starts the retry buffer as late as possible: one read of HTTP/1 gives at most 64 KiB, so once no
/// more than that is to come something is always recorded and nothing overflows.
fn arm(session: &mut Session, announced: Option<u64>, read: usize) -> bool {
    let late =
        announced.is_none_or(|length| length.saturating_sub(read as u64) <= RETRY_BUFFER as u64);
    if late {
        session.as_downstream_mut().enable_retry_buffering();
    }
    late
}

/// Reads on. On HTTP/2 the first frame is the sentinel; the frames after it are read past the
/// retry buffer, so that they do not overflow it.
async fn next_chunk(session: &mut Session, has_sentinel: bool) -> Result<Option<Bytes>, Denial> {
    let recorded = has_sentinel && session.as_downstream().get_retry_buffer().is_some();
    let downstream = session.as_downstream_mut();
    if let ServerSession::H2(stream) = downstream
        && recorded
    {
        let frame = poll_fn(|cx| stream.poll_read_body_bytes(cx)).await;
        return frame.transpose().map_err(|error| stream_broken_off(&error));
    }
    downstream.read_request_body().await.map_err(|error| broken_off(&error))
}

/// Chunked HTTP/1 bodies over 64 KiB overflow the retry buffer; a dummy request leaves one byte.
async fn plant_sentinel(session: &mut Session) -> Result<(), Denial> {
    let downstream = session.as_downstream_mut();
    if let ServerSession::H1(h1) = downstream {
        let saved = h1.req_header().clone();
        h1.set_pipelined_prefix(BytesMut::from(SENTINEL));
        h1.read_request().await.map_err(|error| broken_off(&error))?;
        h1.read_body_bytes().await.map_err(|error| broken_off(&error))?;
        *h1.req_header_mut() = saved;
    }
    // The second parse forgets bytes that were read past the body: without closing, a pipelined
    // request would be read from its middle.
    downstream.set_keepalive(None);
    Ok(())
}

/// Reads a little more of a refused body: a client that is still sending would otherwise see a
/// reset instead of the answer.
async fn drain(session: &mut Session, deadline: Duration) {
    let reading = async {
        let mut drained = 0;
        while drained < DRAIN && !session.as_downstream_mut().is_body_done() {
            match session.as_downstream_mut().read_request_body().await {
                Ok(Some(chunk)) => drained += chunk.len(),
                Ok(None) | Err(_) => break,
            }
        }
    };
    drop(tokio::time::timeout(deadline.min(Duration::from_secs(2)), reading).await);
}

fn announced_length(head: &RequestHeader) -> Option<u64> {
    if head.headers.contains_key(http::header::TRANSFER_ENCODING) {
        return None;
    }
    head.headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn expects_continue(head: &RequestHeader) -> bool {
    head.headers
        .get(http::header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

fn too_large(limits: Limits) -> Denial {
    let message = format!("the body is larger than {} bytes", limits.max_bytes);
    Denial::new(Reason::PayloadTooLarge, message).closing()
}

fn broken_off(error: &pingora::Error) -> Denial {
    if *error.etype() == pingora::ErrorType::ReadTimedout {
        return too_slow();
    }
    stream_broken_off(error.etype())
}

fn too_slow() -> Denial {
    Denial::new(Reason::RequestTimeout, "the body took too long").closing()
}

fn stream_broken_off(error: &dyn std::fmt::Debug) -> Denial {
    Denial::new(Reason::InvalidRequest, "the body broke off").detail(format!("{error:?}")).closing()
}
