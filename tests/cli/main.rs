//! The `portcullis` binary as people use it: commands, processes, signals, files, real HTTP.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test ends at the first thing that is not as it should be"
)]

/// A configuration with a mistake is refused with the mistake's place; a good one is not.
mod check;
/// What would open the gateway, or break it later, keeps it from starting.
mod bad_starts;
/// `portcullis up`: one command, a key, and a curl that works.
mod up;
/// TLS 1.3 only, HTTP/2 and HTTP/1.1, certificates that are replaced while it serves.
mod tls;
/// SIGHUP puts a changed configuration in force and loses no request.
mod reload;
/// SIGTERM lets open requests finish, SIGINT does not, and the audit trail is whole after both.
mod drain;
/// Passwords, user tokens, scoped tokens, and what a request may carry of them.
mod login;
/// `portcullis user`: what the endpoints do, in force on a running gateway and recorded by it.
mod users;
/// `portcullis key`: made, rotated, revoked; and those that a configuration or the environment has.
mod keys;
/// `portcullis token`, `emergency`, `store`.
mod tokens;
/// `portcullis quota`, `emergency rate-limit`, `emergency sanitization`: limits and the firewall
/// changed beside a running gateway.
mod quota;
/// `portcullis init`: a folder that serves, and an owner with a second factor.
mod init;
/// The commands that need no gateway.
mod tools;
/// What the documents say is so.
mod docs;
/// The filters in somebody's own proxy.
mod embed;

/// Gateways, folders and commands for all of these.
mod support;
/// The other end of a second factor.
mod authenticator;
/// A model server that does as it is told.
mod mock;
