//! What the service does: issue, verify, remember, forget.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::*;
use crate::accounts::AccountRole;
use crate::accounts::keys::generate_signing_key_pem;

pub(super) const TTLS: Ttls = Ttls { user: MAX_USER_TTL, llm: MAX_LLM_TTL };
pub(super) const TOKEN_KEY: &[u8] = b"kT9vPz3qLw8xYb2nRm5sHd7fJc4gAe1u";
/// RFC 8410 section 10.3.
pub(super) const SIGNING_KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";

pub(super) fn signing_key() -> TokenKey {
    TokenKey::ed25519(&SIGNING_KEY.into()).unwrap()
}

pub(super) fn token_key() -> TokenKey {
    TokenKey::hmac(&TOKEN_KEY.to_vec().into()).unwrap()
}

pub(super) fn keys() -> TokenKeys {
    let token_key = Some(TOKEN_KEY.to_vec().into());
    TokenKeys { signing_key: SIGNING_KEY.into(), token_key, accepted: vec![] }
}

pub(super) const fn rules(scoped: ScopedAlgorithm) -> TokenRules {
    TokenRules { ttls: TTLS, scoped }
}

pub(super) fn service(clock: &Clock) -> TokenService {
    TokenService::new(keys(), clock.clone(), rules(ScopedAlgorithm::Hs256)).unwrap()
}

pub(super) fn here() -> (Clock, TokenService) {
    let clock = Clock::system();
    let service = service(&clock);
    (clock, service)
}

pub(super) fn user_grant() -> UserGrant {
    UserGrant { subject: "alice".into(), role: AccountRole::Admin, epoch: 3, mfa: true }
}

pub(super) fn grant() -> ScopedGrant {
    ScopedGrant {
        subject: "alice".into(),
        epoch: 3,
        session: None,
        key: None,
        scopes: vec!["llm:generate".into()],
        model: "phi3".into(),
        max_tokens: 64,
        address: None,
        once: false,
        not_after: None,
    }
}

pub(super) fn user(service: &TokenService) -> String {
    service.issue_user(user_grant()).unwrap().token.expose_secret().to_owned()
}

pub(super) fn scoped(service: &TokenService) -> String {
    service.issue_scoped(grant()).unwrap().token.expose_secret().to_owned()
}

pub(super) fn cut(text: &str, len: usize) -> &str {
    text.get(..len).unwrap()
}

pub(super) fn part(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

pub(super) fn decoded(token: &str, part: usize) -> Value {
    let part = token.split('.').nth(part).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

pub(super) fn set(mut json: Value, name: &str, value: impl Into<Value>) -> Value {
    json[name] = value.into();
    json
}

/// A token that is signed with the right key, whatever it says.
pub(super) fn signed(key: &TokenKey, header: &Value, claims: &Value) -> String {
    let message = [part(header), part(claims)].join(".");
    let signature = key.sign(&message).unwrap();
    [message, signature].join(".")
}

/// The scoped token with one header member changed, signed with the right key.
pub(super) fn scoped_with_header(
    service: &TokenService,
    name: &str,
    value: impl Into<Value>,
) -> String {
    let token = scoped(service);
    signed(&token_key(), &set(decoded(&token, 0), name, value), &decoded(&token, 1))
}

pub(super) fn scoped_with_claim(
    service: &TokenService,
    name: &str,
    value: impl Into<Value>,
) -> String {
    let token = scoped(service);
    signed(&token_key(), &decoded(&token, 0), &set(decoded(&token, 1), name, value))
}

pub(super) fn check(service: &TokenService, token: &str, expected: TokenError) {
    assert_eq!(service.verify(token).map(drop), Err(expected), "{token:.200}");
}

#[test]
fn tokens_have_the_documented_header_and_claims() {
    let (_, service) = here();
    let (user, scoped) = (user(&service), scoped(&service));
    let (signing, token) = (signing_key(), token_key());
    let kids = (signing.kid(), token.kid());
    assert_eq!(
        decoded(&user, 0),
        json!({"alg": "EdDSA", "typ": "portcullis-user+jwt", "kid": kids.0})
    );
    assert_eq!(
        decoded(&scoped, 0),
        json!({"alg": "HS256", "typ": "portcullis-llm+jwt", "kid": kids.1})
    );
    let names = |token| {
        decoded(token, 1).as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(&user), "aud epoch exp iat iss jti mfa nbf role sub");
    assert_eq!(names(&scoped), "aud epoch exp iat iss jti max_tokens model nbf scopes sub");
    assert_eq!(decoded(&user, 1)["aud"], "portcullis:user");
    assert_eq!(decoded(&scoped, 1)["aud"], "portcullis:llm");
}

#[test]
fn every_token_has_another_id_of_128_bits() {
    let (_, service) = here();
    let (one, two) =
        (service.issue_scoped(grant()).unwrap(), service.issue_scoped(grant()).unwrap());
    assert_ne!(one.id, two.id);
    assert_eq!(URL_SAFE_NO_PAD.decode(one.id).unwrap().len(), 16);
}

#[test]
fn tokens_expire_to_the_second_and_are_not_revived() {
    let (clock, service) = here();
    let (user, scoped) = (user(&service), scoped(&service));
    for (advance, user_ok, scoped_ok) in
        [(0, true, true), (55, true, true), (5, true, false), (838, true, false), (5, false, false)]
    {
        clock.advance(Duration::from_secs(advance));
        assert_eq!(service.verify(&user).is_ok(), user_ok, "user, after {advance} s more");
        assert_eq!(service.verify(&scoped).is_ok(), scoped_ok, "scoped, after {advance} s more");
    }
    check(&service, &user, TokenError::Expired);
    check(&service, &scoped, TokenError::Expired);
}

#[test]
fn a_remembered_token_expires_too_and_leaves_the_cache() {
    let (clock, service) = here();
    let token = scoped(&service);
    let first = service.verify(&token).unwrap();
    assert!(Arc::ptr_eq(&first, &service.verify(&token).unwrap()), "the second was remembered");
    assert_eq!(service.verified.len(), 1);
    clock.advance(Duration::from_secs(60));
    check(&service, &token, TokenError::Expired);
    assert_eq!(service.verified.len(), 0);
    check(&service, &token, TokenError::Expired);
}

#[test]
fn refused_tokens_are_not_remembered() {
    let (_, service) = here();
    let token = scoped(&service);
    check(&service, cut(&token, token.len() - 1), TokenError::Signature);
    check(
        &service,
        &scoped_with_claim(&service, "exp", 1),
        TokenError::Claims("token has a lifetime that its kind does not have"),
    );
    assert!(service.verified.is_empty());
}

#[test]
fn the_cache_is_bounded() {
    let (_, service) = here();
    for _ in 0..CACHED_TOKENS + 500 {
        service.verify(&scoped(&service)).unwrap();
    }
    assert!(service.verified.len() <= CACHED_TOKENS);
}

#[test]
fn a_scoped_token_does_not_outlive_the_credential_that_asked() {
    let (clock, service) = here();
    let now = clock.unix_secs();
    let ask = |not_after| service.issue_scoped(ScopedGrant { not_after, ..grant() });
    let soon = ask(Some(now + 20)).unwrap();
    assert!((19..=20).contains(&soon.expires_in));
    assert_eq!(service.verify(soon.token.expose_secret()).unwrap().life().expires_at, now + 20);
    assert_eq!(ask(Some(now + 900)).unwrap().expires_in, 60);
    assert_eq!(ask(Some(now)).unwrap_err(), IssueError::Expired);
    assert_eq!(ask(Some(0)).unwrap_err(), IssueError::Expired);
}

#[test]
fn huge_and_shapeless_input_is_refused() {
    let (_, service) = here();
    let token = scoped(&service);
    check(&service, &"A".repeat(65_536), TokenError::TooLong);
    check(&service, &format!("a.{}.b", "A".repeat(65_536)), TokenError::TooLong);
    check(&service, &".".repeat(MAX_TOKEN_BYTES), TokenError::NotCompact);
    check(&service, &format!("{token}{}", "A".repeat(MAX_TOKEN_BYTES)), TokenError::TooLong);
    let shapes = [
        "".into(),
        format!("{token}.x"),
        format!("{token}.x.y"),
        token.replace('.', ". "),
        format!(" {token}"),
        format!("{token}="),
        token.replace('.', "==."),
        "%00.%00.%00".into(),
    ];
    for shape in shapes {
        check(&service, &shape, TokenError::NotCompact);
    }
}

#[test]
fn the_jwks_has_the_public_key_and_nothing_secret() {
    let (_, service) = here();
    let jwks = service.jwks();
    let key = &jwks["keys"][0];
    assert_eq!(jwks["keys"].as_array().unwrap().len(), 1);
    let names = key.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(names, "alg crv kid kty use x");
    assert_eq!(key["kid"], decoded(&user(&service), 0)["kid"]);
    assert_eq!(
        (&key["kty"], &key["crv"], &key["alg"], &key["use"]),
        (&json!("OKP"), &json!("Ed25519"), &json!("EdDSA"), &json!("sig"))
    );
}

#[test]
fn a_published_key_verifies_user_tokens_elsewhere() {
    let (_, service) = here();
    let set: jsonwebtoken::jwk::JwkSet = serde_json::from_value(service.jwks()).unwrap();
    let token = user(&service);
    let kid = jsonwebtoken::decode_header(&token).unwrap().kid.unwrap();
    let key = jsonwebtoken::DecodingKey::from_jwk(set.find(&kid).unwrap()).unwrap();
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::EdDSA);
    rules.set_audience(&["portcullis:user"]);
    rules.set_issuer(&["portcullis"]);
    let data = jsonwebtoken::decode::<Value>(&token, &key, &rules).unwrap();
    assert_eq!(data.claims["sub"], "alice");
}

#[test]
fn a_user_token_is_verified() {
    let (_, service) = here();
    let issued = service.issue_user(user_grant()).unwrap();
    assert_eq!((issued.expires_in, issued.expires_at), (900, issued.issued_at + 900));
    let verified = service.verify(issued.token.expose_secret()).unwrap();
    let life = verified.life().clone();
    assert_eq!((life.id.as_str(), life.span()), (issued.id.as_str(), 900));
    assert_eq!((life.issued_at, life.expires_at), (issued.issued_at, issued.expires_at));
    let (subject, role) = ("alice".into(), AccountRole::Admin);
    assert_eq!(*verified, Verified::User(UserToken { subject, role, epoch: 3, mfa: true, life }));
}

#[test]
fn a_scoped_token_is_verified() {
    let (_, service) = here();
    let issued = service.issue_scoped(bound()).unwrap();
    assert_eq!(issued.expires_in, 60);
    let verified = service.verify(issued.token.expose_secret()).unwrap();
    assert_eq!(*verified, expected(bound(), verified.life().clone()));
}

#[test]
fn a_scoped_token_with_all_its_claims_has_the_documented_names() {
    let (_, service) = here();
    let issued = service.issue_scoped(bound()).unwrap();
    let claims = decoded(issued.token.expose_secret(), 1);
    assert_eq!(
        (&claims["sid"], &claims["key"], &claims["ip"], &claims["once"], &claims["epoch"]),
        (&json!("s1"), &json!("4fQ2mZ8aT1xK"), &json!("192.0.2.1"), &json!(true), &json!(3))
    );
}

#[test]
fn an_ipv4_address_is_one_however_it_was_written() {
    let (_, service) = here();
    for (written, expected) in [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
    ] {
        let address = Some(written.parse().unwrap());
        let issued = service.issue_scoped(ScopedGrant { address, ..grant() }).unwrap();
        assert_eq!(decoded(issued.token.expose_secret(), 1)["ip"], expected);
    }
}

#[test]
fn the_cache_says_the_same_of_a_single_use_token() {
    let (clock, service) = here();
    let token = service.issue_scoped(ScopedGrant { once: true, ..grant() }).unwrap().token;
    let token = token.expose_secret();
    let fresh = tests::service(&clock).verify(token).unwrap();
    for _ in 0..3 {
        assert_eq!(service.verify(token).unwrap(), fresh, "the caller counts the uses");
    }
}

#[test]
fn what_was_forgotten_is_verified_again() {
    let (_, service) = here();
    let token = scoped(&service);
    let first = service.verify(&token).unwrap();
    service.verified.clear();
    assert!(service.verified.is_empty());
    let second = service.verify(&token).unwrap();
    assert!(first == second && !Arc::ptr_eq(&first, &second));
}

#[test]
fn what_does_not_fit_is_not_issued() {
    let (_, service) = here();
    let scopes = vec!["llm:generate".to_owned(); 500];
    let scoped = service.issue_scoped(ScopedGrant { scopes, ..grant() });
    assert_eq!(scoped.unwrap_err(), IssueError::Claims);
    for subject in [String::new(), "a".repeat(5000)] {
        let user = service.issue_user(UserGrant { subject, ..user_grant() });
        assert_eq!(user.unwrap_err(), IssueError::Claims);
    }
}

#[test]
fn lifetimes_are_bounded() {
    let cases = [
        (900, 60, true),
        (1, 1, true),
        (901, 60, false),
        (900, 61, false),
        (0, 60, false),
        (900, 0, false),
    ];
    for (user, llm, good) in cases {
        let ttls = Ttls { user: Duration::from_secs(user), llm: Duration::from_secs(llm) };
        let rules = TokenRules { ttls, scoped: ScopedAlgorithm::Hs256 };
        let made = TokenService::new(keys(), Clock::system(), rules);
        assert_eq!(made.is_ok(), good, "{user} s and {llm} s");
    }
}

#[test]
fn clocks_may_differ_by_five_seconds() {
    let (clock, ahead) = (Clock::system(), Clock::system());
    let (here, there) = (service(&clock), service(&ahead));
    ahead.advance(Duration::from_secs(4));
    assert!(here.verify(&user(&there)).is_ok());
    ahead.advance(Duration::from_secs(4));
    check(&here, &user(&there), TokenError::NotYetValid);
}

#[test]
fn keys_of_another_gateway_are_refused() {
    let (clock, service) = here();
    let signing_key = generate_signing_key_pem().unwrap();
    let keys = TokenKeys { signing_key, ..keys() };
    let other = TokenService::new(keys, clock, rules(ScopedAlgorithm::Hs256)).unwrap();
    check(&service, &user(&other), TokenError::KeyId);
    assert!(service.verify(&scoped(&other)).is_ok(), "the token key is shared");
}

#[test]
fn debug_shows_neither_keys_nor_tokens() {
    let (_, service) = here();
    let issued = service.issue_user(user_grant()).unwrap();
    service.verify(issued.token.expose_secret()).unwrap();
    let shown = format!("{service:?} {issued:?} {:?}", keys());
    assert!(shown.contains("[REDACTED]") && shown.contains(signing_key().kid()));
    for secret in ["kT9v", "eyJ", "107, 84, 57", "MC4C"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let signature = issued.token.expose_secret().rsplit('.').next().unwrap();
    assert!(!shown.contains(signature), "{shown}");
}

fn bound() -> ScopedGrant {
    ScopedGrant {
        session: Some("s1".into()),
        key: Some("4fQ2mZ8aT1xK".into()),
        address: Some(IpAddr::from([192, 0, 2, 1])),
        once: true,
        ..grant()
    }
}

/// What a verified token of this grant says.
fn expected(grant: ScopedGrant, life: Life) -> Verified {
    let ScopedGrant { subject, epoch, session, key, scopes, model, max_tokens, once, .. } = grant;
    let address = grant.address.map(|address| address.to_canonical());
    Verified::Scoped(ScopedToken {
        subject,
        epoch,
        session,
        key,
        scopes,
        model,
        max_tokens,
        address,
        once,
        life,
    })
}

prop_compose! {
    fn any_grant()(
        subject in "\\PC{1,40}",
        epoch: u64,
        session in proptest::option::of("[A-Za-z0-9_-]{22}"),
        key in proptest::option::of("[A-Za-z0-9]{12}"),
        scopes in prop::collection::vec("[a-z]{1,8}:[a-z*]{1,8}", 0..6),
        model in "\\PC{0,40}",
        max_tokens: u64,
        address: Option<IpAddr>,
        once: bool,
    ) -> ScopedGrant {
        ScopedGrant {
            subject, epoch, session, key, scopes, model, max_tokens, address, once, not_after: None,
        }
    }
}

proptest! {
    #[test]
    fn what_is_granted_is_verified(grant in any_grant(), by_ed25519: bool) {
        let rule = if by_ed25519 { ScopedAlgorithm::EdDsa } else { ScopedAlgorithm::Hs256 };
        let service = TokenService::new(keys(), Clock::system(), rules(rule)).unwrap();
        let issued = service.issue_scoped(grant.clone()).unwrap();
        let verified = service.verify(issued.token.expose_secret()).unwrap();
        prop_assert_eq!(&*verified, &expected(grant, verified.life().clone()));
    }

    #[test]
    fn a_user_is_verified_as_granted(subject in "\\PC{1,40}", epoch: u64, mfa: bool, role in 0..4_usize) {
        let (_, service) = here();
        let role = AccountRole::ALL[role];
        let grant = UserGrant { subject: subject.clone(), role, epoch, mfa };
        let issued = service.issue_user(grant).unwrap();
        let verified = service.verify(issued.token.expose_secret()).unwrap();
        let life = verified.life().clone();
        prop_assert_eq!(&*verified, &Verified::User(UserToken { subject, role, epoch, mfa, life }));
    }
}
