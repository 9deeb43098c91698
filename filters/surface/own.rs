//! The gateway's own endpoints. They walk the same rooms as any request; their bodies are typed
//! where they are handled.

use super::{Access, Dialect, Listener, Operation, Target};
use crate::accounts::permission::Permission;

/// What the gateway answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "every one needs a handler")]
pub enum OwnOp {
    /// `POST /auth/login`
    Login,
    /// `POST /auth/logout`
    Logout,
    /// `GET /auth/me`
    Me,
    /// `POST /auth/password`: one's own.
    Password,
    /// `GET /auth/sessions`
    Sessions,
    /// `DELETE /auth/sessions/{id}`
    SessionRevoke,
    /// `POST /auth/scoped-token`
    ScopedToken,
    /// `POST /auth/revoke`: a token that the caller holds.
    TokenRevoke,
    /// `POST /auth/mfa/enable`
    MfaEnable,
    /// `POST /auth/mfa/confirm`
    MfaConfirm,
    /// `POST /auth/mfa/disable`
    MfaDisable,
    /// `GET /auth/api-keys`
    Keys,
    /// `POST /auth/api-keys`
    KeyCreate,
    /// `DELETE /auth/api-keys/{id}`
    KeyRevoke,
    /// `POST /auth/api-keys/{id}/rotate`
    KeyRotate,
    /// `POST /auth/register`
    Register,
    /// `GET /auth/users`
    Users,
    /// `GET /auth/users/{name}`
    UserShow,
    /// `PATCH /auth/users/{name}`: state and e-mail address.
    UserChange,
    /// `DELETE /auth/users/{name}`
    UserDelete,
    /// `POST /auth/users/{name}/role`
    UserRole,
    /// `POST /auth/users/{name}/password`
    UserPassword,
    /// `POST /auth/users/{name}/revoke`: every session and token of a user.
    UserRevoke,
    /// `POST /auth/users/{name}/mfa/reset`
    UserMfaReset,
    /// `GET /auth/users/{name}/sessions`
    UserSessions,
    /// `GET /auth/users/{name}/api-keys`
    UserKeys,
    /// `POST /auth/users/{name}/api-keys`
    UserKeyCreate,
    /// `POST /auth/emergency-revoke`
    EmergencyRevoke,
    /// `GET /internal/quota`: the limits that operators have set.
    Quotas,
    /// `GET /internal/quota/{subject}`: limits and use.
    QuotaShow,
    /// `PUT /internal/quota/{subject}`
    QuotaSet,
    /// `DELETE /internal/quota/{subject}`
    QuotaUnset,
    /// `POST /internal/quota/{subject}/reset`
    QuotaReset,
    /// `GET /internal/security/emergency-rate-limit`
    EmergencyLimits,
    /// `POST /internal/security/emergency-rate-limit`
    EmergencyLimitsSet,
    /// `DELETE /internal/security/emergency-rate-limit`
    EmergencyLimitsClear,
    /// `GET /internal/security/enhance-sanitization`
    Sanitization,
    /// `POST /internal/security/enhance-sanitization`: a strict firewall for everybody.
    SanitizationSet,
    /// `DELETE /internal/security/enhance-sanitization`
    SanitizationClear,
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
const ADMIN: &[Listener] = &[Listener::Admin];
const BOTH: &[Listener] = &[Listener::Public, Listener::Admin];

const EMERGENCY_LIMITS: &str = "/internal/security/emergency-rate-limit";
const SANITIZATION: &str = "/internal/security/enhance-sanitization";

#[rustfmt::skip] // a table: one operation a row
pub(super) const OPERATIONS: &[Operation] = &[
    Operation { method: "POST", ..own("own.login", "/auth/login", OwnOp::Login, PUBLIC) },
    account("own.logout", "POST", "/auth/logout", OwnOp::Logout, Permission::OwnSessions),
    account("own.me", "GET", "/auth/me", OwnOp::Me, Permission::OwnAccount),
    account("own.password", "POST", "/auth/password", OwnOp::Password, Permission::OwnSessions),
    account("own.sessions", "GET", "/auth/sessions", OwnOp::Sessions, Permission::OwnSessions),
    account("own.session_revoke", "DELETE", "/auth/sessions/{id}", OwnOp::SessionRevoke, Permission::OwnSessions),
    account("own.scoped_token", "POST", "/auth/scoped-token", OwnOp::ScopedToken, Permission::MintTokens),
    account("own.token_revoke", "POST", "/auth/revoke", OwnOp::TokenRevoke, Permission::RevokeHeldToken),
    account("own.mfa_enable", "POST", "/auth/mfa/enable", OwnOp::MfaEnable, Permission::OwnMfa),
    account("own.mfa_confirm", "POST", "/auth/mfa/confirm", OwnOp::MfaConfirm, Permission::OwnMfa),
    account("own.mfa_disable", "POST", "/auth/mfa/disable", OwnOp::MfaDisable, Permission::OwnMfa),
    account("own.keys", "GET", "/auth/api-keys", OwnOp::Keys, Permission::OwnKeys),
    account("own.key_create", "POST", "/auth/api-keys", OwnOp::KeyCreate, Permission::OwnKeys),
    account("own.key_revoke", "DELETE", "/auth/api-keys/{id}", OwnOp::KeyRevoke, Permission::OwnKeys),
    account("own.key_rotate", "POST", "/auth/api-keys/{id}/rotate", OwnOp::KeyRotate, Permission::OwnKeys),
    account("own.register", "POST", "/auth/register", OwnOp::Register, Permission::CreateUsers),
    account("own.users", "GET", "/auth/users", OwnOp::Users, Permission::ReadUsers),
    account("own.user", "GET", "/auth/users/{name}", OwnOp::UserShow, Permission::ReadUsers),
    account("own.user_change", "PATCH", "/auth/users/{name}", OwnOp::UserChange, Permission::ManageUsers),
    account("own.user_delete", "DELETE", "/auth/users/{name}", OwnOp::UserDelete, Permission::ManageUsers),
    account("own.user_role", "POST", "/auth/users/{name}/role", OwnOp::UserRole, Permission::ChangeRoles),
    account("own.user_password", "POST", "/auth/users/{name}/password", OwnOp::UserPassword, Permission::ManageUsers),
    account("own.user_revoke", "POST", "/auth/users/{name}/revoke", OwnOp::UserRevoke, Permission::ManageUsers),
    account("own.user_mfa_reset", "POST", "/auth/users/{name}/mfa/reset", OwnOp::UserMfaReset, Permission::ManageUsers),
    account("own.user_sessions", "GET", "/auth/users/{name}/sessions", OwnOp::UserSessions, Permission::ReadUsers),
    account("own.user_keys", "GET", "/auth/users/{name}/api-keys", OwnOp::UserKeys, Permission::ReadUsers),
    account("own.user_key_create", "POST", "/auth/users/{name}/api-keys", OwnOp::UserKeyCreate, Permission::ManageKeys),
    account("own.emergency_revoke", "POST", "/auth/emergency-revoke", OwnOp::EmergencyRevoke, Permission::RevokeAll),
    internal("own.quotas", "GET", "/internal/quota", OwnOp::Quotas, Permission::Limits),
    internal("own.quota", "GET", "/internal/quota/{subject}", OwnOp::QuotaShow, Permission::Limits),
    internal("own.quota_set", "PUT", "/internal/quota/{subject}", OwnOp::QuotaSet, Permission::Limits),
    internal("own.quota_unset", "DELETE", "/internal/quota/{subject}", OwnOp::QuotaUnset, Permission::Limits),
    internal("own.quota_reset", "POST", "/internal/quota/{subject}/reset", OwnOp::QuotaReset, Permission::Limits),
    internal("own.emergency_limits", "GET", EMERGENCY_LIMITS, OwnOp::EmergencyLimits, Permission::Limits),
    internal("own.emergency_limits_set", "POST", EMERGENCY_LIMITS, OwnOp::EmergencyLimitsSet, Permission::Limits),
    internal("own.emergency_limits_clear", "DELETE", EMERGENCY_LIMITS, OwnOp::EmergencyLimitsClear, Permission::Limits),
    internal("own.sanitization", "GET", SANITIZATION, OwnOp::Sanitization, Permission::Limits),
    internal("own.sanitization_set", "POST", SANITIZATION, OwnOp::SanitizationSet, Permission::Limits),
    internal("own.sanitization_clear", "DELETE", SANITIZATION, OwnOp::SanitizationClear, Permission::Limits),
    Operation { method: "POST", access: Access::Scope("scan"), ..own("own.scan", "/api/v1/scan", OwnOp::Scan, PUBLIC) },
    own("own.jwks", "/.well-known/jwks.json", OwnOp::Jwks, PUBLIC),
    own("own.openapi", "/openapi.json", OwnOp::OpenApi, PUBLIC),
    own("own.live", "/livez", OwnOp::Live, BOTH),
    own("own.ready", "/readyz", OwnOp::Ready, BOTH),
    own("own.health", "/system/health", OwnOp::Health, BOTH),
    own("own.metrics", "/metrics", OwnOp::Metrics, ADMIN),
];

const fn account(
    id: &'static str,
    method: &'static str,
    path: &'static str,
    op: OwnOp,
    permission: Permission,
) -> Operation {
    let access = Access::Permission(permission);
    Operation { method, access, ..own(id, path, op, PUBLIC) }
}

/// What operators ask, on the admin listener.
const fn internal(
    id: &'static str,
    method: &'static str,
    path: &'static str,
    op: OwnOp,
    permission: Permission,
) -> Operation {
    Operation { listeners: ADMIN, ..account(id, method, path, op, permission) }
}

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
