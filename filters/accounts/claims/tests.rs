//! What tokens say, read strictly.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::jws::encode;
use super::*;

fn life() -> Life {
    Life { id: "j".into(), issued_at: 100, not_before: 100, expires_at: 160 }
}

fn user() -> Verified {
    let (subject, role) = ("alice".into(), AccountRole::User);
    Verified::User(UserToken { subject, role, epoch: 7, mfa: true, life: life() })
}

fn scoped() -> ScopedToken {
    ScopedToken {
        subject: "alice".into(),
        epoch: 7,
        session: None,
        key: None,
        scopes: vec!["llm:generate".into()],
        model: "phi3".into(),
        max_tokens: 64,
        address: None,
        once: false,
        life: life(),
    }
}

/// With every claim that a scoped token can have.
fn bound() -> Claims {
    Claims {
        sid: Some("s".into()),
        key: Some("4fQ2mZ8aT1xK".into()),
        ip: Some(IpAddr::from([192, 0, 2, 1])),
        once: Some(true),
        ..Claims::from(Verified::Scoped(scoped()))
    }
}

fn open(claims: &Value, kind: Kind) -> Result<Verified, TokenError> {
    Claims::decode(&part(&claims.to_string())).and_then(|claims| claims.open(kind))
}

fn part(json: &str) -> String {
    URL_SAFE_NO_PAD.encode(json)
}

fn claims(token: Verified) -> Value {
    serde_json::to_value(Claims::from(token)).unwrap()
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

#[test]
fn what_is_written_is_read() {
    for (kind, token) in [(Kind::User, user()), (Kind::Scoped, Verified::Scoped(scoped()))] {
        let payload = encode(&Claims::from(token.clone())).unwrap();
        assert_eq!(Claims::decode(&payload).unwrap().open(kind), Ok(token));
    }
}

#[test]
fn the_claims_of_one_kind_are_not_those_of_the_other() {
    let other = Err(TokenError::Claims("token has another audience"));
    assert_eq!(Claims::from(user()).open(Kind::Scoped), other);
    assert_eq!(Claims::from(Verified::Scoped(scoped())).open(Kind::User), other);
    let mixed = Claims { aud: "portcullis:llm".into(), ..Claims::from(user()) };
    let error = Err(TokenError::Claims("token has the claims of another kind"));
    assert_eq!(mixed.open(Kind::Scoped), error);
    let both =
        Claims { role: Some(AccountRole::Owner), ..Claims::from(Verified::Scoped(scoped())) };
    assert_eq!(both.open(Kind::Scoped), error);
    let both = Claims { mfa: Some(true), ..Claims::from(Verified::Scoped(scoped())) };
    assert_eq!(both.open(Kind::Scoped), error);
}

#[test]
fn a_user_token_has_none_of_the_claims_of_a_scoped_one() {
    let (user, bound) = (claims(user()), serde_json::to_value(bound()).unwrap());
    let error = Err(TokenError::Claims("token has the claims of another kind"));
    for name in ["scopes", "model", "max_tokens", "sid", "key", "ip", "once"] {
        let mixed = with(user.clone(), name, bound[name].clone());
        assert_eq!(open(&mixed, Kind::User), error, "{name}");
    }
}

#[test]
fn a_scoped_token_says_what_it_is_bound_to() {
    let whole = serde_json::to_value(bound()).unwrap();
    assert_eq!((&whole["ip"], &whole["once"]), (&json!("192.0.2.1"), &json!(true)));
    let expected = Verified::Scoped(ScopedToken {
        session: Some("s".into()),
        key: Some("4fQ2mZ8aT1xK".into()),
        address: Some(IpAddr::from([192, 0, 2, 1])),
        once: true,
        ..scoped()
    });
    assert_eq!(open(&whole, Kind::Scoped), Ok(expected));
    for (name, wrong) in [
        ("once", json!(false)),
        ("once", json!(1)),
        ("once", json!(null)),
        ("ip", json!(null)),
        ("ip", json!("192.0.2.1/32")),
        ("ip", json!("localhost")),
        ("sid", json!(null)),
        ("key", json!(7)),
    ] {
        assert!(open(&with(whole.clone(), name, wrong), Kind::Scoped).is_err(), "{name}");
    }
}

#[test]
fn every_claim_is_required_and_of_its_type() {
    for (whole, kind) in
        [(claims(user()), Kind::User), (claims(Verified::Scoped(scoped())), Kind::Scoped)]
    {
        for name in whole.as_object().unwrap().keys() {
            let mut claims = whole.clone();
            claims.as_object_mut().unwrap().remove(name);
            assert!(open(&claims, kind).is_err(), "without {name}");
            for wrong in [json!(null), json!([0]), json!({}), json!(1.5), json!(-1)] {
                let changed = with(whole.clone(), name, wrong.clone());
                assert!(open(&changed, kind).is_err(), "{name}: {wrong}");
            }
        }
    }
}

#[test]
fn unknown_and_double_claims_are_refused() {
    let whole = claims(user());
    assert!(open(&with(whole.clone(), "admin", json!(true)), Kind::User).is_err());
    let double = whole.to_string().replacen('{', r#"{"role":"owner","#, 1);
    assert!(Claims::decode(&part(&double)).is_err());
}

#[test]
fn issuer_audience_subject_and_id_are_exact() {
    let cases = [
        ("iss", "Portcullis"),
        ("iss", ""),
        ("aud", "portcullis"),
        ("aud", "portcullis:llm"),
        ("aud", "portcullis:user "),
        ("sub", ""),
        ("jti", ""),
        ("role", "root"),
    ];
    for (name, value) in cases {
        let claims = with(claims(user()), name, json!(value));
        assert!(open(&claims, Kind::User).is_err(), "{name}={value:?}");
    }
}

#[test]
fn a_token_lives_from_its_issue_to_its_expiry() {
    let cases = [
        (94, Err(TokenError::NotYetValid)),
        (95, Ok(())),
        (100, Ok(())),
        (159, Ok(())),
        (160, Err(TokenError::Expired)),
        (u64::MAX, Err(TokenError::Expired)),
    ];
    for (now, expected) in cases {
        assert_eq!(life().check(now), expected, "at {now}");
    }
    let later = Life { not_before: 120, ..life() };
    assert_eq!(later.check(110), Err(TokenError::NotYetValid));
    assert_eq!(later.check(115), Ok(()));
}

proptest! {
    #[test]
    fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Claims::decode(&URL_SAFE_NO_PAD.encode(&bytes)).is_err());
    }
}
