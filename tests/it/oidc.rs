//! External issuers vouch for users, whose role comes from a claim; here they are revoked all the
//! same.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use portcullis_filters::accounts::generate_signing_key_pem;
use rcgen::KeyPair;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::support::accounts::Caller;
use crate::support::gateway::{GOOD, Gateway, PASSWORD, Plan, USER};
use crate::support::upstream::Upstream;
use crate::support::{chat_answer, until};

const ISSUER: &str = "https://id.example.com";

/// A key of an issuer.
struct Key {
    id: &'static str,
    algorithm: Algorithm,
    key: EncodingKey,
}

impl Key {
    fn ed25519(id: &'static str) -> Self {
        let pem = generate_signing_key_pem().unwrap();
        let key = EncodingKey::from_ed_pem(pem.expose_secret().as_bytes()).unwrap();
        Self { id, algorithm: Algorithm::EdDSA, key }
    }

    fn p256(id: &'static str) -> Self {
        let key = EncodingKey::from_ec_der(&KeyPair::generate().unwrap().serialize_der());
        Self { id, algorithm: Algorithm::ES256, key }
    }

    fn public(&self) -> Jwk {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.id.to_owned());
        jwk
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.to_owned()), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }
}

/// An issuer that publishes its keys on a loopback address.
struct Issuer {
    server: Upstream,
    published: Arc<Mutex<Vec<Jwk>>>,
}

impl Issuer {
    async fn publishing(keys: &[&Key]) -> Self {
        let published = Arc::<Mutex<Vec<Jwk>>>::default();
        let shown = Arc::clone(&published);
        let server = Upstream::start(move |talk| {
            let keys = json!({ "keys": *shown.lock().unwrap() });
            async move { talk.json(200, &keys).await }
        });
        let issuer = Self { server: server.await, published };
        issuer.publish(keys);
        issuer
    }

    fn publish(&self, keys: &[&Key]) {
        *self.published.lock().unwrap() = keys.iter().map(|key| key.public()).collect();
    }

    /// What a gateway is told of it.
    fn block(&self) -> String {
        format!(
            "oidc: [{{name: corp, issuer: '{ISSUER}', audience: portcullis, \
             jwks_url: '{}/keys', algorithms: [EdDSA, ES256], role_claim: groups, \
             role_map: {{llm-admins: admin, llm-users: user, readers: read_only}}}}]",
            self.server.url()
        )
    }
}

/// Claims of a token that is issued now.
fn claims(gateway: &Gateway, user: &str, groups: Value) -> Value {
    let now = gateway.state.clock().unix_secs();
    json!({
        "iss": ISSUER, "aud": ["portcullis", "other"], "sub": user, "groups": groups,
        "iat": now, "exp": now + 3600,
    })
}

fn caller(gateway: &Gateway, key: &Key, user: &str) -> Caller {
    gateway.caller(&key.sign(&claims(gateway, user, json!(["llm-users"]))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn groups_give_roles() {
    let keys = [Key::ed25519("e1"), Key::p256("p1")];
    let issuer = Issuer::publishing(&[&keys[0], &keys[1]]).await;
    let upstream = Upstream::json(chat_answer(1, 1)).await;
    let gateway = Plan::to(&upstream).auth(&issuer.block()).start().await;
    for (number, (groups, role)) in [
        (json!(["llm-users"]), Some("user")),
        (json!("llm-users"), Some("user")),
        (json!(["all", "readers"]), Some("read_only")),
        (json!(["readers", "llm-admins", "llm-users"]), Some("admin")),
        (json!(["owner"]), None),
        (json!(["LLM-ADMINS"]), None),
        (json!([]), None),
        (json!(7), None),
        (json!({ "llm-admins": true }), None),
        (Value::Null, None),
    ]
    .into_iter()
    .enumerate()
    {
        for key in &keys {
            let user = format!("Ann.{number}@example.com");
            let caller = gateway.caller(&key.sign(&claims(&gateway, &user, groups.clone())));
            let me = caller.me().await;
            match role {
                None => me.refused(401, "invalid_credentials"),
                Some(role) => {
                    assert_eq!(me.json()["role"], role, "{groups}: {me:?}");
                    assert_eq!(me.json()["username"], format!("corp:ann.{number}@example.com"));
                    assert_eq!(caller.chat().await.status == 200, role != "read_only");
                }
            }
        }
    }
    let admin = claims(&gateway, "boss", json!(["llm-admins"]));
    let users = gateway.caller(&keys[0].sign(&admin)).get("/auth/users").await;
    let of_corp = |user: &&Value| user["source"] == "issuer";
    assert_eq!(users.json()["users"].as_array().unwrap().iter().filter(of_corp).count(), 5);
    // Keys are fetched when the first token needs them, and not for every token.
    assert_eq!(issuer.server.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn tokens_that_the_issuer_did_not_mean_for_us_are_refused_alike() {
    let key = Key::ed25519("e1");
    let issuer = Issuer::publishing(&[&key]).await;
    let upstream = Upstream::json(chat_answer(1, 1)).await;
    let gateway = Plan::to(&upstream).auth(&issuer.block()).start().await;
    let now = gateway.state.clock().unix_secs();
    let good = claims(&gateway, "ann", json!(["llm-users"]));
    assert_eq!(gateway.caller(&key.sign(&good)).chat().await.status, 200);
    let mut told = Vec::new();
    for (claim, value) in [
        ("aud", json!("another")),
        ("aud", Value::Null),
        ("iss", json!("https://id.example.com/")),
        ("iss", json!("https://evil.example")),
        ("exp", json!(now - 61)),
        ("exp", json!(now + 90_000)),
        ("exp", Value::Null),
        ("iat", json!(now + 120)),
        ("nbf", json!(now + 120)),
        ("sub", json!("")),
        ("sub", json!("alice:x")),
        ("sub", json!(["alice"])),
        ("sub", json!("аlice")),
    ] {
        let mut wrong = good.clone();
        wrong[claim] = value.clone();
        let answer = gateway.caller(&key.sign(&wrong)).chat().await;
        assert_eq!(answer.status, 401, "{claim} {value}: {answer:?}");
        answer.refused(401, "invalid_credentials");
        told.push(answer.json()["error"]["message"].clone());
    }
    let header = |kid: Option<&str>, algorithm| Header {
        kid: kid.map(str::to_owned),
        ..Header::new(algorithm)
    };
    let Some(public) = serde_json::to_value(key.public()).unwrap()["x"].as_str().map(str::to_owned)
    else {
        panic!("a key without x");
    };
    let shared = EncodingKey::from_secret(public.as_bytes());
    let mut elsewhere = header(Some("e1"), Algorithm::EdDSA);
    elsewhere.jku = Some("http://127.0.0.1:9/keys".to_owned());
    let (stranger, p256) = (Key::ed25519("e1"), Key::p256("e1"));
    for (header, key) in [
        (header(Some("e1"), Algorithm::EdDSA), &stranger.key),
        (header(None, Algorithm::EdDSA), &key.key),
        (header(Some("e1"), Algorithm::ES256), &p256.key),
        (header(Some("e1"), Algorithm::HS256), &shared),
        (elsewhere, &key.key),
    ] {
        let token = jsonwebtoken::encode(&header, &good, key).unwrap();
        let answer = gateway.caller(&token).chat().await;
        assert_eq!(answer.status, 401, "{header:?}: {answer:?}");
        answer.refused(401, "invalid_credentials");
        told.push(answer.json()["error"]["message"].clone());
    }
    told.dedup();
    assert_eq!(told.len(), 1, "callers can tell why: {told:?}");
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn keys_of_the_issuer_change() {
    let (old, new) = (Key::ed25519("e1"), Key::p256("p2"));
    let issuer = Issuer::publishing(&[&old]).await;
    let gateway = Plan::alone().auth(&issuer.block()).start().await;
    assert_eq!(caller(&gateway, &old, "ann").me().await.status, 200);
    issuer.publish(&[&new]);
    // Whoever makes up names of keys makes the gateway ask once a minute at most.
    for _ in 0..3 {
        caller(&gateway, &new, "ann").me().await.refused(401, "invalid_credentials");
    }
    assert_eq!(issuer.server.seen().len(), 1);
    gateway.pass(Duration::from_secs(61)).await;
    assert_eq!(caller(&gateway, &new, "ann").me().await.status, 200);
    caller(&gateway, &old, "ann").me().await.refused(401, "invalid_credentials");
    assert_eq!(issuer.server.seen().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_issuer_that_is_gone_lets_nobody_in_who_was_not_checked() {
    let key = Key::ed25519("e1");
    let issuer = Issuer::publishing(&[&key]).await;
    let block = issuer.block();
    drop(issuer);
    let gateway = Plan::alone().auth(&block).start().await;
    let answer = caller(&gateway, &key, "ann").me().await;
    answer.refused(503, "overloaded");
    assert!(answer.field("retry-after").is_some(), "{answer:?}");
    until("the gauge to tell", || {
        gateway.metric("portcullis_degraded{component=\"issuers\"}") == 1
    })
    .await;
    assert_eq!(gateway.login(USER).await.me().await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_external_user_is_revoked_and_disabled_here() {
    let key = Key::ed25519("e1");
    let issuer = Issuer::publishing(&[&key]).await;
    let upstream = Upstream::json(chat_answer(1, 1)).await;
    let a = Plan::to(&upstream).auth(&issuer.block()).start().await;
    let b = a.twin().await;
    let owner = a.session(USER).await;
    let (ann, ben) = (caller(&a, &key, "ann"), caller(&a, &key, "ben"));
    for gateway in [&a, &b] {
        assert_eq!(ann.at(gateway).chat().await.status, 200);
        assert_eq!(ben.at(gateway).chat().await.status, 200);
    }
    let shown = owner.get("/auth/users/corp:ann").await.json();
    assert_eq!((&shown["username"], &shown["source"]), (&json!("corp:ann"), &json!("issuer")));
    let made = ann.new_key(&json!({ "permissions": ["llm:generate"] })).await;
    let of_ann = a.caller(made["api_key"].as_str().unwrap());
    assert_eq!(owner.press("/auth/users/corp:ann/revoke").await.status, 200);
    b.state.look().await.unwrap();
    for gateway in [&a, &b] {
        ann.at(gateway).chat().await.refused(401, "invalid_credentials");
        assert_eq!(ben.at(gateway).chat().await.status, 200);
        assert_eq!(of_ann.at(gateway).chat().await.status, 200);
    }
    // What the issuer gives out afterwards counts again.
    a.pass(Duration::from_secs(2)).await;
    let again = caller(&a, &key, "ann");
    assert_eq!(again.chat().await.status, 200);
    let off = json!({ "disabled": true });
    assert_eq!(owner.patch("/auth/users/corp:ann", &off).await.status, 200);
    b.state.look().await.unwrap();
    a.pass(Duration::from_secs(2)).await;
    for gateway in [&a, &b] {
        for caller in [&again, &caller(&a, &key, "ann"), &of_ann] {
            caller.at(gateway).chat().await.refused(401, "invalid_credentials");
        }
    }
    let on = json!({ "disabled": false });
    assert_eq!(owner.patch("/auth/users/corp:ann", &on).await.status, 200);
    a.pass(Duration::from_secs(2)).await;
    assert_eq!(caller(&a, &key, "ann").chat().await.status, 200);
    again.chat().await.refused(401, "invalid_credentials");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_external_user_has_no_password_and_no_session_here() {
    let key = Key::ed25519("e1");
    let issuer = Issuer::publishing(&[&key]).await;
    let gateway = Plan::alone().auth(&issuer.block()).start().await;
    let ann = caller(&gateway, &key, "ann");
    assert_eq!(ann.me().await.json()["session_id"], Value::Null);
    gateway.try_login("corp:ann", PASSWORD, None).await.refused(401, "invalid_credentials");
    ann.press("/auth/logout").await.refused(400, "invalid_request");
    let form = json!({ "old_password": PASSWORD, "new_password": GOOD });
    ann.post("/auth/password", &form).await.refused(401, "invalid_credentials");
    // A local user of the same name is another.
    gateway.user("ann", portcullis_filters::accounts::AccountRole::Admin).await;
    assert_eq!(ann.me().await.json()["role"], "user");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_keys_of_a_user_follow_the_role_that_the_issuer_gives() {
    let key = Key::ed25519("e1");
    let issuer = Issuer::publishing(&[&key]).await;
    let upstream = Upstream::json(chat_answer(1, 1)).await;
    let gateway = Plan::to(&upstream).auth(&issuer.block()).start().await;
    let with = |group| gateway.caller(&key.sign(&claims(&gateway, "ann", json!([group]))));
    let made = with("llm-users").new_key(&json!({ "permissions": ["llm:generate"] })).await;
    let of_ann = gateway.caller(made["api_key"].as_str().unwrap());
    let owner = gateway.session(USER).await;
    for (group, role, status) in
        [("llm-users", "user", 200), ("readers", "read_only", 403), ("llm-admins", "admin", 200)]
    {
        assert_eq!(with(group).me().await.json()["role"], role);
        let shown = owner.get("/auth/users/corp:ann").await.json();
        assert_eq!(shown["role"], role, "{shown}");
        of_ann.chat().await.is(status, if status == 403 { "insufficient_scope" } else { "" });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn removing_a_user_ends_the_tokens_that_the_issuer_gave_out() {
    let key = Key::ed25519("e1");
    let issuer = Issuer::publishing(&[&key]).await;
    let gateway = Plan::alone().auth(&issuer.block()).start().await;
    let owner = gateway.session(USER).await;
    let ann = caller(&gateway, &key, "ann");
    assert_eq!(ann.me().await.status, 200);
    gateway.pass(Duration::from_secs(5)).await;
    assert_eq!(owner.delete("/auth/users/corp:ann").await.status, 204);
    for _ in 0..2 {
        ann.me().await.refused(401, "invalid_credentials");
    }
    // Whom the issuer lets in again comes in again: it is disabling that keeps a user out.
    gateway.pass(Duration::from_secs(2)).await;
    assert_eq!(caller(&gateway, &key, "ann").me().await.status, 200);
    ann.me().await.refused(401, "invalid_credentials");
}
