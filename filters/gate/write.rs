//! Heads and whole answers, as Pingora writes them.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, STRICT_TRANSPORT_SECURITY, TRANSFER_ENCODING,
};
use http::{HeaderName, HeaderValue};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;

use super::Gate;
use crate::audit::Coverage;
use crate::context::Ctx;
use crate::forward::{self, Outgoing, REQUEST_ID};
use crate::own::OwnAnswer;
use crate::refusal;
use crate::verdict::Denial;

const SCANNED: HeaderName = HeaderName::from_static("x-portcullis-scanned");
const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");

impl Gate {
    /// Answers with an error, in the shape of the dialect that was called.
    pub(super) async fn refuse(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        denial: Denial,
    ) -> pingora::Result<()> {
        if denial.closes() {
            session.set_keepalive(None);
        }
        let body = refusal::body(ctx.dialect, &denial, &ctx.id.to_string());
        let mut head = ResponseHeader::build_no_case(denial.status(), Some(16))?;
        for (name, value) in refusal::headers(&denial) {
            head.insert_header(name, value)?;
        }
        ctx.trace.denial = Some(denial);
        self.write(session, ctx, head, body).await
    }

    /// Answers for an own endpoint.
    pub(super) async fn write_own(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        answer: &OwnAnswer,
    ) -> pingora::Result<()> {
        let mut head = ResponseHeader::build_no_case(answer.status, Some(16))?;
        head.insert_header(CONTENT_TYPE, answer.content_type)?;
        self.write(session, ctx, head, answer.body.clone()).await
    }

    async fn write(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        mut head: ResponseHeader,
        body: Vec<u8>,
    ) -> pingora::Result<()> {
        head.insert_header(CONTENT_LENGTH, body.len())?;
        self.decorate(&mut head, ctx)?;
        ctx.trace.status = head.status.as_u16();
        ctx.stage = crate::context::Stage::Answered;
        let head_only = session.req_header().method == http::Method::HEAD;
        session.write_response_header(Box::new(head), head_only).await?;
        if !head_only {
            session.write_response_body(Some(Bytes::from(body)), true).await?;
        }
        Ok(())
    }

    /// The header fields of every answer, whoever gives it.
    pub(super) fn decorate(&self, head: &mut ResponseHeader, ctx: &Ctx) -> pingora::Result<()> {
        head.insert_header(REQUEST_ID, ctx.id.to_string())?;
        head.insert_header(CACHE_CONTROL, HeaderValue::from_static("no-store"))?;
        head.insert_header(NOSNIFF, HeaderValue::from_static("nosniff"))?;
        if self.policy.hsts {
            head.insert_header(STRICT_TRANSPORT_SECURITY, "max-age=31536000")?;
        }
        if ctx.operation.is_some_and(crate::surface::Operation::takes_body) {
            head.insert_header(SCANNED, scanned(ctx.trace.input))?;
        }
        for (name, value) in ctx.trace.quota.iter().flat_map(crate::quota::QuotaView::header_pairs)
        {
            head.insert_header(name, value)?;
        }
        Ok(())
    }
}

/// Replaces the head of a request by what the gateway makes of it.
pub(super) fn replace_head(
    request: &mut RequestHeader,
    path: &str,
    outgoing: &Outgoing<'_>,
) -> pingora::Result<()> {
    let mut head = RequestHeader::build_no_case(request.method.clone(), path.as_bytes(), Some(8))?;
    head.set_version(request.version);
    for (name, value) in forward::headers(outgoing) {
        if let Some(name) = name {
            head.insert_header(name, value)?;
        }
    }
    *request = head;
    Ok(())
}

/// A head with nothing of the upstream's but what says how to read its body.
pub(super) fn stripped(upstream: &ResponseHeader) -> pingora::Result<ResponseHeader> {
    let mut head = ResponseHeader::build_no_case(upstream.status, Some(16))?;
    head.set_version(upstream.version);
    for name in [CONTENT_TYPE, CONTENT_LENGTH, TRANSFER_ENCODING] {
        if let Some(value) = upstream.headers.get(&name) {
            head.insert_header(name, value.clone())?;
        }
    }
    Ok(head)
}

/// Makes room for a body of another length. Pingora has chosen the framing by now, so on HTTP/1 the
/// chunked coding has to be put in by hand.
pub(super) fn unknown_length(head: &mut ResponseHeader, http2: bool) -> pingora::Result<()> {
    if head.remove_header(&CONTENT_LENGTH).is_some() && !http2 {
        head.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    }
    Ok(())
}

/// What `x-portcullis-scanned` says; answers are not scanned yet.
const fn scanned(input: Coverage) -> HeaderValue {
    HeaderValue::from_static(match input {
        Coverage::Full => "input=full; output=none",
        Coverage::Partial => "input=partial; output=none",
        Coverage::None => "input=none; output=none",
    })
}
