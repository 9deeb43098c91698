//! A provider for tests: keys, tokens, and answers that can be changed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, crypto};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::*;
use crate::accounts::AccountRole;
use crate::accounts::keys::generate_signing_key_pem;

pub(super) const ISSUER: &str = "https://login.example.com";
pub(super) const JWKS_URL: &str = "https://login.example.com/keys";

/// Made for these tests, as are the two below.
const RSA: &str = "-----BEGIN PRIVATE KEY-----
MIIEvgIBADANBgkqhkiG9w0BAQEFAASCBKgwggSkAgEAAoIBAQDfRMvQ16/aPMbv
rruzczjb4rXkpOTvt95Ka9ypbtXxHx2XSK/PDCi0ZTYIsW6ocWiGANUU5JoMgt7D
yPQgRtqHCPmap7IfZvwUzQ4Txlbmd47Np0kOxnhrw5NujxcP3l71534N6925+o1m
p2wMV+/JUP2bpf3r1zNz42uZRbdOk4NVuYOVwi6duiNxpkPci3JDPbanjEWE0w8B
KPqYGxEHpJf7IhBxcvqBtVKDk8LfDXLT2NWbu1PPa7oEw7J6q6O/GeLN78Jb029d
tc6h+EoRm8x1PfNXG/WxFDpP7URRmcZiqYmy+FsAH7xyyydNSGK/eBdXbTiMJ+Pm
i1RuPX65AgMBAAECggEAAIynvGnjd56FObJT/rMc1W4jAa00NJRe3fLLq5u81As+
K3RqZJCLmG5/G7YI9WaafWl8jofiJyqBubjW7rxKWJorVGmaAx03J3uBemsXQYth
cU5zXBM59aNDoQFpQEjNMj64phStWJ6m8sM5C5GeuCpizWKIWu+ABzFCIs5B8rli
B+8+hd/Ws+2SGrJ/b8WQ1hbQX1rn0b3Arj1UBq6NjA1OuH++Zo5S0L4gotFkkd++
iRRWFfkX97RJMWuPlXsvbqYpONiJIWKNei6a5Jhz4x/uWjl+HMd84SjPX6/zrXQJ
XTA4N1DT3amPXah0rymohsyC10bP7s45Z41gAAfQOQKBgQDyNHJB3FV3AlAnrfhZ
09yxMM0N+lgLtB8/xObTIhmdMr1TdGGn8g82/FEhQy3biL800h4P0j/FOsr4ayIv
lQEs9E2frdnmOP7Nre1D1zH6xlI1mmPMYlKEms/9VZLBH3uqfQ08/DeZbueQhL7y
8QmN/WVcvW+HwKFQDDB1O7walQKBgQDr/D6untYQQA+4JG6mUjmPy6dk8m21vwoX
B6+y3Wi0vtLRIqFZpdXQd6MVj12duGXBPaJZAV8UUyUyPM9y9QYMhzBKssSt9xCj
sfIL1zBsXD4pWNlw3UJEaIGmc3F6hyP0YsnHPATPmsXW7S8zHS3Gikfb1NTho4FO
Rv7mfX5ulQKBgQDpyTv8XIxWSnJKSr+tHTYqBpv3gQzZhyyephXT+FdXCDH9Sxo0
PQ74mUZKYAj0niNJ/gMsbFpHqz9d2DNwUFiJJuuCVRI+CgfRSq/5ys8ga6vQt8za
7JEQFErtEluMdDIvV3OeySl1vbphIfEamRUK7GuZv/TWyVYr6QghMN6ZnQKBgAUA
Yp+21BiiEvM3KnUx9vBaQ6D7FmIsu10Dl7C1yptSFAvErSDGSALUFkvFrxlBqD5x
PPif89DtdjNbYJYyJT+sudRLd6msO9kMU3H2zJrvVY3wySMAPYBPqrfJaJVNOfDb
CyXC2uM/h4PnoQF3U9oKYj2BhEWH/pyXGp3t+PkFAoGBAIH/JyQpDwssy16jfiMX
XHNSBF/j33NBqlmiHT6TFpII9axx4I8JDsVZD0Cmb1jZUzwnk292KZgaIv8p75dl
uTjsADoX3s0Wn9H5YYw+1iHnFVEVa3V8Bqrw/2P5600YihUf972SmJB38LARI+oZ
0CKXXVmLuu5S6Lqb0k5/i2We
-----END PRIVATE KEY-----
";
/// P-256
const P256: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgaOFgqzoAw7xOOXrd
b0aPPQ/wgYX1npmTaNOfQgSVCo2hRANCAARaPIWYI4voogPwBDbYnqXTPXiqsUFs
4gWhFBYGbYujwYdaDj6CvP/9w/rPU6xkYbOJaXut1xitEbZl/E405E36
-----END PRIVATE KEY-----
";
/// P-384
const P384: &str = "-----BEGIN PRIVATE KEY-----
MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDBloUQFYSLMR5AqBVSB
br2r2xURYEdez5sPV3jmmfaaORi+qEPY5fuPnyP7gAryTYGhZANiAARJ2yobqF1t
pz+TbaXTcKP6pQw0dBdn+u0Xj4MaHlzaLisCCjOEtKcW4yJm4mqCLMilMvEJnD/K
STO7HR0vtO42pMbco3d98C8uzgFiQHErvQOyyE5ZND6JFCgTQZiDVqk=
-----END PRIVATE KEY-----
";

/// A key of the provider.
#[derive(Clone)]
pub(super) struct Signing {
    pub(super) kid: &'static str,
    pub(super) algorithm: IssuerAlgorithm,
    key: EncodingKey,
}

impl Signing {
    /// The same key each time, but for Ed25519.
    pub(super) fn new(kid: &'static str, algorithm: IssuerAlgorithm) -> Self {
        let key = match algorithm {
            IssuerAlgorithm::Rs256 | IssuerAlgorithm::Ps256 => {
                EncodingKey::from_rsa_pem(RSA.as_bytes())
            }
            IssuerAlgorithm::Es256 => EncodingKey::from_ec_pem(P256.as_bytes()),
            IssuerAlgorithm::Es384 => EncodingKey::from_ec_pem(P384.as_bytes()),
            IssuerAlgorithm::EdDsa => {
                let pem = generate_signing_key_pem().unwrap();
                EncodingKey::from_ed_pem(pem.expose_secret().as_bytes())
            }
        };
        Self { kid, algorithm, key: key.unwrap() }
    }

    pub(super) fn ed25519(kid: &'static str) -> Self {
        Self::new(kid, IssuerAlgorithm::EdDsa)
    }

    /// The public key as it is published.
    pub(super) fn jwk(&self) -> Value {
        let jwk = Jwk::from_encoding_key(&self.key, self.algorithm.algorithm()).unwrap();
        let jwk = set(serde_json::to_value(jwk).unwrap(), "kid", self.kid);
        set(jwk, "use", "sig")
    }

    pub(super) fn header(&self) -> Value {
        json!({"alg": self.algorithm.as_str(), "kid": self.kid, "typ": "JWT"})
    }

    pub(super) fn token(&self, claims: &Value) -> String {
        self.signed(&self.header(), claims)
    }

    /// A token that is signed with this key, whatever it says.
    pub(super) fn signed(&self, header: &Value, claims: &Value) -> String {
        self.signed_message(&[part(header), part(claims)].join("."))
    }

    pub(super) fn signed_message(&self, message: &str) -> String {
        let algorithm = self.algorithm.algorithm();
        let signature = crypto::sign(message.as_bytes(), &self.key, algorithm).unwrap();
        [message, &signature].join(".")
    }
}

pub(super) fn part(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

pub(super) fn set(mut json: Value, name: &str, value: impl Into<Value>) -> Value {
    json[name] = value.into();
    json
}

pub(super) fn without(mut json: Value, name: &str) -> Value {
    json.as_object_mut().unwrap().remove(name);
    json
}

pub(super) fn jwks(keys: &[Value]) -> Bytes {
    json!({ "keys": keys }).to_string().into()
}

/// The claims of a user for the next hour.
pub(super) fn claims(now: u64) -> Value {
    json!({
        "iss": ISSUER, "aud": "gateway", "sub": "Alice", "iat": now, "exp": now + 3600,
        "roles": ["staff", "llm-admins"], "email": "alice@example.com", "azp": "app",
    })
}

pub(super) fn issuer() -> Issuer {
    Issuer {
        name: "corp".into(),
        issuer: ISSUER.into(),
        audience: "gateway".into(),
        jwks_url: Some(JWKS_URL.into()),
        algorithms: IssuerAlgorithm::ALL.to_vec(),
        username_claim: "sub".into(),
        role_claim: Some("roles".into()),
        role_map: [
            ("staff".to_owned(), AccountRole::User),
            ("llm-admins".to_owned(), AccountRole::Admin),
        ]
        .into(),
        default_role: None,
    }
}

/// Answers of a provider, by URL; what has none is down.
#[derive(Debug, Default)]
pub(super) struct Provider {
    answers: Mutex<HashMap<String, Fetched>>,
    pub(super) calls: AtomicUsize,
    delay: Mutex<Duration>,
}

impl Provider {
    fn answers(&self) -> MutexGuard<'_, HashMap<String, Fetched>> {
        self.answers.lock().unwrap()
    }

    pub(super) fn answer(&self, url: &str, body: impl Into<Bytes>, max_age: Option<u64>) {
        let max_age = max_age.map(Duration::from_secs);
        self.answers().insert(url.to_owned(), Fetched { body: body.into(), max_age });
    }

    pub(super) fn publish(&self, keys: &[&Signing]) {
        let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        self.answer(JWKS_URL, jwks(&keys), Some(3600));
    }

    pub(super) fn go_down(&self) {
        self.answers().clear();
    }

    pub(super) fn slow_down(&self, delay: Duration) {
        *self.delay.lock().unwrap() = delay;
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Fetch for Provider {
    async fn get(&self, url: &str) -> Result<Fetched, FetchError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let delay = *self.delay.lock().unwrap();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        self.answers().get(url).cloned().ok_or(FetchError::new("down"))
    }
}

/// A gateway that trusts one provider.
pub(super) struct Place {
    pub(super) clock: Clock,
    pub(super) provider: Arc<Provider>,
    pub(super) issuers: Arc<Issuers>,
}

impl Place {
    pub(super) fn new(issuer: Issuer) -> Self {
        let (clock, provider) = (Clock::system(), Arc::new(Provider::default()));
        let fetch: Arc<dyn Fetch> = Arc::<Provider>::clone(&provider);
        let issuers = Arc::new(Issuers::new(vec![issuer], fetch, clock.clone()).unwrap());
        Self { clock, provider, issuers }
    }

    /// One whose provider has published this key.
    pub(super) fn with(key: &Signing) -> Self {
        let place = Self::new(issuer());
        place.provider.publish(&[key]);
        place
    }

    pub(super) fn now(&self) -> u64 {
        self.clock.unix_secs()
    }

    pub(super) fn later(&self, secs: u64) {
        self.clock.advance(Duration::from_secs(secs));
    }

    pub(super) fn claims(&self) -> Value {
        claims(self.now())
    }

    pub(super) async fn verify(&self, token: &str) -> Result<Arc<External>, TokenError> {
        self.issuers.verify(token).await
    }

    pub(super) async fn check(&self, token: &str, expected: Result<(), TokenError>) {
        assert_eq!(self.verify(token).await.map(drop), expected, "{token:.300}");
    }
}
