//! The one place where a [`Denial`] becomes an answer, in the error shape of the dialect that was
//! called: OpenAI's object, Ollama's one text.

use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::surface::Dialect;
use crate::verdict::{Denial, Reason};

/// Stops the retries of the OpenAI clients.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The body of an error answer.
pub(crate) fn body(dialect: Dialect, denial: &Denial, request_id: &str) -> Vec<u8> {
    let value = match dialect {
        Dialect::OpenAi => json!({ "error": openai_error(denial, request_id) }),
        Dialect::Ollama => json!({ "error": denial.message() }),
    };
    value.to_string().into_bytes()
}

/// The header fields that belong to a refusal.
pub(crate) fn headers(denial: &Denial) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    if matches!(denial.reason(), Reason::InvalidCredentials | Reason::MfaRequired) {
        // RFC 9110 section 11.6.1, RFC 6750 section 3
        headers.push((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"portcullis\"")));
    }
    if let Some(seconds) = denial.retry_after_secs() {
        headers.push((RETRY_AFTER, HeaderValue::from(seconds)));
    }
    let methods = denial.allowed_methods().and_then(|methods| methods.parse().ok());
    headers.extend(methods.map(|methods| (ALLOW, methods)));
    if !denial.reason().is_retryable() {
        headers.push((SHOULD_RETRY, HeaderValue::from_static("false")));
    }
    headers
}

/// OpenAI's error object; `request_id` and `source` are additions, which its clients ignore.
pub(crate) fn openai_error(denial: &Denial, request_id: &str) -> Value {
    let upstream = denial.reason() == Reason::UpstreamRefused;
    json!({
        "message": denial.message(),
        "type": openai_type(denial.status()),
        "param": denial.param_name(),
        "code": denial.reason().code(),
        "request_id": request_id,
        "source": if upstream { "upstream" } else { "gateway" },
    })
}

/// The `type` that OpenAI's API gives for the same class of status.
const fn openai_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_dialect_gets_its_own_shape_without_the_operators_detail() {
        let denial = Denial::new(Reason::InvalidCredentials, "no").detail("key 7 is revoked");
        let openai = String::from_utf8(body(Dialect::OpenAi, &denial, "r1")).unwrap();
        assert_eq!(
            openai,
            concat!(
                r#"{"error":{"code":"invalid_credentials","message":"no","param":null,"#,
                r#""request_id":"r1","source":"gateway","type":"authentication_error"}}"#
            )
        );
        assert_eq!(body(Dialect::Ollama, &denial, "r1"), br#"{"error":"no"}"#);
    }

    #[test]
    fn retries_are_stopped_where_they_cannot_help() {
        let check = |denial: &Denial, name: &str, expected: Option<&str>| {
            let found = headers(denial).into_iter().find(|(header, _)| header == name);
            assert_eq!(found.as_ref().map(|(_, v)| v.to_str().unwrap()), expected, "{name}");
        };
        let short =
            Denial::new(Reason::RateLimitExceeded, "").retry_after(Duration::from_millis(1));
        check(&short, "retry-after", Some("1"));
        check(&short, "x-should-retry", None);
        check(&Denial::new(Reason::InsufficientQuota, ""), "x-should-retry", Some("false"));
        check(&Denial::new(Reason::ContentFilter, ""), "x-should-retry", Some("false"));
        check(
            &Denial::new(Reason::InvalidCredentials, ""),
            "www-authenticate",
            Some("Bearer realm=\"portcullis\""),
        );
        check(&Denial::new(Reason::MethodNotAllowed, "").allow("POST"), "allow", Some("POST"));
    }
}
