//! The second factor: set up, asked for, used once, and shown again where it matters most.

use std::time::Duration;

use portcullis_filters::accounts::AccountRole::{Admin, Owner, User};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::accounts::{Authenticator, Caller};
use crate::support::chat_answer;
use crate::support::client::Answer;
use crate::support::gateway::{Gateway, PASSWORD, Plan, USER};
use crate::support::upstream::Upstream;

/// Enough for those that run at once to meet.
const AT_ONCE: usize = 4;

/// How many of the answers are successes; the others are refusals of the code.
fn successes(answers: &[Answer]) -> usize {
    let failed = answers.iter().filter(|answer| answer.status >= 300);
    let refused = failed.inspect(|answer| answer.refused(401, "invalid_credentials")).count();
    answers.len() - refused
}

/// Asks several times at once.
async fn at_once<F, Fut>(ask: F) -> Vec<Answer>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Answer> + Send + 'static,
{
    let mut set = JoinSet::new();
    (0..AT_ONCE).for_each(|_| drop(set.spawn(ask())));
    set.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_factor_counts_from_when_it_is_confirmed() {
    let gateway = Plan::alone().start().await;
    let ann = gateway.member("ann", User).await;
    let first = ann.press("/auth/mfa/enable").await;
    assert_eq!(gateway.try_login("ann", PASSWORD, None).await.status, 200);
    let shown = ann.press("/auth/mfa/enable").await.json();
    let uri = shown["provisioning_uri"].as_str().unwrap();
    assert!(uri.starts_with("otpauth://totp/Portcullis:ann?"), "{uri}");
    assert!(shown["qr_svg"].as_str().unwrap().contains("<svg"), "{shown}");
    let (replaced, app) =
        (Authenticator::new(&gateway, &first.json()), Authenticator::new(&gateway, &shown));
    assert_eq!(app.backup.len(), 10);
    for code in [replaced.code(), app.wrong(), app.backup[0].clone(), String::new()] {
        let answer = ann.post("/auth/mfa/confirm", &json!({ "code": code })).await;
        answer.refused(401, "invalid_credentials");
    }
    assert_eq!(ann.me().await.json()["mfa_enabled"], false);
    let confirmed = ann.post("/auth/mfa/confirm", &json!({ "code": app.code() })).await;
    assert_eq!(confirmed.json(), json!({ "mfa_enabled": true }));
    assert_eq!(ann.me().await.json()["mfa_enabled"], true);
    ann.press("/auth/mfa/enable").await.refused(409, "conflict");
    let again = ann.post("/auth/mfa/confirm", &json!({ "code": app.code() })).await;
    again.refused(400, "invalid_request");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_login_needs_a_code_and_each_code_works_once() {
    let gateway = Plan::alone().start().await;
    let ann = gateway.member("ann", User).await;
    let app = ann.enrol(&gateway).await;
    let (used, fresh) = (app.shown(), app.next(&gateway).await);
    for (password, code, status, expected) in [
        (PASSWORD, None, 401, "mfa_required"),
        ("not the password of ann", None, 401, "invalid_credentials"),
        ("not the password of ann", Some(fresh.as_str()), 401, "invalid_credentials"),
        (PASSWORD, Some(app.wrong().as_str()), 401, "invalid_credentials"),
        (PASSWORD, Some(used.as_str()), 401, "invalid_credentials"),
        (PASSWORD, Some(&fresh[..5]), 401, "invalid_credentials"),
        (PASSWORD, Some(fresh.as_str()), 200, ""),
        (PASSWORD, Some(fresh.as_str()), 401, "invalid_credentials"),
    ] {
        gateway.try_login("ann", password, code).await.is(status, expected);
    }
    let records = gateway.settled(10).await;
    assert_eq!(records[2]["reason"], "mfa_required");
    for record in &records[2..] {
        assert_eq!(record["operation"], "authentication", "{record}");
        assert_eq!(record["user_id"], "ann", "{record}");
        assert!(!record.to_string().contains(&fresh), "{record}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn of_those_who_use_a_code_at_once_one_gets_in() {
    let gateway = Plan::alone().start().await;
    let ann = gateway.member("ann", Owner).await;
    let app = ann.enrol(&gateway).await;
    for code in [app.next(&gateway).await, app.backup[0].clone()] {
        let form = json!({ "username": "ann", "password": PASSWORD, "mfa_code": code });
        let nobody = gateway.anonymous();
        let answers = at_once(|| {
            let (nobody, form) = (nobody.clone(), form.clone());
            async move { nobody.post("/auth/login", &form).await }
        });
        assert_eq!(successes(&answers.await), 1, "{code}");
    }
    gateway.user("ben", User).await;
    for code in [app.next(&gateway).await, app.backup[1].clone()] {
        let caller = ann.code(&code);
        let answers = at_once(|| {
            let caller = caller.clone();
            let role = json!({ "role": "user" });
            async move { caller.post("/auth/users/ben/role", &role).await }
        });
        assert_eq!(successes(&answers.await), 1, "{code}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_backup_code_opens_once_and_only_for_its_owner() {
    let gateway = Plan::alone().start().await;
    let ann = gateway.member("ann", User).await;
    let app = ann.enrol(&gateway).await;
    let ben = gateway.member("ben", User).await;
    let other = ben.enrol(&gateway).await;
    let typed = app.backup[1].replace('-', " ").to_uppercase();
    for (name, code, status, expected) in [
        ("ann", &app.backup[0], 200, ""),
        ("ann", &app.backup[0], 401, "invalid_credentials"),
        ("ann", &typed, 200, ""),
        ("ann", &app.backup[1], 401, "invalid_credentials"),
        ("ann", &other.backup[0], 401, "invalid_credentials"),
        ("ben", &app.backup[2], 401, "invalid_credentials"),
        ("ben", &other.backup[0], 200, ""),
    ] {
        gateway.try_login(name, PASSWORD, Some(code)).await.is(status, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_factor_is_taken_away_with_a_code_or_by_an_admin() {
    let gateway = Plan::alone().start().await;
    let ann = gateway.member("ann", User).await;
    let app = ann.enrol(&gateway).await;
    let used = app.shown();
    let disable = |code: &str| {
        let (ann, form) = (ann.clone(), json!({ "code": code }));
        async move { ann.post("/auth/mfa/disable", &form).await }
    };
    ann.press("/auth/mfa/disable").await.refused(400, "invalid_request");
    for code in [app.wrong(), used, "not a code".to_owned()] {
        disable(&code).await.refused(401, "invalid_credentials");
    }
    assert_eq!(disable(&app.next(&gateway).await).await.status, 204);
    disable("000000").await.refused(401, "mfa_required");
    assert_eq!(gateway.try_login("ann", PASSWORD, None).await.status, 200);
    // Nothing of the old factor is left in a new one.
    let new = ann.enrol(&gateway).await;
    for code in [app.next(&gateway).await, app.backup[0].clone()] {
        let answer = gateway.try_login("ann", PASSWORD, Some(&code)).await;
        answer.refused(401, "invalid_credentials");
    }
    let boss = gateway.member("boss", Admin).await;
    assert_eq!(boss.press("/auth/users/ann/mfa/reset").await.status, 204);
    let with_old = gateway.try_login("ann", PASSWORD, Some(&new.code())).await;
    assert_eq!(gateway.entered(&with_old).me().await.json()["mfa_enabled"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_must_have_a_factor_can_only_set_one_up_before() {
    let upstream = Upstream::json(chat_answer(1, 1)).await;
    let plan = Plan::to(&upstream).auth("mfa: {required_for: [owner, admin], issuer: Gate}");
    let gateway = plan.start().await;
    gateway.user("tim", User).await;
    let answer = gateway.try_login(USER, PASSWORD, None).await;
    assert_eq!(answer.json()["mfa_enrolment_required"], true);
    let alice = gateway.entered(&answer);
    let scoped = json!({ "model": "phi", "max_tokens": 9, "scopes": ["llm:generate"] });
    for (method, path, body) in [
        ("POST", "/v1/chat/completions", crate::support::chat("phi", "Hello")),
        ("GET", "/v1/models", Value::Null),
        ("POST", "/api/v1/scan", json!({ "text": "Hello" })),
        ("POST", "/auth/scoped-token", scoped),
        ("POST", "/auth/api-keys", json!({ "permissions": ["llm:generate"] })),
        ("GET", "/auth/api-keys", Value::Null),
        ("GET", "/auth/users", Value::Null),
        ("POST", "/auth/users/tim/revoke", json!({})),
        ("POST", "/auth/revoke", json!({ "token": "none" })),
        ("POST", "/auth/emergency-revoke", json!({ "reason": "drill", "revoke_all": true })),
    ] {
        alice.ask(method, path, &body).await.refused(401, "mfa_required");
    }
    assert!(upstream.seen().is_empty());
    assert_eq!(alice.me().await.json()["mfa_enrolment_required"], true);
    assert_eq!(alice.get("/auth/sessions").await.status, 200);
    let app = alice.enrol(&gateway).await;
    // The session is one without a factor for as long as it lasts.
    alice.chat().await.refused(401, "mfa_required");
    gateway.try_login(USER, PASSWORD, None).await.refused(401, "mfa_required");
    let code = app.next(&gateway).await;
    let answer = gateway.try_login(USER, PASSWORD, Some(&code)).await;
    assert!(answer.json().get("mfa_enrolment_required").is_none(), "{answer:?}");
    let alice = gateway.entered(&answer);
    assert_eq!(alice.chat().await.status, 200);
    let disable = json!({ "code": app.next(&gateway).await });
    assert_eq!(alice.post("/auth/mfa/disable", &disable).await.status, 204);
    let answer = gateway.try_login(USER, PASSWORD, None).await;
    gateway.entered(&answer).chat().await.refused(401, "mfa_required");
    // Other roles, and keys, which no person types, are left alone.
    assert_eq!(gateway.login("tim").await.chat().await.status, 200);
    assert_eq!(gateway.owner_key().chat().await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_rule_that_comes_later_binds_sessions_that_are_open() {
    let gateway = Plan::alone().auth("mfa: {required_for: [owner]}").start().await;
    let boss = gateway.member("boss", Admin).await;
    assert_eq!(boss.get("/auth/users").await.status, 200);
    gateway.folder.edit("required_for: [owner]", "required_for: [owner, admin]");
    gateway.reload().await;
    boss.get("/auth/users").await.refused(401, "mfa_required");
}

/// What needs a fresh code.
struct Steps {
    gateway: Gateway,
    owner: Caller,
    app: Authenticator,
    key: String,
}

impl Steps {
    async fn new() -> Self {
        let gateway = Plan::alone().start().await;
        let owner = gateway.member("olga", Owner).await;
        let app = owner.enrol(&gateway).await;
        let tim = gateway.member("tim", User).await;
        let key = tim.new_key(&json!({ "permissions": ["llm:generate"] })).await;
        Self { gateway, owner, app, key: key["id"].as_str().unwrap().to_owned() }
    }

    /// The last one ends the session itself.
    fn all(&self) -> [(String, Value, u16); 4] {
        let revoke = json!({ "reason": "drill", "revoke_all": true });
        [
            ("/auth/users/tim/role".to_owned(), json!({ "role": "read_only" }), 200),
            ("/auth/users/tim/api-keys".to_owned(), json!({ "permissions": ["models:read"] }), 201),
            (format!("/auth/api-keys/{}/rotate", self.key), json!({}), 201),
            ("/auth/emergency-revoke".to_owned(), revoke, 200),
        ]
    }

    async fn inside(&self) -> [Value; 3] {
        let store = self.gateway.state.directory().store();
        let users = self.owner.get("/auth/users").await.json();
        let keys = self.owner.get("/auth/users/tim/api-keys").await.json();
        [users, keys, json!(store.revision().await.unwrap())]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn grave_steps_need_a_fresh_code() {
    let steps = Steps::new().await;
    let Steps { gateway, owner, app, .. } = &steps;
    let before = steps.inside().await;
    for (path, body, _) in steps.all() {
        owner.post(&path, &body).await.refused(401, "mfa_required");
        for code in [app.wrong(), app.shown(), String::new(), "x".repeat(4000)] {
            let answer = owner.code(&code).post(&path, &body).await;
            answer.refused(401, "invalid_credentials");
        }
        // A success forgets the failures, of which there must not be too many.
        let code = json!({ "role": "user" });
        let right = owner.fresh(gateway, app).await.post("/auth/users/tim/role", &code).await;
        assert_eq!(right.status, 200, "{right:?}");
    }
    let after = steps.inside().await;
    assert_eq!(before[..2], after[..2]);
    for (path, body, status) in steps.all() {
        let answer = owner.fresh(gateway, app).await.post(&path, &body).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
    }
    owner.me().await.refused(401, "invalid_credentials");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn codes_cannot_be_guessed() {
    let gateway = Plan::alone().auth("login: {max_failures: 5}").start().await;
    let olga = gateway.member("olga", Owner).await;
    let app = olga.enrol(&gateway).await;
    gateway.user("tim", User).await;
    let role = json!({ "role": "user" });
    let guess = olga.code(&app.wrong());
    for _ in 0..5 {
        guess.post("/auth/users/tim/role", &role).await.refused(401, "invalid_credentials");
    }
    let right = olga.fresh(&gateway, &app).await;
    for caller in [&guess, &right] {
        let answer = caller.post("/auth/users/tim/role", &role).await;
        answer.refused(429, "rate_limit_exceeded");
        let wait: u64 = answer.field("retry-after").unwrap().parse().unwrap();
        assert!((1..=900).contains(&wait), "{answer:?}");
    }
    gateway.pass(Duration::from_secs(14 * 60)).await;
    let olga = gateway.session("olga").await;
    gateway.pass(Duration::from_secs(60)).await;
    let right = olga.fresh(&gateway, &app).await;
    assert_eq!(right.post("/auth/users/tim/role", &role).await.status, 200);
}
