//! What has been read of limits and is not in force yet: the directory does not know the meters.

use std::sync::{Mutex, PoisonError};

use super::Directory;
use crate::accounts::store::{Reset, Standing};

#[derive(Default)]
pub(super) struct Pending {
    standing: Mutex<Option<Standing>>,
    resets: Mutex<Vec<Reset>>,
}

impl Pending {
    pub(super) fn put(&self, standing: Option<Standing>, resets: Vec<Reset>) {
        if standing.is_some() {
            *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing;
        }
        self.resets.lock().unwrap_or_else(PoisonError::into_inner).extend(resets);
    }
}

impl Directory {
    /// Hands over what is set of limits, if it was read anew. Nobody else gets a word in until it is
    /// in force, so the older never takes the place of the newer.
    pub(crate) fn take_standing(&self, put_in_force: impl FnOnce(&Standing)) {
        let mut standing = self.pending.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(standing) = standing.take() {
            put_in_force(&standing);
        }
    }

    /// The subjects whose use is to be forgotten: each is given once, and put back with
    /// [`Self::keep_resets`] if that fails.
    pub(crate) fn take_resets(&self) -> Vec<Reset> {
        std::mem::take(&mut *self.pending.resets.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts subjects back, for another try.
    pub(crate) fn keep_resets(&self, resets: Vec<Reset>) {
        self.pending.put(None, resets);
    }
}
