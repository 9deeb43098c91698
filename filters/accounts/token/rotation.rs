//! Keys are exchanged, and the algorithm of scoped tokens is changed, without a refused token.

use secrecy::{ExposeSecret, SecretString};

use super::tests::*;
use super::*;
use crate::accounts::keys::{generate_secret, generate_signing_key_pem};

use ScopedAlgorithm::{EdDsa, Hs256};

fn signing(pem: &SecretString, until: Option<u64>) -> AcceptedKey {
    AcceptedKey { key: KeyMaterial::Signing(pem.clone()), until }
}

fn token(key: &SecretString, until: Option<u64>) -> AcceptedKey {
    let bytes = key.expose_secret().as_bytes().to_vec();
    AcceptedKey { key: KeyMaterial::Token(bytes.into()), until }
}

fn gateway(
    clock: &Clock,
    scoped: ScopedAlgorithm,
    signs: (&SecretString, &SecretString),
    accepted: Vec<AcceptedKey>,
) -> TokenService {
    let token_key = Some(signs.1.expose_secret().as_bytes().to_vec().into());
    let keys = TokenKeys { signing_key: signs.0.clone(), token_key, accepted };
    TokenService::new(keys, clock.clone(), rules(scoped)).unwrap()
}

fn fresh() -> (SecretString, SecretString) {
    (generate_signing_key_pem().unwrap(), generate_secret::<32>().unwrap())
}

/// Every gateway takes the tokens of every other.
fn agree(gateways: &[&TokenService]) {
    for (issuer, maker) in gateways.iter().enumerate() {
        for (reader, verifier) in gateways.iter().enumerate() {
            for text in [user(maker), scoped(maker)] {
                assert_eq!(verifier.verify(&text).map(drop), Ok(()), "{issuer} to {reader}");
            }
        }
    }
}

#[test]
fn two_gateways_exchange_both_keys_without_a_refusal() {
    let clock = Clock::system();
    let (old, new) = (fresh(), fresh());
    let (a, b) = ((&old.0, &old.1), (&new.0, &new.1));
    let before = gateway(&clock, Hs256, a, vec![]);
    let told = gateway(&clock, Hs256, a, vec![signing(&new.0, None), token(&new.1, None)]);
    let moved = gateway(&clock, Hs256, b, vec![signing(&old.0, None), token(&old.1, None)]);
    let after = gateway(&clock, Hs256, b, vec![]);
    agree(&[&before, &told]);
    agree(&[&told, &moved]);
    agree(&[&moved, &after]);
    check(&before, &user(&after), TokenError::KeyId);
    check(&after, &scoped(&before), TokenError::KeyId);
}

#[test]
fn two_gateways_change_to_signatures_without_a_refusal() {
    let clock = Clock::system();
    let (old, new) = (fresh(), fresh());
    let end = Some(clock.unix_secs() + 86_400);
    let told = gateway(&clock, Hs256, (&old.0, &old.1), vec![signing(&new.0, None)]);
    let accepted = vec![signing(&old.0, None), token(&old.1, end)];
    let moved = gateway(&clock, EdDsa, (&new.0, &old.1), accepted);
    agree(&[&told, &moved]);
    assert_eq!(decoded(&scoped(&moved), 0)["alg"], "EdDSA");
}

#[test]
fn on_one_gateway_the_tokens_of_the_last_minute_outlive_the_change() {
    let clock = Clock::system();
    let keys = fresh();
    let signs = (&keys.0, &keys.1);
    let last = scoped(&gateway(&clock, Hs256, signs, vec![]));
    let strict = gateway(&clock, EdDsa, signs, vec![]);
    check(&strict, &last, TokenError::KeyId);
    let end = Some(clock.unix_secs() + 60);
    let lenient = gateway(&clock, EdDsa, signs, vec![token(&keys.1, end)]);
    assert!(lenient.verify(&last).is_ok());
    clock.advance(Duration::from_secs(60));
    check(&lenient, &last, TokenError::KeyId);
}

#[test]
fn a_key_ends_to_the_second_also_for_remembered_tokens() {
    let clock = Clock::system();
    let (old, new) = (fresh(), fresh());
    let text = user(&gateway(&clock, Hs256, (&old.0, &old.1), vec![]));
    let end = Some(clock.unix_secs() + 100);
    let service = gateway(&clock, Hs256, (&new.0, &new.1), vec![signing(&old.0, end)]);
    assert!(service.verify(&text).is_ok());
    clock.advance(Duration::from_secs(98));
    assert!(service.verify(&text).is_ok(), "remembered, and the key is accepted");
    clock.advance(Duration::from_secs(2));
    check(&service, &text, TokenError::KeyId);
    assert!(service.verified.is_empty());
    check(&service, &text, TokenError::KeyId);
}

#[test]
fn the_jwks_lists_the_public_keys_that_are_accepted_now() {
    let clock = Clock::system();
    let (old, new) = (fresh(), fresh());
    let end = Some(clock.unix_secs() + 100);
    let accepted = vec![signing(&old.0, end), token(&old.1, None)];
    let service = gateway(&clock, Hs256, (&new.0, &new.1), accepted);
    let kids = |service: &TokenService| -> Vec<String> {
        let jwks = service.jwks();
        let keys = jwks["keys"].as_array().unwrap().iter();
        keys.map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    };
    let kid = |pem: &SecretString| TokenKey::ed25519(pem).unwrap().kid().to_owned();
    assert_eq!(kids(&service), [kid(&new.0), kid(&old.0)]);
    clock.advance(Duration::from_secs(100));
    assert_eq!(kids(&service), [kid(&new.0)]);
}

#[test]
fn keys_that_do_not_fit_together_are_refused() {
    let (signs, other) = (fresh(), fresh());
    let twice = Err(KeyError::Ring("the same key is configured twice"));
    let endless =
        Err(KeyError::Ring("with EdDSA for scoped tokens, an accepted token key needs an end"));
    let cases = [
        (Hs256, vec![signing(&signs.0, None)], twice),
        (Hs256, vec![token(&signs.1, Some(1))], twice),
        (Hs256, vec![signing(&other.0, None), signing(&other.0, Some(1))], twice),
        (EdDsa, vec![signing(&signs.0, None)], twice),
        (EdDsa, vec![token(&other.1, None)], endless),
        (EdDsa, vec![token(&signs.1, Some(1))], Ok(())),
        (Hs256, vec![token(&other.1, None), signing(&other.0, None)], Ok(())),
        (Hs256, vec![signing(&"x".to_owned().into(), None)], Err(KeyError::SigningKey)),
        (
            Hs256,
            vec![token(&"x".to_owned().into(), None)],
            Err(KeyError::Weak("shorter than 32 bytes")),
        ),
    ];
    for (rule, accepted, expected) in cases {
        let token_key = Some(signs.1.expose_secret().as_bytes().to_vec().into());
        let keys = TokenKeys { signing_key: signs.0.clone(), token_key, accepted };
        let made = TokenService::new(keys, Clock::system(), rules(rule));
        assert_eq!(made.map(drop), expected);
    }
}

#[test]
fn a_token_key_is_needed_only_where_it_signs() {
    for (rule, expected) in [
        (EdDsa, Ok(())),
        (Hs256, Err(KeyError::Ring("with HS256 for scoped tokens, a token key is needed"))),
    ] {
        let keys = TokenKeys { token_key: None, ..keys() };
        assert_eq!(TokenService::new(keys, Clock::system(), rules(rule)).map(drop), expected);
    }
}

#[test]
fn an_accepted_token_key_never_makes_a_user() {
    let clock = Clock::system();
    let (old, new) = (fresh(), fresh());
    let service = gateway(&clock, Hs256, (&new.0, &new.1), vec![token(&old.1, None)]);
    let text = user(&service);
    let key = TokenKey::hmac(&old.1.expose_secret().as_bytes().to_vec().into()).unwrap();
    let header = set(set(decoded(&text, 0), "kid", key.kid()), "alg", "HS256");
    check(&service, &signed(&key, &header, &decoded(&text, 1)), TokenError::Algorithm);
}
