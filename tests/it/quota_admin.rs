//! Operators change limits while gateways run: on all of them within a second, for as long as they
//! said, and with a record.

use std::time::{Duration, Instant};

use portcullis_filters::accounts::AccountRole::{Admin, Owner, User};
use serde_json::{Value, json};

use crate::support::accounts::Caller;
use crate::support::chat_answer;
use crate::support::database::Database;
use crate::support::gateway::{Gateway, Plan, USER};
use crate::support::upstream::Upstream;

/// The longest that a change may take to be in force everywhere.
const BOUND: Duration = Duration::from_secs(1);
const ANN: &str = "/internal/quota/user/ann";
const EMERGENCY: &str = "/internal/security/emergency-rate-limit";

/// Two gateways, an owner and a user.
struct Scene {
    a: Gateway,
    b: Gateway,
    owner: Caller,
    ann: Caller,
    _upstream: Upstream,
}

impl Scene {
    async fn new(quota: &str, database: Database) -> Self {
        let upstream = Upstream::json(chat_answer(3, 2)).await;
        let a = Plan::to(&upstream).quota(quota).on(database).start().await;
        let b = a.twin().await;
        let owner = a.session(USER).await.at_admin(&a);
        let ann = a.member("ann", User).await;
        b.state.look().await.unwrap();
        Self { a, b, owner, ann, _upstream: upstream }
    }

    async fn put(&self, path: &str, limits: Value) -> Value {
        let answer = self.owner.put(path, &json!({ "limits": limits, "reason": "a test" })).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }
}

/// Asks until the answer has this status, which must be soon.
async fn becomes(caller: &Caller, status: u16) {
    let begun = Instant::now();
    loop {
        let answer = caller.chat().await;
        if answer.status == status {
            return;
        }
        assert!(begun.elapsed() < BOUND, "not {status}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The records of changes: by whom, of what, and what they say.
fn changes(gateway: &Gateway, operation: &str) -> Vec<Value> {
    let mut records = gateway.records();
    records.retain(|record| record["operation"] == operation);
    records
}

async fn an_override_holds_on_all_gateways_within_a_second(database: Database) {
    let scene = Scene::new("burst: 1000, requests_per_minute: 60000", database).await;
    let Scene { a, b, owner, ann, .. } = &scene;
    let set = scene.put(ANN, json!({ "requests_per_month": 2 })).await;
    assert_eq!(set["limits"]["requests_per_month"], 2, "{set}");
    assert_eq!(set["limits"]["burst"], 1000, "others stay: {set}");
    assert_eq!(set["configured"]["requests_per_month"], Value::Null, "{set}");
    assert_eq!(set["override"]["set_by"], USER, "{set}");
    for status in [200, 200, 429] {
        assert_eq!(ann.chat().await.status, status);
    }
    ann.chat().await.refused(429, "insufficient_quota");
    becomes(&ann.at(b), 429).await;
    let at_b = owner.at_admin(b);
    let looser = json!({ "limits": { "requests_per_month": 1000 }, "reason": "enough" });
    assert_eq!(at_b.put(ANN, &looser).await.status, 200);
    assert_eq!(ann.at(b).chat().await.status, 200);
    becomes(ann, 200).await;
    let shown = owner.get("/internal/quota").await.json();
    assert_eq!(shown["overrides"][0]["id"], "ann", "{shown}");
    assert_eq!(owner.delete(ANN).await.status, 204);
    owner.delete(ANN).await.refused(404, "not_found");
    let me = ann.me().await.json();
    assert_eq!(me["quotas"][0]["limits"]["requests_per_month"], Value::Null, "{me}");
    let trail = changes(a, "configuration");
    let told = |record: &Value, name: &str| record["metadata"][name].as_str().map(str::to_owned);
    let set = &trail[0];
    assert_eq!(set["user_id"], USER, "{set}");
    assert_eq!(told(set, "target").as_deref(), Some("user/ann"), "{set}");
    assert_eq!(told(set, "reason_given").as_deref(), Some("a test"), "{set}");
    assert!(told(set, "after").unwrap().contains("\"requests_per_month\":2}"), "{set}");
    let removed = trail.iter().find(|record| told(record, "before").is_some()).unwrap();
    assert!(told(removed, "before").unwrap().contains("1000"), "{removed}");
}

async fn a_reset_gives_the_quota_back_once(database: Database) {
    let quota = "burst: 1000, requests_per_minute: 60000, requests_per_month: 2";
    let scene = Scene::new(quota, database).await;
    let Scene { a, b, owner, ann, .. } = &scene;
    let use_up = async |caller: &Caller| {
        while caller.chat().await.status == 200 {}
        caller.chat().await.refused(429, "insufficient_quota");
    };
    for gateway in [a, b] {
        use_up(&ann.at(gateway)).await;
    }
    let reset = owner.post(&format!("{ANN}/reset"), &json!({ "reason": "a mistake" })).await;
    assert_eq!(reset.status, 200, "{reset:?}");
    assert_eq!(reset.json()["used"]["month"]["requests"], 0, "{reset:?}");
    assert_eq!(ann.chat().await.status, 200);
    becomes(&ann.at(b), 200).await;
    // It was one gift: neither a later look nor another gateway makes it again.
    use_up(&ann.at(b)).await;
    let c = b.twin().await;
    for _ in 0..3 {
        b.state.look().await.unwrap();
        c.state.look().await.unwrap();
    }
    ann.at(b).chat().await.refused(429, "insufficient_quota");
    let record = &changes(a, "configuration")[0];
    assert_eq!(record["metadata"]["target"], "user/ann", "{record}");
    assert_eq!(record["metadata"]["reason_given"], "a mistake", "{record}");
}

async fn an_emergency_is_tenfold_and_ends(database: Database) {
    let scene = Scene::new("burst: 20, requests_per_minute: 100", database).await;
    let Scene { a, b, owner, ann, .. } = &scene;
    assert_eq!(owner.get(EMERGENCY).await.json(), json!({ "active": false }));
    let answer = owner.post(EMERGENCY, &json!({ "reason": "a flood" })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let shown = answer.json();
    let rates = (&shown["requests_per_minute"], &shown["requests_per_minute_per_address"]);
    assert_eq!((rates, &shown["active"]), ((&json!(10), &json!(50)), &json!(true)), "{shown}");
    b.state.look().await.unwrap();
    for gateway in [a, b] {
        let ann = ann.at(gateway);
        for status in [200, 200, 429] {
            assert_eq!(ann.chat().await.status, status);
        }
        let refused = ann.chat().await;
        refused.refused(429, "rate_limit_exceeded");
        assert!(refused.text().contains("this user"), "{refused:?}");
        // The burst of an address is 10, whoever asks.
        let mut passed = 2;
        for number in 0..6 {
            let name = format!("u{}-{number}", gateway.address.port());
            let caller = a.member(&name, User).await.at(gateway);
            for _ in 0..2 {
                passed += i32::from(caller.chat().await.status == 200);
            }
        }
        assert!((10..=12).contains(&passed), "{passed}");
    }
    for _ in 0..30 {
        assert_eq!(owner.get(EMERGENCY).await.status, 200, "operators are not locked out");
    }
    assert_eq!(owner.delete(EMERGENCY).await.json(), json!({ "active": false }));
    // One of 100 a minute comes back in 0.6 s, one of 10 would in 6 s.
    for caller in [ann, ann, &ann.at(b), &ann.at(b)] {
        becomes(caller, 200).await;
    }
    let short = json!({ "reason": "again", "window_minutes": 1, "requests_per_minute": 5 });
    assert_eq!(owner.post(EMERGENCY, &short).await.status, 200);
    assert_eq!(owner.get(EMERGENCY).await.json()["active"], true);
    a.pass(Duration::from_secs(61)).await;
    for _ in 0..3 {
        assert_eq!(ann.chat().await.status, 200);
    }
    assert_eq!(owner.get(EMERGENCY).await.json(), json!({ "active": false }));
    let on = changes(a, "incident");
    let on = on.iter().find(|record| record["metadata"]["after"].is_string()).unwrap();
    assert_eq!((&on["user_id"], &on["status"]), (&json!(USER), &json!("success")), "{on}");
    assert_eq!(on["metadata"]["reason_given"], "a flood", "{on}");
}

/// Makes a test of each function for each database that two processes can share.
macro_rules! on_each_database {
    ($($name:ident),*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
            async fn $name() {
                super::$name(super::Database::File).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
            async fn $name() {
                if let Some(database) = super::Database::postgres() {
                    super::$name(database).await;
                }
            })*
        }
    };
}
on_each_database!(
    an_override_holds_on_all_gateways_within_a_second,
    a_reset_gives_the_quota_back_once,
    an_emergency_is_tenfold_and_ends
);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_override_ends_by_itself_and_outlives_a_restart() {
    let scene = Scene::new("burst: 1000, requests_per_minute: 60000", Database::File).await;
    let Scene { a, b, owner, ann, _upstream } = scene;
    let wanted = json!({ "limits": { "requests_per_month": 1 }, "for": "60s", "reason": "a test" });
    assert_eq!(owner.put(ANN, &wanted).await.status, 200);
    drop(b);
    let a = a.restart().await;
    let ann = ann.at(&a);
    for status in [200, 429] {
        assert_eq!(ann.chat().await.status, status);
    }
    a.pass(Duration::from_secs(61)).await;
    assert_eq!(ann.chat().await.status, 200);
    let shown = owner.at_admin(&a).get(ANN).await.json();
    assert_eq!(shown["override"], Value::Null, "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_level_can_be_limited_also_one_without_a_quota() {
    let scene = Scene::new("burst: 1000, requests_per_minute: 60000", Database::File).await;
    let key = scene.ann.new_key(&json!({ "permissions": ["llm:generate"] })).await;
    let caller = scene.a.caller(key["api_key"].as_str().unwrap());
    let of_key = format!("key/{}", key["id"].as_str().unwrap());
    for (subject, words) in [
        (of_key.as_str(), "this API key"),
        ("role/user", "this role"),
        ("model/phi", "this model"),
        ("upstream/local", "this upstream"),
        ("address/127.0.0.1", "this address"),
        ("global", "this gateway"),
    ] {
        let path = format!("/internal/quota/{subject}");
        scene.put(&path, json!({ "requests_per_month": 1 })).await;
        assert_eq!(caller.chat().await.status, 200, "{subject}");
        let answer = caller.chat().await;
        answer.refused(429, "insufficient_quota");
        assert!(answer.text().contains(words), "{subject}: {answer:?}");
        let reset = json!({ "reason": "a test" });
        assert_eq!(scene.owner.post(&format!("{path}/reset"), &reset).await.status, 200);
        assert_eq!(caller.chat().await.status, 200, "{subject}");
        assert_eq!(scene.owner.delete(&path).await.status, 204, "{subject}");
        assert_eq!(caller.chat().await.status, 200, "{subject}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_may_change_limits() {
    let scene = Scene::new("burst: 1000, requests_per_minute: 60000", Database::File).await;
    let Scene { a, owner, ann, .. } = &scene;
    let amy = a.member("amy", Admin).await;
    a.user("olga", Owner).await;
    let key = async |scope: &str| {
        let key = amy.new_key(&json!({ "permissions": [scope] })).await;
        a.caller(key["api_key"].as_str().unwrap()).at_admin(a)
    };
    let (holder, other) = (key("quotas:write").await, key("users:write").await);
    let amy = amy.at_admin(a);
    let put = json!({ "limits": { "concurrent": 5 }, "reason": "a test" });
    for (caller, subject, status) in [
        (owner, "user/alice", 200),
        (owner, "user/olga", 200),
        (&amy, "user/ann", 200),
        (&amy, "user/amy", 403),
        (&amy, "user/olga", 403),
        (&amy, "global", 200),
        (&amy, "role/admin", 200),
        (&holder, "user/ann", 200),
        (&holder, "user/amy", 403),
        (&other, "user/ann", 403),
        (&ann.at_admin(a), "user/ann", 403),
        (&ann.at_admin(a), "global", 403),
        (&a.anonymous().at_admin(a), "global", 401),
        (&a.session(USER).await, "global", 404),
    ] {
        let path = format!("/internal/quota/{subject}");
        let code = match status {
            401 => "invalid_credentials",
            403 => "insufficient_scope",
            404 => "not_found",
            _ => "",
        };
        caller.put(&path, &put).await.is(status, code);
        let reset = caller.post(&format!("{path}/reset"), &json!({ "reason": "x" })).await;
        reset.is(status, code);
    }
    for (caller, status) in [(&ann.at_admin(a), 403), (&other, 403), (&amy, 200)] {
        let code = if status == 403 { "insufficient_scope" } else { "" };
        caller.get("/internal/quota").await.is(status, code);
        caller.get(EMERGENCY).await.is(status, code);
        caller.delete(EMERGENCY).await.is(status, code);
        caller.post(EMERGENCY, &json!({ "reason": "a test" })).await.is(status, code);
    }
}

/// What no endpoint takes.
#[rustfmt::skip] // a table: one request a row
const FORMS: &[(&str, &str, &str, u16)] = &[
    ("PUT", ANN, r#"{"limits": {}, "reason": "x"}"#, 400),
    ("PUT", ANN, r#"{"limits": {"concurrent": 0}, "reason": "x"}"#, 400),
    ("PUT", ANN, r#"{"limits": {"concurrent": 1.5}, "reason": "x"}"#, 400),
    ("PUT", ANN, r#"{"limits": {"tokens_per_week": 1}, "reason": "x"}"#, 400),
    ("PUT", ANN, r#"{"limits": {"concurrent": 1}}"#, 400),
    ("PUT", ANN, r#"{"limits": {"concurrent": 1}, "reason": " "}"#, 400),
    ("PUT", ANN, r#"{"limits": {"concurrent": 1}, "reason": "x", "until": 1}"#, 400),
    ("PUT", ANN, r#"{"limits": {"concurrent": 1}, "reason": "x", "for": "soon"}"#, 400),
    ("PUT", ANN, r#"{"limits": {"concurrent": 1}, "reason": "x", "for": "1h", "until": 4000000000}"#, 400),
    ("PUT", ANN, r#"{"limits": {"concurrent": 1}, "reason": "x", "more": 1}"#, 400),
    ("PUT", ANN, r#"{"limits": {"concurrent": 1}, "reason": "x", "until": null}"#, 200),
    ("PUT", "/internal/quota/user/nobody", r#"{"limits": {"concurrent": 1}, "reason": "x"}"#, 404),
    ("PUT", "/internal/quota/upstream/none", r#"{"limits": {"concurrent": 1}, "reason": "x"}"#, 404),
    ("PUT", "/internal/quota/planet/earth", r#"{"limits": {"concurrent": 1}, "reason": "x"}"#, 400),
    ("PUT", "/internal/quota/user/a%20b", r#"{"limits": {"concurrent": 1}, "reason": "x"}"#, 400),
    ("POST", "/internal/quota/user/ann/reset", "{}", 400),
    ("POST", "/internal/quota/user/nobody/reset", r#"{"reason": "x"}"#, 404),
    ("POST", EMERGENCY, "{}", 400),
    ("POST", EMERGENCY, r#"{"reason": "x", "requests_per_minute": 0}"#, 400),
    ("POST", EMERGENCY, r#"{"reason": "x", "requests_per_minute_per_address": 0}"#, 400),
    ("POST", EMERGENCY, r#"{"reason": "x", "window_minutes": 0}"#, 400),
    ("POST", EMERGENCY, r#"{"reason": "x", "window_minutes": 1441}"#, 400),
    ("POST", EMERGENCY, r#"{"reason": "x", "window_minutes": "15"}"#, 400),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_no_change_of_limits_is_refused() {
    let scene = Scene::new("burst: 1000, requests_per_minute: 60000", Database::File).await;
    for (method, path, body, status) in FORMS {
        let answer = scene.owner.send(method, path, body.as_bytes()).await;
        let code = match status {
            400 => "invalid_request",
            404 => "not_found",
            _ => "",
        };
        assert_eq!(answer.status, *status, "{path} {body}: {answer:?}");
        answer.is(*status, code);
    }
    let shown = scene.owner.get("/internal/quota").await.json();
    assert_eq!(shown["overrides"].as_array().unwrap().len(), 1, "{shown}");
    assert_eq!(shown["emergency"], Value::Null, "{shown}");
}
