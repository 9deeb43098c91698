//! Header and claims of a foreign token, and which account and role they give.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};

use super::issuer::{Issuer, IssuerAlgorithm};
use crate::accounts::AccountRole;
use crate::accounts::claims::TokenError;
use crate::accounts::jws::{Compact, object};
use crate::json::{Json, Object};

/// How far the clock of an issuer may be from the gateway's, in seconds.
const LEEWAY_SECS: u64 = 60;
/// Longest lifetime that is accepted, in seconds.
const MAX_LIFETIME_SECS: u64 = 24 * 60 * 60;
const MAX_KID_BYTES: usize = 256;
const MAX_USERNAME_BYTES: usize = 64;
/// Bytes of the hash that is the id of a token.
const ID_BYTES: usize = 16;

/// A user of an external issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct External {
    /// Name of the issuer in the configuration.
    pub issuer: String,
    /// Name of the account: `<issuer>:<user>` in lower case. No local account has a colon.
    pub subject: String,
    /// The role that the claims give.
    pub role: AccountRole,
    /// When the token was issued, in Unix seconds.
    pub issued_at: u64,
    /// When it is no longer accepted, in Unix seconds: a minute after its `exp`.
    pub expires_at: u64,
    /// Names the token, for audit records and revocation: `<issuer>:` and a hash of all but its
    /// signature, because an ECDSA signature can be written in two ways.
    pub id: String,
    not_before: u64,
}

impl External {
    /// Reads a payload whose signature was verified. The times are for [`Self::check`].
    pub(super) fn read(token: &Compact<'_>, issuer: &Issuer) -> Result<Self, TokenError> {
        let json = URL_SAFE_NO_PAD.decode(token.payload).ok();
        let json = json.and_then(|json| Json::parse(&json).ok());
        let claims = json.as_ref().and_then(Json::as_object);
        let claims = claims.ok_or(TokenError::Claims("token claims are not a JSON object"))?;
        check_names(claims, issuer)?;
        let (issued_at, expires_at) = lifetime(claims)?;
        Ok(Self {
            issuer: issuer.name.clone(),
            subject: subject(claims, issuer)?,
            role: role(claims, issuer)?,
            issued_at,
            expires_at: expires_at.saturating_add(LEEWAY_SECS),
            id: id(token.message, &issuer.name),
            not_before: claims.get("nbf").map_or(Ok(issued_at), seconds)?,
        })
    }

    /// Whether the token may be used now (RFC 7519 section 4.1.4 to 4.1.6).
    pub(super) fn check(&self, now: u64) -> Result<(), TokenError> {
        if self.issued_at.max(self.not_before) > now.saturating_add(LEEWAY_SECS) {
            return Err(TokenError::NotYetValid);
        }
        if now >= self.expires_at {
            return Err(TokenError::Expired);
        }
        Ok(())
    }
}

/// What a header may say: the algorithm and the key. Everything that would change how the token is
/// read (`crit`, `b64`, `zip`, `cty`) or where its key is (`jku`, `jwk`, `x5u`, `x5c`) refuses it;
/// thumbprints of certificates are left alone.
pub(super) struct Head {
    pub(super) kid: String,
    pub(super) algorithm: IssuerAlgorithm,
}

impl Head {
    /// Reads a header; its algorithm must be one of those that the issuer may use.
    pub(super) fn decode(part: &str, allowed: &[IssuerAlgorithm]) -> Result<Self, TokenError> {
        let members: Members = object(part).ok_or(TokenError::Header)?;
        if !members.typ.as_deref().is_none_or(is_jwt) {
            return Err(TokenError::Type);
        }
        if !(1..=MAX_KID_BYTES).contains(&members.kid.len()) {
            return Err(TokenError::KeyId);
        }
        let algorithm = allowed.iter().find(|algorithm| algorithm.as_str() == members.alg);
        let algorithm = *algorithm.ok_or(TokenError::Algorithm)?;
        Ok(Self { kid: members.kid, algorithm })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Members {
    alg: String,
    kid: String,
    typ: Option<String>,
    #[serde(rename = "x5t")]
    _sha1: Option<IgnoredAny>,
    #[serde(rename = "x5t#S256")]
    _sha256: Option<IgnoredAny>,
}

/// The `iss` of a payload that nobody has verified: it selects an issuer and proves nothing.
pub(super) fn named_issuer(payload: &str) -> Result<String, TokenError> {
    #[derive(Deserialize)]
    struct Named {
        iss: String,
    }
    object::<Named>(payload).map(|named| named.iss).ok_or(TokenError::Issuer)
}

/// Access and ID tokens; not the other things that issuers sign, such as logout tokens (RFC 8725
/// section 3.11). Media types are compared without case (RFC 7515 section 4.1.9).
fn is_jwt(typ: &str) -> bool {
    let short = typ.to_ascii_lowercase();
    matches!(short.strip_prefix("application/").unwrap_or(&short), "jwt" | "at+jwt")
}

fn check_names(claims: &Object, issuer: &Issuer) -> Result<(), TokenError> {
    if text(claims.get("iss")) != Some(&issuer.issuer) {
        return Err(TokenError::Claims("token has another issuer"));
    }
    let named = match claims.get("aud") {
        Some(Json::Arr(several)) => {
            several.iter().any(|one| one.as_str() == Some(&issuer.audience))
        }
        one => text(one) == Some(&issuer.audience),
    };
    match named {
        true => Ok(()),
        false => Err(TokenError::Claims("token has another audience")),
    }
}

/// `iat` and `exp`, at most a day apart.
fn lifetime(claims: &Object) -> Result<(u64, u64), TokenError> {
    let required = |name| claims.get(name).ok_or(TokenError::Claims("token lacks iat or exp"));
    let (issued_at, expires_at) = (seconds(required("iat")?)?, seconds(required("exp")?)?);
    match expires_at.checked_sub(issued_at) {
        Some(1..=MAX_LIFETIME_SECS) => Ok((issued_at, expires_at)),
        _ => Err(TokenError::Claims("token is valid for longer than a day, or never")),
    }
}

/// A `NumericDate` (RFC 7519 section 2), which may have a fraction.
fn seconds(time: &Json) -> Result<u64, TokenError> {
    let wrong = TokenError::Claims("a time of the token is not a number of seconds");
    let Json::Num(number) = time else { return Err(wrong) };
    let whole = number.as_u64();
    let fraction = number.as_f64().filter(|seconds| (0.0..1e12).contains(seconds));
    whole.or_else(|| fraction.map(|seconds| seconds as u64)).ok_or(wrong)
}

fn subject(claims: &Object, issuer: &Issuer) -> Result<String, TokenError> {
    let verified = matches!(claims.get("email_verified"), Some(Json::Bool(true)));
    if issuer.username_claim == "email" && !verified {
        return Err(TokenError::Claims("the e-mail address of the token is not verified"));
    }
    let user = text(claim(claims, &issuer.username_claim)).filter(|user| is_username(user));
    let user = user.ok_or(TokenError::Claims("the token does not name a user"))?;
    Ok([issuer.name.as_str(), ":", &user.to_ascii_lowercase()].concat())
}

fn is_username(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte);
    (1..=MAX_USERNAME_BYTES).contains(&text.len()) && text.bytes().all(allowed)
}

/// The highest role that the claim gives, or the default one.
fn role(claims: &Object, issuer: &Issuer) -> Result<AccountRole, TokenError> {
    let claimed = issuer.role_claim.as_deref().and_then(|path| claim(claims, path));
    let mapped = |role: &Json| role.as_str().and_then(|role| issuer.role_map.get(role)).copied();
    let highest = match claimed {
        Some(Json::Arr(several)) => several.iter().filter_map(mapped).max(),
        Some(Json::Str(_)) | None => claimed.and_then(mapped),
        Some(Json::Null | Json::Bool(_) | Json::Num(_) | Json::Obj(_)) => {
            return Err(TokenError::Claims("the role claim is not a text or a list of texts"));
        }
    };
    highest.or(issuer.default_role).ok_or(TokenError::Claims("the token gives no role"))
}

/// A claim by its name, or by a JSON pointer through objects.
fn claim<'a>(claims: &'a Object, path: &str) -> Option<&'a Json> {
    let Some(pointer) = path.strip_prefix('/') else { return claims.get(path) };
    let mut names = pointer.split('/').map(|name| name.replace("~1", "/").replace("~0", "~"));
    let first = claims.get(&names.next()?);
    names.fold(first, |json, name| json?.as_object()?.get(&name))
}

fn text(json: Option<&Json>) -> Option<&str> {
    json.and_then(Json::as_str)
}

fn id(message: &str, issuer: &str) -> String {
    let hash = Sha256::digest(message);
    let start = hash.first_chunk::<ID_BYTES>().map_or(&[][..], |start| start);
    [issuer, ":", &URL_SAFE_NO_PAD.encode(start)].concat()
}
