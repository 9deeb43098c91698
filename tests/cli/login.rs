use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use reqwest::Response;
use serde_json::{Value, json};

use super::mock::{Mock, QUICK};
use super::support::{Folder, Gateway, PASSWORD};

async fn start(edit: impl FnOnce(&Folder)) -> (Mock, Folder, Gateway) {
    let mock = Mock::start();
    let folder = Folder::new(&mock.url);
    edit(&folder);
    let gateway = Gateway::serve(&folder).await;
    (mock, folder, gateway)
}

async fn login(gateway: &Gateway, user: &str, password: &str) -> Response {
    let body = json!({ "username": user, "password": password });
    gateway.post("/auth/login", &body).send().await.unwrap()
}

async fn user_token(gateway: &Gateway, user: &str) -> String {
    let answer: Value = login(gateway, user, PASSWORD).await.json().await.unwrap();
    assert_eq!((&answer["token_type"], &answer["expires_in"]), (&json!("bearer"), &json!(900)));
    answer["access_token"].as_str().unwrap().to_owned()
}

/// Status, error code and body of the answer to a request for a scoped token.
async fn scoped(gateway: &Gateway, holder: &str, wanted: Value) -> (u16, String, Value) {
    let answer = gateway.post("/auth/scoped-token", &wanted).bearer_auth(holder);
    let answer = answer.send().await.unwrap();
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap();
    (status, body["error"]["code"].as_str().unwrap_or_default().to_owned(), body)
}

async fn scoped_token(gateway: &Gateway, holder: &str, max_tokens: u64) -> String {
    let wanted = json!({ "model": QUICK, "max_tokens": max_tokens, "scopes": ["llm:generate"] });
    let (status, _, body) = scoped(gateway, holder, wanted).await;
    assert_eq!((status, &body["expires_in"]), (200, &json!(60)), "{body}");
    body["token"].as_str().unwrap().to_owned()
}

fn now() -> u64 {
    jsonwebtoken::get_current_timestamp()
}

#[tokio::test]
async fn a_user_token_verifies_with_the_published_keys_and_says_who_it_is() {
    let (_mock, _folder, gateway) = start(|_| {}).await;
    let token = user_token(&gateway, "Alice").await;
    let keys: JwkSet = gateway.get("/.well-known/jwks.json").await.json().await.unwrap();
    let kid = decode_header(&token).unwrap().kid.unwrap();
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&["portcullis:user"]);
    validation.set_issuer(&["portcullis"]);
    let key = DecodingKey::from_jwk(keys.find(&kid).unwrap()).unwrap();
    let claims = decode::<Value>(&token, &key, &validation).unwrap().claims;
    assert_eq!(claims["sub"], "alice");
    let expires = claims["exp"].as_u64().unwrap();
    assert!(expires > now() + 880 && expires <= now() + 900, "{claims}");

    let me = gateway.client.get(format!("{}/auth/me", gateway.url)).bearer_auth(&token);
    let me: Value = me.send().await.unwrap().json().await.unwrap();
    assert_eq!((&me["username"], &me["role"]), (&json!("alice"), &json!("user")), "{me}");
    assert_eq!(me["expires_at"], claims["exp"]);
    assert!(me["scopes"].as_array().unwrap().contains(&json!("llm:generate")), "{me}");
    assert_eq!(gateway.get("/auth/me").await.status(), 401);
}

#[tokio::test]
async fn a_scoped_token_is_short_and_never_more_than_its_holder() {
    let edit = |f: &Folder| {
        f.add("roles: {user: {scopes: ['llm:generate', scan], models: ['phi*', llama2]}}\n");
        f.add("caps: {max_tokens: 128}\n");
    };
    let (mock, folder, gateway) = start(edit).await;
    let holder = user_token(&gateway, "alice").await;
    let token = scoped_token(&gateway, &holder, 1_000_000).await;

    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_audience(&["portcullis:llm"]);
    let key = DecodingKey::from_secret(folder.read("token.key").as_bytes());
    let claims = decode::<Value>(&token, &key, &validation).unwrap().claims;
    assert!(claims["exp"].as_u64().unwrap() <= now() + 60, "{claims}");
    assert_eq!(claims["max_tokens"], 128, "clamped to the gateway's cap");

    let small = scoped_token(&gateway, &holder, 20).await;
    let chat = gateway.chat(QUICK).bearer_auth(&small);
    let mut request = chat.build().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {small}").parse().unwrap());
    assert_eq!(gateway.client.execute(request).await.unwrap().status(), 200);
    assert_eq!(mock.seen().last().unwrap()["max_tokens"], 20, "clamped to the token's");

    let ask = |model: &str, max_tokens: i64, scopes: &[&str]| json!({ "model": model, "max_tokens": max_tokens, "scopes": scopes });
    for (wanted, status, code) in [
        (ask(QUICK, 10, &["llm:embed"]), 403, "insufficient_scope"),
        (ask(QUICK, 10, &["scan"]), 400, "invalid_request"),
        (ask(QUICK, 10, &["llm:*"]), 400, "invalid_request"),
        (ask(QUICK, 10, &[]), 400, "invalid_request"),
        (ask(QUICK, 0, &["llm:generate"]), 400, "invalid_request"),
        (ask(QUICK, -1, &["llm:generate"]), 400, "invalid_request"),
        (ask("gpt-4o", 10, &["llm:generate"]), 403, "model_not_allowed"),
    ] {
        let (found, found_code, body) = scoped(&gateway, &holder, wanted.clone()).await;
        assert_eq!((found, &*found_code), (status, code), "{wanted} {body}");
    }
    let again = scoped(&gateway, &small, ask(QUICK, 10, &["llm:generate"])).await;
    assert_eq!((again.0, &*again.1), (403, "insufficient_scope"), "no token from a token");
    let other = with_llm_token(&gateway, "llama2", &small, None).await;
    assert_eq!(other, 403, "of one model only");
}

/// The status of a chat with a scoped token and, beside it, what `Authorization` bears.
async fn with_llm_token(gateway: &Gateway, model: &str, token: &str, beside: Option<&str>) -> u16 {
    let body = super::support::question(model, false);
    let mut chat = gateway.post("/v1/chat/completions", &body).header("x-llm-token", token);
    if let Some(beside) = beside {
        chat = chat.bearer_auth(beside);
    }
    chat.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_request_has_one_credential_or_a_scoped_token_and_its_users() {
    let (mock, folder, gateway) = start(|_| {}).await;
    let (alice, bob) = (user_token(&gateway, "alice").await, user_token(&gateway, "bob").await);
    let token = scoped_token(&gateway, &alice, 10).await;
    for (beside, status) in [
        (None, 200),
        (Some(&*alice), 200),
        (Some(&*bob), 401),
        (Some(&*folder.key), 400),
        (Some(&*token), 400),
    ] {
        assert_eq!(with_llm_token(&gateway, QUICK, &token, beside).await, status, "{beside:?}");
    }
    assert_eq!(with_llm_token(&gateway, QUICK, &alice, None).await, 401, "a user token there");
    let both = gateway.chat(QUICK).header("x-api-key", &folder.key).send().await.unwrap();
    assert_eq!(both.status(), 400);
    assert_eq!(mock.seen().len(), 2, "what was refused did not go out");
}

/// An answer without what differs between any two: id and date.
async fn comparable(answer: Response) -> (u16, Vec<String>, Value) {
    let status = answer.status().as_u16();
    let mut headers: Vec<String> = answer
        .headers()
        .iter()
        .filter(|(name, _)| !["x-request-id", "date"].contains(&name.as_str()))
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    headers.sort();
    let mut body: Value = answer.json().await.unwrap();
    body["error"].as_object_mut().unwrap().remove("request_id").unwrap();
    (status, headers, body)
}

#[tokio::test]
async fn nobody_can_tell_an_unknown_user_from_a_wrong_password() {
    let (_mock, folder, gateway) = start(|_| {}).await;
    let wrong = comparable(login(&gateway, "alice", "wrong horse battery").await).await;
    let unknown = comparable(login(&gateway, "mallory", "wrong horse battery").await).await;
    assert_eq!(wrong, unknown);
    assert_eq!((wrong.0, &wrong.2["error"]["code"]), (401, &json!("invalid_credentials")));
    let text = folder.read("audit.jsonl") + &gateway.log();
    assert!(!text.contains("wrong horse") && !text.contains("mallory"), "{text}");
}

#[tokio::test]
async fn failures_are_throttled_with_the_time_to_wait() {
    let edit = |f: &Folder| f.edit("auth:\n", "auth:\n  login: {max_failures: 3, window: 5m}\n");
    let (_mock, _folder, gateway) = start(edit).await;
    for _ in 0..3 {
        assert_eq!(login(&gateway, "alice", "wrong horse battery").await.status(), 401);
    }
    for password in ["wrong horse battery", PASSWORD] {
        let refused = login(&gateway, "alice", password).await;
        assert_eq!(refused.status(), 429, "{password}");
        let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=300).contains(&wait), "{wait}");
    }
    assert_eq!(login(&gateway, "bob", PASSWORD).await.status(), 200, "the other user");
}

#[tokio::test]
async fn a_crowd_at_the_login_is_bounded_and_does_not_hold_up_inference() {
    let queue = "auth:\n  login: {concurrent: 1, queue: 2}\n";
    let (_mock, _folder, gateway) = start(|f| f.edit("auth:\n", queue)).await;
    let body = json!({ "username": "alice", "password": PASSWORD });
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..20 {
        crowd.spawn(gateway.post("/auth/login", &body).send());
    }
    let (mut welcome, mut refused) = (0, 0);
    while !crowd.is_empty() {
        let begun = std::time::Instant::now();
        assert_eq!(gateway.chat(QUICK).send().await.unwrap().status(), 200);
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        while let Some(done) = crowd.try_join_next() {
            let answer = done.unwrap().unwrap();
            match answer.status().as_u16() {
                200 => welcome += 1,
                503 => {
                    assert!(answer.headers().contains_key("retry-after"));
                    refused += 1;
                }
                other => panic!("{other}"),
            }
        }
    }
    assert!(welcome >= 3 && refused >= 1 && welcome + refused == 20, "{welcome} {refused}");
}
