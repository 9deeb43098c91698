//! Vectors, forms, and everything that must be refused.

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

const SECRET: &[u8] = b"kT9vPz3qLw8xYb2nRm5sHd7fJc4gAe1u";
const NOW: u64 = 1_700_000_000;
const BODY: &[u8] = br#"{"model":"phi3","prompt":"hi"}"#;
const CERTIFICATE: [u8; 32] = [7; 32];
/// Computed with another implementation (Python's hmac and hashlib).
const VECTORS: [(Signed<'_>, &str); 2] = [
    (
        Signed {
            method: "POST",
            target: "/v1/chat/completions?beta=true",
            service: "billing",
            user: "user-42",
            timestamp: "1700000000",
            nonce: "AAECAwQFBgcICQoLDA0ODw",
            body_digest: "f0d64b6110a339753acb8379114dedffda62f34c7f37db7f87cb47d7bb17ae42",
        },
        "Au097kz__wTlWWWmwUJG7nQgy-UH5H78UTOTBTExdx0",
    ),
    (
        Signed {
            method: "GET",
            target: "/v1/models",
            service: "reports",
            user: "alice@example.com",
            timestamp: "1700000000",
            nonce: "abcdefghijklmnop",
            body_digest: "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU",
        },
        "_uzTxfRa0wjxQzd1DD0MhICAwlqtM4qXo99ALVTjf7w",
    ),
];

fn secret() -> Option<SecretSlice<u8>> {
    Some(SECRET.to_vec().into())
}

fn service(name: &str, secret: Option<SecretSlice<u8>>, certificates: usize) -> Service {
    let certificates = vec![CERTIFICATE; certificates];
    let max_skew = DEFAULT_SKEW;
    Service { name: name.into(), role: AccountRole::User, secret, certificates, max_skew }
}

fn services() -> Services {
    let (billing, reports) = (service("billing", secret(), 0), service("reports", secret(), 1));
    let mesh = service("mesh", None, 1);
    Services::new(vec![billing, reports, mesh]).unwrap()
}

fn headers(signed: &Signed<'_>, signature: &str) -> HeaderMap {
    let Signed { service, user, timestamp, nonce, body_digest, .. } = *signed;
    let values = [service, user, timestamp, nonce, body_digest, signature];
    let names = HEADERS.map(HeaderName::from_static);
    names.into_iter().zip(values.map(|value| value.parse().unwrap())).collect()
}

fn signed_headers(signed: &Signed<'_>) -> HeaderMap {
    headers(signed, &sign(&secret().unwrap(), signed).unwrap())
}

fn verify(signed: &Signed<'_>, headers: &HeaderMap) -> Result<Asserted, AssertionError> {
    let assertion = Assertion::read(headers)?.unwrap();
    assertion.verify(&services(), signed.method, signed.target, NOW, None)
}

fn malformed<T: fmt::Debug>(result: Result<T, AssertionError>, what: &str) {
    assert!(matches!(result, Err(AssertionError::Malformed(_))), "{what}: {result:?}");
}

#[test]
fn the_vectors_are_signed_and_verified() {
    for (signed, signature) in VECTORS {
        assert_eq!(sign(&secret().unwrap(), &signed).unwrap(), signature);
        let asserted = verify(&signed, &headers(&signed, signature)).unwrap();
        assert_eq!(
            (asserted.service.as_str(), asserted.user.as_str(), asserted.role),
            (signed.service, signed.user, AccountRole::User)
        );
        let id = format!("svc:{}:{}", signed.service, signed.nonce);
        assert_eq!(asserted.once, Some(Once { id, expires_at: NOW + 121 }));
    }
}

#[test]
fn the_body_must_be_the_one_that_was_signed() {
    let (signed, signature) = VECTORS[0];
    let asserted = verify(&signed, &headers(&signed, signature)).unwrap();
    assert!(asserted.matches_body(BODY));
    assert!(!asserted.matches_body(b"") && !asserted.matches_body(br#"{"model":"phi4"}"#));
    let (signed, signature) = VECTORS[1];
    let asserted = verify(&signed, &headers(&signed, signature)).unwrap();
    assert!(asserted.matches_body(b"") && !asserted.matches_body(b"\n"));
}

#[test]
fn everything_that_is_signed_is_verified() {
    let (good, signature) = VECTORS[0];
    let changed = [
        Signed { method: "PUT", ..good },
        Signed { method: "post", ..good },
        Signed { target: "/v1/chat/completions", ..good },
        Signed { target: "/v1/chat/completions?beta=false", ..good },
        Signed { service: "reports", ..good },
        Signed { user: "user-43", ..good },
        Signed { timestamp: "1700000001", ..good },
        Signed { timestamp: "01700000000", ..good },
        Signed { nonce: "AAECAwQFBgcICQoLDA0ODx", ..good },
        Signed { body_digest: VECTORS[1].0.body_digest, ..good },
        Signed { body_digest: "8NZLYRCjOXU6y4N5EU3t_9pi80x_N9t_h8tH17sXrkI", ..good },
    ];
    for signed in changed {
        let result = verify(&signed, &headers(&signed, signature));
        assert_eq!(result, Err(AssertionError::Signature), "{signed:?}");
    }
    let other = "Bu097kz__wTlWWWmwUJG7nQgy-UH5H78UTOTBTExdx0";
    assert_eq!(verify(&good, &headers(&good, other)), Err(AssertionError::Signature));
}

#[test]
fn services_without_a_secret_and_unknown_ones_sign_nothing() {
    for name in ["nobody", "mesh", "Billing"] {
        let signed = Signed { service: name, ..VECTORS[0].0 };
        assert_eq!(verify(&signed, &signed_headers(&signed)), Err(AssertionError::Unknown));
    }
}

#[test]
fn a_timestamp_is_at_most_a_minute_off() {
    let cases = [(-61, false), (-60, true), (0, true), (60, true), (61, false), (1_000_000, false)];
    for (offset, good) in cases {
        let timestamp = NOW.saturating_add_signed(offset).to_string();
        let signed = Signed { timestamp: &timestamp, ..VECTORS[0].0 };
        let result = verify(&signed, &signed_headers(&signed)).map(drop);
        assert_eq!(result, if good { Ok(()) } else { Err(AssertionError::Skew) }, "{offset}");
    }
    for timestamp in ["0", "18446744073709551615"] {
        let signed = Signed { timestamp, ..VECTORS[0].0 };
        assert_eq!(verify(&signed, &signed_headers(&signed)), Err(AssertionError::Skew));
    }
}

#[test]
fn a_listed_certificate_replaces_the_signature() {
    let cases = [
        ("mesh", Some(CERTIFICATE), true),
        ("reports", Some(CERTIFICATE), true),
        ("mesh", Some([8; 32]), false),
        ("mesh", None, false),
        ("billing", Some(CERTIFICATE), false),
        ("nobody", Some(CERTIFICATE), false),
    ];
    for (name, certificate, good) in cases {
        let mut headers = signed_headers(&Signed { service: name, ..VECTORS[0].0 });
        for header in &HEADERS[2..] {
            headers.remove(*header);
        }
        let assertion = Assertion::read(&headers).unwrap().unwrap();
        let result = assertion.verify(&services(), "POST", "/", NOW, certificate);
        assert_eq!(result.is_ok(), good, "{name} {certificate:?}");
        match result {
            Ok(asserted) => assert!(asserted.once.is_none() && asserted.matches_body(BODY)),
            Err(error) => assert_eq!(error, AssertionError::Certificate),
        }
    }
}

#[test]
fn a_certificate_does_not_mend_a_wrong_signature() {
    let signed = Signed { service: "reports", ..VECTORS[0].0 };
    let assertion = Assertion::read(&headers(&signed, VECTORS[0].1)).unwrap().unwrap();
    let result =
        assertion.verify(&services(), signed.method, signed.target, NOW, Some(CERTIFICATE));
    assert_eq!(result, Err(AssertionError::Signature));
}

#[test]
fn without_service_and_signature_there_is_no_assertion() {
    assert!(Assertion::read(&HeaderMap::new()).unwrap().is_none());
    let mut headers = signed_headers(&VECTORS[0].0);
    headers.remove(SERVICE);
    headers.remove(SIGNATURE);
    assert!(Assertion::read(&headers).unwrap().is_none(), "unsigned names mean nothing");
}

#[test]
fn partial_and_repeated_headers_are_refused() {
    let whole = signed_headers(&VECTORS[0].0);
    for name in HEADERS {
        let mut partial = whole.clone();
        partial.remove(name);
        malformed(Assertion::read(&partial), name);
        let mut repeated = whole.clone();
        repeated.append(name, whole[name].clone());
        malformed(Assertion::read(&repeated), name);
    }
}

#[test]
fn other_forms_are_refused() {
    let (long, name) = ("a".repeat(129), "a".repeat(65));
    let cases = [
        (SERVICE, ""),
        (SERVICE, "bil ling"),
        (SERVICE, "billing:x"),
        (SERVICE, &name),
        (USER, ""),
        (USER, "two words"),
        (USER, "tab\there"),
        (USER, &long),
        (TIMESTAMP, ""),
        (TIMESTAMP, "+1700000000"),
        (TIMESTAMP, "-1"),
        (TIMESTAMP, "1.7e9"),
        (TIMESTAMP, "18446744073709551616"),
        (NONCE, "AAECAwQFBgcICQo"),
        (NONCE, "AAECAwQFBgcICQo="),
        (NONCE, &long),
        (CONTENT_SHA256, ""),
        (CONTENT_SHA256, "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU="),
        (CONTENT_SHA256, "f0d64b6110a339753acb8379114dedffda62f34c7f37db7f87cb47d7bb17ae4g"),
        (CONTENT_SHA256, "f0d64b6110a339753acb8379114dedffda62f34c7f37db7f87cb47d7bb17ae"),
        (SIGNATURE, ""),
        (SIGNATURE, "AAAA"),
        (SIGNATURE, "Au097kz//wTlWWWmwUJG7nQgy+UH5H78UTOTBTExdx0"),
    ];
    for (header, value) in cases {
        let mut headers = signed_headers(&VECTORS[0].0);
        headers.insert(header, value.parse().unwrap());
        malformed(Assertion::read(&headers), &format!("{header}: {value}"));
    }
    let mut headers = signed_headers(&VECTORS[0].0);
    headers.insert(USER, HeaderValue::from_bytes(b"al\xefce").unwrap());
    malformed(Assertion::read(&headers), "latin-1");
}

#[test]
fn a_line_break_cannot_move_what_is_signed() {
    for (method, target) in [("POST\n/", "x"), ("POST", "/a\nbilling"), ("POST", "/a b"), ("", "/")]
    {
        let headers = signed_headers(&Signed { method, target, ..VECTORS[0].0 });
        let assertion = Assertion::read(&headers).unwrap().unwrap();
        malformed(assertion.verify(&services(), method, target, NOW, None), target);
    }
}

#[test]
fn services_must_be_well_configured() {
    let made = |services| Services::new(services).map(drop);
    let ring = |why| Err(KeyError::Ring(why));
    let form = ring("the name of a service is not of its form");
    for name in ["", "a b", "a:b", "ä", "a\n"] {
        assert_eq!(made(vec![service(name, secret(), 0)]), form);
    }
    let nothing = service("a", None, 0);
    assert_eq!(made(vec![nothing]), ring("a service has neither secret nor certificate"));
    let twice = vec![service("a", secret(), 0), service("a", None, 1)];
    assert_eq!(made(twice), ring("two services have one name"));
    let weak = service("a", Some(b"secret".to_vec().into()), 1);
    assert_eq!(made(vec![weak]), Err(KeyError::Weak("shorter than 32 bytes")));
}

#[test]
fn debug_shows_no_secret() {
    let shown = format!("{:?} {:?}", services(), service("a", secret(), 0));
    assert!(shown.contains("billing") && shown.contains("REDACTED"), "{shown}");
    assert!(!shown.contains("kT9v") && !shown.contains("107, 84"), "{shown}");
}

proptest! {
    #[test]
    fn what_is_signed_is_verified_and_nothing_else(
        user in "[!-~]{1,128}",
        nonce in "[A-Za-z0-9_-]{16,64}",
        at in 0..43_usize,
    ) {
        let signed = Signed { user: &user, nonce: &nonce, ..VECTORS[0].0 };
        let mut signature = sign(&secret().unwrap(), &signed).unwrap();
        prop_assert!(verify(&signed, &headers(&signed, &signature)).is_ok());
        let other = if signature.as_bytes()[at] == b'A' { "B" } else { "A" };
        signature.replace_range(at..=at, other);
        prop_assert!(verify(&signed, &headers(&signed, &signature)).is_err());
    }
}
