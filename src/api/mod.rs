//! The gateway's own endpoints.

mod auth;
mod health;
pub(crate) mod scan;

use async_trait::async_trait;
use portcullis_filters::audit::{AuditRecord, Operation, Status};
use portcullis_filters::own::{OwnAnswer, OwnApi, OwnCall, OwnOutcome};
use portcullis_filters::surface::OwnOp;
use portcullis_filters::verdict::{Denial, Reason};
use portcullis_filters::{State, json::Json};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::boot::BootError;

/// The description of the own endpoints (OpenAPI 3.1).
pub const OPENAPI: &str = include_str!("../../docs/openapi.json");

/// Serves every own endpoint.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Api;

#[async_trait]
impl OwnApi for Api {
    async fn call(&self, call: OwnCall<'_>) -> OwnOutcome {
        match call.op {
            OwnOp::Login => auth::login(call).await,
            OwnOp::Me => auth::me(&call).await.into(),
            OwnOp::ScopedToken => auth::scoped_token(&call).into(),
            OwnOp::Scan => scan::scan(call).await.into(),
            OwnOp::Jwks => auth::jwks(&call).into(),
            OwnOp::OpenApi => Ok(answer("application/json", OPENAPI.as_bytes().to_vec())).into(),
            OwnOp::Live => json(200, &health::Live::default()).into(),
            OwnOp::Ready => health::ready(&call).into(),
            OwnOp::Health => health::health(&call).into(),
            OwnOp::Metrics => {
                let text = health::metrics(&call);
                Ok(answer("text/plain; version=0.0.4", text.into_bytes())).into()
            }
        }
    }
}

/// Leaves a record of a reload, as of any change of the configuration.
pub fn record_reload(state: &State, error: Option<&BootError>) {
    let status = if error.is_some() { Status::Failure } else { Status::Success };
    let mut record = AuditRecord::new(state.clock(), Operation::Configuration, status);
    record.reason = Some("config_reload");
    if let Some(error) = error {
        record.detail("error", error.to_string());
    }
    state.audit().record(record);
}

fn answer(content_type: &'static str, body: Vec<u8>) -> OwnAnswer {
    OwnAnswer { status: 200, content_type, body }
}

fn json(status: u16, value: &impl Serialize) -> Result<OwnAnswer, Denial> {
    let body = serde_json::to_vec(value)
        .map_err(|error| Denial::new(Reason::Internal, "no answer").detail(error.to_string()))?;
    Ok(OwnAnswer { status, content_type: "application/json", body })
}

/// Reads a body: strictly, like any other, and then into a type that knows all its members.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Denial> {
    let strict = Json::parse(body)?.to_bytes();
    serde_json::from_slice(&strict).map_err(|error| {
        // Serde's text names members and types of ours, and may quote a value: only its kind is
        // told.
        let message = match error.classify() {
            serde_json::error::Category::Data => {
                "a member is missing, unknown or of the wrong type"
            }
            serde_json::error::Category::Io
            | serde_json::error::Category::Syntax
            | serde_json::error::Category::Eof => "the body is not acceptable JSON",
        };
        Denial::new(Reason::InvalidRequest, message)
    })
}
