//! Two gateways share their accounts: what one of them revokes the other refuses within a second,
//! and what is streaming there ends.

use std::time::{Duration, Instant};

use portcullis_filters::accounts::AccountRole::{Owner, User};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::accounts::{Authenticator, Caller};
use crate::support::client::Answer;
use crate::support::database::Database;
use crate::support::gateway::{GOOD, Gateway, Plan, USER};
use crate::support::http2::{Http2, Stream};
use crate::support::tls::Authority;
use crate::support::upstream::{Talk, Upstream};
use crate::support::{chat_answer, delta, ollama_line, streamed, until};

/// The longest that a revocation may take to be in force everywhere.
const BOUND: Duration = Duration::from_secs(1);

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
    what_one_revokes_the_other_refuses,
    open_answers_end_in_their_own_words,
    everything_is_revoked_at_once,
    a_revocation_outlives_the_gateways
);

/// An upstream that answers as the last word of the prompt says: `talk` for ever, say one word and
/// be `silent`, let everybody `wait`, or be `quick`.
async fn upstream() -> Upstream {
    Upstream::start(|talk| async move {
        let request = talk.seen.json();
        let prompt = request["messages"][0]["content"].as_str().unwrap();
        let lines = talk.seen.line.contains("/api/chat");
        let part = if lines { ollama_line("word ") } else { delta("word ") };
        let kind = if lines { "application/x-ndjson" } else { "text/event-stream" };
        match prompt.rsplit(' ').next().unwrap() {
            "talk" => speak(talk.begin(kind).await, &part).await,
            "silent" => {
                let mut talk = talk.begin(kind).await;
                talk.chunk(&part).await;
                talk.closed().await;
                None
            }
            "wait" => {
                let mut talk = talk;
                talk.closed().await;
                None
            }
            _ => talk.json(200, &chat_answer(1, 1)).await,
        }
    })
    .await
}

async fn speak(mut talk: Talk, part: &str) -> Option<Talk> {
    while talk.chunk(part).await {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}

/// Asks until the answer is a refusal of the credential, and gives the time that took.
async fn time_to_refusal(caller: &Caller) -> Duration {
    let begun = Instant::now();
    loop {
        let answer = caller.me().await;
        if answer.status != 200 {
            answer.refused(401, "invalid_credentials");
            return begun.elapsed();
        }
        assert!(begun.elapsed() < BOUND, "it still works");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A stream that is open, and will tell when and how it ended.
struct Open(JoinHandle<(Option<Answer>, Instant)>);

impl Open {
    /// Opens one on HTTP/1.1, and waits for its first word if it has one.
    async fn http1(caller: &Caller, path: &str, prompt: &str) -> Self {
        let mut connection = caller.connect().await;
        let body = streamed("phi", prompt).to_string();
        let head = caller.head("POST", path).field("Content-Type", "application/json");
        connection.send(&head.with(body.as_bytes())).await;
        let speaks = prompt != "wait";
        let mut answer = if speaks { connection.head().await } else { None };
        if speaks {
            connection.until_text("word ").await;
        }
        Self(tokio::spawn(async move {
            if !speaks {
                answer = connection.head().await;
            }
            if let Some(answer) = &mut answer {
                connection.rest(answer).await;
            }
            (answer, Instant::now())
        }))
    }

    /// Opens one on HTTP/2.
    async fn http2(gateway: &Gateway, caller: &Caller, path: &str, prompt: &str) -> Self {
        let mut connection = Http2::with(gateway, caller.credential()).await;
        let mut stream: Stream = connection.begin(path, None).await;
        stream.send(streamed("phi", prompt).to_string().as_bytes(), 1 << 10).await;
        Self(tokio::spawn(async move {
            let answer = stream.try_answer().await;
            drop(connection);
            (answer, Instant::now())
        }))
    }

    /// Checks that it ends within the bound since then, and gives how.
    async fn ended(self, since: Instant) -> Option<Answer> {
        let (answer, at) = self.0.await.unwrap();
        let took = at.saturating_duration_since(since);
        assert!(took < BOUND, "{took:?}: {answer:?}");
        answer
    }

    /// Leaves it.
    fn leave(self) {
        assert!(!self.0.is_finished(), "the stream of another has ended");
        self.0.abort();
    }
}

/// What ends something, and what of the user's it ends.
struct Way {
    name: &'static str,
    session: bool,
    scoped: bool,
    key: bool,
}

const fn way(name: &'static str, session: bool, scoped: bool, key: bool) -> Way {
    Way { name, session, scoped, key }
}

const WAYS: [Way; 10] = [
    way("log out", true, true, false),
    way("end a session", true, true, false),
    way("give a user token back", true, true, false),
    way("give a scoped token back", false, true, false),
    way("revoke the key", false, false, true),
    way("revoke the user", true, true, false),
    way("disable the user", true, true, true),
    way("remove the user", true, true, true),
    way("lower the role", true, true, false),
    way("change the password", true, true, false),
];

/// A user with one of each credential.
struct Victim {
    name: String,
    session: Caller,
    session_id: String,
    scoped: Caller,
    key: Caller,
    key_id: String,
}

impl Victim {
    async fn new(gateway: &Gateway, name: &str) -> Self {
        let session = gateway.member(name, User).await;
        let key = session.new_key(&json!({ "permissions": ["llm:generate"] })).await;
        Self {
            name: name.to_owned(),
            session_id: session.me().await.json()["session_id"].as_str().unwrap().to_owned(),
            scoped: gateway.caller(&session.scoped(json!({})).await),
            key: gateway.caller(key["api_key"].as_str().unwrap()),
            key_id: key["id"].as_str().unwrap().to_owned(),
            session,
        }
    }

    fn credentials(&self, way: &Way) -> [(&Caller, bool); 3] {
        [(&self.session, way.session), (&self.scoped, way.scoped), (&self.key, way.key)]
    }

    /// Goes this way, on the gateway where the user was made.
    async fn go(&self, way: &Way, owner: &Caller) {
        let user = format!("/auth/users/{}", self.name);
        let give_back = |token: &Caller| json!({ "token": token.credential() });
        let answer = match way.name {
            "log out" => self.session.press("/auth/logout").await,
            "end a session" => {
                self.session.delete(&format!("/auth/sessions/{}", self.session_id)).await
            }
            "give a user token back" => {
                self.session.post("/auth/revoke", &give_back(&self.session)).await
            }
            "give a scoped token back" => {
                self.scoped.post("/auth/revoke", &give_back(&self.scoped)).await
            }
            "revoke the key" => {
                self.session.delete(&format!("/auth/api-keys/{}", self.key_id)).await
            }
            "revoke the user" => owner.press(&format!("{user}/revoke")).await,
            "disable the user" => owner.patch(&user, &json!({ "disabled": true })).await,
            "remove the user" => owner.delete(&user).await,
            "lower the role" => {
                owner.post(&format!("{user}/role"), &json!({ "role": "read_only" })).await
            }
            _ => owner.post(&format!("{user}/password"), &json!({ "password": GOOD })).await,
        };
        assert!(answer.status < 300, "{}: {answer:?}", way.name);
    }
}

async fn what_one_revokes_the_other_refuses(database: Database) {
    let upstream = upstream().await;
    let a = Plan::to(&upstream).on(database).start().await;
    let b = a.twin().await;
    let owner = a.member("olga", Owner).await;
    let app = owner.enrol(&a).await;
    let bystander = Victim::new(&a, "bystander").await;
    let other = Open::http1(&bystander.key.at(&b), "/v1/chat/completions", "talk").await;
    for (number, way) in WAYS.iter().enumerate() {
        let victim = Victim::new(&a, &format!("victim-{number}")).await;
        let mut streams = Vec::new();
        for (caller, _) in victim.credentials(way) {
            streams.push(Open::http1(&caller.at(&b), "/v1/chat/completions", "talk").await);
        }
        let owner = owner.fresh(&a, &app).await;
        victim.go(way, &owner).await;
        let since = Instant::now();
        for ((caller, ends), stream) in victim.credentials(way).into_iter().zip(streams) {
            let at_b = caller.at(&b);
            if ends {
                caller.me().await.refused(401, "invalid_credentials");
                time_to_refusal(&at_b).await;
                let answer = stream.ended(since).await.unwrap();
                assert!(answer.text().contains("invalid_credentials"), "{}: {answer:?}", way.name);
            } else {
                b.state.look().await.unwrap();
                assert_eq!(at_b.me().await.status, 200, "{}", way.name);
                stream.leave();
            }
        }
    }
    for (caller, _) in bystander.credentials(&WAYS[0]).into_iter().skip(2) {
        assert_eq!(caller.at(&b).me().await.status, 200);
    }
    other.leave();
    until("the streams to end", || b.state.open_requests() == 0).await;
    assert_eq!(b.state.counters().open_reservations(), 0);
}

/// One answer of each kind that is open when the credential goes.
const KINDS: [(&str, &str); 6] = [
    ("/v1/chat/completions", "talk"),
    ("/v1/chat/completions", "silent"),
    ("/v1/chat/completions", "wait"),
    ("/api/chat", "talk"),
    ("/api/chat", "silent"),
    ("/api/chat", "wait"),
];

async fn open_answers_end_in_their_own_words(database: Database) {
    let upstream = upstream().await;
    let a = Plan::to(&upstream).on(database).tls(Authority::new()).start().await;
    let b = a.twin().await;
    let victim = Victim::new(&a, "victim").await;
    let bystander = Victim::new(&a, "bystander").await;
    let mut streams = Vec::new();
    for (path, prompt) in KINDS {
        let key = victim.key.at(&b);
        streams.push((path, prompt, 1, Open::http1(&key, path, prompt).await));
        streams.push((path, prompt, 2, Open::http2(&b, &key, path, prompt).await));
    }
    let of_others = [
        Open::http1(&bystander.key.at(&b), "/v1/chat/completions", "talk").await,
        Open::http2(&b, &bystander.key, "/api/chat", "talk").await,
        Open::http1(&victim.session.at(&b), "/api/chat", "silent").await,
    ];
    upstream.asked(15).await;
    victim.go(&way("revoke the key", false, false, true), &victim.session).await;
    let since = Instant::now();
    for (path, prompt, version, stream) in streams {
        let case = format!("{path} {prompt} HTTP/{version}");
        let answer = stream.ended(since).await;
        match prompt {
            "talk" => ends_in_an_error(&case, path, version, &answer.expect(&case)),
            "silent" => {
                let answer = answer.expect(&case);
                assert!(!answer.whole, "{case}: {answer:?}");
                assert!(!answer.text().contains("error"), "{case}: {answer:?}");
            }
            _ => assert!(answer.is_none(), "{case}: {answer:?}"),
        }
    }
    of_others.into_iter().for_each(Open::leave);
    let records = b.settled(15).await;
    let of_key = records.iter().filter(|record| record["key_id"] == victim.key_id.as_str());
    let cut: Vec<&Value> = of_key.collect();
    assert_eq!(cut.len(), 12, "{records:?}");
    for record in cut {
        assert_eq!(record["status"], "failure", "{record}");
        assert_eq!(record["reason"], "invalid_credentials", "{record}");
        assert_eq!(record["operation"], "authentication", "{record}");
        assert_eq!(record["metadata"]["detail"], "the API key was revoked", "{record}");
        assert!(record["usage"]["prompt_tokens"].as_u64() > Some(0), "{record}");
    }
    assert_eq!(b.metric("portcullis_streams_open"), 0);
    assert_eq!(b.metric("portcullis_reservations_open"), 0);
}

#[track_caller]
fn ends_in_an_error(case: &str, path: &str, version: u8, answer: &Answer) {
    let text = answer.text();
    assert!(!text.contains("[DONE]") && !text.contains("\"done\":true"), "{case}: {answer:?}");
    let last = text.trim_end().lines().last().unwrap();
    let sse = path.starts_with("/v1");
    let error: Value = serde_json::from_str(last.trim_start_matches("data: ")).unwrap();
    if sse {
        assert_eq!(error["error"]["code"], "invalid_credentials", "{case}: {answer:?}");
        assert!(answer.whole, "{case}: {answer:?}");
    } else {
        assert!(error["error"].as_str().unwrap().contains("revoked"), "{case}: {answer:?}");
        assert!(!answer.whole, "{case}, HTTP/{version}: {answer:?}");
    }
}

async fn everything_is_revoked_at_once(database: Database) {
    let upstream = upstream().await;
    let a = Plan::to(&upstream).on(database).start().await;
    let b = a.twin().await;
    let owner = a.member("olga", Owner).await;
    let app = owner.enrol(&a).await;
    let victim = Victim::new(&a, "victim").await;
    let mut streams = Vec::new();
    for gateway in [&a, &b] {
        for caller in [&victim.session, &victim.scoped, &victim.key, &a.owner_key()] {
            streams.push(Open::http1(&caller.at(gateway), "/api/chat", "talk").await);
        }
    }
    let owner = owner.fresh(&a, &app).await;
    let revoke = json!({ "reason": "a laptop is lost", "revoke_all": true });
    let answer = owner.post("/auth/emergency-revoke", &revoke).await;
    let since = Instant::now();
    let counts = json!({
        "status": "success", "revoked_keys": 2, "revoked_tokens": 2, "revoked_users": 3,
    });
    assert_eq!(answer.json(), counts);
    for gateway in [&a, &b] {
        for caller in [&owner, &victim.session, &victim.scoped, &victim.key, &a.owner_key()] {
            time_to_refusal(&caller.at(gateway)).await;
        }
    }
    for stream in streams {
        stream.ended(since).await;
    }
    assert!(since.elapsed() < BOUND + BOUND);
    let record = a.records().into_iter().find(|record| record["operation"] == "incident").unwrap();
    assert_eq!(record["user_id"], "olga", "{record}");
    assert_eq!(record["metadata"]["reason_given"], "a laptop is lost", "{record}");
    // Whoever knows a password comes in again, on either; nothing else comes back.
    let again = b.login(USER).await;
    assert_eq!(again.at(&a).me().await.status, 200);
    a.reload().await;
    a.owner_key().me().await.refused(401, "invalid_credentials");
}

async fn a_revocation_outlives_the_gateways(database: Database) {
    let upstream = upstream().await;
    let a = Plan::to(&upstream).on(database).start().await;
    let owner = a.session(USER).await;
    let mut ended = Vec::new();
    for (number, way) in WAYS.iter().enumerate().filter(|(_, way)| way.name != "lower the role") {
        let victim = Victim::new(&a, &format!("victim-{number}")).await;
        victim.go(way, &owner).await;
        ended.push((way, victim));
    }
    let stays = Victim::new(&a, "stays").await;
    let a = a.restart().await;
    let b = a.twin().await;
    for gateway in [&a, &b] {
        for (way, victim) in &ended {
            for (caller, ends) in victim.credentials(way) {
                let answer = caller.at(gateway).me().await;
                assert_eq!(answer.status == 401, ends, "{}: {answer:?}", way.name);
            }
        }
        for (caller, _) in stays.credentials(&WAYS[0]) {
            assert_eq!(caller.at(gateway).me().await.status, 200);
        }
        assert_eq!(gateway.owner_key().chat().await.status, 200);
    }
}

/// A copy of accounts that is a moment old lets nobody in who has just been made elsewhere, unless
/// it looks again.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_made_on_one_works_on_the_other_at_once() {
    let a = Plan::alone().start().await;
    let b = a.twin().await;
    for number in 0..5 {
        let victim = Victim::new(&a, &format!("new-{number}")).await;
        for (caller, _) in victim.credentials(&WAYS[0]) {
            assert_eq!(caller.at(&b).me().await.status, 200);
        }
        let entered = b.login(&victim.name).await;
        assert_eq!(entered.at(&a).me().await.status, 200);
    }
}

/// A code of the second factor that was shown to one gateway is used up on the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_code_works_once_on_all_gateways() {
    let a = Plan::alone().start().await;
    let b = a.twin().await;
    let owner = a.member("olga", Owner).await;
    let app: Authenticator = owner.enrol(&a).await;
    a.user("tim", User).await;
    let owner = owner.fresh(&a, &app).await;
    let role = json!({ "role": "user" });
    assert_eq!(owner.post("/auth/users/tim/role", &role).await.status, 200);
    let again = owner.at(&b).post("/auth/users/tim/role", &role).await;
    again.refused(401, "invalid_credentials");
}
