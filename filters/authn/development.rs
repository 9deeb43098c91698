//! Development mode: no credential, on the developer's own machine only.

use std::sync::Arc;

use super::{Caller, Identity, refused};
use crate::accounts::AccountRole;
use crate::accounts::permission::Credential;
use crate::verdict::Denial;

/// Who it is. No account has a name like it.
const USER: &str = ":developer";

/// Lets a caller from this machine in as a user.
///
/// The name in `Host` must be of this machine too: a page in the developer's browser whose name
/// was made to resolve to loopback (DNS rebinding) sends its own.
pub(super) fn identify(caller: &Caller<'_>) -> Result<Identity, Denial> {
    if !caller.client.is_loopback() || !caller.host.is_some_and(is_local) {
        return Err(refused("development mode serves loopback only"));
    }
    let role = AccountRole::User;
    let rights = caller.snapshot.rights(role);
    Ok(Identity::new(Arc::from(USER), role, rights, Credential::Development))
}

fn is_local(host: &[u8]) -> bool {
    let host = host.to_ascii_lowercase();
    let name = match host.iter().rposition(|b| *b == b':') {
        Some(at) if !host.ends_with(b"]") => host.get(..at).unwrap_or_default(),
        _ => &host,
    };
    matches!(name, b"localhost" | b"127.0.0.1" | b"[::1]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for (host, expected) in [
            ("localhost", true),
            ("LocalHost:8080", true),
            ("127.0.0.1:8080", true),
            ("[::1]", true),
            ("[::1]:8080", true),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("evil.example:8080", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
        ] {
            assert_eq!(is_local(host.as_bytes()), expected, "{host}");
        }
    }
}
