//! Cluster, Sentinel, TLS and ACL users.

use std::fs;

use super::*;
use crate::quota::charge::Resource;
use crate::quota::window::Window;

const SOON: Duration = Duration::from_secs(20);

/// Three primaries that share the slots.
async fn cluster() -> Option<Vec<Server>> {
    let args = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
    let nodes: Vec<Server> = (0..3).map_while(|_| Server::start(&args)).collect();
    let [first, second, third] = nodes.as_slice() else { return None };
    for (node, slots) in [(first, "0 5460"), (second, "5461 10922"), (third, "10923 16383")] {
        node.run(&format!("CLUSTER ADDSLOTSRANGE {slots}"));
        first.run(&format!("CLUSTER MEET 127.0.0.1 {}", node.port));
    }
    let is_whole = |node: &Server| {
        let info = node.run("CLUSTER INFO");
        info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
    };
    until("forming the cluster", SOON, async || nodes.iter().all(is_whole)).await;
    Some(nodes)
}

fn of_cluster(nodes: &[Server]) -> RedisOptions {
    let urls = nodes.iter().map(Server::url).collect();
    RedisOptions { topology: Topology::Cluster(urls), on_failure: STRICT, ..options("") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_does_what_every_store_does() {
    let Some(nodes) = cluster().await else { return };
    let clock = at_the_hour();
    let lease = Duration::from_secs(86_400);
    let options = RedisOptions { lease, ..of_cluster(&nodes) };
    let counters = connected_with(&options, Some(clock.clone())).await;
    suite::run(&Stage::redis(counters, clock)).await;
    for node in &nodes {
        assert_ne!(node.run("DBSIZE"), "Ok(int(0))", "every node has its part");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_cluster_too_no_level_passes_its_limit() {
    let Some(nodes) = cluster().await else { return };
    let gateways = [connected(&of_cluster(&nodes)).await, connected(&of_cluster(&nodes)).await];
    let limits = [1_501, 2_503, 9_007].map(|limit| per(Resource::Tokens, Window::Day, limit));
    let levels = [Level::User, Level::Role, Level::Global];
    let subjects = levels.map(|level| Subject::new(level, "x"));
    let mut clients = JoinSet::new();
    for client in 0..64_u128 {
        let (counters, limits) = (gateways[client as usize % 2].clone(), limits.clone());
        clients.spawn(async move {
            for round in 0..10_u128 {
                let mut ask = Demand::new(client << 32 | round, charge(1, 19, 0)).at_least(2, 0);
                for ((level, subject), limits) in levels.into_iter().zip(subjects).zip(&limits) {
                    ask = ask.level(level, subject, Arc::new(limits.clone()));
                }
                let Ok(reservation) = counters.reserve(ask).await else { continue };
                let held = reservation.reserved();
                reservation.settle(held);
            }
        });
    }
    clients.join_all().await;
    for gateway in &gateways {
        assert!(gateway.flush(SOON).await && !gateway.is_degraded());
    }
    let mut used = Vec::new();
    for subject in subjects {
        let found = gateways[0].consumption(subject).await.unwrap();
        let day = found.windows.day;
        assert_eq!((found.in_flight, day.reserved), (0, Charge::default()));
        used.push((day.used, day.requests));
    }
    assert!(used.iter().all(|level| *level == used[0]), "what one refuses none counts: {used:?}");
    let tokens = used[0].0.tokens();
    assert!(tokens <= 1_501 && tokens > 1_450, "{tokens}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_are_followed() {
    let Some(nodes) = cluster().await else { return };
    let counters = connected(&of_cluster(&nodes)).await;
    let limits = per(Resource::Tokens, Window::Day, 1_000);
    counters.reserve(demand(1, charge(0, 9, 0), &limits)).await.unwrap().settle(charge(0, 9, 0));
    assert!(counters.flush(SOON).await);
    let key = format!("portcullis:{{{:032x}}}", user("ann").number());
    let number = |text: String| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let slot: u16 = number(nodes[0].run(&format!("CLUSTER KEYSLOT {key}"))).parse().unwrap();
    let from = usize::from(slot / 5461).min(2);
    let to = (from + 1) % 3;
    let id = |node: &Server| node.run("CLUSTER MYID").split('\'').nth(1).unwrap().to_owned();
    let (from_id, to_id) = (id(&nodes[from]), id(&nodes[to]));
    nodes[to].run(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}"));
    nodes[from].run(&format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}"));
    let keys = nodes[from].run(&format!("CLUSTER GETKEYSINSLOT {slot} 100"));
    for key in keys.split('\'').filter(|word| word.starts_with("portcullis")) {
        nodes[from].run(&format!("MIGRATE 127.0.0.1 {} {key} 0 1000", nodes[to].port));
    }
    for node in &nodes {
        node.run(&format!("CLUSTER SETSLOT {slot} NODE {to_id}"));
    }
    for id in 2..5 {
        let reservation = counters.reserve(demand(id, charge(0, 9, 0), &limits)).await.unwrap();
        assert!(reservation.view().tokens.is_some(), "Redis has answered");
        reservation.settle(charge(0, 9, 0));
    }
    assert!(counters.flush(SOON).await && !counters.is_degraded());
    let used = counters.consumption(user("ann")).await.unwrap().windows.day.used;
    assert_eq!(used, charge(0, 36, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_by_sentinels_is_followed() {
    let Some(mut primary) = Server::start(&[]) else { return };
    let master = primary.port.to_string();
    let Some(replica) = Server::start(&["--replicaof", "127.0.0.1", &master]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let conf = format!(
        "sentinel monitor quota 127.0.0.1 {master} 1\nsentinel down-after-milliseconds quota 500\n\
         sentinel failover-timeout quota 2000\n"
    );
    fs::write(dir.path().join("s.conf"), conf).unwrap();
    let port = server::free_port();
    let Some(sentinel) = Server::start_in(dir, port, &["s.conf", "--sentinel"]) else { return };
    let address = format!("127.0.0.1:{}", replica.port);
    let knows = async || sentinel.run("SENTINEL REPLICAS quota").contains(&address);
    let synced = async || replica.run("INFO replication").contains("master_link_status:up");
    until("finding the replica", SOON, knows).await;
    until("replicating", SOON, synced).await;

    let topology = Topology::Sentinel { urls: vec![sentinel.url()], master: "quota".to_owned() };
    let counters = connected(&RedisOptions { topology, ..options("") }).await;
    let limits = per(Resource::Tokens, Window::Day, 1_000);
    counters.reserve(demand(1, charge(0, 9, 0), &limits)).await.unwrap().settle(charge(0, 9, 0));
    assert!(counters.flush(SOON).await);
    until("replicating", SOON, async || replica.run("DBSIZE") == primary.run("DBSIZE")).await;

    primary.kill();
    let local = counters.reserve(demand(2, charge(0, 9, 0), &limits)).await.unwrap();
    local.settle(charge(0, 8, 0));
    let promoted = async || replica.run("ROLE").contains("master");
    until("electing", SOON, promoted).await;
    until("following", Duration::from_secs(2), async || !counters.is_degraded()).await;
    assert!(counters.flush(SOON).await);
    let day = counters.consumption(user("ann")).await.unwrap().windows.day;
    assert_eq!((day.requests, day.used), (2, charge(0, 17, 0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_spoken_with_the_authority_that_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (ca_key, ca, leaf_key, leaf) = certificates();
    for (name, pem) in [("ca.pem", &ca), ("cert.pem", &leaf), ("key.pem", &leaf_key)] {
        fs::write(dir.path().join(name), pem).unwrap();
    }
    let tls = server::free_port();
    let tls_port = tls.to_string();
    let args = [
        "--tls-port",
        &tls_port,
        "--tls-cert-file",
        "cert.pem",
        "--tls-key-file",
        "key.pem",
        "--tls-ca-cert-file",
        "ca.pem",
        "--tls-auth-clients",
        "no",
    ];
    let Some(_server) = Server::start_in(dir, server::free_port(), &args) else { return };
    let url = format!("rediss://localhost:{tls}/");
    let (_, other_ca, ..) = certificates();
    for (pem, trusted) in [(ca, true), (other_ca, false)] {
        let options = RedisOptions { ca_pem: Some(pem.into_bytes()), ..options(&url) };
        let counters = RedisCounters::start(&options, Clock::system(), &Handle::current()).unwrap();
        let limits = per(Resource::Tokens, Window::Day, 1_000);
        let within = Duration::from_secs(if trusted { 10 } else { 1 });
        assert_eq!(counters.ready(within).await, trusted);
        let reservation = counters.reserve(demand(1, charge(0, 9, 0), &limits)).await.unwrap();
        assert_eq!(reservation.view().tokens.is_some(), trusted);
    }
    assert!(!ca_key.is_empty());
}

/// The key and certificate of an authority, and of a server that it has signed.
fn certificates() -> (String, String, String, String) {
    let mut of_ca = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    of_ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let (ca_key, leaf_key) =
        (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
    let ca = of_ca.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::from_params(&of_ca, &ca_key);
    let of_leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = of_leaf.signed_by(&leaf_key, &issuer).unwrap();
    (ca_key.serialize_pem(), ca.pem(), leaf_key.serialize_pem(), leaf.pem())
}

/// The rights that the documentation names are enough, and a wrong password is an outage.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acl_user_needs_only_the_rights_that_are_documented() {
    let Some(server) = Server::start(&[]) else { return };
    server.run(&format!("ACL SETUSER gateway on >secret {RIGHTS}"));
    let limits = per(Resource::Tokens, Window::Day, 1_000);
    let url = server.url();
    for (password, right) in [("secret", true), ("wrong", false)] {
        let options = RedisOptions {
            username: Some("gateway".to_owned()),
            password: Some(password.into()),
            on_failure: STRICT,
            lease: Duration::from_secs(1),
            ..options(&url)
        };
        let counters = RedisCounters::start(&options, Clock::system(), &Handle::current()).unwrap();
        assert_eq!(counters.ready(Duration::from_secs(1)).await, right);
        if right {
            let running = counters.reserve(demand(1, charge(0, 9, 0), &limits)).await.unwrap();
            assert_eq!(running.extension().grow(charge(0, 5, 0)).await, charge(0, 5, 0));
            tokio::time::sleep(Duration::from_millis(600)).await;
            running.settle(charge(0, 9, 0));
            assert!(counters.flush(SOON).await && !counters.is_degraded());
            counters.reset(user("ann"), 1).await.unwrap();
        }
    }
}

const RIGHTS: &str = "~portcullis:* +eval +evalsha +time +get +mget +set +hget +hset +hdel \
    +hgetall +pexpire";
