//! `portcullis token inspect`: what a token says, and what a gateway would say of it.
//!
//! Its signature is not shown: what is printed here opens nothing.

use std::path::PathBuf;
use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis_filters::accounts::Verified;
use portcullis_filters::accounts::directory::Proof;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::cli::accounts::{Accounts, Common};
use crate::cli::{Failure, Outcome, table, when};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The file with the token; `-` or nothing for standard input
    file: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// The first two parts of a token, as they are: not to be believed before the signature is right.
struct Parts {
    header: Value,
    claims: Value,
}

pub(super) fn run(args: &Args) -> Outcome {
    let token = super::read(args.file.as_deref())?;
    let parts = Parts::of(token.expose_secret());
    let parts = parts.ok_or("this is not a token: header and claims cannot be read")?;
    let accounts = Accounts::open(&args.common.config)?;
    let snapshot = accounts.snapshot()?;
    let verified = super::tokens(&snapshot)?.verify(token.expose_secret());
    let refusal = match &verified {
        Ok(verified) => void(verified, &accounts)?,
        Err(error) => Some(error.to_string()),
    };
    let genuine = verified.is_ok();
    args.common
        .answer(&parts.shown(genuine, refusal.as_deref()), &parts.text(refusal.as_deref()))?;
    Ok(if refusal.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Why a genuine token of now is accepted no more, as gateways judge it.
fn void(token: &Verified, accounts: &Accounts) -> Result<Option<String>, Failure> {
    let directory = accounts.directory()?;
    let proof = Proof::of(token)?;
    let key = proof.key.and_then(|id| directory.key(id));
    let ended = key.and_then(|key| key.expires_at()).is_some_and(|end| end <= accounts.now());
    let why = directory.void(&proof).or(ended.then_some("the API key that made it has expired"));
    Ok(why.map(str::to_owned))
}

impl Parts {
    fn of(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (header, claims) = (parts.next()?, parts.next()?);
        Some(Self { header: decode(header)?, claims: decode(claims)? })
    }

    fn shown(&self, verified: bool, refusal: Option<&str>) -> Value {
        json!({
            "header": self.header,
            "claims": self.claims,
            "verified": verified,
            "accepted": refusal.is_none(),
            "reason": refusal,
        })
    }

    fn text(&self, refusal: Option<&str>) -> String {
        let time = |name: &str| when::shown_or(self.claims.get(name).and_then(Value::as_u64), "");
        table::pairs(&[
            ("header", self.header.to_string()),
            ("claims", self.claims.to_string()),
            ("issued", time("iat")),
            ("expires", time("exp")),
            ("accepted", refusal.map_or_else(|| "yes".to_owned(), |why| format!("no: {why}"))),
        ])
    }
}

/// A part of a token: an object in JSON in base64url without padding (RFC 7515 section 2).
fn decode(part: &str) -> Option<Value> {
    let json = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&json).ok().filter(Value::is_object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_objects_in_base64url() {
        for (part, expected) in [
            ("e30", Some("{}")),
            ("eyJhIjoxfQ", Some("{\"a\":1}")),
            ("eyJhIjoiw7_Dvz8-In0", Some("{\"a\":\"ÿÿ?>\"}")),
            ("e30=", None),
            ("WzFd", None),
            ("e3 0", None),
            ("", None),
        ] {
            let found = decode(part).map(|value| value.to_string());
            assert_eq!(found.as_deref(), expected, "{part}");
        }
    }

    #[test]
    fn the_signature_is_not_shown() {
        let parts = Parts::of("e30.eyJleHAiOjB9.c2lnbmF0dXJl").unwrap();
        let shown = parts.shown(false, Some("why")).to_string() + &parts.text(None);
        assert!(!shown.contains("c2lnbmF0dXJl") && shown.contains("1970-01-01T00:00:00Z"));
        for text in ["", "e30", "e30.", ".e30", "e30.x.y"] {
            assert!(Parts::of(text).is_none(), "{text}");
        }
    }
}
