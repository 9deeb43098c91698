//! Accounts are made, changed and removed by those who may, and by nobody else.

use portcullis_filters::accounts::AccountRole::{Admin, Owner, ReadOnly, User};
use portcullis_filters::surface::{self, Access};
use serde_json::{Value, json};

use crate::support::gateway::{GOOD, Gateway, PASSWORD, Plan, USER};

/// What each caller gets: a session of a reader, a user, an admin and an owner, an owner's API key
/// and scoped token, and nobody's. `{me}` is another user for each of them.
#[rustfmt::skip] // a table: one endpoint a row
const ENDPOINTS: &[(&str, &str, &str, [u16; 7])] = &[
    ("GET",    "/auth/me",                        "",                                               [200, 200, 200, 200, 200, 200, 401]),
    ("GET",    "/auth/sessions",                  "",                                               [200, 200, 200, 200, 403, 403, 401]),
    ("DELETE", "/auth/sessions/none",             "",                                               [404, 404, 404, 404, 403, 403, 401]),
    ("POST",   "/auth/password",                  "{}",                                             [400, 400, 400, 400, 403, 403, 401]),
    ("POST",   "/auth/mfa/confirm",               r#"{"code":"000000"}"#,                           [400, 400, 400, 400, 403, 403, 401]),
    ("POST",   "/auth/mfa/disable",               r#"{"code":"000000"}"#,                           [401, 401, 401, 401, 403, 403, 401]),
    ("POST",   "/auth/mfa/enable",                "{}",                                             [200, 200, 200, 200, 403, 403, 401]),
    ("GET",    "/auth/api-keys",                  "",                                               [403, 200, 200, 200, 403, 403, 401]),
    ("POST",   "/auth/api-keys",                  r#"{"permissions":["llm:generate"]}"#,            [403, 201, 201, 201, 403, 403, 401]),
    ("DELETE", "/auth/api-keys/4fQ2mZ8aT1xK",     "",                                               [403, 404, 404, 404, 403, 403, 401]),
    ("POST",   "/auth/api-keys/4fQ2mZ8aT1xK/rotate", "{}",                                          [403, 404, 404, 404, 403, 403, 401]),
    ("POST",   "/auth/scoped-token",              r#"{"model":"phi","max_tokens":1,"scopes":["llm:generate"]}"#, [403, 200, 200, 200, 200, 403, 401]),
    ("POST",   "/auth/revoke",                    r#"{"token":"none"}"#,                            [204, 204, 204, 204, 204, 204, 401]),
    ("GET",    "/auth/users",                     "",                                               [403, 403, 200, 200, 200, 403, 401]),
    ("GET",    "/auth/users/{me}",                "",                                               [403, 403, 200, 200, 200, 403, 401]),
    ("GET",    "/auth/users/{me}/sessions",       "",                                               [403, 403, 200, 200, 200, 403, 401]),
    ("GET",    "/auth/users/{me}/api-keys",       "",                                               [403, 403, 200, 200, 200, 403, 401]),
    ("POST",   "/auth/register",                  r#"{"username":"new-{me}","password":"quartz nebula tractor violin"}"#, [403, 403, 201, 201, 201, 403, 401]),
    ("PATCH",  "/auth/users/{me}",                r#"{"email":"me@example.org"}"#,                  [403, 403, 200, 200, 200, 403, 401]),
    ("POST",   "/auth/users/{me}/password",       r#"{"password":"quartz nebula tractor violin"}"#, [403, 403, 200, 200, 200, 403, 401]),
    ("POST",   "/auth/users/{me}/revoke",         "{}",                                             [403, 403, 200, 200, 200, 403, 401]),
    ("POST",   "/auth/users/{me}/mfa/reset",      "{}",                                             [403, 403, 404, 404, 404, 403, 401]),
    ("POST",   "/auth/users/{me}/role",           r#"{"role":"user"}"#,                             [403, 403, 401, 401, 403, 403, 401]),
    ("POST",   "/auth/users/{me}/api-keys",       r#"{"permissions":["llm:generate"]}"#,            [403, 403, 401, 401, 403, 403, 401]),
    ("DELETE", "/auth/users/{me}",                "",                                               [403, 403, 204, 204, 204, 403, 401]),
    ("GET",    "/internal/quota",                  "",                                               [403, 403, 200, 200, 200, 403, 401]),
    ("PUT",    "/internal/quota/global",           r#"{"limits":{"concurrent":9},"reason":"drill"}"#,[403, 403, 200, 200, 200, 403, 401]),
    ("GET",    "/internal/quota/global",           "",                                               [403, 403, 200, 200, 200, 403, 401]),
    ("POST",   "/internal/quota/global/reset",     r#"{"reason":"drill"}"#,                          [403, 403, 200, 200, 200, 403, 401]),
    ("DELETE", "/internal/quota/global",           "",                                               [403, 403, 204, 404, 404, 403, 401]),
    ("GET",    "/internal/security/emergency-rate-limit", "",                                               [403, 403, 200, 200, 200, 403, 401]),
    ("POST",   "/internal/security/emergency-rate-limit", r#"{"reason":"drill"}"#,                          [403, 403, 200, 200, 200, 403, 401]),
    ("DELETE", "/internal/security/emergency-rate-limit", "",                                               [403, 403, 200, 200, 200, 403, 401]),
    ("GET",    "/internal/security/enhance-sanitization", "",                                               [403, 403, 200, 200, 200, 403, 401]),
    ("POST",   "/internal/security/enhance-sanitization", r#"{"level":"strict","reason":"drill"}"#,         [403, 403, 200, 200, 200, 403, 401]),
    ("DELETE", "/internal/security/enhance-sanitization", "",                                               [403, 403, 200, 200, 200, 403, 401]),
    ("POST",   "/auth/emergency-revoke",          r#"{"reason":"drill","revoke_all":true}"#,        [403, 403, 403, 401, 403, 403, 401]),
    ("POST",   "/auth/logout",                    "{}",                                             [204, 204, 204, 204, 403, 403, 401]),
];

/// Whether a path of the table is one of an operation.
fn is_of(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<_>, Vec<_>) =
        (pattern.split('/').collect(), path.split('/').collect());
    let fits = |(pattern, segment): (&&str, &&str)| pattern.starts_with('{') || pattern == segment;
    pattern.len() == path.len() && pattern.iter().zip(&path).all(fits)
}

fn code(status: u16, nobody: bool) -> &'static str {
    match status {
        400 => "invalid_request",
        401 if nobody => "invalid_credentials",
        401 => "mfa_required",
        403 => "insufficient_scope",
        404 => "not_found",
        409 => "conflict",
        _ => "",
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn each_role_and_credential_reaches_what_the_table_gives_it() {
    for operation in surface::operations() {
        let listed = |row: &&(&str, &str, &str, [u16; 7])| {
            row.0 == operation.method && is_of(operation.path, row.1)
        };
        let account = matches!(operation.access, Access::Permission(_));
        assert_eq!(ENDPOINTS.iter().filter(listed).count(), usize::from(account), "{operation:?}");
    }
    let gateway = Plan::alone().start().await;
    let scoped = gateway.owner_key().scoped(json!({})).await;
    let callers = [
        gateway.member("reader", ReadOnly).await,
        gateway.member("worker", User).await,
        gateway.member("boss", Admin).await,
        gateway.session(USER).await,
        gateway.owner_key(),
        gateway.caller(&scoped),
        gateway.anonymous(),
    ];
    for number in 0..callers.len() {
        gateway.user(&format!("target-{number}"), User).await;
    }
    for (method, path, body, expected) in ENDPOINTS {
        for (number, (caller, status)) in callers.iter().zip(expected).enumerate() {
            let target = format!("target-{number}");
            let (path, body) = (path.replace("{me}", &target), body.replace("{me}", &target));
            let body = serde_json::from_str(&body).unwrap_or_default();
            let internal = path.starts_with("/internal/");
            let caller = if internal { caller.at_admin(&gateway) } else { caller.clone() };
            let answer = caller.ask(method, &path, &body).await;
            assert_eq!(answer.status, *status, "{method} {path} by {number}: {answer:?}");
            answer.is(*status, code(*status, number == 6));
        }
    }
    let records = gateway.settled(1 + callers.len() * ENDPOINTS.len()).await;
    tells_no_secret(&gateway, &records, &["me@example.org", GOOD]);
}

/// No record holds a secret of the gateway, or one of these.
fn tells_no_secret(gateway: &Gateway, records: &[Value], more: &[&str]) {
    let trail = serde_json::to_string(records).unwrap();
    let secrets = gateway.folder.secrets();
    let (_, key) = gateway.key.split_at(16);
    let secrets = secrets.iter().map(String::as_str).chain(more.iter().copied());
    for secret in secrets.chain([PASSWORD, key, "eyJ"]) {
        assert!(!trail.contains(secret), "{secret:?} in {trail}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_change_leaves_one_record_of_who_did_what_to_whom() {
    let gateway = Plan::alone().start().await;
    let owner = gateway.session(USER).await;
    let app = owner.enrol(&gateway).await;
    let register = json!({ "username": "Tim", "password": GOOD, "email": "tim@example.org" });
    let changes = [
        ("POST", "/auth/register", register),
        ("PATCH", "/auth/users/tim", json!({ "disabled": true, "email": "t@example.org" })),
        ("PATCH", "/auth/users/tim", json!({ "disabled": false })),
        ("POST", "/auth/users/tim/role", json!({ "role": "admin" })),
        ("POST", "/auth/users/tim/password", json!({ "password": GOOD })),
        ("POST", "/auth/users/tim/api-keys", json!({ "permissions": ["llm:generate"] })),
        ("POST", "/auth/users/tim/revoke", json!({})),
        ("DELETE", "/auth/users/tim", Value::Null),
    ];
    let mut shown = Vec::new();
    for (method, path, body) in &changes {
        let caller = owner.fresh(&gateway, &app).await;
        let answer = caller.ask(method, path, body).await;
        assert!(answer.status < 300, "{path}: {answer:?}");
        shown.push(answer.text().to_owned());
    }
    let records = gateway.settled(2 + changes.len()).await;
    for ((_, path, _), record) in changes.iter().zip(&records[2..]) {
        assert_eq!(record["operation"], "account", "{record}");
        assert_eq!(record["status"], "success", "{record}");
        assert_eq!(record["user_id"], USER, "{record}");
        assert_eq!(record["endpoint"], *path, "{record}");
        assert_eq!(record["metadata"]["target"], "tim", "{record}");
    }
    let key: Value = serde_json::from_str(&shown[5]).unwrap();
    let key = key["api_key"].as_str().unwrap();
    tells_no_secret(&gateway, &records, &[key, GOOD, "example.org", app.backup[0].as_str()]);
    assert!(!shown.concat().contains("argon2"), "a hash is shown: {shown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nobody_gives_a_role_above_their_own() {
    let gateway = Plan::alone().start().await;
    let owner = gateway.session(USER).await;
    let admin = gateway.member("boss", Admin).await;
    let app = admin.enrol(&gateway).await;
    let user = gateway.member("worker", User).await;
    for (number, (caller, role, status)) in [
        (&owner, "owner", 201),
        (&admin, "owner", 403),
        (&admin, "admin", 201),
        (&admin, "read_only", 201),
        (&user, "admin", 403),
        (&user, "user", 403),
        (&user, "read_only", 403),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("new-{number}");
        let form = json!({ "username": name, "password": GOOD, "role": role });
        let answer = caller.post("/auth/register", &form).await;
        answer.is(status, code(status, false));
        let there = owner.get(&format!("/auth/users/{name}")).await;
        assert_eq!(there.status == 200, status == 201, "{role}: {there:?}");
        assert!(status != 201 || there.json()["role"] == role, "{there:?}");
    }
    for (name, role, status) in [
        ("worker", "owner", 403),
        ("new-0", "user", 403),
        ("new-2", "user", 403),
        (USER, "user", 403),
        ("boss", "owner", 403),
        ("boss", "user", 403),
        ("worker", "admin", 200),
        ("worker", "user", 403),
        ("new-3", "user", 200),
    ] {
        let path = format!("/auth/users/{name}/role");
        let caller = admin.fresh(&gateway, &app).await;
        let answer = caller.post(&path, &json!({ "role": role })).await;
        assert_eq!(answer.status, status, "{name} to {role}: {answer:?}");
        answer.is(status, code(status, false));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_admin_touches_neither_owners_nor_admins() {
    let gateway = Plan::alone().start().await;
    let admin = gateway.member("boss", Admin).await;
    let app = admin.enrol(&gateway).await;
    let key = gateway.session(USER).await.new_key(&json!({ "permissions": ["llm:*"] })).await;
    let key = format!("/auth/api-keys/{}", key["id"].as_str().unwrap());
    gateway.user("other", Admin).await;
    for name in [USER, "other", "boss"] {
        for (method, what, body) in [
            ("PATCH", "", json!({ "disabled": true })),
            ("PATCH", "", json!({ "email": "evil@example.org" })),
            ("DELETE", "", Value::Null),
            ("POST", "/role", json!({ "role": "read_only" })),
            ("POST", "/password", json!({ "password": GOOD })),
            ("POST", "/revoke", json!({})),
            ("POST", "/mfa/reset", json!({})),
            ("POST", "/api-keys", json!({ "permissions": ["llm:generate"] })),
        ] {
            let path = format!("/auth/users/{name}{what}");
            admin
                .code(&app.code())
                .ask(method, &path, &body)
                .await
                .refused(403, "insufficient_scope");
        }
    }
    for (method, path) in [("DELETE", key.clone()), ("POST", format!("{key}/rotate"))] {
        admin.code(&app.code()).ask(method, &path, &json!({})).await.refused(404, "not_found");
    }
    assert_eq!(gateway.login(USER).await.me().await.json()["role"], "owner");
    assert_eq!(gateway.login("other").await.me().await.json()["role"], "admin");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn there_is_always_an_owner() {
    let gateway = Plan::alone().start().await;
    let olga = gateway.member("olga", Owner).await;
    let app = olga.enrol(&gateway).await;
    let alice = gateway.session(USER).await;
    let off = json!({ "disabled": true });
    assert_eq!(olga.patch("/auth/users/alice", &off).await.status, 200);
    alice.me().await.refused(401, "invalid_credentials");
    gateway.owner_key().me().await.refused(401, "invalid_credentials");
    for (method, path, body) in [
        ("PATCH", "/auth/users/olga", off.clone()),
        ("DELETE", "/auth/users/olga", Value::Null),
        ("POST", "/auth/users/olga/role", json!({ "role": "admin" })),
    ] {
        let caller = olga.fresh(&gateway, &app).await;
        caller.ask(method, path, &body).await.refused(409, "conflict");
    }
    assert_eq!(olga.me().await.json()["role"], "owner");
    let on = olga.patch("/auth/users/alice", &json!({ "disabled": false })).await;
    assert_eq!(on.json()["disabled"], false, "{on:?}");
    assert_eq!(gateway.owner_key().me().await.status, 200);
    let caller = olga.fresh(&gateway, &app).await;
    let stepped_down = caller.post("/auth/users/olga/role", &json!({ "role": "admin" })).await;
    assert_eq!(stepped_down.status, 200, "{stepped_down:?}");
    olga.me().await.refused(401, "invalid_credentials");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn declared_users_are_changed_in_the_configuration_only() {
    let gateway = Plan::alone().start().await;
    let olga = gateway.member("olga", Owner).await;
    let app = olga.enrol(&gateway).await;
    for (method, path, body) in [
        ("DELETE", "/auth/users/alice", Value::Null),
        ("POST", "/auth/users/alice/role", json!({ "role": "user" })),
        ("POST", "/auth/users/alice/password", json!({ "password": GOOD })),
    ] {
        let caller = olga.fresh(&gateway, &app).await;
        caller.ask(method, path, &body).await.refused(409, "conflict");
    }
    let form = json!({ "old_password": PASSWORD, "new_password": GOOD });
    let alice = gateway.login(USER).await;
    alice.post("/auth/password", &form).await.refused(409, "conflict");
    assert_eq!(alice.me().await.json()["role"], "owner");
    let id = gateway.owner_key().me().await.json()["key_id"].as_str().unwrap().to_owned();
    let rotate = alice.post(&format!("/auth/api-keys/{id}/rotate"), &json!({})).await;
    rotate.refused(409, "conflict");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_owner_weakens_no_account_of_their_own_without_its_secrets() {
    let gateway = Plan::alone().start().await;
    let olga = gateway.member("olga", Owner).await;
    let app = olga.enrol(&gateway).await;
    let stolen = [&olga, &gateway.session("olga").await];
    for caller in stolen {
        for (path, body) in [
            ("/auth/users/olga/mfa/reset", json!({})),
            ("/auth/users/olga/password", json!({ "password": GOOD })),
        ] {
            caller.post(path, &body).await.refused(409, "conflict");
        }
    }
    let answer = gateway.try_login("olga", PASSWORD, Some(&app.next(&gateway).await)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_user_sees_and_ends_only_what_is_their_own() {
    let gateway = Plan::alone().start().await;
    let ann = gateway.member("ann", User).await;
    let ben = gateway.member("ben", User).await;
    let wanted = json!({ "permissions": ["llm:generate"] });
    let (of_ann, of_ben) = (ann.new_key(&wanted).await, ben.new_key(&wanted).await);
    let session = ben.me().await.json()["session_id"].as_str().unwrap().to_owned();
    let key = of_ben["id"].as_str().unwrap();
    for (method, path) in [
        ("DELETE", format!("/auth/sessions/{session}")),
        ("DELETE", format!("/auth/api-keys/{key}")),
        ("POST", format!("/auth/api-keys/{key}/rotate")),
    ] {
        ann.ask(method, &path, &json!({})).await.refused(404, "not_found");
    }
    // A token of another is not revoked, and its holder is not told whether there is one.
    let held = json!({ "token": ben.credential() });
    assert_eq!(ann.post("/auth/revoke", &held).await.status, 204);
    assert_eq!(ben.me().await.status, 200);
    assert_eq!(gateway.caller(of_ben["api_key"].as_str().unwrap()).me().await.status, 200);
    let ids = |list: Value, of: &str| -> Vec<Value> {
        list[of].as_array().unwrap().iter().map(|one| one["id"].clone()).collect()
    };
    assert_eq!(ids(ben.get("/auth/sessions").await.json(), "sessions"), [session.as_str()]);
    assert_eq!(ids(ann.get("/auth/api-keys").await.json(), "api_keys"), [of_ann["id"].clone()]);
    assert_eq!(ids(ben.get("/auth/api-keys").await.json(), "api_keys"), [key]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_user_who_is_made_can_log_in_and_one_who_is_removed_is_gone() {
    let gateway = Plan::alone().start().await;
    let owner = gateway.session(USER).await;
    let form = json!({ "username": "Tim", "password": GOOD, "email": "tim@example.org" });
    let made = owner.post("/auth/register", &form).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!((&made.json()["username"], &made.json()["role"]), (&json!("tim"), &json!("user")));
    let shown = owner.get("/auth/users/TIM").await.json();
    assert_eq!(shown["email"], "tim@example.org");
    let tim = gateway.entered(&gateway.try_login("tim", GOOD, None).await);
    let key = tim.new_key(&json!({ "permissions": ["llm:generate"] })).await;
    let key = gateway.caller(key["api_key"].as_str().unwrap());
    assert_eq!(owner.delete("/auth/users/tim").await.status, 204);
    for caller in [&tim, &key] {
        caller.me().await.refused(401, "invalid_credentials");
    }
    owner.get("/auth/users/tim").await.refused(404, "not_found");
    owner.delete("/auth/users/tim").await.refused(404, "not_found");
    gateway.try_login("tim", GOOD, None).await.refused(401, "invalid_credentials");
    // Who is made again under the name is another: nothing of before works.
    gateway.user("tim", Admin).await;
    for caller in [&tim, &key] {
        caller.me().await.refused(401, "invalid_credentials");
    }
}
