//! The gateway's own endpoints. They walk the same rooms as any request; their bodies are typed
//! where they are handled.

use super::{Access, Dialect, Listener, Operation, Target};

/// What the gateway answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "every one needs a handler")]
pub enum OwnOp {
    /// `POST /auth/login`
    Login,
    /// `GET /auth/me`
    Me,
    /// `POST /auth/scoped-token`
    ScopedToken,
    /// `POST /api/v1/scan`
    Scan,
    /// `GET /.well-known/jwks.json`
    Jwks,
    /// `GET /openapi.json`
    OpenApi,
    /// `GET /livez`: the process runs.
    Live,
    /// `GET /readyz`: it can serve.
    Ready,
    /// `GET /system/health`: which parts work.
    Health,
    /// `GET /metrics`
    Metrics,
}

const PUBLIC: &[Listener] = &[Listener::Public];
const BOTH: &[Listener] = &[Listener::Public, Listener::Admin];

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { method: "POST", ..own("own.login", "/auth/login", OwnOp::Login, PUBLIC) },
    Operation { access: Access::Authenticated, ..own("own.me", "/auth/me", OwnOp::Me, PUBLIC) },
    Operation {
        method: "POST",
        access: Access::Authenticated,
        ..own("own.scoped_token", "/auth/scoped-token", OwnOp::ScopedToken, PUBLIC)
    },
    Operation {
        method: "POST",
        access: Access::Scope("scan"),
        ..own("own.scan", "/api/v1/scan", OwnOp::Scan, PUBLIC)
    },
    own("own.jwks", "/.well-known/jwks.json", OwnOp::Jwks, PUBLIC),
    own("own.openapi", "/openapi.json", OwnOp::OpenApi, PUBLIC),
    own("own.live", "/livez", OwnOp::Live, BOTH),
    own("own.ready", "/readyz", OwnOp::Ready, BOTH),
    own("own.health", "/system/health", OwnOp::Health, BOTH),
    own("own.metrics", "/metrics", OwnOp::Metrics, &[Listener::Admin]),
];

const fn own(
    id: &'static str,
    path: &'static str,
    op: OwnOp,
    listeners: &'static [Listener],
) -> Operation {
    Operation {
        id,
        method: "GET",
        path,
        dialect: Dialect::OpenAi,
        access: Access::Open,
        target: Target::Own(op),
        listeners,
        params: &[],
        streams_by_default: false,
    }
}
