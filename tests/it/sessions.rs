//! Sessions: seen by their owner, ended one by one or together, and what they opened ends with them.

use std::time::Duration;

use portcullis_filters::accounts::AccountRole::{Admin, Owner, ReadOnly, User};
use serde_json::{Value, json};

use crate::support::accounts::Caller;
use crate::support::client::Answer;
use crate::support::gateway::{GOOD, Gateway, PASSWORD, Plan, USER};

async fn sessions(caller: &Caller) -> Vec<Value> {
    let list = caller.get("/auth/sessions").await.json();
    list["sessions"].as_array().unwrap().clone()
}

async fn id(caller: &Caller) -> String {
    caller.me().await.json()["session_id"].as_str().unwrap().to_owned()
}

/// What someone has open: two sessions, a scoped token of the first and one of a key, and the key.
struct Belongings {
    first: Caller,
    second: Caller,
    scoped: Caller,
    scoped_by_key: Caller,
    key: Caller,
}

impl Belongings {
    async fn of(gateway: &Gateway, name: &str) -> Self {
        let (first, second) = (gateway.session(name).await, gateway.session(name).await);
        let key = first.new_key(&json!({ "permissions": ["llm:generate"] })).await;
        let key = gateway.caller(key["api_key"].as_str().unwrap());
        let scoped = gateway.caller(&first.scoped(json!({})).await);
        let scoped_by_key = gateway.caller(&key.scoped(json!({})).await);
        Self { first, second, scoped, scoped_by_key, key }
    }

    /// Which of them let their owner in, in their order.
    async fn open(&self) -> [bool; 5] {
        let Self { first, second, scoped, scoped_by_key, key } = self;
        let mut open = [false; 5];
        for (open, caller) in open.iter_mut().zip([first, second, scoped, scoped_by_key, key]) {
            let answer = caller.me().await;
            *open = answer.status == 200;
            answer.is(answer.status, if *open { "" } else { "invalid_credentials" });
        }
        open
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_session_tells_where_it_is_from() {
    let gateway = Plan::alone().start().await;
    gateway.user("ann", User).await;
    let form = json!({ "username": "ann", "password": PASSWORD });
    let mut entered = Vec::new();
    for device in ["Firefox/142.0", &"é".repeat(300)] {
        let client = gateway.anonymous().field("User-Agent", device);
        let client = client.field("X-Forwarded-For", "203.0.113.9");
        entered.push(gateway.entered(&client.post("/auth/login", &form).await));
        gateway.pass(Duration::from_secs(5)).await;
    }
    let (first, second) = (&entered[0], &entered[1]);
    let list = sessions(first).await;
    assert_eq!(list.len(), 2, "{list:?}");
    let (newest, oldest) = (&list[0], &list[1]);
    assert_eq!(oldest["id"], id(first).await);
    assert_eq!(newest["id"], id(second).await);
    assert_eq!((&oldest["current"], &newest["current"]), (&json!(true), &json!(false)));
    assert_eq!(oldest["device"], "Firefox/142.0");
    assert!(newest["device"].as_str().unwrap().len() <= 256, "{newest}");
    for session in &list {
        assert_eq!(session["address"], "127.0.0.1", "{session}");
        let (created, expires) = (&session["created_at"], &session["expires_at"]);
        assert_eq!(expires.as_u64().unwrap() - created.as_u64().unwrap(), 900, "{session}");
    }
    gateway.pass(Duration::from_secs(60)).await;
    second.me().await;
    let seen = sessions(first).await[0]["last_seen_at"].as_u64().unwrap();
    assert!(seen >= newest["created_at"].as_u64().unwrap() + 60, "{seen} {newest}");
    // What admins see of them.
    let boss = gateway.member("boss", Admin).await;
    let list = boss.get("/auth/users/ann/sessions").await.json();
    assert_eq!(list["sessions"].as_array().unwrap().len(), 2, "{list}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_session_ends_with_what_was_made_in_it() {
    for end in ["logout", "delete", "revoke"] {
        let gateway = Plan::alone().start().await;
        gateway.user("ann", User).await;
        let all = Belongings::of(&gateway, "ann").await;
        assert_eq!(all.open().await, [true; 5]);
        let path = format!("/auth/sessions/{}", id(&all.first).await);
        let answer = match end {
            "logout" => all.first.press("/auth/logout").await,
            "delete" => all.second.delete(&path).await,
            _ => {
                let held = json!({ "token": all.first.credential() });
                all.second.post("/auth/revoke", &held).await
            }
        };
        assert_eq!(answer.status, 204, "{end}: {answer:?}");
        assert_eq!(all.open().await, [false, true, false, true, true], "{end}");
        assert_eq!(sessions(&all.second).await.len(), 1, "{end}");
        all.second.delete(&path).await.refused(404, "not_found");
        all.first.press("/auth/logout").await.refused(401, "invalid_credentials");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn another_password_ends_every_session() {
    let gateway = Plan::alone().start().await;
    gateway.user("ann", User).await;
    let all = Belongings::of(&gateway, "ann").await;
    let change = |old: &str, new: &str| {
        let form = json!({ "old_password": old, "new_password": new });
        let first = all.first.clone();
        async move { first.post("/auth/password", &form).await }
    };
    change("not the password of ann", GOOD).await.refused(401, "invalid_credentials");
    change(PASSWORD, "short").await.refused(400, "invalid_request");
    change(PASSWORD, "ann ann ann ann").await.refused(400, "invalid_request");
    assert_eq!(all.open().await, [true; 5]);
    assert_eq!(change(PASSWORD, GOOD).await.status, 204);
    assert_eq!(all.open().await, [false, false, false, false, true]);
    gateway.try_login("ann", PASSWORD, None).await.refused(401, "invalid_credentials");
    assert_eq!(gateway.try_login("ann", GOOD, None).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_admin_ends_the_sessions_of_a_user() {
    let gateway = Plan::alone().start().await;
    gateway.user("ann", User).await;
    let all = Belongings::of(&gateway, "ann").await;
    let boss = gateway.member("boss", Admin).await;
    let revoked = boss.press("/auth/users/ann/revoke").await;
    assert_eq!(revoked.json(), json!({ "status": "success", "revoked_sessions": 2 }));
    assert_eq!(all.open().await, [false, false, false, false, true]);
    assert_eq!(boss.me().await.status, 200);
    let again = gateway.login("ann").await;
    assert_eq!(sessions(&again).await.len(), 1);
    let revoked = boss.press("/auth/users/ann/revoke").await;
    assert_eq!(revoked.json()["revoked_sessions"], 1);
    again.me().await.refused(401, "invalid_credentials");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nothing_of_a_disabled_user_is_accepted() {
    let gateway = Plan::alone().start().await;
    gateway.user("ann", User).await;
    let all = Belongings::of(&gateway, "ann").await;
    let owner = gateway.session(USER).await;
    let off = owner.patch("/auth/users/ann", &json!({ "disabled": true })).await;
    assert_eq!(off.json()["disabled"], true);
    assert_eq!(all.open().await, [false; 5]);
    let told = |answer: &Answer| {
        answer.refused(401, "invalid_credentials");
        answer.json()["error"]["message"].clone()
    };
    let (disabled, unknown) = (
        gateway.try_login("ann", PASSWORD, None).await,
        gateway.try_login("nobody", PASSWORD, None).await,
    );
    assert_eq!(told(&disabled), told(&unknown));
    let on = owner.patch("/auth/users/ann", &json!({ "disabled": false })).await;
    assert_eq!(on.json()["disabled"], false);
    // The key is her own again; who held her tokens meanwhile may be anyone.
    assert_eq!(all.open().await, [false, false, false, false, true]);
    assert_eq!(gateway.login("ann").await.me().await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_loses_a_role_loses_what_was_opened_with_it() {
    let gateway = Plan::alone().start().await;
    let owner = gateway.member("olga", Owner).await;
    let app = owner.enrol(&gateway).await;
    let ann = gateway.member("ann", User).await;
    for (role, keeps) in [(Admin, true), (ReadOnly, false)] {
        let caller = owner.fresh(&gateway, &app).await;
        let answer = caller.post("/auth/users/ann/role", &json!({ "role": role })).await;
        assert_eq!(answer.json()["role"], json!(role), "{answer:?}");
        let me = ann.me().await;
        assert_eq!(me.status == 200, keeps, "{me:?}");
        assert!(!keeps || me.json()["role"] == json!(role), "{me:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_session_is_over_after_its_time() {
    let gateway = Plan::alone().start().await;
    let ann = gateway.member("ann", User).await;
    gateway.pass(Duration::from_secs(14 * 60)).await;
    assert_eq!(ann.me().await.status, 200);
    let late = gateway.caller(&ann.scoped(json!({})).await);
    gateway.pass(Duration::from_secs(61)).await;
    for caller in [&ann, &late] {
        caller.me().await.refused(401, "invalid_credentials");
    }
    let again = gateway.session("ann").await;
    assert_eq!(sessions(&again).await.len(), 1);
}
