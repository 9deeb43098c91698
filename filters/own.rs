//! The socket for the gateway's own endpoints: the journey leads to them, another crate may serve
//! them.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::authn::Identity;
use crate::snapshot::Snapshot;
use crate::state::State;
use crate::surface::OwnOp;
use crate::verdict::{Denial, Reason};

/// A call of an own endpoint, admitted and, where the endpoint asks for it, identified.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "handed to every handler whole")]
pub struct OwnCall<'a> {
    /// Which endpoint.
    pub op: OwnOp,
    /// The gateway.
    pub state: &'a State,
    /// The configuration that the request began with.
    pub snapshot: &'a Arc<Snapshot>,
    /// Who calls; always there unless the endpoint is open to anyone.
    pub identity: Option<&'a Arc<Identity>>,
    /// From where.
    pub client: IpAddr,
    /// The user or id that the path names.
    pub named: Option<&'a str>,
    /// A code of the second factor (`X-MFA-Code`).
    pub mfa_code: Option<&'a str>,
    /// What the caller says that it is (`User-Agent`).
    pub user_agent: &'a str,
    /// The request body.
    pub body: Bytes,
}

/// What an own endpoint answers.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "made by every handler")]
pub struct OwnAnswer {
    /// HTTP status
    pub status: u16,
    /// Media type
    pub content_type: &'static str,
    /// Body
    pub body: Vec<u8>,
}

/// An answer, and what the audit record tells of it.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "made by every handler")]
pub struct OwnOutcome {
    /// The name that tried to log in, where no caller is identified.
    pub user: Option<String>,
    /// Whom or what the call concerned, such as `("target", "bob")`. No secrets.
    pub details: Vec<(&'static str, String)>,
    /// The answer.
    pub result: Result<OwnAnswer, Denial>,
}

impl From<Result<OwnAnswer, Denial>> for OwnOutcome {
    fn from(result: Result<OwnAnswer, Denial>) -> Self {
        Self { user: None, details: Vec::new(), result }
    }
}

/// Serves the gateway's own endpoints.
#[async_trait]
pub trait OwnApi: Send + Sync {
    /// Answers one call.
    async fn call(&self, call: OwnCall<'_>) -> OwnOutcome;
}

/// Serves none of them: for a proxy that has its own.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has nothing to grow")]
pub struct NoApi;

#[async_trait]
impl OwnApi for NoApi {
    async fn call(&self, _: OwnCall<'_>) -> OwnOutcome {
        Err(Denial::new(Reason::NotFound, "there is no such endpoint")).into()
    }
}
