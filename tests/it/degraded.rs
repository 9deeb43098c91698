//! The account store goes away under gateways that serve: who is known goes on for a stated time,
//! nobody else comes in, and it comes back by itself.

use std::time::{Duration, Instant};

use portcullis_filters::accounts::AccountRole::User;
use portcullis_filters::accounts::ApiKey;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::support::accounts::Caller;
use crate::support::client::Answer;
use crate::support::database::Database;
use crate::support::gateway::{Gateway, PASSWORD, Plan, USER};
use crate::support::tunnel::Tunnel;
use crate::support::upstream::Upstream;
use crate::support::{chat_answer, until};

/// For what is to happen by itself once the store is back.
const SOON: Duration = Duration::from_secs(2);
/// What tells that accounts are not as they should be.
const GAUGE: &str = "portcullis_degraded{component=\"accounts\"}";

/// What tells that nothing of them can be written.
const WRITES: &str = "portcullis_degraded{component=\"accounts_writes\"}";

#[track_caller]
fn unavailable(answer: &Answer) {
    answer.refused(503, "overloaded");
    assert!(answer.field("retry-after").is_some(), "{answer:?}");
    assert_eq!(answer.field("x-should-retry"), None, "{answer:?}");
}

/// A gateway that has users, and what they come with.
struct House {
    gateway: Gateway,
    upstream: Upstream,
    known: [Caller; 3],
    once: Caller,
    stranger: Caller,
}

impl House {
    async fn new(plan: impl FnOnce(&Upstream) -> Plan) -> Self {
        let upstream = Upstream::json(chat_answer(1, 1)).await;
        let gateway = plan(&upstream).store("timeout: 500ms").start().await;
        let ann = gateway.member("ann", User).await;
        let key = ann.new_key(&json!({ "permissions": ["llm:generate"] })).await;
        let scoped = gateway.caller(&ann.scoped(json!({})).await);
        let stranger = ApiKey::generate().unwrap().reveal();
        Self {
            once: gateway.caller(&ann.scoped(json!({ "single_use": true })).await),
            stranger: gateway.caller(stranger.expose_secret()),
            known: [ann, gateway.caller(key["api_key"].as_str().unwrap()), scoped],
            gateway,
            upstream,
        }
    }

    /// What needs the store, and is refused at once while it is away.
    async fn needs_the_store(&self) {
        let [ann, ..] = &self.known;
        let begun = Instant::now();
        unavailable(&self.gateway.try_login("ann", PASSWORD, None).await);
        unavailable(&self.gateway.try_login("ann", "not the password of ann", None).await);
        unavailable(&self.gateway.try_login("nobody", PASSWORD, None).await);
        unavailable(&ann.press("/auth/logout").await);
        unavailable(&ann.post("/auth/api-keys", &json!({ "permissions": ["models:read"] })).await);
        unavailable(&ann.post("/auth/revoke", &json!({ "token": ann.credential() })).await);
        unavailable(&self.once.chat().await);
        assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
    }

    async fn known_are_served(&self) {
        for caller in &self.known {
            let answer = caller.chat().await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }

    async fn health(&self) -> Value {
        self.gateway.anonymous().get("/system/health").await.json()
    }

    /// The store is away: from the moment it is noticed until what is known is too old.
    async fn is_away(&self) {
        until("the gauge to tell", || self.gateway.metric(GAUGE) == 1).await;
        self.known_are_served().await;
        self.needs_the_store().await;
        self.stranger.chat().await.refused(401, "invalid_credentials");
        self.gateway.state.clock().advance(Duration::from_secs(5));
        let health = self.health().await;
        assert_eq!(health["status"], "degraded", "{health}");
        assert_eq!(health["components"]["accounts"], "degraded", "{health}");
        self.known_are_served().await;
        assert_eq!(self.gateway.anonymous().get("/readyz").await.status, 200);
        let asked = self.upstream.seen().len();
        self.gateway.state.clock().advance(Duration::from_secs(60));
        let known = self.known.iter().take(2);
        for caller in known.chain([&self.stranger, &self.gateway.owner_key()]) {
            unavailable(&caller.chat().await);
        }
        unavailable(&self.gateway.anonymous().get("/readyz").await);
        assert_eq!(self.gateway.anonymous().get("/livez").await.status, 200);
        assert_eq!(self.upstream.seen().len(), asked);
    }

    /// The store is back: everything is as before, soon and by itself.
    async fn is_back(&self) {
        let begun = Instant::now();
        until("the gauge to tell", || self.gateway.metric(GAUGE) == 0).await;
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        for caller in self.known.iter().take(2) {
            assert_eq!(caller.chat().await.status, 200);
        }
        let health = self.health().await;
        assert_eq!(health["status"], "ok", "{health}");
        assert_eq!(self.gateway.anonymous().get("/readyz").await.status, 200);
        assert_eq!(self.gateway.login(USER).await.me().await.status, 200);
        self.stranger.chat().await.refused(401, "invalid_credentials");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_store_that_is_broken_serves_who_is_known_for_a_while() {
    let house = House::new(Plan::to).await;
    assert_eq!(
        (house.gateway.metric(GAUGE), house.health().await["status"].as_str()),
        (0, Some("ok"))
    );
    let tables = ["state", "users", "sessions", "api_keys", "revocations", "single_use"];
    let rename = |from: &str, to: &str| {
        let rename = |table| format!("ALTER TABLE {table}{from} RENAME TO {table}{to};");
        house.gateway.folder.sql(&tables.map(rename).concat());
    };
    rename("", "_away");
    house.is_away().await;
    rename("_away", "");
    house.is_back().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_store_that_is_locked_keeps_nobody_out_who_is_known() {
    let house = House::new(Plan::to).await;
    let lock = house.gateway.folder.lock();
    house.needs_the_store().await;
    // Reading goes on, so that nothing becomes old.
    house.gateway.pass(Duration::from_secs(50)).await;
    house.known_are_served().await;
    assert_eq!(house.gateway.metric(GAUGE), 0);
    house.gateway.pass(Duration::from_secs(20)).await;
    until("the gauge of writing to tell", || house.gateway.metric(WRITES) == 1).await;
    drop(lock);
    house.is_back().await;
    assert_eq!(house.gateway.login("ann").await.me().await.status, 200);
    house.gateway.pass(Duration::from_secs(61)).await;
    until("the gauge of writing to tell", || house.gateway.metric(WRITES) == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_was_revoked_while_one_was_cut_off_is_refused_when_it_is_back() {
    let house = House::new(Plan::to).await;
    let other = house.gateway.twin().await;
    let [ann, key, scoped] = &house.known;
    house.gateway.folder.sql("ALTER TABLE state RENAME TO state_away");
    until("the gauges to tell", || house.gateway.metric(GAUGE) + other.metric(GAUGE) == 2).await;
    // Nobody can be revoked without the store, and nobody is told so.
    unavailable(&ann.at(&other).press("/auth/logout").await);
    house.gateway.folder.sql("ALTER TABLE state_away RENAME TO state");
    until("the store to be back", || other.metric(GAUGE) == 0).await;
    assert_eq!(ann.at(&other).press("/auth/logout").await.status, 204);
    until("the store to be back", || house.gateway.metric(GAUGE) == 0).await;
    house.gateway.state.look().await.unwrap();
    for caller in [ann, scoped] {
        caller.chat().await.refused(401, "invalid_credentials");
    }
    assert_eq!(key.chat().await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_server_that_is_out_of_reach_serves_who_is_known_for_a_while() {
    let Some(database) = Database::postgres() else { return };
    let tunnel = Tunnel::to(database.server()).await;
    let url = database.url_at(tunnel.address());
    let plan = |upstream: &Upstream| Plan::to(upstream).on(database).file("store.url", &url);
    let house = House::new(plan).await;
    tunnel.cut();
    house.is_away().await;
    tunnel.mend();
    house.is_back().await;
}

/// No answer at all is worse than a refusal: nothing tells that it will not come.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_server_that_is_silent_serves_who_is_known_for_a_while() {
    let Some(database) = Database::postgres() else { return };
    let tunnel = Tunnel::to(database.server()).await;
    let url = database.url_at(tunnel.address());
    let plan = |upstream: &Upstream| Plan::to(upstream).on(database).file("store.url", &url);
    let house = House::new(plan).await;
    tunnel.hold();
    house.is_away().await;
    tunnel.mend();
    house.is_back().await;
}
