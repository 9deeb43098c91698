//! User tokens and scoped tokens.

use std::sync::Arc;

use super::{Identity, refused, several};
use crate::accounts::Verified;
use crate::authz::Layer;
use crate::glob::Glob;
use crate::snapshot::Snapshot;
use crate::verdict::Denial;

/// Identifies the bearer of a token of either kind.
pub(super) fn identify(snapshot: &Snapshot, text: &str) -> Result<Arc<Identity>, Denial> {
    let verified = verify(snapshot, text)?;
    of(snapshot, &verified)
}

/// Identifies the bearer of a scoped token.
pub(super) fn identify_scoped(snapshot: &Snapshot, text: &str) -> Result<Arc<Identity>, Denial> {
    let verified = verify(snapshot, text)?;
    match &*verified {
        Verified::Scoped { .. } => of(snapshot, &verified),
        Verified::User { .. } => Err(refused("a user token in the place of a scoped one")),
    }
}

/// Identifies the bearer of a scoped token who also shows the user token of its subject.
pub(super) fn identify_pair(
    snapshot: &Snapshot,
    user: &str,
    scoped: &str,
) -> Result<Arc<Identity>, Denial> {
    let (holder, token) = (verify(snapshot, user)?, verify(snapshot, scoped)?);
    match (&*holder, &*token) {
        (Verified::User { subject, .. }, Verified::Scoped { .. }) if subject == token.subject() => {
            of(snapshot, &token)
        }
        (Verified::User { .. }, Verified::Scoped { .. }) => {
            Err(refused("the scoped token is another user's"))
        }
        (Verified::User { .. }, Verified::User { .. }) => {
            Err(refused("a user token in the place of a scoped one"))
        }
        (Verified::Scoped { .. }, _) => Err(several()),
    }
}

fn verify(snapshot: &Snapshot, text: &str) -> Result<Arc<Verified>, Denial> {
    let tokens = snapshot.tokens().ok_or_else(|| refused("tokens are not configured"))?;
    tokens.verify(text).map_err(|error| refused(format!("token: {error}")))
}

/// The user must exist now, and has the role of now: a token outlives neither.
fn of(snapshot: &Snapshot, verified: &Verified) -> Result<Arc<Identity>, Denial> {
    let user =
        snapshot.user(verified.subject()).ok_or_else(|| refused("token: the user is gone"))?;
    let life = verified.life();
    Ok(Arc::new(match verified {
        Verified::User { .. } => user.identity().until(life.expires_at),
        Verified::Scoped { scopes, model, max_tokens, .. } => {
            let layer = Layer {
                scopes: scopes.clone(),
                models: Some(vec![Glob::new(model)]),
                max_tokens: Some(*max_tokens),
            };
            user.identity().by_scoped_token(life.id.clone(), layer, life.expires_at)
        }
    }))
}
