//! The ready-made Portcullis proxy: Pingora's server around the filters of `portcullis-filters`.
//!
//! [`cli`] is what an operator types, [`server`] puts the listeners together, [`proxy`] hands
//! Pingora's hooks to the gate, [`api`] serves the gateway's own endpoints.

mod accounts_watch;
pub mod api;
pub mod boot;
pub mod cli;
mod emergency;
pub mod manage;
pub mod proxy;
mod quotas;
mod reload;
pub mod server;
pub mod tls;
mod upstream_probe;
mod upstream_watch;
