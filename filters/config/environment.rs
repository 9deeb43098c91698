//! API keys from the environment, for deployments without an account of their own for each program.

use std::collections::BTreeSet;

use secrecy::{ExposeSecret, SecretString};

use crate::accounts::ApiKey;

use super::read::Env;
use super::strength::{Flaw, flaw};

/// The variable with the key that must be there.
const MAIN: &str = "API_KEY";
/// The variable with more keys, separated by commas.
const MORE: &str = "ADDITIONAL_API_KEYS";
/// The most keys in both.
const MOST: usize = 100;

const MAKE: &str = "make one: portcullis key generate --bare";

/// Reads the keys, the one of [`MAIN`] first. `taken` are the ids of the keys of the config.
///
/// # Errors
/// No key; too many; one that is not well formed, or has the id of another.
pub(super) fn keys(env: Env<'_>, mut taken: BTreeSet<String>) -> Result<Vec<SecretString>, Flaw> {
    let main = variable(env, MAIN).ok_or_else(|| {
        let wrong = format!("environment variable `{MAIN}` is not set or empty");
        flaw(wrong, format!("set it to a key, or remove `environment_keys`; {MAKE}"))
    })?;
    let more = variable(env, MORE).unwrap_or_default();
    let entries = more.expose_secret().split(',').map(str::trim);
    let entries: Vec<&str> = entries.filter(|entry| !entry.is_empty()).collect();
    if entries.len() >= MOST {
        let wrong = format!("environment variable `{MORE}` holds more than {} keys", MOST - 1);
        return Err(flaw(wrong, "keep keys in the account store: portcullis key create"));
    }
    let mut keys = vec![key(main.expose_secret().trim(), &format!("`{MAIN}`"), &mut taken)?];
    for (index, entry) in entries.into_iter().enumerate() {
        keys.push(key(entry, &format!("key {} of `{MORE}`", index + 1), &mut taken)?);
    }
    Ok(keys)
}

fn variable(env: Env<'_>, name: &str) -> Option<SecretString> {
    env(name).map(SecretString::from).filter(|value| !value.expose_secret().trim().is_empty())
}

/// The id of a key is public, its text is not.
fn key(text: &str, what: &str, taken: &mut BTreeSet<String>) -> Result<SecretString, Flaw> {
    let key = ApiKey::parse(text).map_err(|_| {
        flaw(format!("environment variable: {what} is not an API key of this gateway"), MAKE)
    })?;
    let id = key.id().to_string();
    if taken.contains(&id) {
        let wrong = format!("environment variable: {what} has the id {id} of another key");
        return Err(flaw(wrong, "name every key once"));
    }
    taken.insert(id);
    Ok(SecretString::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 2] = ["KEY0", "KEY1"];

    /// Two keys in place of `KEY0` and `KEY1`, and how many keys are read, or what is said.
    fn check(main: Option<&str>, more: Option<&str>, expected: Result<usize, &str>) {
        let drawn = KEYS.map(|_| ApiKey::generate().unwrap());
        let filled = |text: &str| {
            let keys = KEYS.into_iter().zip(&drawn);
            keys.fold(text.to_owned(), |text, (name, key)| {
                text.replace(name, key.reveal().expose_secret())
            })
        };
        let env = |name: &str| if name == MAIN { main.map(filled) } else { more.map(filled) };
        match (keys(&env, BTreeSet::new()), expected) {
            (Ok(found), Ok(count)) => {
                assert_eq!(found.len(), count, "{main:?} {more:?}");
                let first = drawn[0].reveal();
                assert_eq!(found[0].expose_secret(), first.expose_secret());
            }
            (Err((wrong, help)), Err(expected)) => {
                assert!(wrong.contains(expected), "{main:?} {more:?}: {wrong}");
                assert!(!wrong.contains("sk_") && !help.is_empty(), "{wrong} {help}");
            }
            (found, _) => panic!("{main:?} {more:?}: {found:?}"),
        }
    }

    #[test]
    fn keys_of_the_environment() {
        let many = vec!["KEY1"; MOST].join(",");
        for (main, more, expected) in [
            (Some("KEY0"), None, Ok(1)),
            (Some(" KEY0\n"), Some(""), Ok(1)),
            (Some("KEY0"), Some(" KEY1 ,,"), Ok(2)),
            (None, Some("KEY1"), Err("`API_KEY` is not set")),
            (Some(" "), None, Err("`API_KEY` is not set or empty")),
            (Some("KEY0,KEY1"), None, Err("`API_KEY` is not an API key")),
            (Some("sk_hunter2"), None, Err("`API_KEY` is not an API key")),
            (Some("KEY0"), Some("KEY1,sk_hunter2"), Err("key 2 of `ADDITIONAL_API_KEYS` is not")),
            (Some("KEY0"), Some("KEY0"), Err("key 1 of `ADDITIONAL_API_KEYS` has the id")),
            (Some("KEY0"), Some(&many), Err("more than 99 keys")),
        ] {
            check(main, more, expected);
        }
    }

    #[test]
    fn a_key_of_the_config_is_not_taken_twice() {
        let drawn = ApiKey::generate().unwrap();
        let env = |name: &str| (name == MAIN).then(|| drawn.reveal().expose_secret().to_owned());
        let (wrong, _) = keys(&env, BTreeSet::from([drawn.id().to_string()])).unwrap_err();
        assert!(wrong.contains("of another key"), "{wrong}");
    }
}
