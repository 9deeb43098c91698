//! RFC 8725 point by point, Wycheproof's vectors, and properties that hold for every token.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::tests::*;
use super::*;
use crate::accounts::keys::generate_secret;

#[test]
fn rfc_8725_3_2_alg_none_in_every_spelling() {
    let (_, service) = here();
    for token in [user(&service), scoped(&service)] {
        let (claims, signature) = (decoded(&token, 1), token.rsplit('.').next().unwrap());
        for alg in ["none", "None", "NONE", "nOnE", "", "hs256", "eddsa"] {
            let head = part(&set(decoded(&token, 0), "alg", alg));
            check(
                &service,
                &[&head, part(&claims).as_str(), signature].join("."),
                TokenError::Algorithm,
            );
            check(&service, &[&head, part(&claims).as_str(), ""].join("."), TokenError::NotCompact);
        }
    }
}

#[test]
fn rfc_8725_3_1_the_public_key_is_not_an_hmac_key() {
    let (_, service) = here();
    let token = user(&service);
    let jwk = &service.jwks()["keys"][0];
    let x = jwk["x"].as_str().unwrap();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{x}\n-----END PUBLIC KEY-----\n");
    let keys = [URL_SAFE_NO_PAD.decode(x).unwrap(), x.into(), pem.into(), jwk.to_string().into()];
    for key in keys {
        let key = TokenKey::hmac(&key.into()).unwrap();
        let header = set(decoded(&token, 0), "alg", "HS256");
        check(&service, &signed(&key, &header, &decoded(&token, 1)), TokenError::Algorithm);
        let as_scoped = set(set(header, "typ", "portcullis-llm+jwt"), "kid", token_key().kid());
        check(&service, &signed(&key, &as_scoped, &decoded(&token, 1)), TokenError::Signature);
        let own_kid = set(as_scoped, "kid", key.kid());
        check(&service, &signed(&key, &own_kid, &decoded(&token, 1)), TokenError::KeyId);
    }
}

#[test]
fn rfc_8725_3_3_an_edited_payload_is_refused() {
    let (clock, service) = here();
    for token in [user(&service), scoped(&service)] {
        let [header, _, signature]: [&str; 3] =
            token.split('.').collect::<Vec<_>>().try_into().unwrap();
        let claims = decoded(&token, 1);
        for (name, value) in [
            ("role", json!("owner")),
            ("max_tokens", json!(1_000_000)),
            ("exp", json!(clock.unix_secs() + 60)),
            ("sub", json!("root")),
        ] {
            let claims = part(&set(claims.clone(), name, value));
            check(&service, &[header, &claims, signature].join("."), TokenError::Signature);
        }
    }
}

#[test]
fn rfc_8725_3_3_a_cut_or_borrowed_signature_is_refused() {
    let (_, service) = here();
    let (user, one, two) = (user(&service), scoped(&service), scoped(&service));
    let (message, signature) = one.rsplit_once('.').unwrap();
    for foreign in [&user, &two].map(|token| token.rsplit('.').next().unwrap()) {
        check(&service, &[message, foreign].join("."), TokenError::Signature);
    }
    for len in 1..signature.len() {
        check(&service, &[message, cut(signature, len)].join("."), TokenError::Signature);
    }
    check(&service, &[message, signature, "AAAA"].concat(), TokenError::NotCompact);
    check(&service, &[&one, "AAAA"].concat(), TokenError::Signature);
    check(&service, message, TokenError::NotCompact);
    check(&service, &format!("{message}."), TokenError::NotCompact);
}

#[test]
fn rfc_8725_3_3_spare_bits_of_the_last_character_are_zero() {
    let (_, service) = here();
    let token = scoped(&service);
    let last = token.chars().next_back().unwrap();
    let alphabet: Vec<char> =
        ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['-', '_']).collect();
    for other in alphabet.into_iter().filter(|c| *c != last) {
        check(&service, &format!("{}{other}", cut(&token, token.len() - 1)), TokenError::Signature);
    }
}

#[test]
fn rfc_8725_3_8_issuer_and_subject_are_validated() {
    let (_, service) = here();
    let issuer = TokenError::Claims("token has another issuer");
    for iss in ["", "Portcullis", "https://portcullis", "portcullis\0"] {
        check(&service, &scoped_with_claim(&service, "iss", iss), issuer);
    }
    check(
        &service,
        &scoped_with_claim(&service, "sub", ""),
        TokenError::Claims("token has no subject or no id"),
    );
}

#[test]
fn rfc_8725_3_9_the_audience_is_validated() {
    let (_, service) = here();
    for aud in ["", "portcullis", "portcullis:user", "PORTCULLIS:LLM"] {
        check(
            &service,
            &scoped_with_claim(&service, "aud", aud),
            TokenError::Claims("token has another audience"),
        );
    }
    let several = json!(["portcullis:llm", "portcullis:user"]);
    assert!(service.verify(&scoped_with_claim(&service, "aud", several)).is_err());
}

#[test]
fn rfc_8725_3_10_a_kid_is_compared_and_never_followed() {
    let (_, service) = here();
    let key = token_key();
    let kid = key.kid();
    for kid in [
        "",
        "../../dev/null",
        "' OR 1=1 --",
        "http://127.0.0.1:9/k",
        cut(kid, 15),
        &kid.to_lowercase(),
        &format!("{kid}\0"),
    ] {
        check(&service, &scoped_with_header(&service, "kid", kid), TokenError::KeyId);
    }
}

#[test]
fn rfc_8725_3_10_keys_and_places_of_keys_in_a_header_are_refused() {
    let (_, service) = here();
    let own = TokenKey::hmac(
        &generate_secret::<32>().unwrap().expose_secret().as_bytes().to_vec().into(),
    )
    .unwrap();
    let jwk = json!({"kty": "oct", "k": "a2V5"});
    let members = [
        ("jwk", jwk),
        ("jku", json!("http://127.0.0.1:9/j")),
        ("x5u", json!("http://127.0.0.1:9/x")),
        ("x5c", json!(["AAAA"])),
        ("crit", json!(["exp2"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("cty", json!("JWT")),
    ];
    for (name, value) in members {
        let token = scoped_with_header(&service, name, value);
        check(&service, &token, TokenError::Header);
        check(
            &service,
            &signed(&own, &decoded(&token, 0), &decoded(&token, 1)),
            TokenError::Header,
        );
    }
}

#[test]
fn rfc_8725_3_11_the_type_is_exact() {
    let (_, service) = here();
    for typ in [
        "",
        "JWT",
        "at+jwt",
        "application/portcullis-llm+jwt",
        "PORTCULLIS-LLM+JWT",
        "portcullis-llm",
    ] {
        check(&service, &scoped_with_header(&service, "typ", typ), TokenError::Type);
    }
}

#[test]
fn rfc_7519_4_1_times_are_required_plausible_and_short() {
    let (clock, service) = here();
    let now = clock.unix_secs();
    let span = TokenError::Claims("token has a lifetime that its kind does not have");
    let cases = [
        ("iat", now + 7, span),
        ("nbf", now + 30, TokenError::NotYetValid),
        ("exp", now + 120, span),
        ("exp", now - 10, span),
        ("exp", u64::MAX, span),
        ("iat", 0, span),
    ];
    for (name, value, expected) in cases {
        if name == "iat" && value > now {
            let token = scoped(&service);
            let claims = set(set(decoded(&token, 1), "iat", value), "exp", value + 60);
            check(
                &service,
                &signed(&token_key(), &decoded(&token, 0), &claims),
                TokenError::NotYetValid,
            );
            continue;
        }
        check(&service, &scoped_with_claim(&service, name, value), expected);
    }
}

#[test]
fn rfc_8725_3_1_each_key_has_one_algorithm() {
    let (_, service) = here();
    for alg in ["HS384", "HS512", "RS256", "PS256", "ES256", "ES256K", "EdDSA", "Ed25519", "HS256 "]
    {
        check(&service, &scoped_with_header(&service, "alg", alg), TokenError::Algorithm);
    }
    let other_key = scoped_with_header(&service, "kid", signing_key().kid());
    check(&service, &other_key, TokenError::Algorithm);
}

#[test]
fn rfc_8725_3_2_two_algorithms_are_issued() {
    let clock = Clock::system();
    for (rule, alg) in [(ScopedAlgorithm::Hs256, "HS256"), (ScopedAlgorithm::EdDsa, "EdDSA")] {
        let service = TokenService::new(keys(), clock.clone(), rules(rule)).unwrap();
        assert_eq!(decoded(&scoped(&service), 0)["alg"], alg);
        assert_eq!(decoded(&user(&service), 0)["alg"], "EdDSA");
        assert_eq!(serde_json::to_value(rule).unwrap(), alg);
    }
}

/// RFC 8032 section 5.1.7: S is below the order of the group, so adding that makes no second
/// signature of the same message.
#[test]
fn rfc_8725_3_4_a_signature_has_one_form() {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let (_, service) = here();
    let token = user(&service);
    let (message, signature) = token.rsplit_once('.').unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut carry = 0;
    for (byte, order) in bytes[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
    let other = [message, ".", &URL_SAFE_NO_PAD.encode(&bytes)].concat();
    check(&service, &other, TokenError::Signature);
    let zeros = [message, ".", &URL_SAFE_NO_PAD.encode([0; 64])].concat();
    check(&service, &zeros, TokenError::Signature);
}

#[test]
fn rfc_8725_3_5_weak_token_keys_are_refused() {
    for rule in [ScopedAlgorithm::Hs256, ScopedAlgorithm::EdDsa] {
        for key in [&b"secret"[..], &[0; 32], b"change-me-256-bit-change-me-256-bit"] {
            let weak = TokenKeys { token_key: Some(key.to_vec().into()), ..keys() };
            let made = TokenService::new(weak, Clock::system(), rules(rule));
            assert!(matches!(made.unwrap_err(), KeyError::Weak(_)));
        }
        let none = TokenKeys { signing_key: "not a key".into(), ..keys() };
        let made = TokenService::new(none, Clock::system(), rules(rule));
        assert_eq!(made.unwrap_err(), KeyError::SigningKey);
    }
}

#[test]
fn rfc_8725_3_6_compression_is_refused() {
    let (_, service) = here();
    for zip in ["DEF", "GZ", ""] {
        check(&service, &scoped_with_header(&service, "zip", zip), TokenError::Header);
    }
}

#[test]
fn rfc_8725_3_7_other_encodings_are_refused() {
    let (_, service) = here();
    let token = scoped(&service);
    let json = decoded(&token, 1).to_string();
    let utf16: Vec<u8> = json.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let marked = ["\u{feff}", &json].concat().into_bytes();
    let latin1 = json.bytes().map(|byte| if byte == b'i' { 0xef } else { byte }).collect();
    let form = TokenError::Claims("token claims are not exactly those of its kind");
    for claims in [utf16, marked, latin1] {
        let header = token.split('.').next().unwrap();
        let message = [header, ".", &URL_SAFE_NO_PAD.encode(claims)].concat();
        let signature = token_key().sign(&message).unwrap();
        check(&service, &[message, signature].join("."), form);
    }
}

#[test]
fn rfc_8725_3_12_one_kind_is_never_taken_for_the_other() {
    let (_, service) = here();
    let (user, scoped) = (user(&service), scoped(&service));
    let audience = TokenError::Claims("token has another audience");
    let swapped = signed(&signing_key(), &decoded(&user, 0), &decoded(&scoped, 1));
    check(&service, &swapped, audience);
    let swapped = signed(&token_key(), &decoded(&scoped, 0), &decoded(&user, 1));
    check(&service, &swapped, audience);
    let renamed = set(decoded(&user, 0), "typ", "portcullis-llm+jwt");
    let by_user_key = signed(&signing_key(), &renamed, &decoded(&scoped, 1));
    check(&service, &by_user_key, TokenError::Algorithm);
    let renamed = set(decoded(&scoped, 0), "typ", "portcullis-user+jwt");
    let by_token_key = signed(&token_key(), &renamed, &decoded(&user, 1));
    check(&service, &by_token_key, TokenError::Algorithm);
}

#[test]
fn the_table_of_rfc_8725_names_tests_that_exist() {
    let rows: Vec<&str> =
        include_str!("mod.rs").lines().filter(|line| line.starts_with("//! | 3.")).collect();
    assert_eq!(rows.len(), 12);
    for row in rows {
        let test = row.rsplit('`').nth(1).unwrap();
        assert!(include_str!("rfc8725.rs").contains(&format!("\nfn {test}()")), "{test}");
    }
}

/// Vectors that contradict others: 367 and 370 are called invalid and are byte for byte the
/// valid 357; 372 and 373 are called valid and have a `?` in their base64.
const DISPUTED: [u64; 4] = [367, 370, 372, 373];

#[test]
fn wycheproof_vectors_of_json_web_signatures() {
    let Some(vectors) = wycheproof() else { return };
    let (_, service) = here();
    let mut checked = 0;
    for group in vectors["testGroups"].as_array().unwrap() {
        for test in group["tests"].as_array().unwrap() {
            let jws = test["jws"].as_str().unwrap_or_default();
            assert!(service.verify(jws).is_err(), "a foreign token: {test}");
            let disputed = DISPUTED.contains(&test["tcId"].as_u64().unwrap());
            if group["private"]["alg"] == "HS256" && !disputed {
                let valid = test["result"] == "valid";
                assert_eq!(hs256(&group["private"]["k"], jws), valid, "{test}");
                checked += 1;
            }
        }
    }
    assert!(checked > 30, "only {checked} vectors");
}

/// Form, algorithm, signature and payload as [`TokenService::open`] checks them, with the key
/// of the vector.
fn hs256(key: &Value, jws: &str) -> bool {
    let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
    let key = TokenKey::symmetric(&bytes(key.as_str().unwrap()).unwrap()).unwrap();
    let Ok(compact) = Compact::split(jws) else { return false };
    let header = bytes(compact.header).and_then(|json| serde_json::from_slice::<Value>(&json).ok());
    header.is_some_and(|header| header["alg"] == key.alg())
        && key.verify(compact.message, compact.signature)
        && bytes(compact.payload).is_some()
}

/// Google's Wycheproof vectors, where they are beside the project.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn wycheproof() -> Option<Value> {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared"));
    let shared = std::env::var_os("PORTCULLIS_SHARED").map_or_else(beside, PathBuf::from);
    let path = shared.join("probes/corpora/wycheproof/json_web_signature_test.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("skipped: no Wycheproof vectors at {}", path.display());
        return None;
    };
    Some(serde_json::from_str(&text).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_single_changed_byte_refuses_a_token(
        of_user: bool,
        at in any::<prop::sample::Index>(),
        byte in 0..128_u8,
    ) {
        let (_, service) = here();
        let token = if of_user { user(&service) } else { scoped(&service) };
        let mut bytes = token.clone().into_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        prop_assert!(service.verify(&String::from_utf8(bytes).unwrap()).is_err());
        prop_assert!(service.verify(&token).is_ok());
    }
}
