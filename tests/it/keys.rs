//! API keys: made, shown once, bounded in what they do, where, how long and how often, and revoked.

use std::time::Duration;

use portcullis_filters::accounts::AccountRole::{Admin, ReadOnly, User};
use portcullis_filters::accounts::ApiKey;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::support::accounts::Caller;
use crate::support::client::{Answer, Connection};
use crate::support::gateway::{Gateway, Plan};
use crate::support::upstream::Upstream;
use crate::support::{chat, chat_answer};

async fn upstream() -> Upstream {
    Upstream::json(chat_answer(1, 1)).await
}

async fn list(caller: &Caller) -> Vec<Value> {
    let list = caller.get("/auth/api-keys").await.json();
    list["api_keys"].as_array().unwrap().clone()
}

/// Makes a key, and gives who calls with it.
async fn holder(gateway: &Gateway, owner: &Caller, wanted: Value) -> Caller {
    gateway.caller(owner.new_key(&wanted).await["api_key"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_key_is_shown_once_and_listed_without_its_secret() {
    let upstream = upstream().await;
    let gateway = Plan::to(&upstream).start().await;
    let ann = gateway.member("ann", User).await;
    let wanted = json!({
        "name": "batch jobs", "permissions": ["llm:generate"], "models": ["phi*"],
        "networks": ["127.0.0.0/8", "::1"], "quota": "small", "expires_in": 3600,
    });
    let made = ann.new_key(&wanted).await;
    let members: Vec<&String> = made.as_object().unwrap().keys().collect();
    assert_eq!(members, ["api_key", "id"]);
    let (id, secret) = (made["id"].as_str().unwrap(), made["api_key"].as_str().unwrap());
    assert!(secret.starts_with(&format!("sk_{id}")), "{made}");
    let listed = list(&ann).await.remove(0);
    let now = gateway.state.clock().unix_secs();
    let expires = listed["expires_at"].as_u64().unwrap();
    assert!((now + 3590..=now + 3600).contains(&expires), "{listed}");
    for (member, expected) in [
        ("id", json!(id)),
        ("prefix", json!(format!("sk_{id}"))),
        ("user", json!("ann")),
        ("name", json!("batch jobs")),
        ("permissions", json!(["llm:generate"])),
        ("models", json!(["phi*"])),
        ("networks", json!(["127.0.0.0/8", "::1/128"])),
        ("quota", json!("small")),
        ("created_by", json!("ann")),
        ("last_used_at", Value::Null),
        ("revoked_at", Value::Null),
        ("source", json!("store")),
    ] {
        assert_eq!(listed[member], expected, "{member}");
    }
    assert_eq!(gateway.caller(secret).chat().await.status, 200);
    let listed = ann.get("/auth/api-keys").await;
    assert!(listed.json()["api_keys"][0]["last_used_at"].as_u64() >= Some(now), "{listed:?}");
    assert!(!listed.text().contains(&secret[20..]), "{listed:?}");
    let trail = json!(gateway.settled(4).await).to_string();
    assert!(!trail.contains(&secret[20..]), "{trail}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_key_holds_no_more_than_it_was_given_nor_than_its_user() {
    let upstream = upstream().await;
    let gateway = Plan::to(&upstream).start().await;
    let (ann, boss) = (gateway.member("ann", User).await, gateway.member("boss", Admin).await);
    gateway.user("rita", ReadOnly).await;
    for (caller, permissions, status) in [
        (&ann, json!(["llm:generate", "llm:embed", "models:read"]), 201),
        (&ann, json!(["users:write"]), 403),
        (&ann, json!(["llm:generate", "scan"]), 403),
        (&ann, json!(["*"]), 403),
        (&boss, json!(["llm:*", "users:write"]), 201),
        (&boss, json!(["*"]), 403),
    ] {
        let answer = caller.post("/auth/api-keys", &json!({ "permissions": permissions })).await;
        answer.is(status, if status == 403 { "insufficient_scope" } else { "" });
    }
    // Neither does one that another makes hold more than its user.
    let app = boss.enrol(&gateway).await;
    for (name, scope, status) in
        [("ann", "llm:generate", 201), ("ann", "scan", 403), ("rita", "llm:generate", 403)]
    {
        let caller = boss.fresh(&gateway, &app).await;
        let path = format!("/auth/users/{name}/api-keys");
        let answer = caller.post(&path, &json!({ "permissions": [scope] })).await;
        answer.is(status, if status == 403 { "insufficient_scope" } else { "" });
    }
    let reads = holder(&gateway, &ann, json!({ "permissions": ["models:read"] })).await;
    reads.chat().await.refused(403, "insufficient_scope");
    let other = json!({ "permissions": ["llm:generate"], "models": ["llama*"] });
    holder(&gateway, &ann, other).await.chat().await.refused(403, "model_not_allowed");
    assert!(upstream.seen().is_empty());
    let generates = holder(&gateway, &ann, json!({ "permissions": ["llm:generate"] })).await;
    assert_eq!(generates.chat().await.status, 200);
    let caller = boss.fresh(&gateway, &app).await;
    let lowered = caller.post("/auth/users/ann/role", &json!({ "role": "read_only" })).await;
    assert_eq!(lowered.status, 200);
    generates.chat().await.refused(403, "insufficient_scope");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_key_works_from_its_networks_only() {
    let upstream = upstream().await;
    let gateway = Plan::to(&upstream).with("server: {trusted_proxies: [127.0.0.0/8]}");
    let gateway = gateway.start().await;
    let ann = gateway.member("ann", User).await;
    let networks = json!(["203.0.113.0/24", "198.51.100.7", "2001:db8::/32"]);
    let wanted = json!({ "permissions": ["llm:generate"], "networks": networks });
    let key = holder(&gateway, &ann, wanted).await;
    let inside = key.field("X-Forwarded-For", "203.0.113.9");
    let scoped = gateway.caller(&inside.scoped(json!({})).await);
    for (forwarded, status) in [
        ("203.0.113.9", 200),
        ("198.51.100.7", 200),
        ("2001:db8::7", 200),
        ("::ffff:203.0.113.9", 200),
        ("192.0.2.1, 203.0.113.9", 200),
        ("203.0.113.9, 127.0.0.2", 200),
        ("", 401),
        ("203.0.114.9", 401),
        ("198.51.100.8", 401),
        ("2001:db9::7", 401),
        ("203.0.113.9, 192.0.2.1", 401),
        ("203.0.113.9, nonsense", 401),
    ] {
        // The token of a key is bound as the key is.
        for caller in [&key, &scoped] {
            let answer = caller.field("X-Forwarded-For", forwarded).chat().await;
            assert_eq!(answer.status, status, "{forwarded}: {answer:?}");
            answer.is(status, if status == 401 { "invalid_credentials" } else { "" });
        }
    }
    gateway.folder.edit("trusted_proxies: [127.0.0.0/8]", "trusted_proxies: []");
    gateway.reload().await;
    inside.chat().await.refused(401, "invalid_credentials");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_key_ends_at_its_time() {
    let upstream = upstream().await;
    let gateway = Plan::to(&upstream).start().await;
    let ann = gateway.member("ann", User).await;
    let wanted = json!({ "permissions": ["llm:generate"], "expires_in": 60 });
    let key = holder(&gateway, &ann, wanted).await;
    gateway.pass(Duration::from_secs(30)).await;
    let wanted = json!({ "model": "phi", "max_tokens": 9, "scopes": ["llm:generate"] });
    let minted = key.post("/auth/scoped-token", &wanted).await.json();
    let left = minted["expires_in"].as_u64().unwrap();
    assert!((20..=30).contains(&left), "{minted}");
    let scoped = gateway.caller(minted["token"].as_str().unwrap());
    for caller in [&key, &scoped] {
        assert_eq!(caller.chat().await.status, 200);
    }
    gateway.pass(Duration::from_secs(31)).await;
    for caller in [&key, &scoped] {
        caller.chat().await.refused(401, "invalid_credentials");
    }
    assert_eq!(gateway.records().pop().unwrap()["status"], "failure");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_key_is_rotated_without_a_gap() {
    let upstream = upstream().await;
    let gateway = Plan::to(&upstream).start().await;
    let ann = gateway.member("ann", User).await;
    for (grace, works_for) in [(json!({ "grace": 60 }), 60), (json!({ "grace": 0 }), 0)] {
        let made = ann.new_key(&json!({ "permissions": ["llm:generate"], "name": "jobs" })).await;
        let old = gateway.caller(made["api_key"].as_str().unwrap());
        let path = format!("/auth/api-keys/{}/rotate", made["id"].as_str().unwrap());
        let long = ann.post(&path, &json!({ "grace": 31 * 86400 })).await;
        long.refused(400, "invalid_request");
        let answer = ann.post(&path, &grace).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let now = gateway.state.clock().unix_secs();
        let until = answer.json()["old_expires_at"].as_u64().unwrap();
        assert!((now + works_for - 2..=now + works_for).contains(&until), "{answer:?}");
        let new = gateway.caller(answer.json()["api_key"].as_str().unwrap());
        if works_for > 0 {
            assert_eq!(old.chat().await.status, 200);
            gateway.pass(Duration::from_secs(works_for)).await;
        }
        old.chat().await.refused(401, "invalid_credentials");
        assert_eq!(new.chat().await.status, 200);
        let listed = list(&ann).await;
        let of = |id: &Value| listed.iter().find(|key| key["id"] == *id).unwrap().clone();
        let (before, after) = (of(&made["id"]), of(&answer.json()["id"]));
        for member in ["name", "permissions", "models", "networks", "quota", "user"] {
            assert_eq!(before[member], after[member], "{member}");
        }
        assert_eq!(after["expires_at"], Value::Null);
    }
    let made = ann.new_key(&json!({ "permissions": ["llm:generate"], "expires_in": 600 })).await;
    let path = format!("/auth/api-keys/{}/rotate", made["id"].as_str().unwrap());
    let answer = ann.press(&path).await.json();
    let left = answer["old_expires_at"].as_u64().unwrap() - gateway.state.clock().unix_secs();
    assert!(left <= 600, "a rotation makes no key live longer: {answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_revoked_key_is_gone() {
    let upstream = upstream().await;
    let gateway = Plan::to(&upstream).start().await;
    let ann = gateway.member("ann", User).await;
    let made = ann.new_key(&json!({ "permissions": ["llm:generate"] })).await;
    let key = gateway.caller(made["api_key"].as_str().unwrap());
    let scoped = gateway.caller(&key.scoped(json!({})).await);
    assert_eq!(scoped.chat().await.status, 200);
    let path = format!("/auth/api-keys/{}", made["id"].as_str().unwrap());
    assert_eq!(ann.delete(&path).await.status, 204);
    for caller in [&key, &scoped] {
        caller.chat().await.refused(401, "invalid_credentials");
    }
    ann.delete(&path).await.refused(404, "not_found");
    ann.press(&format!("{path}/rotate")).await.refused(404, "not_found");
    assert!(list(&ann).await[0]["revoked_at"].as_u64().is_some());
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_quota_of_a_key_is_the_keys_alone() {
    let upstream = upstream().await;
    let gateway = Plan::to(&upstream).start().await;
    let ann = gateway.member("ann", User).await;
    let wanted = json!({ "permissions": ["llm:generate"], "quota": "small" });
    let key = holder(&gateway, &ann, wanted.clone()).await;
    let scoped = gateway.caller(&key.scoped(json!({})).await);
    assert_eq!(scoped.chat().await.status, 200);
    for caller in [&key, &scoped] {
        let answer = caller.chat().await;
        answer.refused(429, "rate_limit_exceeded");
        assert!(answer.field("retry-after").is_some(), "{answer:?}");
    }
    assert_eq!(ann.chat().await.status, 200);
    assert_eq!(holder(&gateway, &ann, wanted).await.chat().await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn keys_of_the_environment_do_what_the_configuration_says() {
    let upstream = upstream().await;
    let gateway = Plan::to(&upstream).start().await;
    let keys = [0; 4].map(|_| ApiKey::generate().unwrap().reveal());
    let keys = keys.each_ref().map(|key| key.expose_secret());
    gateway.folder.edit(
        "  api_keys: [",
        "  environment_keys: {role: user, scopes: ['llm:generate'], models: ['phi']}\n  api_keys: [",
    );
    let more = [keys[1], keys[2]].join(", ");
    gateway.reload_with(&[("API_KEY", keys[0]), ("ADDITIONAL_API_KEYS", &more)]).await;
    for (key, status) in [(keys[0], 200), (keys[1], 200), (keys[2], 200), (keys[3], 401)] {
        let caller = gateway.caller(key);
        caller.chat().await.is(status, if status == 401 { "invalid_credentials" } else { "" });
    }
    let caller = gateway.caller(keys[0]);
    assert_eq!(caller.me().await.json()["username"], ":environment");
    caller.get("/v1/models").await.refused(403, "insufficient_scope");
    caller.get("/auth/users").await.refused(403, "insufficient_scope");
    let wanted = json!({ "model": "phi", "max_tokens": 9, "scopes": ["llm:generate"] });
    caller.post("/auth/scoped-token", &wanted).await.refused(403, "insufficient_scope");
    let other = caller.post("/v1/chat/completions", &chat("llama", "Hello")).await;
    other.refused(403, "model_not_allowed");
    // One that is taken out of the environment is void.
    gateway.reload_with(&[("API_KEY", keys[0])]).await;
    gateway.caller(keys[1]).chat().await.refused(401, "invalid_credentials");
    assert_eq!(caller.chat().await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nothing_but_the_key_itself_is_accepted() {
    let upstream = upstream().await;
    let gateway = Plan::to(&upstream).start().await;
    let ann = gateway.member("ann", User).await;
    let wanted = json!({ "permissions": ["llm:generate"] });
    let (one, two) = (ann.new_key(&wanted).await, ann.new_key(&wanted).await);
    let text = |key: &Value| key["api_key"].as_str().unwrap().to_owned();
    let (one, two) = (text(&one), text(&two));
    let stranger = ApiKey::generate().unwrap().reveal().expose_secret().to_owned();
    let mixed = format!("{}{}", &one[..16], &two[16..]);
    let swapped: String = one.chars().rev().collect();
    let mut told = Vec::new();
    for wrong in [
        stranger,
        mixed,
        one[..one.len() - 1].to_owned(),
        format!("{one}0"),
        one.to_uppercase(),
        format!("{one},{two}"),
        format!("sk_{swapped}"),
        "sk_".to_owned(),
        format!("sk_{}", "A".repeat(8000)),
    ] {
        let in_header = gateway.anonymous().field("X-API-Key", &wrong);
        for caller in [gateway.caller(&wrong), in_header] {
            let answer = caller.chat().await;
            answer.refused(401, "invalid_credentials");
            told.push(answer.json()["error"]["message"].clone());
        }
    }
    told.dedup();
    assert_eq!(told.len(), 1, "callers can tell why: {told:?}");
    for several in [
        gateway.caller(&one).field("X-API-Key", &one),
        gateway.caller(&one).field("X-API-Key", &two),
        gateway.caller(&one).field("Authorization", &format!("Bearer {two}")),
        gateway.caller(ann.credential()).field("X-API-Key", &one),
        gateway.caller(&one).field("X-LLM-Token", &ann.scoped(json!({})).await),
    ] {
        several.chat().await.refused(400, "invalid_request");
    }
    let in_query = gateway.anonymous().head("POST", &format!("/v1/chat/completions?api_key={one}"));
    let body = chat("phi", "Hello").to_string();
    let asked = in_query.field("Content-Type", "application/json").with(body.as_bytes());
    let answer: Answer = Connection::open(&gateway).await.ask(&asked).await;
    answer.refused(400, "invalid_request");
    assert!(upstream.seen().is_empty());
    let trail = json!(gateway.records()).to_string();
    assert!(!trail.contains(&one[20..]), "a key is in the record: {trail}");
    assert_eq!(gateway.anonymous().field("X-API-Key", &one).chat().await.status, 200);
}
