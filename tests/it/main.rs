//! Whole requests through a whole gateway.
//!
//! - `accounts`: users are made, changed and removed by those who may.
//! - `body`: request bodies of every size and framing reach the upstream whole, or not at all.
//! - `edge`: what a connection and a head must look like.
//! - `grant`: who may use which model, for how much, and what the upstream sees of it.
//! - `retry`: which failures of an upstream are mended by another try.
//! - `settle`: every ending leaves one audit record and no open reservation.
//! - `streaming`: answers pass event by event and end as they should.

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
mod edge;
mod grant;
mod keys;
mod mfa;
mod retry;
mod revocation;
mod sessions;
mod settle;
mod streaming;
mod support;
mod tokens;
