//! What people and programs type into the forms of accounts, by mistake or to break them.

use portcullis_filters::accounts::AccountRole::User;
use serde_json::json;

use crate::support::gateway::{GOOD, PASSWORD, Plan, USER};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn names_have_one_spelling() {
    let gateway = Plan::alone().start().await;
    let owner = gateway.session(USER).await;
    let long = "n".repeat(65);
    for (name, status) in [
        ("", 400),
        ("a\0b", 400),
        ("a b", 400),
        ("a\nb", 400),
        ("a/b", 400),
        ("corp:bob", 400),
        ("ａｌｉｃｅ", 400),
        ("аlice", 400),
        ("ﬁnn", 400),
        ("k\u{212a}", 400),
        ("zoe\u{301}", 400),
        (&long, 400),
        ("alice", 409),
        ("ALICE", 409),
        ("Finn", 201),
        ("finn", 409),
    ] {
        let form = json!({ "username": name, "password": GOOD });
        let answer = owner.post("/auth/register", &form).await;
        let code = match status {
            400 => "invalid_request",
            409 => "conflict",
            _ => "",
        };
        assert_eq!(answer.status, status, "{name:?}: {answer:?}");
        answer.is(status, code);
    }
    for (name, status) in [("ａｌｉｃｅ", 401), ("alice\0", 401), ("ﬁnn", 401), ("Alice", 200)]
    {
        let answer = gateway.try_login(name, PASSWORD, None).await;
        assert_eq!(answer.status, status, "{name:?}: {answer:?}");
        answer.is(status, if status == 401 { "invalid_credentials" } else { "" });
    }
}

/// What no endpoint takes: other types, members that are not theirs, other JSON.
#[rustfmt::skip] // a table: one body a row
const BODIES: &[(&str, &str, &str)] = &[
    ("POST", "/auth/register", r#"{"username":"eve","password":"P","disabled":false}"#),
    ("POST", "/auth/register", r#"{"username":"eve","password":"P","mfa":true}"#),
    ("POST", "/auth/register", r#"{"username":"eve","password":"P","epoch":0}"#),
    ("POST", "/auth/register", r#"{"username":"eve","password":"P","source":"config"}"#),
    ("POST", "/auth/register", r#"{"username":"eve","password_hash":"$argon2id$"}"#),
    ("POST", "/auth/register", r#"{"username":"eve","username":"eva","password":"P"}"#),
    ("POST", "/auth/register", r#"{"username":["eve"],"password":"P"}"#),
    ("POST", "/auth/register", r#"{"username":{"$ne":""},"password":"P"}"#),
    ("POST", "/auth/register", r#"{"username":7,"password":"P"}"#),
    ("POST", "/auth/register", r#"{"username":null,"password":"P"}"#),
    ("POST", "/auth/register", r#"{"username":"eve","password":["P"]}"#),
    ("POST", "/auth/register", r#"{"username":"eve","password":{"a":"P"}}"#),
    ("POST", "/auth/register", r#"{"username":"eve","password":123456789012}"#),
    ("POST", "/auth/register", r#"{"username":"eve","password":null}"#),
    ("POST", "/auth/register", r#"{"username":"eve","password":"P","role":["owner"]}"#),
    ("POST", "/auth/register", r#"{"username":"eve","password":"P","role":{"owner":true}}"#),
    ("POST", "/auth/register", r#"{"username":"eve","password":"P","role":3}"#),
    ("POST", "/auth/register", r#"{"username":"eve","password":"P","role":"Owner"}"#),
    ("POST", "/auth/register", r#"{"username":"eve","password":"P","role":""}"#),
    ("POST", "/auth/register", r#"{"username":"eve","password":"P","email":"nobody"}"#),
    ("POST", "/auth/register", r#"{"username":"eve"}"#),
    ("POST", "/auth/register", r#"{"username":"eve","password":"short"}"#),
    ("POST", "/auth/register", r#"{"username":"eve","password":"passwordpassword"}"#),
    ("POST", "/auth/register", r#"{"username":"eve","password":"quartz nebula\u0000violin tractor"}"#),
    ("POST", "/auth/register", r#"[{"username":"eve","password":"P"}]"#),
    ("POST", "/auth/register", r#"{"username":"eve","password":"P"}}"#),
    ("POST", "/auth/register", "username=eve&password=P"),
    ("POST", "/auth/register", "null"),
    ("POST", "/auth/register", ""),
    ("POST", "/auth/login", r#"{"username":["alice"],"password":"P"}"#),
    ("POST", "/auth/login", r#"{"username":"alice","password":true}"#),
    ("POST", "/auth/login", r#"{"username":"alice","password":{"$gt":""}}"#),
    ("POST", "/auth/login", r#"{"username":"alice","password":"P","mfa_code":123456}"#),
    ("POST", "/auth/login", r#"{"username":"alice","password":"P","mfa_code":["000000","111111"]}"#),
    ("POST", "/auth/login", r#"{"username":"alice","password":"P","role":"owner"}"#),
    ("PATCH", "/auth/users/tim", r#"{"role":"owner"}"#),
    ("PATCH", "/auth/users/tim", r#"{"username":"tom"}"#),
    ("PATCH", "/auth/users/tim", r#"{"password":"P"}"#),
    ("PATCH", "/auth/users/tim", r#"{"disabled":"true"}"#),
    ("PATCH", "/auth/users/tim", r#"{"disabled":1}"#),
    ("PATCH", "/auth/users/tim", r#"{"email":["a@b"]}"#),
    ("POST", "/auth/users/tim/role", r#"{"role":["owner"]}"#),
    ("POST", "/auth/users/tim/role", r#"{"role":"owner","disabled":true}"#),
    ("POST", "/auth/users/tim/role", r#"{"role":null}"#),
    ("POST", "/auth/password", r#"{"old_password":"P","new_password":"P","role":"owner"}"#),
    ("POST", "/auth/mfa/confirm", r#"{"code":123456}"#),
    ("POST", "/auth/mfa/confirm", r#"{"code":["123456"]}"#),
    ("POST", "/auth/mfa/disable", r#"{"code":null}"#),
    ("POST", "/auth/api-keys", r#"{"permissions":"*"}"#),
    ("POST", "/auth/api-keys", r#"{"permissions":[]}"#),
    ("POST", "/auth/api-keys", r#"{"permissions":[1]}"#),
    ("POST", "/auth/api-keys", r#"{"permissions":["nothing:known"]}"#),
    ("POST", "/auth/api-keys", r#"{"permissions":["llm:generate"],"user":"tim"}"#),
    ("POST", "/auth/api-keys", r#"{"permissions":["llm:generate"],"expires_in":-1}"#),
    ("POST", "/auth/api-keys", r#"{"permissions":["llm:generate"],"expires_in":0}"#),
    ("POST", "/auth/api-keys", r#"{"permissions":["llm:generate"],"expires_in":"60"}"#),
    ("POST", "/auth/api-keys", r#"{"permissions":["llm:generate"],"networks":["here"]}"#),
    ("POST", "/auth/api-keys", r#"{"permissions":["llm:generate"],"quota":"none"}"#),
    ("POST", "/auth/scoped-token", r#"{"model":"phi","max_tokens":0,"scopes":["llm:generate"]}"#),
    ("POST", "/auth/scoped-token", r#"{"model":"phi","max_tokens":"9","scopes":["llm:generate"]}"#),
    ("POST", "/auth/scoped-token", r#"{"model":"phi","max_tokens":9,"scopes":[]}"#),
    ("POST", "/auth/scoped-token", r#"{"model":"phi","max_tokens":9,"scopes":["llm:generate"],"sub":"tim"}"#),
    ("POST", "/auth/revoke", r#"{"token":["x"]}"#),
    ("POST", "/auth/emergency-revoke", r#"{"reason":"drill","revoke_all":"true"}"#),
    ("POST", "/auth/emergency-revoke", r#"{"reason":"drill","revoke_all":false}"#),
    ("POST", "/auth/emergency-revoke", r#"{"reason":" ","revoke_all":true}"#),
    ("POST", "/auth/emergency-revoke", r#"{"reason":"drill"}"#),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn other_types_and_other_members_are_refused_and_change_nothing() {
    let gateway = Plan::alone().start().await;
    let owner = gateway.session(USER).await;
    gateway.user("tim", User).await;
    let before = owner.get("/auth/users").await.json();
    for (method, path, body) in BODIES {
        let answer = owner.send(method, path, body.as_bytes()).await;
        assert_eq!(answer.status, 400, "{path} {body}: {answer:?}");
        answer.refused(400, "invalid_request");
        assert!(!answer.text().contains("quartz"), "{answer:?}");
    }
    assert_eq!(owner.get("/auth/users").await.json(), before);
    assert_eq!(owner.get("/auth/api-keys").await.json()["api_keys"].as_array().unwrap().len(), 1);
    assert_eq!(gateway.state.login().work(), 0, "a password was checked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_huge_password_costs_nothing() {
    let gateway = Plan::alone().start().await;
    let owner = gateway.session(USER).await;
    for (length, status, code) in [
        (1 << 20, 413, "payload_too_large"),
        (60 << 10, 400, "invalid_request"),
        (513, 400, "invalid_request"),
    ] {
        let password = "p".repeat(length);
        for (path, form) in [
            ("/auth/login", json!({ "username": USER, "password": password })),
            ("/auth/register", json!({ "username": "eve", "password": password })),
            ("/auth/password", json!({ "old_password": password, "new_password": GOOD })),
            ("/auth/users/alice/password", json!({ "password": password })),
        ] {
            if path != "/auth/users/alice/password" || status == 413 {
                owner.post(path, &form).await.refused(status, code);
            }
        }
    }
    assert_eq!(gateway.state.login().work(), 0, "a password was hashed");
}
