//! Tokens: narrow, short, used where and as often as they were made for, under keys that change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use portcullis_filters::accounts::AccountRole::User;
use portcullis_filters::accounts::{generate_secret, generate_signing_key_pem};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};

use crate::support::accounts::Caller;
use crate::support::gateway::{Gateway, Plan};
use crate::support::upstream::Upstream;
use crate::support::{chat, chat_answer};

async fn upstream() -> Upstream {
    Upstream::json(chat_answer(1, 1)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_single_use_token_is_used_once_on_all_gateways() {
    let upstream = upstream().await;
    let a = Plan::to(&upstream).start().await;
    let b = a.twin().await;
    let ann = a.member("ann", User).await;
    for round in 1..=3 {
        let token = a.caller(&ann.scoped(json!({ "single_use": true })).await);
        let mut asking = JoinSet::new();
        for gateway in [&a, &b, &a, &b] {
            let caller = token.at(gateway);
            asking.spawn(async move { caller.chat().await });
        }
        let answers = asking.join_all().await;
        let used = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(used, 1, "{answers:?}");
        for answer in answers.iter().filter(|answer| answer.status != 200) {
            answer.refused(401, "invalid_credentials");
        }
        assert_eq!(upstream.seen().len(), round);
    }
    let often = a.caller(&ann.scoped(json!({})).await);
    for _ in 0..2 {
        assert_eq!(often.chat().await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_bound_token_is_used_from_its_address_only() {
    let upstream = upstream().await;
    let gateway = Plan::to(&upstream).with("server: {trusted_proxies: [127.0.0.0/8]}");
    let gateway = gateway.start().await;
    let ann = gateway.member("ann", User).await;
    let there = ann.field("X-Forwarded-For", "203.0.113.9");
    let token = gateway.caller(&there.scoped(json!({ "bind_address": true })).await);
    for (forwarded, status) in [
        ("203.0.113.9", 200),
        ("::ffff:203.0.113.9", 200),
        ("203.0.113.10", 401),
        ("203.0.113.9, 203.0.113.10", 401),
        ("", 401),
    ] {
        let answer = token.field("X-Forwarded-For", forwarded).chat().await;
        assert_eq!(answer.status, status, "{forwarded}: {answer:?}");
        answer.is(status, if status == 401 { "invalid_credentials" } else { "" });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_token_never_holds_more_than_its_issuer() {
    let upstream = upstream().await;
    let gateway = Plan::to(&upstream).with("caps: {max_tokens: 50}").start().await;
    let ann = gateway.member("ann", User).await;
    let key = json!({ "permissions": ["models:read", "llm:generate"], "models": ["phi*"] });
    let key = ann.new_key(&key).await;
    let key = gateway.caller(key["api_key"].as_str().unwrap());
    for (caller, model, scopes, status, code) in [
        (&ann, "phi", json!(["llm:generate"]), 200, ""),
        (&ann, "phi", json!(["llm:generate", "users:write"]), 400, "invalid_request"),
        (&ann, "phi", json!(["*"]), 400, "invalid_request"),
        (&ann, "phi", json!(["llm:*"]), 400, "invalid_request"),
        (&key, "phi", json!(["llm:generate"]), 200, ""),
        (&key, "phi", json!(["llm:embed"]), 403, "insufficient_scope"),
        (&key, "llama", json!(["llm:generate"]), 403, "model_not_allowed"),
        (&key, "*", json!(["llm:generate"]), 400, "invalid_request"),
    ] {
        let wanted = json!({ "model": model, "max_tokens": 1000, "scopes": scopes });
        let answer = caller.post("/auth/scoped-token", &wanted).await;
        assert_eq!(answer.status, status, "{model} {scopes}: {answer:?}");
        answer.is(status, code);
        if status == 200 {
            assert_eq!(answer.json()["max_tokens"], 50, "{answer:?}");
            assert_eq!(answer.json()["expires_in"], 60, "{answer:?}");
        }
    }
    let scoped = gateway.caller(&ann.scoped(json!({ "max_tokens": 9 })).await);
    let mut request = chat("phi", "Hello");
    request["max_tokens"] = json!(40);
    assert_eq!(scoped.post("/v1/chat/completions", &request).await.status, 200);
    assert_eq!(upstream.only().json()["max_tokens"], 9);
    let other = scoped.post("/v1/chat/completions", &chat("llama", "Hello")).await;
    other.refused(403, "model_not_allowed");
    scoped.get("/v1/models").await.refused(403, "insufficient_scope");
    // A token makes no other.
    let wanted = json!({ "model": "phi", "max_tokens": 1, "scopes": ["llm:generate"] });
    scoped.post("/auth/scoped-token", &wanted).await.refused(403, "insufficient_scope");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_token_is_given_back_by_whoever_holds_it() {
    let upstream = upstream().await;
    let gateway = Plan::to(&upstream).start().await;
    let ann = gateway.member("ann", User).await;
    let tokens = [ann.scoped(json!({})).await, ann.scoped(json!({})).await];
    for (token, by_itself) in tokens.iter().zip([true, false]) {
        let holder = gateway.caller(token);
        assert_eq!(holder.chat().await.status, 200);
        let give_back = json!({ "token": token });
        let by = if by_itself { &holder } else { &ann };
        assert_eq!(by.post("/auth/revoke", &give_back).await.status, 204);
        holder.chat().await.refused(401, "invalid_credentials");
        // As RFC 7009 has it: what is void already is no error, and neither is nonsense.
        for token in [token.as_str(), "nonsense", ""] {
            let again = ann.post("/auth/revoke", &json!({ "token": token })).await;
            assert_eq!(again.status, 204, "{again:?}");
        }
    }
    assert_eq!(ann.chat().await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn tokens_of_another_make_are_refused_alike() {
    let upstream = upstream().await;
    let gateway = Plan::to(&upstream).start().await;
    let stranger = Plan::to(&upstream).start().await;
    let (ann, ben) = (gateway.member("ann", User).await, gateway.member("ben", User).await);
    let user = ann.credential();
    let scoped = ann.scoped(json!({})).await;
    let of_stranger = stranger.member("ann", User).await;
    let [head, claims, signature]: [&str; 3] =
        user.split('.').collect::<Vec<_>>().try_into().unwrap();
    let other_claims = ben.credential().split('.').nth(1).unwrap().to_owned();
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0"; // {"alg":"none","typ":"JWT"}
    let mut told = Vec::new();
    for wrong in [
        of_stranger.credential().to_owned(),
        of_stranger.scoped(json!({})).await,
        format!("{head}.{other_claims}.{signature}"),
        format!("{none}.{claims}."),
        format!("{none}.{claims}.{signature}"),
        format!("{head}.{claims}."),
        format!("{head}.{claims}"),
        format!("{user}.{signature}"),
        format!("{user}="),
        format!("{} {}", "Bearer", user),
        "a.b.c".to_owned(),
        "x".repeat(10_000),
    ] {
        let answer = gateway.caller(&wrong).chat().await;
        answer.refused(401, "invalid_credentials");
        told.push(answer.json()["error"]["message"].clone());
    }
    told.dedup();
    assert_eq!(told.len(), 1, "callers can tell why: {told:?}");
    for (caller, status, code) in [
        (gateway.anonymous().field("X-LLM-Token", &scoped), 200, ""),
        (gateway.anonymous().field("X-LLM-Token", user), 401, "invalid_credentials"),
        (ann.field("X-LLM-Token", &scoped), 200, ""),
        (ben.field("X-LLM-Token", &scoped), 401, "invalid_credentials"),
        (ann.field("X-LLM-Token", ben.credential()), 401, "invalid_credentials"),
        (gateway.caller(&scoped).field("X-LLM-Token", &scoped), 400, "invalid_request"),
    ] {
        caller.chat().await.is(status, code);
    }
    let trail = json!(gateway.records()).to_string();
    assert!(!trail.contains(signature), "a token is in the record: {trail}");
}

/// Someone who calls all the time, and is never refused.
struct Steady {
    asking: JoinHandle<usize>,
    stop: Arc<AtomicBool>,
}

impl Steady {
    fn start(callers: Vec<Caller>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let asking = tokio::spawn(async move {
            let mut asked = 0;
            while !stopped.load(Ordering::SeqCst) {
                for caller in &callers {
                    let answer = caller.me().await;
                    assert_eq!(answer.status, 200, "{answer:?}");
                    asked += 1;
                }
            }
            asked
        });
        Self { asking, stop }
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        assert!(self.asking.await.unwrap() > 0);
    }
}

fn key_ids(jwks: &Value) -> Vec<String> {
    let keys = jwks["keys"].as_array().unwrap().iter();
    keys.map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn keys_are_replaced_without_a_refusal() {
    let gateway = Plan::alone().secret("accept: []").start().await;
    let ann = gateway.member("ann", User).await;
    let scoped = gateway.caller(&ann.scoped(json!({})).await);
    let first = gateway.anonymous().get("/.well-known/jwks.json").await.json();
    assert_eq!(key_ids(&first).len(), 1, "{first}");
    let steady = Steady::start(vec![ann.clone(), scoped.clone()]);
    let folder = &gateway.folder;
    folder.write("signing-2.pem", generate_signing_key_pem().unwrap().expose_secret());
    folder.write("token-2.key", generate_secret::<48>().unwrap().expose_secret());
    // First the new keys are accepted everywhere, then they sign, then the old ones go.
    let new = "{signing_key: {file: signing-2.pem}, until: null}, \
               {token_key: {file: token-2.key}, until: null}";
    folder.edit("accept: []", &format!("accept: [{new}]"));
    gateway.reload().await;
    let old = "{signing_key: {file: signing.pem}, until: null}, \
               {token_key: {file: token.key}, until: null}";
    folder.edit(new, old);
    folder.edit("  signing_key: {file: signing.pem}\n", "  signing_key: {file: signing-2.pem}\n");
    folder.edit("  token_key: {file: token.key}\n", "  token_key: {file: token-2.key}\n");
    gateway.reload().await;
    steady.stop().await;
    let both = gateway.anonymous().get("/.well-known/jwks.json").await.json();
    assert_eq!(key_ids(&both).len(), 2, "{both}");
    assert!(key_ids(&both).contains(&key_ids(&first)[0]));
    let again = gateway.session("ann").await;
    let new_scoped = gateway.caller(&again.scoped(json!({})).await);
    let kid = |caller: &Caller| jsonwebtoken::decode_header(caller.credential()).unwrap().kid;
    assert_ne!(kid(&again), kid(&ann));
    assert_ne!(kid(&new_scoped), kid(&scoped));
    folder.edit(&format!("accept: [{old}]"), "accept: []");
    gateway.reload().await;
    for caller in [&ann, &scoped] {
        caller.me().await.refused(401, "invalid_credentials");
    }
    for caller in [&again, &new_scoped] {
        assert_eq!(caller.me().await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_old_key_is_accepted_until_its_time() {
    let gateway = Plan::alone().secret("accept: []").start().await;
    let ann = gateway.member("ann", User).await;
    let folder = &gateway.folder;
    folder.write("signing-2.pem", generate_signing_key_pem().unwrap().expose_secret());
    let until = gateway.state.clock().unix_secs() + 300;
    let accept = format!("accept: [{{signing_key: {{file: signing.pem}}, until: {}}}]", rfc(until));
    folder.edit("  signing_key: {file: signing.pem}\n", "  signing_key: {file: signing-2.pem}\n");
    folder.edit("accept: []", &accept);
    gateway.reload().await;
    gateway.pass(Duration::from_secs(290)).await;
    assert_eq!(ann.me().await.status, 200);
    gateway.pass(Duration::from_secs(11)).await;
    ann.me().await.refused(401, "invalid_credentials");
    assert_eq!(gateway.session("ann").await.me().await.status, 200);
}

/// RFC 3339
fn rfc(unix_secs: u64) -> String {
    let (days, secs) = (unix_secs / 86_400, unix_secs % 86_400);
    // Civil date of a day since 1970 (Howard Hinnant's `civil_from_days`).
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (secs / 3600, secs % 3600 / 60, secs % 60);
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn anyone_can_check_tokens_with_the_published_keys() {
    let upstream = upstream().await;
    let gateway: Gateway = Plan::to(&upstream).auth("llm_token_algorithm: eddsa").start().await;
    let ann = gateway.member("ann", User).await;
    let scoped = gateway.caller(&ann.scoped(json!({})).await);
    assert_eq!(scoped.chat().await.status, 200);
    let jwks = gateway.anonymous().get("/.well-known/jwks.json").await.json();
    for private in ["d", "k", "p", "q"] {
        assert!(jwks["keys"][0].get(private).is_none(), "{jwks}");
    }
    let jwks: JwkSet = serde_json::from_value(jwks).unwrap();
    let mut types = Vec::new();
    for caller in [&ann, &scoped] {
        let header = jsonwebtoken::decode_header(caller.credential()).unwrap();
        let key = DecodingKey::from_jwk(jwks.find(&header.kid.unwrap()).unwrap()).unwrap();
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.validate_aud = false;
        let token = jsonwebtoken::decode::<Value>(caller.credential(), &key, &validation).unwrap();
        assert_eq!(token.claims["sub"], "ann");
        types.push((header.typ, token.claims["aud"].clone()));
    }
    assert_ne!(types[0].0, types[1].0, "{types:?}");
    assert_ne!(types[0].1, types[1].1, "{types:?}");
}
