//! The locks of this store: those of the standard library, or, in a build with the feature `shuttle`,
//! those of a scheduler that tries the orders in which threads can run.

pub(super) use std::sync::PoisonError;

#[cfg(not(feature = "shuttle"))]
pub(super) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicUsize, Ordering},
};

#[cfg(feature = "shuttle")]
pub(super) use shuttle::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicUsize, Ordering},
};
