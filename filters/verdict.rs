//! Refusals: the one type that every room returns when it says no.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// Why a request was refused. The name is stable: answers, audit records, metrics and tests share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a new reason must be thought about wherever one is matched"
)]
pub enum Reason {
    /// The request is malformed or asks for something that is not supported.
    InvalidRequest,
    /// The scanner refused the prompt.
    ContentFilter,
    /// No credential, or one that does not verify.
    InvalidCredentials,
    /// A code of the second factor is needed, or a second factor has to be set up first.
    MfaRequired,
    /// The caller does not hold the scope that the operation needs.
    InsufficientScope,
    /// The caller may not use this model.
    ModelNotAllowed,
    /// No such path, or no upstream serves this operation.
    NotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// What is to be made is there already, or a rule of the accounts forbids the change.
    Conflict,
    /// The request did not arrive within its time.
    RequestTimeout,
    /// The body, or the head, is larger than allowed.
    PayloadTooLarge,
    /// A media type or content coding that is not accepted.
    UnsupportedMediaType,
    /// Too many requests just now: a short wait mends it.
    RateLimitExceeded,
    /// A quota is used up: a short wait does not mend it.
    InsufficientQuota,
    /// The upstream cannot be reached or broke off.
    UpstreamUnavailable,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// The upstream refused the request; its own status is in the denial.
    UpstreamRefused,
    /// The gateway has no room for this request now.
    Overloaded,
    /// The gateway is shutting down.
    Draining,
    /// A defect or a lost dependency of the gateway itself.
    Internal,
}

impl Reason {
    /// The stable code in answers, audit records and metrics.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::ContentFilter => "content_filter",
            Self::InvalidCredentials => "invalid_credentials",
            Self::MfaRequired => "mfa_required",
            Self::InsufficientScope => "insufficient_scope",
            Self::ModelNotAllowed => "model_not_allowed",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Conflict => "conflict",
            Self::RequestTimeout => "request_timeout",
            Self::PayloadTooLarge => "payload_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::RateLimitExceeded => "rate_limit_exceeded",
            Self::InsufficientQuota => "insufficient_quota",
            Self::UpstreamUnavailable => "upstream_unavailable",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamRefused => "upstream_refused",
            Self::Overloaded => "overloaded",
            Self::Draining => "draining",
            Self::Internal => "internal_error",
        }
    }

    /// The HTTP status (RFC 9110 section 15; 429 from RFC 6585).
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidRequest | Self::ContentFilter | Self::UpstreamRefused => 400,
            Self::InvalidCredentials | Self::MfaRequired => 401,
            Self::InsufficientScope | Self::ModelNotAllowed => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Conflict => 409,
            Self::RequestTimeout => 408,
            Self::PayloadTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::RateLimitExceeded | Self::InsufficientQuota => 429,
            Self::UpstreamUnavailable => 502,
            Self::Overloaded | Self::Draining | Self::Internal => 503,
            Self::UpstreamTimeout => 504,
        }
    }

    /// Whether the same request may succeed later, without being changed.
    ///
    /// Everything else is answered with `x-should-retry: false`, which stops the retries of the
    /// OpenAI clients.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::RequestTimeout
                | Self::RateLimitExceeded
                | Self::UpstreamUnavailable
                | Self::UpstreamTimeout
                | Self::Overloaded
                | Self::Draining
                | Self::Internal
        )
    }
}

/// A refusal: what the caller is told, and what only the operator is told.
#[derive(Clone, PartialEq, Eq)]
pub struct Denial {
    reason: Reason,
    status: u16,
    message: Cow<'static, str>,
    detail: Cow<'static, str>,
    param: Option<String>,
    retry_after: Option<Duration>,
    allow: Option<String>,
    close: bool,
}

impl Denial {
    /// A refusal with the text that the caller reads.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            status: reason.status(),
            message: message.into(),
            detail: Cow::Borrowed(""),
            param: None,
            retry_after: None,
            allow: None,
            close: false,
        }
    }

    /// Adds what the operator reads in the audit record; never shown to the caller.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Names the request parameter that is at fault.
    #[must_use]
    pub fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Says when to try again (`Retry-After`, RFC 9110 section 10.2.3), rounded up to seconds.
    #[must_use]
    pub const fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Lists the methods that the path has (`Allow`).
    #[must_use]
    pub fn allow(mut self, methods: impl Into<String>) -> Self {
        self.allow = Some(methods.into());
        self
    }

    /// Replaces the status of the reason by that of the upstream.
    #[must_use]
    pub const fn status_is(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The connection is closed after the answer, because what follows on it cannot be trusted.
    #[must_use]
    pub const fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// The stable reason.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// The HTTP status of the answer.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// What the caller is told.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What only the operator is told.
    #[must_use]
    pub fn operator_detail(&self) -> &str {
        &self.detail
    }

    /// The parameter at fault.
    #[must_use]
    pub fn param_name(&self) -> Option<&str> {
        self.param.as_deref()
    }

    /// Seconds until a retry makes sense.
    #[must_use]
    pub fn retry_after_secs(&self) -> Option<u64> {
        self.retry_after.map(|wait| wait.as_millis().div_ceil(1000).max(1) as u64)
    }

    /// The methods that the path has.
    #[must_use]
    pub fn allowed_methods(&self) -> Option<&str> {
        self.allow.as_deref()
    }

    /// Whether the connection must not be used again.
    #[must_use]
    pub const fn closes(&self) -> bool {
        self.close
    }
}

impl fmt::Debug for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {} ({})", self.status, self.reason.code(), self.message, self.detail)
    }
}
