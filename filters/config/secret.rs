//! References to secrets, the only form in which a config knows them.

use std::fmt;
use std::path::PathBuf;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::diagnostic::quote;

/// Where a secret is. The config itself never holds one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretRef {
    /// The file that holds it and nothing else; relative to the config's directory.
    File(PathBuf),
    /// The environment variable that holds it.
    Env(String),
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", quote(&path.display().to_string())),
            Self::Env(name) => write!(f, "environment variable {}", quote(name)),
        }
    }
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RefVisitor)
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Place {
    File,
    Env,
}

/// Never repeats what it finds: someone may have written the secret itself.
pub(super) struct RefVisitor;

impl<'de> Visitor<'de> for RefVisitor {
    type Value = SecretRef;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{file: PATH} or {env: NAME}")
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<SecretRef, E> {
        inline()
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<SecretRef, E> {
        inline()
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<SecretRef, E> {
        inline()
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<SecretRef, E> {
        inline()
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<SecretRef, E> {
        inline()
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<SecretRef, E> {
        inline()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<SecretRef, E> {
        inline()
    }

    fn visit_unit<E: Error>(self) -> Result<SecretRef, E> {
        Err(E::custom(BOTH_OR_NEITHER))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<SecretRef, A::Error> {
        inline()
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretRef, A::Error> {
        let place = match map.next_key()? {
            Some(Place::File) => SecretRef::File(map.next_value()?),
            Some(Place::Env) => SecretRef::Env(map.next_value()?),
            None => return Err(A::Error::custom(BOTH_OR_NEITHER)),
        };
        match map.next_key::<Place>()? {
            Some(_) => Err(A::Error::custom(BOTH_OR_NEITHER)),
            None => Ok(place),
        }
    }
}

/// The hash of a password: written out, since nobody logs in with it, or kept elsewhere.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum PasswordRef {
    /// An Argon2id hash in PHC form.
    Hash(String),
    /// Where the hash is.
    Place(SecretRef),
}

impl PasswordRef {
    /// Where the hash is, if it is not written out.
    #[must_use]
    pub const fn place(&self) -> Option<&SecretRef> {
        match self {
            Self::Hash(_) => None,
            Self::Place(place) => Some(place),
        }
    }
}

/// A hash can be tried offline, so it stays out of logs all the same.
impl fmt::Debug for PasswordRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hash(_) => f.write_str("[REDACTED]"),
            Self::Place(place) => place.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for PasswordRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PasswordVisitor)
    }
}

struct PasswordVisitor;

impl<'de> Visitor<'de> for PasswordVisitor {
    type Value = PasswordRef;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a hash made by `portcullis user hash`, {file: PATH} or {env: NAME}")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<PasswordRef, E> {
        if text.starts_with("$argon2") {
            return Ok(PasswordRef::Hash(text.to_owned()));
        }
        Err(E::custom(
            "this is not the hash of a password\n\
             make one: portcullis user hash; a password itself is never written into a config",
        ))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PasswordRef, A::Error> {
        RefVisitor.visit_map(map).map(PasswordRef::Place)
    }
}

const BOTH_OR_NEITHER: &str = "a secret is in one place\nwrite either {file: PATH} or {env: NAME}";

fn inline<E: Error>() -> Result<SecretRef, E> {
    Err(E::custom(
        "a secret is never written into the config itself\n\
         put it into a file and write {file: PATH}, or into the environment and write {env: NAME}",
    ))
}
