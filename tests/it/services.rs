//! Trusted services say who their user is, by a signature or a certificate, and nobody else does.

use std::time::Duration;

use portcullis_filters::accounts::AccountRole::User;
use portcullis_filters::accounts::service::{self, Signed};
use secrecy::SecretSlice;
use serde_json::json;

use crate::support::accounts::Caller;
use crate::support::client::Answer;
use crate::support::gateway::{Gateway, Plan};
use crate::support::hash::hex_sha256;
use crate::support::http2::Http2;
use crate::support::tls::{Authority, Leaf};
use crate::support::upstream::Upstream;
use crate::support::{chat, chat_answer};

const SECRET: &str = "Xw4rT8mQz1Lk6NvB9sHc3JdYp7GfUa2ReVo5iWqCxMnE";
const PATH: &str = "/v1/chat/completions";

async fn gateway(upstream: &Upstream) -> Gateway {
    let plan = Plan::to(upstream).file("chat.key", SECRET);
    plan.auth("services: [{name: chat, role: user, secret: {file: chat.key}}]").start().await
}

/// What a service says of a request. What is sent and what is signed can differ.
#[derive(Clone)]
struct Word {
    secret: &'static str,
    service: &'static str,
    user: &'static str,
    timestamp: u64,
    nonce: String,
    method: &'static str,
    path: &'static str,
    body: Vec<u8>,
}

impl Word {
    fn new(gateway: &Gateway, number: u32) -> Self {
        Self {
            secret: SECRET,
            service: "chat",
            user: "u-17",
            timestamp: gateway.state.clock().unix_secs(),
            nonce: format!("nonce-of-a-request-{number}"),
            method: "POST",
            path: PATH,
            body: chat("phi", "Hello").to_string().into_bytes(),
        }
    }

    fn signature(&self) -> String {
        let signed = Signed {
            method: self.method,
            target: self.path,
            service: self.service,
            user: self.user,
            timestamp: &self.timestamp.to_string(),
            nonce: &self.nonce,
            body_digest: &hex_sha256(&self.body),
        };
        service::sign(&SecretSlice::from(self.secret.as_bytes().to_vec()), &signed).unwrap()
    }

    /// Whoever sends this with a signature over that.
    fn caller(&self, gateway: &Gateway, signed: &Self) -> Caller {
        gateway
            .anonymous()
            .field("X-Portcullis-Service", self.service)
            .field("X-Portcullis-User", self.user)
            .field("X-Portcullis-Timestamp", &self.timestamp.to_string())
            .field("X-Portcullis-Nonce", &self.nonce)
            .field("X-Portcullis-Content-SHA256", &hex_sha256(&self.body))
            .field("X-Portcullis-Signature", &signed.signature())
    }

    /// Says it, signed.
    async fn say(&self, gateway: &Gateway) -> Answer {
        self.caller(gateway, self).send(self.method, self.path, &self.body).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_signed_user_is_who_the_service_says() {
    let upstream = Upstream::json(chat_answer(1, 1)).await;
    let gateway = gateway(&upstream).await;
    let word = Word::new(&gateway, 0);
    assert_eq!(word.say(&gateway).await.status, 200);
    let seen = upstream.only();
    let sent = |(name, _): &(String, String)| name.starts_with("x-portcullis");
    assert!(!seen.fields.iter().any(sent), "{seen:?}");
    let record = gateway.record().await;
    assert_eq!(record["user_id"], "chat:u-17", "{record}");
    for (number, path, status) in [
        (1, "/auth/me", 200),
        (2, "/v1/models", 200),
        (3, "/auth/users", 403),
        (4, "/auth/sessions", 403),
        (5, "/auth/api-keys", 403),
    ] {
        let word = Word { method: "GET", path, body: Vec::new(), ..Word::new(&gateway, number) };
        let answer = word.caller(&gateway, &word).get(path).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(path != "/auth/me" || answer.json()["role"] == "user", "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_was_not_signed_is_refused() {
    let upstream = Upstream::json(chat_answer(1, 1)).await;
    let gateway = gateway(&upstream).await;
    let word = |number| Word::new(&gateway, number);
    let other = || b"{\"model\":\"phi\",\"messages\":[]}".to_vec();
    let mut told = Vec::new();
    for (case, sent, signed) in [
        ("body digest", Word { body: other(), ..word(1) }, word(1)),
        ("path", word(2), Word { path: "/v1/completions", ..word(2) }),
        ("method", word(3), Word { method: "GET", ..word(3) }),
        ("user", Word { user: "admin", ..word(4) }, word(4)),
        ("timestamp", Word { timestamp: word(5).timestamp + 1, ..word(5) }, word(5)),
        ("nonce", word(6), word(7)),
        ("service", Word { service: "mail", ..word(8) }, word(8)),
        ("secret", word(9), Word { secret: "Rb2nMc7VxQ4tLz9Ks1WdHg6JfPy3TaU8", ..word(9) }),
    ] {
        let answer = sent.caller(&gateway, &signed).send("POST", PATH, &sent.body).await;
        assert_eq!(answer.status, 401, "{case}: {answer:?}");
        answer.refused(401, "invalid_credentials");
        told.push(answer.json()["error"]["message"].clone());
    }
    // The body is not the one whose digest was signed.
    let word = Word::new(&gateway, 10);
    let answer = word.caller(&gateway, &word).send("POST", PATH, &other()).await;
    answer.refused(401, "invalid_credentials");
    told.push(answer.json()["error"]["message"].clone());
    told.dedup();
    assert_eq!(told.len(), 1, "callers can tell why: {told:?}");
    assert!(upstream.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_not_of_its_form_is_refused() {
    let upstream = Upstream::json(chat_answer(1, 1)).await;
    let gateway = gateway(&upstream).await;
    let word = |number| Word::new(&gateway, number);
    for (sent, status, code) in [
        (Word { nonce: "short".to_owned(), ..word(1) }, 400, "invalid_request"),
        (Word { nonce: "n".repeat(65), ..word(1) }, 400, "invalid_request"),
        (Word { user: "two words", ..word(2) }, 400, "invalid_request"),
        (Word { service: "a/b", ..word(3) }, 400, "invalid_request"),
    ] {
        sent.caller(&gateway, &sent).send("POST", PATH, &sent.body).await.refused(status, code);
    }
    let named = gateway.anonymous().field("X-Portcullis-Service", "chat");
    named.chat().await.refused(400, "invalid_request");
    let named = named.field("X-Portcullis-User", "u-17");
    named.chat().await.refused(401, "invalid_credentials");
    let partly = named.field("X-Portcullis-Signature", &word(4).signature());
    partly.chat().await.refused(400, "invalid_request");
    let twice = word(5).caller(&gateway, &word(5)).field("X-Portcullis-User", "admin");
    twice.send("POST", PATH, &word(5).body).await.refused(400, "invalid_request");
    assert!(upstream.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_signature_counts_once_and_soon() {
    let upstream = Upstream::json(chat_answer(1, 1)).await;
    let a = gateway(&upstream).await;
    let b = a.twin().await;
    let word = Word::new(&a, 1);
    assert_eq!(word.say(&a).await.status, 200);
    for gateway in [&a, &b] {
        word.say(gateway).await.refused(401, "invalid_credentials");
    }
    let now = word.timestamp;
    for (number, timestamp, status) in
        [(2, now - 50, 200), (3, now + 55, 200), (4, now - 62, 401), (5, now + 70, 401)]
    {
        let answer = Word { timestamp, ..Word::new(&a, number) }.say(&a).await;
        answer.is(status, if status == 401 { "invalid_credentials" } else { "" });
    }
    // When the time has passed in which a nonce is remembered, the timestamp has too.
    for _ in 0..3 {
        a.pass(Duration::from_secs(60)).await;
        word.say(&a).await.refused(401, "invalid_credentials");
    }
    assert_eq!(upstream.seen().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_name_that_nobody_signed_is_nobodys() {
    let upstream = Upstream::json(chat_answer(1, 1)).await;
    let gateway = gateway(&upstream).await;
    let named = gateway.owner_key().field("X-Portcullis-User", "admin");
    assert_eq!(named.chat().await.status, 200);
    let seen = upstream.only();
    assert!(seen.field("x-portcullis-user").is_none(), "{seen:?}");
    assert_eq!(gateway.record().await["user_id"], "alice");
    let nobody = gateway.anonymous().field("X-Portcullis-User", "admin");
    nobody.chat().await.refused(401, "invalid_credentials");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_service_shows_no_other_credential() {
    let upstream = Upstream::json(chat_answer(1, 1)).await;
    let gateway = gateway(&upstream).await;
    let ann = gateway.member("ann", User).await;
    let scoped = ann.scoped(json!({})).await;
    for (number, (name, value)) in [
        ("Authorization", format!("Bearer {}", gateway.key)),
        ("Authorization", format!("Bearer {}", ann.credential())),
        ("X-API-Key", gateway.key.clone()),
        ("X-API-Key", "of-another-system".to_owned()),
        ("X-LLM-Token", scoped),
    ]
    .into_iter()
    .enumerate()
    {
        let word = Word::new(&gateway, number as u32);
        let caller = word.caller(&gateway, &word).field(name, &value);
        caller.send("POST", PATH, &word.body).await.refused(400, "invalid_request");
    }
    assert!(upstream.seen().is_empty());
}

/// Asks over TLS, and gives the answer, if the connection comes to one.
async fn ask(gateway: &Gateway, leaf: Option<&Leaf>, fields: &[(&str, &str)]) -> Option<Answer> {
    let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let mut connection = Http2::showing(gateway, leaf, &fields).await?;
    connection.try_post(PATH, chat("phi", "Hello").to_string().as_bytes()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_certificate_is_proof_enough() {
    let upstream = Upstream::json(chat_answer(1, 1)).await;
    let people = Authority::new();
    let (listed, unlisted, foreign) = (people.client(), people.client(), Authority::new().client());
    let services = format!(
        "services: [{{name: mesh, role: user, certificates: ['{}']}}]",
        listed.fingerprint()
    );
    let plan = Plan::to(&upstream).auth(&services).tls(Authority::new()).clients(people.ca_pem());
    let gateway = plan.start().await;
    let word = [("x-portcullis-service", "mesh"), ("x-portcullis-user", "u-17")];
    let bearer = format!("Bearer {}", gateway.key);
    let key = [("authorization", bearer.as_str())];
    let both = [word[0], word[1], key[0]];
    for (case, leaf, fields, expected) in [
        ("its own", Some(&listed), word.as_slice(), Some((200, ""))),
        ("another of the authority", Some(&unlisted), &word, Some((401, "invalid_credentials"))),
        ("none", None, &word, Some((401, "invalid_credentials"))),
        ("of a foreign authority", Some(&foreign), &word, None),
        ("of a foreign authority, and a key", Some(&foreign), &key, None),
        ("none, and a key", None, &key, Some((200, ""))),
        ("another, and a key", Some(&unlisted), &key, Some((200, ""))),
        ("its own, and a key", Some(&listed), &key, Some((200, ""))),
        ("its own, and a word and a key", Some(&listed), &both, Some((400, "invalid_request"))),
        ("its own without a word", Some(&listed), &[], Some((401, "invalid_credentials"))),
    ] {
        let answer = ask(&gateway, leaf, fields).await;
        assert_eq!(answer.is_some(), expected.is_some(), "{case}: {answer:?}");
        if let (Some(answer), Some((status, code))) = (answer, expected) {
            assert_eq!(answer.status, status, "{case}: {answer:?}");
            answer.is(status, code);
        }
    }
    let users: Vec<_> = gateway.records().iter().map(|record| record["user_id"].clone()).collect();
    assert_eq!(users.iter().filter(|user| **user == "mesh:u-17").count(), 1, "{users:?}");
    // In plain text nobody shows a certificate.
    let plain = gateway.anonymous().field("X-Portcullis-Service", "mesh");
    plain.field("X-Portcullis-User", "u-17").chat().await.refused(401, "invalid_credentials");
}
