//! Trusted backends that pass the id of their own user.
//!
//! A service has a secret, or client certificates, or both, and a role that its users get. It says
//! who asks with these headers:
//!
//! | header | content |
//! |---|---|
//! | `X-Portcullis-Service` | name of the service |
//! | `X-Portcullis-User` | id of its user: 1 to 128 visible ASCII characters |
//! | `X-Portcullis-Timestamp` | Unix seconds, at most a minute (by default) from the gateway's time |
//! | `X-Portcullis-Nonce` | 16 to 64 characters of base64url, never used before |
//! | `X-Portcullis-Content-SHA256` | SHA-256 of the body, empty or not, in hex or base64url |
//! | `X-Portcullis-Signature` | HMAC-SHA256 under the secret, in base64url without padding |
//!
//! Signed are these lines, joined by `\n` without one at the end, each exactly as it is sent; none
//! of them can contain a line break. The target is path and query as in the request line.
//!
//! ```text
//! portcullis-v1
//! METHOD
//! TARGET
//! service
//! user
//! timestamp
//! nonce
//! body digest
//! ```
//!
//! [`sign`] is the reference. On a TLS connection with a client certificate that is listed for the
//! service, the first two headers are enough: the connection itself is proof, and replays nothing.
//! Headers of these names that do not lead to an [`Asserted`] must not reach anything else.
//!
//! A nonce is known to the gateways that share an account store: a secret is for one such group.

mod proof;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::time::Duration;

use hmac::{Hmac, Mac};
use http::HeaderMap;
use secrecy::{ExposeSecret, SecretSlice};
use sha2::{Digest, Sha256};

use super::AccountRole;
use super::keys::{KeyError, check_strength};
use crate::clock::random;
pub use proof::{Signed, sign};

use proof::{Proof, is_visible, mac, one};

/// Name of the service.
pub const SERVICE: &str = "x-portcullis-service";
/// Id of its user.
pub const USER: &str = "x-portcullis-user";
/// Unix seconds.
pub const TIMESTAMP: &str = "x-portcullis-timestamp";
/// Used once.
pub const NONCE: &str = "x-portcullis-nonce";
/// SHA-256 of the body.
pub const CONTENT_SHA256: &str = "x-portcullis-content-sha256";
/// HMAC-SHA256 of all that.
pub const SIGNATURE: &str = "x-portcullis-signature";
/// All headers of an assertion, to be taken out of every request that goes on.
pub const HEADERS: [&str; 6] = [SERVICE, USER, TIMESTAMP, NONCE, CONTENT_SHA256, SIGNATURE];

/// How far a timestamp may be from the gateway's time, if nothing else is configured.
pub const DEFAULT_SKEW: Duration = Duration::from_secs(60);

const MAX_USER_BYTES: usize = 128;
const MAX_NAME_BYTES: usize = 64;

/// Why an assertion is not accepted. Callers are told the same of all but the form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssertionError {
    /// A header is missing, there twice, or not of its form; the text says which.
    Malformed(&'static str),
    /// No service has this name, or the service has no secret.
    Unknown,
    /// The signature is not that of the service over this request.
    Signature,
    /// The timestamp is too far from the gateway's time.
    Skew,
    /// There is no signature, and no client certificate of the service either.
    Certificate,
}

impl fmt::Display for AssertionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed(what) => what,
            Self::Unknown => "no service with a secret has this name",
            Self::Signature => "the signature of the service is wrong",
            Self::Skew => "the timestamp of the service is too old or in the future",
            Self::Certificate => "neither signature nor client certificate of the service",
        })
    }
}

impl std::error::Error for AssertionError {}

/// A backend that is trusted to say who its user is.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "made from the configuration")]
pub struct Service {
    /// 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub name: String,
    /// What its users may do.
    pub role: AccountRole,
    /// 32 or more random bytes, known to the service and the gateways.
    pub secret: Option<SecretSlice<u8>>,
    /// SHA-256 of the DER of its client certificates.
    pub certificates: Vec<[u8; 32]>,
    /// How far its clock may be from the gateway's.
    pub max_skew: Duration,
}

/// All services.
pub struct Services {
    known: HashMap<String, Known>,
    /// Stands in for unknown services. Its key is random: nobody has it.
    nobody: Hmac<Sha256>,
}

impl Services {
    /// Takes the services.
    ///
    /// # Errors
    /// [`KeyError`] for a weak secret, for a name that is taken or not of its form, and for a
    /// service with neither secret nor certificate.
    pub fn new(services: Vec<Service>) -> Result<Self, KeyError> {
        let mut known = HashMap::new();
        for service in services {
            let (name, service) = Known::read(service)?;
            match known.entry(name) {
                Entry::Occupied(_) => return Err(KeyError::Ring("two services have one name")),
                Entry::Vacant(place) => drop(place.insert(service)),
            }
        }
        let nobody = mac(&random::<32>().map_err(|_| KeyError::Random)?)?;
        Ok(Self { known, nobody })
    }

    /// The role that the users of a service have.
    pub(crate) fn role(&self, service: &str) -> Option<AccountRole> {
        self.known.get(service).map(|known| known.role)
    }

    /// The role of the service that signed this.
    fn signer(&self, signed: &Signed<'_>, signature: &[u8]) -> Result<AccountRole, AssertionError> {
        let known = self.known.get(signed.service);
        let signer = known.and_then(|known| Some((known.mac.as_ref()?, known.role)));
        let mac = signer.map_or(&self.nobody, |(mac, _)| mac);
        let right = mac.clone().chain_update(signed.text()).verify_slice(signature).is_ok();
        match signer {
            Some((_, role)) if right => Ok(role),
            Some(_) => Err(AssertionError::Signature),
            None => Err(AssertionError::Unknown),
        }
    }

    /// The role of a service that comes with this certificate.
    fn holder(&self, service: &str, certificate: Option<[u8; 32]>) -> Option<AccountRole> {
        let known = self.known.get(service)?;
        known.certificates.contains(&certificate?).then_some(known.role)
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.known.keys()).finish()
    }
}

/// What a request says about the user on whose behalf it comes; nothing of it is verified.
#[derive(Debug)]
pub struct Assertion {
    service: String,
    user: String,
    proof: Option<Proof>,
}

impl Assertion {
    /// Reads the headers; nothing if there is neither a service nor a signature.
    ///
    /// # Errors
    /// [`AssertionError::Malformed`] if one is there twice, missing, or not of its form.
    pub fn read(headers: &HeaderMap) -> Result<Option<Self>, AssertionError> {
        if !headers.contains_key(SERVICE) && !headers.contains_key(SIGNATURE) {
            return Ok(None);
        }
        let (Some(service), Some(user)) = (one(headers, SERVICE)?, one(headers, USER)?) else {
            return Err(AssertionError::Malformed("a service and its user are named together"));
        };
        if !is_name(service) {
            return Err(AssertionError::Malformed("the name of the service is not of its form"));
        }
        if !is_visible(user) || user.len() > MAX_USER_BYTES {
            return Err(AssertionError::Malformed("the user of the service is not of its form"));
        }
        let proof = Proof::read(headers)?;
        Ok(Some(Self { service: service.to_owned(), user: user.to_owned(), proof }))
    }

    /// Verifies the signature over this request or, where there is none, the client certificate
    /// (SHA-256 of its DER) of the connection. `target` is path and query. An unknown service costs
    /// the same HMAC and comparison as a known one.
    ///
    /// The caller then claims [`Asserted::once`], and compares the body.
    ///
    /// # Errors
    /// [`AssertionError`].
    pub fn verify(
        self,
        services: &Services,
        method: &str,
        target: &str,
        now: u64,
        certificate: Option<[u8; 32]>,
    ) -> Result<Asserted, AssertionError> {
        let Some(proof) = &self.proof else {
            let role = services.holder(&self.service, certificate);
            return Ok(self.accepted(role.ok_or(AssertionError::Certificate)?, 0));
        };
        let signed = proof.over((&self.service, &self.user), (method, target))?;
        let role = services.signer(&signed, &proof.signature)?;
        let skew = services.known.get(&self.service).map_or(0, |known| known.skew);
        match now.abs_diff(proof.time) <= skew {
            true => Ok(self.accepted(role, skew)),
            false => Err(AssertionError::Skew),
        }
    }

    fn accepted(self, role: AccountRole, skew: u64) -> Asserted {
        let Self { service, user, proof } = self;
        let body_digest = proof.as_ref().map(|proof| proof.body);
        let once = proof.map(|proof| Once {
            id: format!("svc:{service}:{}", proof.nonce),
            expires_at: proof.time.saturating_add(2 * skew).saturating_add(1),
        });
        Asserted { service, user, role, once, body_digest }
    }
}

/// A user whom a service vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Asserted {
    /// Name of the service.
    pub service: String,
    /// Id of its user. Another service may have a user of the same id.
    pub user: String,
    /// The role that users of this service have.
    pub role: AccountRole,
    /// What must be claimed in the store before anything is done; nothing with a certificate.
    pub once: Option<Once>,
    /// What the body must have; nothing with a certificate.
    pub body_digest: Option<[u8; 32]>,
}

impl Asserted {
    /// Whether this is the body that was signed; true for every body with a certificate.
    #[must_use]
    pub fn matches_body(&self, body: &[u8]) -> bool {
        self.body_digest.is_none_or(|digest| digest == *Sha256::digest(body))
    }
}

/// An id that is used once: `use_once(&id, now, expires_at)` of the store must give `true`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Once {
    /// `svc:` service `:` nonce
    pub id: String,
    /// Unix seconds: until no gateway accepts the timestamp any more, even one whose clock is off
    /// by as much as a service's may be.
    pub expires_at: u64,
}

/// A service, ready to verify.
struct Known {
    role: AccountRole,
    mac: Option<Hmac<Sha256>>,
    /// Public, so they are compared as they are.
    certificates: Vec<[u8; 32]>,
    /// Seconds
    skew: u64,
}

impl Known {
    fn read(service: Service) -> Result<(String, Self), KeyError> {
        let Service { name, role, secret, certificates, max_skew } = service;
        if !is_name(&name) {
            return Err(KeyError::Ring("the name of a service is not of its form"));
        }
        if secret.is_none() && certificates.is_empty() {
            return Err(KeyError::Ring("a service has neither secret nor certificate"));
        }
        let secret = secret.as_ref().map(SecretSlice::expose_secret);
        secret.map(check_strength).transpose()?;
        let mac = secret.map(mac).transpose()?;
        Ok((name, Self { role, mac, certificates, skew: max_skew.as_secs() }))
    }
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(allowed)
}
