//! API keys: `sk_…`.

use std::sync::Arc;

use super::{Identity, refused};
use crate::accounts::{ApiKey, ApiKeyError};
use crate::snapshot::Snapshot;
use crate::verdict::Denial;

/// How every key begins.
pub(super) const PREFIX: &str = "sk_";

/// Identifies the owner of a key.
pub(super) fn identify(snapshot: &Snapshot, text: &str, now: u64) -> Result<Arc<Identity>, Denial> {
    let identity = ApiKey::parse(text)
        .and_then(|key| snapshot.keyring().ok_or(ApiKeyError::Unknown)?.verify(&key))
        .map_err(|error| refused(format!("API key: {error}")))?;
    if identity.expires_at().is_some_and(|end| end <= now) {
        return Err(refused("API key: expired"));
    }
    Ok(Arc::clone(identity))
}
