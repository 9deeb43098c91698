//! Users of a gateway, and those who call as them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use portcullis_filters::accounts::AccountRole;
use portcullis_filters::accounts::store::{Actor, NewUser, Session, Source};
use portcullis_filters::accounts::token::UserGrant;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::authenticator;
use super::chat;
use super::client::{Answer, Connection, Head};
use super::gateway::Gateway;
use super::plan::{PASSWORD, PASSWORD_HASH};

impl Gateway {
    /// Makes a user whose password is [`PASSWORD`].
    pub(crate) async fn user(&self, name: &str, role: AccountRole) {
        let user = NewUser {
            name: name.to_owned(),
            role,
            password_hash: Some(PASSWORD_HASH.to_owned()),
            email: None,
            source: Source::Store,
        };
        let (store, now) = (self.state.directory().store(), self.state.clock().unix_secs());
        let by = Actor { name: "test".to_owned(), unrecorded: false };
        store.create_user(user, now, &by).await.unwrap();
        self.state.look().await.unwrap();
    }

    /// Makes a user, and a session of theirs.
    pub(crate) async fn member(&self, name: &str, role: AccountRole) -> Caller {
        self.user(name, role).await;
        self.session(name).await
    }

    /// Opens a session as a login does, but without its work, and without a second factor.
    pub(crate) async fn session(&self, name: &str) -> Caller {
        let store = self.state.directory().store();
        let user = store.user(name).await.unwrap().unwrap();
        let grant = UserGrant {
            subject: user.name.clone(),
            role: user.role,
            epoch: user.epoch,
            mfa: false,
        };
        let snapshot = self.state.snapshot();
        let issued = snapshot.tokens().unwrap().issue_user(grant).unwrap();
        let session = Session {
            id: issued.id.clone(),
            user: user.name,
            created_at: issued.issued_at,
            last_seen_at: issued.issued_at,
            expires_at: issued.expires_at,
            address: [127, 0, 0, 1].into(),
            device: "test".to_owned(),
            mfa: false,
        };
        store.open_session(&session).await.unwrap();
        self.caller(issued.token.expose_secret())
    }

    /// Someone who shows this credential.
    pub(crate) fn caller(&self, credential: &str) -> Caller {
        self.anonymous().field("Authorization", &format!("Bearer {credential}"))
    }

    /// Someone who shows no credential.
    pub(crate) fn anonymous(&self) -> Caller {
        Caller { address: self.address, fields: Vec::new() }
    }

    /// The owner by the declared API key.
    pub(crate) fn owner_key(&self) -> Caller {
        self.caller(&self.key)
    }

    /// Tries to log in.
    pub(crate) async fn try_login(&self, name: &str, password: &str, code: Option<&str>) -> Answer {
        let mut form = json!({ "username": name, "password": password });
        if let Some(code) = code {
            form["mfa_code"] = json!(code);
        }
        self.anonymous().post("/auth/login", &form).await
    }

    /// Logs in with [`PASSWORD`].
    pub(crate) async fn login(&self, name: &str) -> Caller {
        self.entered(&self.try_login(name, PASSWORD, None).await)
    }

    /// Whoever has logged in with this answer.
    pub(crate) fn entered(&self, answer: &Answer) -> Caller {
        assert_eq!(answer.status, 200, "{answer:?}");
        self.caller(answer.json()["access_token"].as_str().unwrap())
    }
}

/// Someone who calls a gateway, each time on a connection of its own.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    address: std::net::SocketAddr,
    fields: Vec<(String, String)>,
}

impl Caller {
    /// Sends this field too.
    pub(crate) fn field(&self, name: &str, value: &str) -> Self {
        let mut caller = self.clone();
        caller.fields.push((name.to_owned(), value.to_owned()));
        caller
    }

    /// Shows a code of the second factor.
    pub(crate) fn code(&self, code: &str) -> Self {
        self.field("X-MFA-Code", code)
    }

    /// Shows a code that was not shown before.
    pub(crate) async fn fresh(&self, gateway: &Gateway, app: &Authenticator) -> Self {
        self.code(&app.next(gateway).await)
    }

    /// The same to another gateway.
    pub(crate) fn at(&self, gateway: &Gateway) -> Self {
        Self { address: gateway.address, ..self.clone() }
    }

    /// The same to the listener for operators.
    pub(crate) fn at_admin(&self, gateway: &Gateway) -> Self {
        Self { address: gateway.admin, ..self.clone() }
    }

    /// The credential that it shows in `Authorization`.
    pub(crate) fn credential(&self) -> &str {
        let field = self.fields.iter().find(|(name, _)| name == "Authorization");
        field.unwrap().1.strip_prefix("Bearer ").unwrap()
    }

    /// The head of a request.
    pub(crate) fn head(&self, method: &str, path: &str) -> Head {
        let fields = self.fields.iter();
        fields.fold(Head::bare(method, path), |head, (name, value)| head.field(name, value))
    }

    /// A connection to ask on.
    pub(crate) async fn connect(&self) -> Connection {
        Connection::to(self.address).await
    }

    /// Asks with a body of these bytes, as JSON.
    pub(crate) async fn send(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let head = self.head(method, path).field("Content-Type", "application/json");
        self.connect().await.ask(&head.with(body)).await
    }

    /// Asks with a body where the method has one.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        match method {
            "POST" | "PATCH" | "PUT" => self.send(method, path, body.to_string().as_bytes()).await,
            _ => self.connect().await.ask(&self.head(method, path).bytes()).await,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &Value::Null).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, &Value::Null).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, body).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask("PUT", path, body).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.ask("PATCH", path, body).await
    }

    /// Posts without a body.
    pub(crate) async fn press(&self, path: &str) -> Answer {
        self.connect().await.ask(&self.head("POST", path).bytes()).await
    }

    /// Asks a model something.
    pub(crate) async fn chat(&self) -> Answer {
        self.post("/v1/chat/completions", &chat("phi", "The capital of France?")).await
    }

    /// Who the gateway takes it for.
    pub(crate) async fn me(&self) -> Answer {
        self.get("/auth/me").await
    }

    /// Makes an API key of its own, with everything left out that can be.
    pub(crate) async fn new_key(&self, wanted: &Value) -> Value {
        let answer = self.post("/auth/api-keys", wanted).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()
    }

    /// Makes a scoped token.
    pub(crate) async fn scoped(&self, more: Value) -> String {
        let mut wanted = json!({ "model": "phi", "max_tokens": 9, "scopes": ["llm:generate"] });
        wanted.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = self.post("/auth/scoped-token", &wanted).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["token"].as_str().unwrap().to_owned()
    }

    /// Enrols a second factor.
    pub(crate) async fn enrol(&self, gateway: &Gateway) -> Authenticator {
        let answer = self.press("/auth/mfa/enable").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let shown = answer.json();
        let app = Authenticator::new(gateway, &shown);
        let confirmed = self.post("/auth/mfa/confirm", &json!({ "code": app.code() })).await;
        assert_eq!(confirmed.status, 200, "{confirmed:?}");
        app
    }
}

/// An authenticator app, and the backup codes that came with it.
pub(crate) struct Authenticator {
    secret: String,
    clock: portcullis_filters::clock::Clock,
    /// Unix seconds of the code that was shown last.
    shown: AtomicU64,
    /// Each logs in once.
    pub(crate) backup: Vec<String>,
}

impl Authenticator {
    /// As the answer to an enrolment says.
    pub(crate) fn new(gateway: &Gateway, shown: &Value) -> Self {
        let backup = shown["backup_codes"].as_array().unwrap().iter();
        Self {
            secret: shown["secret"].as_str().unwrap().to_owned(),
            clock: gateway.state.clock().clone(),
            shown: AtomicU64::default(),
            backup: backup.map(|code| code.as_str().unwrap().to_owned()).collect(),
        }
    }

    /// The code of now.
    pub(crate) fn code(&self) -> String {
        let now = self.clock.unix_secs();
        self.shown.store(now, Ordering::Relaxed);
        authenticator::code(&self.secret, now)
    }

    /// The code that was shown last, also when its time is over.
    pub(crate) fn shown(&self) -> String {
        authenticator::code(&self.secret, self.shown.load(Ordering::Relaxed))
    }

    /// Waits for a code that was not shown before.
    pub(crate) async fn next(&self, gateway: &Gateway) -> String {
        gateway.pass(Duration::from_secs(30)).await;
        self.code()
    }

    /// A code that is wrong, also a step before and after.
    pub(crate) fn wrong(&self) -> String {
        let now = self.clock.unix_secs();
        let right = [now - 30, now, now + 30].map(|at| authenticator::code(&self.secret, at));
        let codes = ["000000", "111111", "222222", "333333"].map(str::to_owned);
        codes.into_iter().find(|code| !right.contains(code)).unwrap()
    }
}
