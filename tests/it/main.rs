//! Whole requests through a whole gateway.
//!
//! - `accounts`: users are made, changed and removed by those who may.
//! - `body`: request bodies of every size and framing reach the upstream whole, or not at all.
//! - `degraded`: the account store goes away, and comes back.
//! - `development`: no credential, on this machine only.
//! - `edge`: what a connection and a head must look like.
//! - `forms`: names, passwords and bodies that no endpoint takes.
//! - `grant`: who may use which model, for how much, and what the upstream sees of it.
//! - `keys`: API keys, bounded in what they do, where, how long and how often.
//! - `mfa`: the second factor, at logins and at grave steps.
//! - `oidc`: users for whom an external issuer vouches.
//! - `quota`: limits on every level are hard.
//! - `quota_admin`: operators change limits while gateways run.
//! - `retry`: which failures of an upstream are mended by another try.
//! - `revocation`: what one gateway revokes the other refuses, and cuts.
//! - `sanitization`: operators make the firewall strict while gateways run.
//! - `services`: backends that say who their user is.
//! - `sessions`: logins, seen and ended by their owner and by admins.
//! - `settle`: every ending leaves one audit record and no open reservation.
//! - `streaming`: answers pass event by event and end as they should.
//! - `tokens`: scoped tokens, and the keys that tokens are signed with.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking, and clippy.toml knows only functions marked as tests"
)]

mod accounts;
mod body;
mod degraded;
mod development;
mod edge;
mod firewall;
mod forms;
mod grant;
mod keys;
mod mfa;
mod oidc;
mod quota;
mod quota_admin;
mod retry;
mod revocation;
mod sanitization;
mod services;
mod sessions;
mod settle;
mod streaming;
mod support;
mod tokens;
