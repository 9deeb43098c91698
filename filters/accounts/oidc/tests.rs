//! What is accepted of an external issuer, and everything that must be refused.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::support::*;
use super::*;
use crate::accounts::AccountRole;

const MINUTE: u64 = 60;

/// What runs in the background has its time.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(60)).await;
}

/// The claims that come of a change to good ones are accepted or refused like this.
async fn check_claims(issuer: Issuer, cases: Vec<(Value, Result<(), &'static str>)>) {
    let key = Signing::ed25519("k");
    let place = Place::new(issuer);
    place.provider.publish(&[&key]);
    for (claims, expected) in cases {
        place.check(&key.token(&claims), expected.map_err(TokenError::Claims)).await;
    }
}

async fn role(issuer: Issuer, roles: Value) -> Result<AccountRole, TokenError> {
    let key = Signing::ed25519("k");
    let place = Place::new(issuer);
    place.provider.publish(&[&key]);
    let claims = set(place.claims(), "roles", roles);
    place.verify(&key.token(&claims)).await.map(|external| external.role)
}

#[tokio::test]
async fn every_algorithm_is_verified() {
    for algorithm in IssuerAlgorithm::ALL {
        let key = Signing::new("k", algorithm);
        let place = Place::with(&key);
        place.check(&key.token(&place.claims()), Ok(())).await;
        assert_eq!(serde_json::to_value(algorithm).unwrap(), algorithm.as_str());
    }
}

#[tokio::test]
async fn a_user_is_named_after_issuer_and_claim() {
    let key = Signing::ed25519("k");
    let place = Place::with(&key);
    let now = place.now();
    let external = place.verify(&key.token(&claims(now))).await.unwrap();
    assert_eq!((external.issuer.as_str(), external.subject.as_str()), ("corp", "corp:alice"));
    assert_eq!(external.role, AccountRole::Admin);
    assert_eq!((external.issued_at, external.expires_at), (now, now + 3660));
    assert!(external.id.starts_with("corp:") && external.id.len() == 27, "{}", external.id);
}

#[tokio::test]
async fn an_id_is_of_the_token_and_not_of_its_signature() {
    let key = Signing::new("k", IssuerAlgorithm::Ps256);
    let place = Place::with(&key);
    let claims = place.claims();
    let (one, two) = (key.token(&claims), key.token(&claims));
    assert_ne!(one, two, "PSS is randomised");
    let (one, two) = (place.verify(&one).await.unwrap(), place.verify(&two).await.unwrap());
    assert_eq!(one.id, two.id);
    let other = place.verify(&key.token(&set(claims, "jti", "2"))).await.unwrap();
    assert_ne!(one.id, other.id);
}

#[tokio::test]
async fn only_tokens_of_configured_issuers_are_recognised() {
    let key = Signing::ed25519("k");
    let place = Place::with(&key);
    let good = place.claims();
    assert!(place.issuers.recognises(&key.token(&good)));
    for claims in [
        set(good.clone(), "iss", "https://login.example.com/"),
        set(good.clone(), "iss", "https://LOGIN.example.com"),
        set(good.clone(), "iss", json!([ISSUER])),
        set(good.clone(), "iss", "portcullis"),
        without(good.clone(), "iss"),
    ] {
        let token = key.token(&claims);
        assert!(!place.issuers.recognises(&token), "{claims}");
        place.check(&token, Err(TokenError::Issuer)).await;
    }
    assert_eq!(place.provider.calls(), 0, "nothing is fetched for strangers");
}

#[tokio::test]
async fn one_issuer_cannot_speak_for_another() {
    let (ours, theirs) = (Signing::ed25519("k"), Signing::ed25519("k"));
    let provider = Arc::new(Provider::default());
    provider.publish(&[&ours]);
    provider.answer("https://other.example.com/keys", jwks(&[theirs.jwk()]), None);
    let other = Issuer {
        name: "other".into(),
        issuer: "https://other.example.com".into(),
        jwks_url: Some("https://other.example.com/keys".into()),
        ..issuer()
    };
    let clock = Clock::system();
    let issuers = Issuers::new(vec![issuer(), other], provider, clock.clone()).unwrap();
    let claims = claims(clock.unix_secs());
    let by_other = issuers.verify(&theirs.token(&claims)).await;
    assert_eq!(by_other.unwrap_err(), TokenError::Signature);
    let own = set(claims, "iss", "https://other.example.com");
    let external = issuers.verify(&theirs.token(&own)).await.unwrap();
    assert_eq!(external.subject, "other:alice");
}

#[tokio::test]
async fn a_public_key_is_not_a_secret() {
    for algorithm in IssuerAlgorithm::ALL {
        let key = Signing::new("k", algorithm);
        let place = Place::with(&key);
        let jwk = key.jwk();
        let secrets = [
            jwk.to_string().into_bytes(),
            jwk["n"].as_str().unwrap_or_default().into(),
            URL_SAFE_NO_PAD.decode(jwk["x"].as_str().unwrap_or("n_n_")).unwrap(),
        ];
        for secret in secrets {
            for alg in ["HS256", algorithm.as_str()] {
                let header = set(key.header(), "alg", alg);
                let message = [part(&header), part(&place.claims())].join(".");
                let secret = EncodingKey::from_secret(&secret);
                let mac = crypto::sign(message.as_bytes(), &secret, Algorithm::HS256).unwrap();
                assert!(place.verify(&[message, mac].join(".")).await.is_err(), "{alg}");
            }
        }
    }
}

#[tokio::test]
async fn other_algorithms_are_refused() {
    let key = Signing::new("k", IssuerAlgorithm::Rs256);
    let place = Place::with(&key);
    for alg in ["none", "None", "", "HS256", "HS512", "RS1", "RS512", "rs256", "EdDSA", "PS256"] {
        let token = key.signed(&set(key.header(), "alg", alg), &place.claims());
        place.check(&token, Err(TokenError::Algorithm)).await;
    }
    let strict = Place::new(Issuer { algorithms: vec![IssuerAlgorithm::Es256], ..issuer() });
    strict.provider.publish(&[&key]);
    strict.check(&key.token(&strict.claims()), Err(TokenError::Algorithm)).await;
    assert_eq!(strict.provider.calls(), 0);
}

#[tokio::test]
async fn a_key_has_one_algorithm() {
    let (rsa, pss) =
        (Signing::new("k", IssuerAlgorithm::Rs256), Signing::new("k", IssuerAlgorithm::Ps256));
    let place = Place::new(issuer());
    place.provider.answer(JWKS_URL, jwks(&[without(rsa.jwk(), "alg")]), None);
    place.check(&rsa.token(&place.claims()), Ok(())).await;
    place.check(&pss.token(&place.claims()), Err(TokenError::Algorithm)).await;
    let both = Place::with(&rsa);
    both.provider.publish(&[&rsa, &pss]);
    both.check(&rsa.token(&both.claims()), Ok(())).await;
    both.check(&pss.token(&both.claims()), Ok(())).await;
}

#[tokio::test]
async fn a_kid_is_needed_and_compared() {
    let key = Signing::ed25519("key-1");
    let place = Place::with(&key);
    let header = without(key.header(), "kid");
    place.check(&key.signed(&header, &place.claims()), Err(TokenError::Header)).await;
    let long = "k".repeat(257);
    for kid in ["", "KEY-1", "key-1 ", "key-1\0", "../keys", "https://evil.example/k", &long] {
        let token = key.signed(&set(key.header(), "kid", kid), &place.claims());
        place.check(&token, Err(TokenError::KeyId)).await;
    }
    assert_eq!(place.provider.calls(), 1);
    let unnamed = Signing::ed25519("");
    let place = Place::with(&unnamed);
    place.check(&unnamed.token(&place.claims()), Err(TokenError::KeyId)).await;
}

#[tokio::test]
async fn headers_that_bring_keys_or_rules_are_refused() {
    let key = Signing::ed25519("k");
    let place = Place::with(&key);
    let members = [
        ("jwk", key.jwk()),
        ("jku", json!(JWKS_URL)),
        ("x5u", json!(JWKS_URL)),
        ("x5c", json!(["AAAA"])),
        ("crit", json!([])),
        ("crit", json!(["exp"])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
        ("kid", json!(["k"])),
        ("alg", json!(null)),
    ];
    for (name, value) in members {
        let token = key.signed(&set(key.header(), name, value), &place.claims());
        place.check(&token, Err(TokenError::Header)).await;
    }
    let thumbprint = set(key.header(), "x5t", "AAAA");
    place.check(&key.signed(&thumbprint, &place.claims()), Ok(())).await;
}

#[tokio::test]
async fn the_type_is_of_an_access_or_id_token() {
    let key = Signing::ed25519("k");
    let place = Place::with(&key);
    for (typ, good) in [
        ("JWT", true),
        ("jwt", true),
        ("at+jwt", true),
        ("application/at+jwt", true),
        ("", false),
        ("logout+jwt", false),
        ("dpop+jwt", false),
        ("secevent+jwt", false),
        ("portcullis-user+jwt", false),
        ("JWTx", false),
    ] {
        let token = key.signed(&set(key.header(), "typ", typ), &place.claims());
        place.check(&token, if good { Ok(()) } else { Err(TokenError::Type) }).await;
    }
    let none = without(key.header(), "typ");
    place.check(&key.signed(&none, &place.claims()), Ok(())).await;
}

#[tokio::test]
async fn the_audience_must_be_named() {
    let good = claims(Clock::system().unix_secs());
    let other = Err("token has another audience");
    let cases = [
        (json!("gateway"), Ok(())),
        (json!(["app", "gateway"]), Ok(())),
        (json!("Gateway"), other),
        (json!("gateway2"), other),
        (json!(["app"]), other),
        (json!([["gateway"]]), other),
        (json!([]), other),
        (json!({"gateway": true}), other),
        (json!(null), other),
    ];
    let cases = cases.into_iter().map(|(aud, expected)| (set(good.clone(), "aud", aud), expected));
    let missing = (without(good.clone(), "aud"), other);
    check_claims(issuer(), cases.chain([missing]).collect()).await;
}

#[tokio::test]
async fn times_are_required_and_of_a_day_at_most() {
    let now = Clock::system().unix_secs();
    let good = claims(now);
    let (lacks, long, number) = (
        Err("token lacks iat or exp"),
        Err("token is valid for longer than a day, or never"),
        Err("a time of the token is not a number of seconds"),
    );
    let cases = vec![
        (without(good.clone(), "iat"), lacks),
        (without(good.clone(), "exp"), lacks),
        (set(good.clone(), "exp", now + 86_400), Ok(())),
        (set(good.clone(), "exp", now + 86_401), long),
        (set(good.clone(), "exp", u64::MAX), long),
        (set(good.clone(), "exp", now), long),
        (set(good.clone(), "iat", 0), long),
        (set(good.clone(), "iat", now as f64 + 0.5), Ok(())),
        (set(good.clone(), "iat", now.to_string()), number),
        (set(good.clone(), "exp", -1), number),
        (set(good.clone(), "exp", 1e300), number),
        (set(good.clone(), "nbf", json!(null)), number),
        (set(good, "nbf", "soon"), number),
    ];
    check_claims(issuer(), cases).await;
}

#[tokio::test]
async fn clocks_may_differ_by_a_minute() {
    let key = Signing::ed25519("k");
    let place = Place::with(&key);
    let now = place.now();
    let good = claims(now);
    let early = Err(TokenError::NotYetValid);
    for (name, value, expected) in [
        ("iat", now + 50, Ok(())),
        ("iat", now + 60, Ok(())),
        ("iat", now + 90, early),
        ("nbf", now + 50, Ok(())),
        ("nbf", now + 90, early),
        ("nbf", now - 90, Ok(())),
    ] {
        place.check(&key.token(&set(good.clone(), name, value)), expected).await;
    }
    let token = key.token(&set(good, "exp", now + 100));
    place.check(&token, Ok(())).await;
    place.later(155);
    place.check(&token, Ok(())).await;
    place.later(5);
    place.check(&token, Err(TokenError::Expired)).await;
    place.check(&token, Err(TokenError::Expired)).await;
}

#[tokio::test]
async fn a_user_has_a_name_that_accounts_can_have() {
    let good = claims(Clock::system().unix_secs());
    let none = Err("the token does not name a user");
    let (fits, long) = ("a".repeat(64), "a".repeat(65));
    let cases = [
        (json!("a.b_c@d-E9"), Ok(())),
        (json!(fits), Ok(())),
        (json!(long), none),
        (json!(""), none),
        (json!("corp:alice"), none),
        (json!("al ice"), none),
        (json!("alice\0"), none),
        (json!("älice"), none),
        (json!("ａlice"), none),
        (json!("auth0|123"), none),
        (json!(7), none),
        (json!(["alice"]), none),
        (json!(null), none),
    ];
    let cases = cases.into_iter().map(|(sub, expected)| (set(good.clone(), "sub", sub), expected));
    check_claims(issuer(), cases.collect()).await;
}

#[tokio::test]
async fn an_email_address_must_be_verified() {
    let issuer = Issuer { username_claim: "email".into(), ..issuer() };
    let good = claims(Clock::system().unix_secs());
    let not = Err("the e-mail address of the token is not verified");
    let cases = vec![
        (set(good.clone(), "email_verified", true), Ok(())),
        (set(good.clone(), "email_verified", false), not),
        (set(good.clone(), "email_verified", "true"), not),
        (good, not),
    ];
    check_claims(issuer, cases).await;
}

#[tokio::test]
async fn the_highest_mapped_role_counts() {
    let none = Err(TokenError::Claims("the token gives no role"));
    let form = Err(TokenError::Claims("the role claim is not a text or a list of texts"));
    for (roles, expected) in [
        (json!("staff"), Ok(AccountRole::User)),
        (json!(["staff", "llm-admins"]), Ok(AccountRole::Admin)),
        (json!(["llm-admins", "staff", "x"]), Ok(AccountRole::Admin)),
        (json!(["owner", "admin"]), none),
        (json!("staff llm-admins"), none),
        (json!("Staff"), none),
        (json!([]), none),
        (json!([["staff"]]), none),
        (json!({"staff": true}), form),
        (json!(true), form),
        (json!(null), form),
    ] {
        assert_eq!(role(issuer(), roles.clone()).await, expected, "{roles}");
    }
    let lenient = Issuer { default_role: Some(AccountRole::ReadOnly), ..issuer() };
    assert_eq!(role(lenient.clone(), json!(["x"])).await, Ok(AccountRole::ReadOnly));
    assert_eq!(role(lenient.clone(), json!("staff")).await, Ok(AccountRole::User));
    assert_eq!(role(lenient, json!(1)).await, form);
    let alike = Issuer { role_claim: None, default_role: Some(AccountRole::User), ..issuer() };
    assert_eq!(role(alike, json!("llm-admins")).await, Ok(AccountRole::User));
}

#[tokio::test]
async fn a_role_claim_may_be_a_pointer() {
    let nested = json!({"roles": ["llm-admins"], "a/b": {"~": "staff"}});
    for (path, expected) in [
        ("/realm_access/roles", Ok(AccountRole::Admin)),
        ("/realm_access/a~1b/~0", Ok(AccountRole::User)),
        ("/roles", Ok(AccountRole::Admin)),
        ("/realm_access/none/roles", Err(TokenError::Claims("the token gives no role"))),
        ("realm_access.roles", Err(TokenError::Claims("the token gives no role"))),
    ] {
        let key = Signing::ed25519("k");
        let place = Place::new(Issuer { role_claim: Some(path.into()), ..issuer() });
        place.provider.publish(&[&key]);
        let token = key.token(&set(place.claims(), "realm_access", nested.clone()));
        let role = place.verify(&token).await.map(|external| external.role);
        assert_eq!(role, expected, "{path}");
    }
}

#[tokio::test]
async fn claims_that_say_two_things_are_refused() {
    let key = Signing::ed25519("k");
    let place = Place::with(&key);
    let header = part(&key.header());
    for twice in [r#"{"sub":"root","#, r#"{"SUB":"root","#, r#"{"\u0073ub":"root","#] {
        let claims = place.claims().to_string().replacen('{', twice, 1);
        let message = [header.as_str(), &URL_SAFE_NO_PAD.encode(claims)].join(".");
        let signed = key.signed_message(&message);
        let expected = TokenError::Claims("token claims are not a JSON object");
        place.check(&signed, Err(expected)).await;
    }
}

#[tokio::test]
async fn keys_that_are_weak_or_for_other_things_are_left_out() {
    let rsa = Signing::new("k", IssuerAlgorithm::Rs256);
    let (ec, ed) = (Signing::new("k", IssuerAlgorithm::Es256), Signing::ed25519("k"));
    let short = |bytes: usize| URL_SAFE_NO_PAD.encode(vec![0xff; bytes]);
    let cases = [
        (&rsa, rsa.jwk(), Ok(())),
        (&rsa, without(rsa.jwk(), "use"), Ok(())),
        (&rsa, set(rsa.jwk(), "key_ops", json!(["verify"])), Ok(())),
        (&rsa, set(rsa.jwk(), "use", "enc"), Err(TokenError::KeyId)),
        (&rsa, set(rsa.jwk(), "key_ops", json!(["encrypt"])), Err(TokenError::KeyId)),
        (&rsa, set(rsa.jwk(), "alg", "RS512"), Err(TokenError::KeyId)),
        (&rsa, set(rsa.jwk(), "alg", "RSA-OAEP"), Err(TokenError::KeyId)),
        (&rsa, set(rsa.jwk(), "alg", "PS256"), Err(TokenError::Algorithm)),
        (&rsa, set(rsa.jwk(), "n", short(255)), Err(TokenError::KeyId)),
        (&rsa, set(rsa.jwk(), "n", short(513)), Err(TokenError::KeyId)),
        (&rsa, set(rsa.jwk(), "e", "AQ"), Err(TokenError::KeyId)),
        (&rsa, set(rsa.jwk(), "e", "AQAA"), Err(TokenError::KeyId)),
        (&rsa, set(rsa.jwk(), "e", ""), Err(TokenError::KeyId)),
        (&rsa, set(rsa.jwk(), "d", "AQAB"), Err(TokenError::KeyId)),
        (&rsa, set(rsa.jwk(), "kty", "oct"), Err(TokenError::KeyId)),
        (&rsa, without(rsa.jwk(), "kid"), Err(TokenError::KeyId)),
        (&rsa, without(rsa.jwk(), "n"), Err(TokenError::KeyId)),
        (&ec, ec.jwk(), Ok(())),
        (&ec, set(ec.jwk(), "crv", "P-521"), Err(TokenError::KeyId)),
        (&ec, set(ec.jwk(), "x", short(31)), Err(TokenError::KeyId)),
        (&ec, set(ec.jwk(), "x", short(32)), Err(TokenError::Signature)),
        (&ed, ed.jwk(), Ok(())),
        (&ed, set(ed.jwk(), "x", short(31)), Err(TokenError::KeyId)),
        (&ed, set(ed.jwk(), "x", short(33)), Err(TokenError::KeyId)),
        (&ed, set(ed.jwk(), "x", ""), Err(TokenError::KeyId)),
        (&ed, set(ed.jwk(), "crv", "X25519"), Err(TokenError::KeyId)),
    ];
    for (key, jwk, expected) in cases {
        let place = Place::new(issuer());
        place.provider.answer(JWKS_URL, jwks(&[json!(7), jwk]), None);
        place.check(&key.token(&place.claims()), expected).await;
    }
}

#[tokio::test]
async fn a_discovery_document_leads_to_the_keys() {
    let key = Signing::ed25519("k");
    let discovery = "https://login.example.com/.well-known/openid-configuration";
    let document = |issuer: &str, url: &str| json!({"issuer": issuer, "jwks_uri": url}).to_string();
    let elsewhere = "https://keys.example.net/k";
    let cases = [
        (document(ISSUER, JWKS_URL), Ok(())),
        (document(ISSUER, elsewhere), Ok(())),
        (document("https://login.example.com/", JWKS_URL), Err(TokenError::NoKeys)),
        (document("https://evil.example.com", JWKS_URL), Err(TokenError::NoKeys)),
        (document(ISSUER, "http://keys.example.net/k"), Err(TokenError::NoKeys)),
        (document(ISSUER, "http://127.0.0.1:8081/k"), Err(TokenError::NoKeys)),
        (document(ISSUER, "file:///etc/passwd"), Err(TokenError::NoKeys)),
        (json!({"issuer": ISSUER}).to_string(), Err(TokenError::NoKeys)),
        ("<html>".to_owned(), Err(TokenError::NoKeys)),
    ];
    for (document, expected) in cases {
        let place = Place::new(Issuer { jwks_url: None, ..issuer() });
        for url in [JWKS_URL, elsewhere, "http://keys.example.net/k", "http://127.0.0.1:8081/k"] {
            place.provider.answer(url, jwks(&[key.jwk()]), None);
        }
        place.provider.answer(discovery, document, None);
        place.check(&key.token(&place.claims()), expected).await;
        let failing: Vec<&str> = place.issuers.failing().collect();
        assert_eq!(failing.is_empty(), expected.is_ok(), "{failing:?}");
    }
}

#[tokio::test]
async fn a_slash_at_the_end_of_an_issuer_is_not_doubled() {
    let key = Signing::ed25519("k");
    let with_slash = "https://login.example.com/realm/";
    let place = Place::new(Issuer { jwks_url: None, issuer: with_slash.into(), ..issuer() });
    let document = json!({"issuer": with_slash, "jwks_uri": JWKS_URL}).to_string();
    let url = "https://login.example.com/realm/.well-known/openid-configuration";
    place.provider.answer(url, document, None);
    place.provider.publish(&[&key]);
    place.check(&key.token(&set(place.claims(), "iss", with_slash)), Ok(())).await;
}

#[tokio::test]
async fn a_changed_token_is_refused() {
    for algorithm in [IssuerAlgorithm::Rs256, IssuerAlgorithm::Es256, IssuerAlgorithm::EdDsa] {
        let key = Signing::new("k", algorithm);
        let place = Place::with(&key);
        let token = key.token(&place.claims());
        for at in (0..token.len()).step_by(7) {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(bytes).unwrap();
            assert!(place.verify(&forged).await.is_err(), "byte {at}: {forged}");
        }
    }
}

/// A user of many groups has a token of several KiB (Entra lists up to 200).
#[tokio::test]
async fn large_tokens_are_read() {
    let key = Signing::ed25519("k");
    let place = Place::with(&key);
    let large = set(place.claims(), "groups", "x".repeat(8 * 1024));
    assert!(place.verify(&key.token(&large)).await.is_ok());
}

#[tokio::test]
async fn huge_and_shapeless_input_is_refused() {
    let key = Signing::ed25519("k");
    let place = Place::with(&key);
    let long = set(place.claims(), "x", "x".repeat(MAX_EXTERNAL_BYTES));
    place.check(&key.token(&long), Err(TokenError::TooLong)).await;
    assert!(!place.issuers.recognises(&key.token(&long)));
    for shape in ["", ".", "..", "a.b.c.d.e", "a.b.", "é.b.c"] {
        place.check(shape, Err(TokenError::NotCompact)).await;
    }
    place.check("e30.e30.AA", Err(TokenError::Issuer)).await;
}

#[test]
fn unsafe_configurations_are_refused() {
    let good = issuer();
    let change = |change: fn(&mut Issuer)| {
        let mut issuer = good.clone();
        change(&mut issuer);
        issuer
    };
    let refused = [
        change(|i| i.name = "Corp".into()),
        change(|i| i.name = "a:b".into()),
        change(|i| i.name = String::new()),
        change(|i| i.issuer = String::new()),
        change(|i| i.issuer = "portcullis".into()),
        change(|i| i.issuer = "https://a.example?x=1".into()),
        change(|i| i.audience = String::new()),
        change(|i| i.algorithms = vec![]),
        change(|i| i.username_claim = String::new()),
        change(|i| i.role_map = [].into()),
        change(|i| i.role_claim = None),
        change(|i| i.jwks_url = Some("http://login.example.com/keys".into())),
        change(|i| i.jwks_url = Some("https://user:pass@login.example.com/keys".into())),
        change(|i| i.jwks_url = Some("keys.json".into())),
        change(|i| (i.jwks_url, i.issuer) = (None, "http://login.example.com".into())),
        change(|i| (i.jwks_url, i.issuer) = (None, "login.example.com".into())),
    ];
    let made =
        |issuers| Issuers::new(issuers, Arc::new(Provider::default()), Clock::system()).map(drop);
    for issuer in refused {
        assert_eq!(made(vec![issuer.clone()]).unwrap_err().name, issuer.name, "{issuer:?}");
    }
    let accepted = [
        good.clone(),
        change(|i| i.issuer = "login.example.com".into()),
        change(|i| i.jwks_url = Some("http://127.0.0.1:8090/keys".into())),
        change(|i| i.jwks_url = Some("http://[::1]:8090/keys".into())),
        change(|i| (i.role_claim, i.default_role) = (None, Some(AccountRole::User))),
    ];
    for issuer in accepted {
        assert_eq!(made(vec![issuer]), Ok(()));
    }
    let other_name = Issuer { name: "two".into(), ..good.clone() };
    let other_issuer = Issuer { issuer: "https://two.example".into(), ..good.clone() };
    for pair in [vec![good.clone(), other_name], vec![good, other_issuer]] {
        assert_eq!(made(pair).unwrap_err().why, "there is another one like it");
    }
}

#[test]
fn symmetric_algorithms_cannot_be_configured() {
    for name in ["none", "HS256", "HS512", "RS1", "rs256", ""] {
        assert!(serde_json::from_value::<IssuerAlgorithm>(json!(name)).is_err(), "{name}");
    }
}

#[tokio::test]
async fn a_rotated_key_is_fetched_when_it_is_first_seen() {
    let (old, new) = (Signing::ed25519("1"), Signing::ed25519("2"));
    let place = Place::with(&old);
    place.check(&old.token(&place.claims()), Ok(())).await;
    place.later(MINUTE);
    place.provider.publish(&[&old, &new]);
    place.check(&new.token(&place.claims()), Ok(())).await;
    place.check(&old.token(&place.claims()), Ok(())).await;
    assert_eq!(place.provider.calls(), 2);
}

#[tokio::test]
async fn unknown_kids_cost_one_fetch_a_minute() {
    let (key, forger) = (Signing::ed25519("1"), Signing::ed25519("x"));
    let place = Place::with(&key);
    place.check(&key.token(&place.claims()), Ok(())).await;
    for minutes in 1..4 {
        place.later(MINUTE);
        for n in 0..100 {
            let header = set(forger.header(), "kid", format!("{minutes}-{n}"));
            let forged = forger.signed(&header, &place.claims());
            place.check(&forged, Err(TokenError::KeyId)).await;
        }
        assert_eq!(place.provider.calls(), 1 + minutes);
    }
    place.check(&key.token(&place.claims()), Ok(())).await;
}

#[tokio::test]
async fn many_at_once_wait_for_one_fetch() {
    let key = Signing::ed25519("1");
    let place = Place::with(&key);
    place.provider.slow_down(Duration::from_millis(50));
    let tasks: Vec<_> = (0..50)
        .map(|n| {
            let token = key.token(&set(place.claims(), "jti", n));
            let issuers = Arc::clone(&place.issuers);
            tokio::spawn(async move { issuers.verify(&token).await.map(drop) })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), Ok(()));
    }
    assert_eq!(place.provider.calls(), 1);
}

#[tokio::test]
async fn a_caller_who_hangs_up_does_not_stop_the_fetch() {
    let key = Signing::ed25519("1");
    let place = Place::with(&key);
    place.provider.slow_down(Duration::from_millis(50));
    let token = key.token(&place.claims());
    let impatient = tokio::time::timeout(Duration::from_millis(5), place.verify(&token)).await;
    assert!(impatient.is_err(), "the caller is gone");
    place.check(&token, Ok(())).await;
    assert_eq!(place.provider.calls(), 1);
}

#[test]
fn callers_of_several_runtimes_share_the_keys() {
    let key = Signing::ed25519("1");
    let place = Place::with(&key);
    place.provider.slow_down(Duration::from_millis(20));
    let token = key.token(&place.claims());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(place.check(&token, Ok(())));
            });
        }
    });
    assert_eq!(place.provider.calls(), 1);
    place.later(2 * 3600);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let claims = place.claims();
        place.check(&key.token(&claims), Ok(())).await;
    });
    assert_eq!(place.provider.calls(), 2, "the first runtimes are gone");
}

#[tokio::test]
async fn stale_keys_serve_while_they_are_fetched_behind() {
    let key = Signing::ed25519("1");
    let place = Place::with(&key);
    let token = key.token(&place.claims());
    place.check(&token, Ok(())).await;
    place.later(3600);
    place.provider.slow_down(Duration::from_millis(20));
    let token = key.token(&place.claims());
    place.check(&token, Ok(())).await;
    assert_eq!(place.provider.calls(), 1, "nobody waited");
    settle().await;
    assert_eq!(place.provider.calls(), 2);
    place.later(30 * MINUTE);
    place.check(&token, Ok(())).await;
    settle().await;
    assert_eq!(place.provider.calls(), 2, "they are fresh again");
}

#[tokio::test]
async fn a_withdrawn_key_is_refused_from_the_next_fetch_on() {
    let (old, new) = (Signing::ed25519("1"), Signing::ed25519("2"));
    let place = Place::with(&old);
    let token = old.token(&place.claims());
    place.check(&token, Ok(())).await;
    place.provider.publish(&[&new]);
    place.later(MINUTE);
    place.check(&token, Ok(())).await;
    place.check(&new.token(&place.claims()), Ok(())).await;
    place.check(&token, Err(TokenError::KeyId)).await;
}

#[tokio::test]
async fn keys_that_are_long_over_their_age_are_waited_for() {
    let (old, new) = (Signing::ed25519("1"), Signing::ed25519("2"));
    let place = Place::with(&old);
    place.check(&old.token(&place.claims()), Ok(())).await;
    place.provider.publish(&[&new]);
    place.later(3600 + 5 * MINUTE);
    place.check(&old.token(&place.claims()), Err(TokenError::KeyId)).await;
}

#[tokio::test]
async fn an_issuer_may_withdraw_all_keys() {
    let key = Signing::ed25519("1");
    let place = Place::with(&key);
    place.check(&key.token(&place.claims()), Ok(())).await;
    place.provider.publish(&[]);
    place.later(2 * 3600);
    place.check(&key.token(&place.claims()), Err(TokenError::KeyId)).await;
}

#[tokio::test]
async fn while_the_issuer_is_down_its_keys_serve_for_a_day() {
    let key = Signing::ed25519("1");
    let place = Place::with(&key);
    place.check(&key.token(&place.claims()), Ok(())).await;
    place.provider.go_down();
    for hours in 1..24 {
        place.later(3600);
        place.check(&key.token(&place.claims()), Ok(())).await;
        settle().await;
        assert_eq!(place.issuers.failing().collect::<Vec<_>>(), ["corp"], "hour {hours}");
    }
    place.later(2 * 3600);
    place.check(&key.token(&place.claims()), Err(TokenError::NoKeys)).await;
    place.provider.publish(&[&key]);
    place.later(5);
    place.check(&key.token(&place.claims()), Ok(())).await;
    assert_eq!(place.issuers.failing().count(), 0);
}

#[tokio::test]
async fn an_issuer_that_was_never_reached_is_tried_every_five_seconds() {
    let key = Signing::ed25519("1");
    let place = Place::new(issuer());
    let token = key.token(&place.claims());
    for _ in 0..20 {
        place.check(&token, Err(TokenError::NoKeys)).await;
    }
    assert_eq!(place.provider.calls(), 1);
    place.provider.publish(&[&key]);
    place.check(&token, Err(TokenError::NoKeys)).await;
    place.later(5);
    place.check(&token, Ok(())).await;
    assert_eq!(place.provider.calls(), 2);
}

#[tokio::test]
async fn bad_answers_are_like_none() {
    let key = Signing::ed25519("1");
    let huge = [jwks(&[key.jwk()]).to_vec(), vec![b' '; fetch::MAX_BODY_BYTES]].concat();
    for body in [b"".to_vec(), b"{}".to_vec(), b"[]".to_vec(), b"{\"keys\":{}}".to_vec(), huge] {
        let place = Place::new(issuer());
        place.provider.answer(JWKS_URL, body, None);
        place.check(&key.token(&place.claims()), Err(TokenError::NoKeys)).await;
    }
}

#[tokio::test]
async fn ages_are_from_five_minutes_to_a_day() {
    let key = Signing::ed25519("1");
    for (max_age, serves) in
        [(None, 300), (Some(0), 300), (Some(900), 900), (Some(u64::MAX), 86_400)]
    {
        let place = Place::new(issuer());
        place.provider.answer(JWKS_URL, jwks(&[key.jwk()]), max_age);
        place.check(&key.token(&place.claims()), Ok(())).await;
        for (later, calls) in [(serves - 2, 1), (4, 2)] {
            place.later(later);
            place.check(&key.token(&place.claims()), Ok(())).await;
            settle().await;
            assert_eq!(place.provider.calls(), calls, "{max_age:?}");
        }
    }
}

#[tokio::test]
async fn a_verified_token_is_remembered() {
    let key = Signing::ed25519("1");
    let place = Place::with(&key);
    let token = key.token(&place.claims());
    let first = place.verify(&token).await.unwrap();
    assert!(Arc::ptr_eq(&first, &place.verify(&token).await.unwrap()));
    place.issuers.verified.clear();
    assert!(!Arc::ptr_eq(&first, &place.verify(&token).await.unwrap()));
}

proptest! {
    #[test]
    fn reading_never_panics(
        header in "\\PC{0,80}",
        claims in "\\PC{0,80}",
        bytes in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let place = Place::new(issuer());
        let named = format!("{{\"iss\":\"{ISSUER}\",\"x\":{claims:?}}}");
        for payload in [named.into_bytes(), claims.into_bytes(), bytes] {
            let (header, payload) = (URL_SAFE_NO_PAD.encode(&header), URL_SAFE_NO_PAD.encode(payload));
            let token = [header.as_str(), payload.as_str(), "AAAA"].join(".");
            prop_assert!(runtime.block_on(place.verify(&token)).is_err());
        }
    }
}
