//! # Portcullis: the journey of a request
//!
//! A security gateway for LLM inference as a Pingora plugin. Every request, whatever its protocol,
//! walks the same rooms in the same order, once:
//!
//! | # | room | verb | takes → gives |
//! |---|---|---|---|
//! | 0 | [`edge`] | admit | connection and head → `Admitted` |
//! | 1 | [`surface`] | recognise | method and path → [`surface::Operation`] |
//! | 2 | [`authn`] | identify | credentials → [`authn::Identity`] |
//! | 3 | [`body`] | collect | the whole body, bounded and timed |
//! | 4 | [`prompt`] | parse | bytes → [`prompt::Prompt`], strictly |
//! | 5 | [`authz`] | grant | identity, operation, prompt → [`authz::Grant`] |
//! | 6 | [`quota`] | reserve | grant → [`quota::Reservation`] |
//! | 7 | [`scan`], [`opinion`] | clear | prompt → `Cleared`; only cleared bytes may leave |
//! | 8 | [`route`], [`queue`] | route | grant → [`route::Route`], a turn at its upstream |
//! | 9 | `forward` | forward | the outgoing head, built anew |
//! | 10 | [`answer`] | answer | streamed events → watched events, usage read as it passes |
//! | 11 | [`quota`] | settle | reservation and [`usage`] → ledger, once |
//! | 12 | [`audit`] | record | one record for each request; [`metrics`] from the same record |
//!
//! [`gate::Gate`] has one method for each of Pingora's hooks and is the only place that knows this
//! order. Only `gate`, [`edge`], [`body`] and `peer` see Pingora's types; all other rooms are plain
//! functions on values.

pub mod gate;
pub mod context;
pub mod verdict;
pub mod clock;
pub mod config;
pub mod snapshot;
pub mod state;
pub mod standing;
pub mod metrics;

pub mod edge;
pub mod surface;
pub mod authn;
mod cut;
pub mod body;
pub mod json;
pub mod prompt;
pub mod glob;
pub mod authz;
pub mod queue;
pub mod quota;
pub mod scan;
pub mod opinion;
pub mod clear;
pub mod route;
mod forward;
mod peer;
pub mod answer;
pub mod usage;
mod refusal;
pub mod own;
pub mod audit;
pub mod accounts;

pub use context::Ctx;
pub use gate::{Gate, ListenerPolicy};
pub use state::{Parts, State};
