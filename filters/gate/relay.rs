//! The upstream's answer on its way to the client.
//!
//! Pingora filters up to four tasks and then writes them together; if one of them fails, the ones
//! before it, even the head, are thrown away. So what was handed over is remembered, and [`fail`]
//! writes what is missing before it ends the answer with an error.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use pingora::http::ResponseHeader;
use pingora::proxy::{FailToProxy, Session};
use pingora::{Error, ErrorSource, ErrorType};

use super::{Gate, ceiling, write};
use crate::answer::{Answer, Framing};
use crate::context::{Ctx, Exchange, Relay, Reply, Stage};
use crate::refusal;
use crate::verdict::{Denial, Reason};

/// What is read of an upstream's error.
const MAX_ERROR: usize = 64 << 10;
/// Longest message of an upstream that is passed on, in characters.
const MAX_MESSAGE: usize = 300;
/// Time for an HTTP/2 connection to write what was handed to it.
const FLUSH: Duration = Duration::from_millis(50);
/// Smaller chunks are copied to be remembered.
const SMALL: usize = 4 << 10;
/// Chunks that Pingora may hold unwritten: four tasks, and a margin.
const TAIL: usize = 8;

/// Looks at the head of an answer, and decides what is done with its body.
pub(super) fn begin(
    gate: &Gate,
    exchange: Box<Exchange>,
    response: &mut ResponseHeader,
    head_only: bool,
    ctx: &mut Ctx,
) -> pingora::Result<()> {
    let relay = match relay_of(&exchange, response, head_only, ctx) {
        Ok(relay) => relay,
        Err(denial) => {
            ctx.trace.denial = Some(denial);
            return Err(stopped("answer cannot be watched"));
        }
    };
    let http2 = response.version == http::Version::HTTP_2;
    *response = write::stripped(response)?;
    match &relay {
        Relay::Answer(answer) if answer.rewrites() => write::unknown_length(response, http2)?,
        Relay::Error { denial, .. } => {
            write::unknown_length(response, http2)?;
            response.set_status(denial.status())?;
            for (name, value) in refusal::headers(denial) {
                response.insert_header(name, value)?;
            }
            ctx.trace.denial = Some(denial.clone());
        }
        Relay::Answer(_) | Relay::Nothing => {}
    }
    gate.decorate(response, ctx)?;
    ctx.trace.status = response.status.as_u16();
    let streaming = exchange.streams.then(|| gate.state.metrics.stream_open());
    let reply = Reply { relay, produced: 0, tail: Vec::new(), broken: None, _streaming: streaming };
    ctx.stage = Stage::Answering(exchange, Box::new(reply));
    Ok(())
}

fn relay_of(
    exchange: &Exchange,
    response: &ResponseHeader,
    head_only: bool,
    ctx: &Ctx,
) -> Result<Relay, Denial> {
    let failed = !response.status.is_success();
    // Without a body no body filter is called, in which the error could be told.
    if !head_only && has_no_body(response) {
        return Err(if failed { upstream_status(response) } else { no_content() });
    }
    if failed {
        return Ok(Relay::Error { denial: upstream_status(response), collected: Vec::new() });
    }
    let expect = ctx.operation.and_then(|operation| Gate::expect(exchange, operation));
    let expect = expect.ok_or_else(|| Denial::new(Reason::Internal, "no answer is expected"))?;
    let text = |name| response.headers.get(name).and_then(|value| value.to_str().ok());
    let framing =
        Framing::of(expect.shape, exchange.streams, text(CONTENT_TYPE), text(CONTENT_ENCODING))?;
    if head_only {
        return Ok(Relay::Nothing);
    }
    Ok(Relay::Answer(Box::new(Answer::new(expect, framing))))
}

fn no_content() -> Denial {
    Denial::new(Reason::UpstreamUnavailable, "The upstream gave an empty answer.")
}

fn has_no_body(response: &ResponseHeader) -> bool {
    let empty = response.headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0");
    empty || matches!(response.status.as_u16(), 204 | 304)
}

/// What an error status of the upstream means to the client. A refusal of the provider's key is
/// not the client's fault, and what happens inside of the upstream is not its business.
fn upstream_status(response: &ResponseHeader) -> Denial {
    let status = response.status.as_u16();
    match status {
        400 | 404 | 409 | 413 | 422 => {
            Denial::new(Reason::UpstreamRefused, "the upstream refused the request")
                .status_is(status)
        }
        429 => {
            let wait = response.headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok());
            let wait = wait.and_then(|v| v.parse().ok()).unwrap_or(1).clamp(1, 60);
            Denial::new(Reason::RateLimitExceeded, "the upstream is busy")
                .retry_after(Duration::from_secs(wait))
        }
        _ => Denial::new(Reason::UpstreamUnavailable, "the upstream failed"),
    }
    .detail(format!("upstream status {status}"))
}

/// Passes a part of the body on.
pub(super) fn pass(
    gate: &Gate,
    chunk: &mut Option<Bytes>,
    end: bool,
    ctx: &mut Ctx,
) -> pingora::Result<()> {
    let id = ctx.id;
    let Stage::Answering(exchange, reply) = &mut ctx.stage else { return Ok(()) };
    if let Some(denial) = exchange.entry.denial() {
        reply.broken = Some(denial);
        return Err(stopped("the request was cut"));
    }
    if end {
        exchange.upstream_ended(gate.state.clock.monotonic_ns());
    }
    let arrived = chunk.take().unwrap_or_default();
    let out = match &mut reply.relay {
        Relay::Answer(answer) => match answer.push(&arrived, end) {
            Ok(out) => {
                if let Some(denial) = ceiling::check(exchange, answer, &gate.state.metrics) {
                    reply.broken = Some(denial);
                    return Err(stopped("the answer is longer than what is reserved for it"));
                }
                if answer.saw_text() {
                    let now = || gate.state.clock.monotonic_ns();
                    ctx.trace.first_text.get_or_insert_with(now);
                }
                out
            }
            Err(broken) => {
                // Not handed to Pingora, but owed to the client.
                remember(reply, &broken.whole);
                reply.broken = Some(broken.denial);
                return Err(stopped("answer broke off"));
            }
        },
        Relay::Error { denial, collected } => {
            let room = MAX_ERROR.saturating_sub(collected.len());
            collected.extend(arrived.iter().take(room));
            if !end {
                return Ok(());
            }
            let told = in_own_words(denial, collected);
            Bytes::from(refusal::body(ctx.dialect, &told, &id.to_string()))
        }
        Relay::Nothing => Bytes::new(),
    };
    remember(reply, &out);
    *chunk = (!out.is_empty()).then_some(out);
    Ok(())
}

/// A refusal of the upstream is told with its message, if that is short and names no place.
fn in_own_words(denial: &Denial, body: &[u8]) -> Denial {
    let mut told = denial.clone();
    if denial.reason() == Reason::UpstreamRefused
        && let Some(message) = message_of(body)
    {
        told = Denial::new(Reason::UpstreamRefused, message).status_is(denial.status());
    }
    told
}

fn message_of(body: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    let error = value.get("error")?;
    let message = error.get("message").unwrap_or(error).as_str()?;
    let places =
        ["://", "/home", "/usr", "/opt", "/var", "/root", "Traceback", "127.0.0.1", "localhost"];
    let plain = message.chars().count() <= MAX_MESSAGE
        && !message.chars().any(char::is_control)
        && !places.iter().any(|place| message.contains(place));
    plain.then(|| message.to_owned())
}

fn remember(reply: &mut Reply, out: &Bytes) {
    if out.is_empty() {
        return;
    }
    reply.produced += out.len();
    if reply.tail.len() == TAIL {
        reply.tail.remove(0);
    }
    // A slice would keep all of the buffer alive that the upstream was read into.
    let small = out.len() <= SMALL;
    reply.tail.push(if small { Bytes::copy_from_slice(out) } else { out.clone() });
}

/// Ends an exchange that cannot go on.
pub(super) async fn fail(
    gate: &Gate,
    session: &mut Session,
    error: &Error,
    ctx: &mut Ctx,
) -> FailToProxy {
    let left = *error.esource() == ErrorSource::Downstream && *error.etype() != STOPPED;
    let code = if left { 0 } else { end(gate, session, error, ctx).await };
    FailToProxy { error_code: code, can_reuse_downstream: false }
}

async fn end(gate: &Gate, session: &mut Session, error: &Error, ctx: &mut Ctx) -> u16 {
    let begun = session.response_written().is_some_and(|head| !head.status.is_informational());
    let broken = match &mut ctx.stage {
        Stage::Answering(_, reply) => reply.broken.take(),
        Stage::Arrived | Stage::Answered | Stage::Cleared(_) => None,
    };
    let denial = broken.or_else(|| ctx.trace.denial.take()).unwrap_or_else(|| denial_of(error));
    let status = denial.status();
    if begun {
        finish_begun(session, ctx, &denial).await;
        ctx.trace.denial = Some(denial);
    } else {
        let stage = std::mem::replace(&mut ctx.stage, Stage::Answered);
        // The connection goes to the bin: whether its framing is sound is not known any more.
        drop(gate.refuse(session, ctx, denial.closing()).await);
        ctx.stage = stage;
    }
    status
}

/// Writes what Pingora lost, then the error in the words of the stream. A body for which there are
/// no such words is cut, so that nobody takes it for whole.
async fn finish_begun(session: &mut Session, ctx: &mut Ctx, denial: &Denial) {
    let id = ctx.id.to_string();
    let Stage::Answering(_, reply) = &mut ctx.stage else { return };
    let Relay::Answer(answer) = &reply.relay else { return };
    let last = answer.error_end(denial, &id);
    let missing = reply.produced.saturating_sub(session.as_downstream().body_bytes_sent());
    for chunk in last_bytes(&reply.tail, missing) {
        drop(session.write_response_body(Some(chunk), false).await);
    }
    if answer.framing() == Framing::Sse {
        drop(session.write_response_body(Some(last), true).await);
        drop(session.as_downstream_mut().finish_body().await);
    } else {
        drop(session.write_response_body(Some(last), false).await);
        if session.is_http2() {
            // A reset overtakes what the connection has not written yet.
            tokio::time::sleep(FLUSH).await;
        }
        session.as_downstream_mut().shutdown().await;
    }
}

/// Ends an answer whose break shows only in its trailers, where Pingora takes no error: the whole
/// events that are left and the error, as the last part of the body.
pub(super) fn pass_trailers(gate: &Gate, ctx: &mut Ctx) -> Option<Bytes> {
    let before = produced(ctx);
    let mut rest = None;
    if pass(gate, &mut rest, true, ctx).is_ok() {
        return rest;
    }
    let (now, id) = (produced(ctx), ctx.id.to_string());
    let Stage::Answering(_, reply) = &mut ctx.stage else { return None };
    let denial = reply.broken.clone()?;
    let mut end = last_bytes(&reply.tail, now.saturating_sub(before));
    if let Relay::Answer(answer) = &reply.relay {
        end.push(answer.error_end(&denial, &id));
    }
    ctx.trace.denial = Some(denial);
    Some(Bytes::from(end.concat()))
}

fn produced(ctx: &Ctx) -> usize {
    match &ctx.stage {
        Stage::Answering(_, reply) => reply.produced,
        Stage::Arrived | Stage::Answered | Stage::Cleared(_) => 0,
    }
}

/// The last bytes of what was produced.
fn last_bytes(tail: &[Bytes], mut missing: usize) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    for chunk in tail.iter().rev() {
        if missing == 0 {
            break;
        }
        let from = chunk.len().saturating_sub(missing);
        missing -= chunk.len() - from;
        chunks.push(chunk.slice(from..));
    }
    chunks.reverse();
    chunks
}

fn denial_of(error: &Error) -> Denial {
    let timeout = matches!(
        error.etype(),
        ErrorType::ConnectTimedout
            | ErrorType::ReadTimedout
            | ErrorType::WriteTimedout
            | ErrorType::TLSHandshakeTimedout
    );
    let denial = if timeout {
        Denial::new(Reason::UpstreamTimeout, "the upstream did not answer in time")
    } else if *error.esource() == ErrorSource::Internal {
        Denial::new(Reason::Internal, "the gateway could not serve the request")
    } else {
        Denial::new(Reason::UpstreamUnavailable, "the upstream is not available")
    };
    denial.detail(format!("{:?}", error.etype()))
}

/// The type of error by which the gateway itself ends an answer.
const STOPPED: ErrorType = ErrorType::Custom("AnswerStopped");

/// Marked as the client's side, so that Pingora cancels the upstream's HTTP/2 stream.
pub(super) fn stopped(why: &'static str) -> Box<Error> {
    Error::explain(STOPPED, why).into_down()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_the_end_of_what_was_produced() {
        let tail: Vec<Bytes> = ["abc", "de", "f"].map(Bytes::from).to_vec();
        for (missing, expected) in
            [(0, ""), (1, "f"), (2, "ef"), (4, "cdef"), (6, "abcdef"), (9, "abcdef")]
        {
            assert_eq!(last_bytes(&tail, missing).concat(), expected.as_bytes(), "{missing}");
        }
    }

    #[test]
    fn messages_of_the_upstream_pass_unless_they_name_places() {
        for (body, expected) in [
            (r#"{"error":"model 'x' not found"}"#, Some("model 'x' not found")),
            (r#"{"error":{"message":"too long"}}"#, Some("too long")),
            (r#"{"error":"see http://10.9.8.7/x"}"#, None),
            (r#"{"error":"Traceback (most recent call last)"}"#, None),
            ("not json", None),
        ] {
            assert_eq!(message_of(body.as_bytes()).as_deref(), expected, "{body}");
        }
    }
}
