//! What it costs to know who is calling: `cargo bench --bench identity`. CPU time of one thread for
//! a credential that was seen before, then the start and memory of a gateway with 100,000 keys.

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};
use portcullis::boot;
use portcullis_filters::State;
use portcullis_filters::accounts::directory::Directory;
use portcullis_filters::accounts::permission::Credential;
use portcullis_filters::accounts::store::{Key, Source};
use portcullis_filters::accounts::token::{ScopedGrant, UserGrant};
use portcullis_filters::accounts::{
    AccountRole, ApiKey, Pepper, Profile, generate_secret, generate_signing_key_pem, password,
};
use portcullis_filters::authn::{Caller, identify};
use portcullis_filters::clock::Clock;
use secrecy::{ExposeSecret, SecretSlice, SecretString};

const KEYS: usize = 100_000;
const USER: &str = "alice";
/// Names the folder of a store to start with.
const START_IN: &str = "PORTCULLIS_BENCH_START_IN";

mod measure;
use measure::measure;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    if let Some(dir) = std::env::var_os(START_IN) {
        return start_with_many(dir.as_ref());
    }
    let dir = tempfile::tempdir()?;
    let pepper = configure(dir.path())?;
    let clock = Clock::system();
    let loaded = boot::load(&dir.path().join("portcullis.yaml"), &clock)?;
    let state = boot::state(loaded, clock.clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut keys = keys(&pepper)?;
    let (secret, key) = keys.pop().ok_or("no keys")?;
    let by = portcullis_filters::accounts::store::Actor { name: USER.into(), unrecorded: false };
    runtime.block_on(state.directory().store().create_key(&key, &by))?;
    runtime.block_on(state.look())?;
    for (name, credential, header) in credentials(&state, &secret)? {
        measure(name, || {
            let found = runtime.block_on(identify(&caller(&state, black_box(&header))));
            let credential_of =
                |who: portcullis_filters::authn::Identified| who.claimed().credential();
            assert!(found.is_ok_and(|who| credential_of(who) == credential), "{name}");
        })?;
    }
    let users = state.snapshot().declared().users.clone();
    let keys: Vec<Key> = keys.into_iter().map(|(_, key)| key).collect();
    let declared = state.directory().store().declare(&users, &keys, clock.unix_secs());
    runtime.block_on(declared)?;
    drop((state, keys));
    // In a process of its own: this one has memory left over.
    let child = Command::new(std::env::current_exe()?).env(START_IN, dir.path()).status()?;
    if child.success() { Ok(()) } else { Err("the second process failed".into()) }
}

/// What a gateway that starts takes to know this many keys, and to hold them.
fn start_with_many(dir: &Path) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let clock = Clock::system();
    let loaded = boot::load(&dir.join("portcullis.yaml"), &clock)?;
    let (store, _) = boot::store(&loaded.config, &loaded.secrets, dir)?;
    let (before, begun) = (resident()?, Instant::now());
    let copy = Directory::new(store, clock, Duration::from_secs(60))?;
    runtime.block_on(copy.look())?;
    let (took, after) = (begun.elapsed(), resident()?);
    let mib = after.saturating_sub(before) as f64 / 1024.0;
    let (keys, ms) = (copy.keys(), took.as_secs_f64() * 1e3);
    writeln!(
        std::io::stdout(),
        "directory: {keys} keys, first look {ms:8.0} ms, resident +{mib:.0} MiB"
    )?;
    Ok(())
}

fn configure(dir: &Path) -> Outcome<Pepper> {
    let pepper = generate_secret::<48>()?;
    let hash = password::hash(&SecretString::from("correct horse battery staple"), Profile::Owasp)?;
    for (name, text) in [
        ("signing.pem", generate_signing_key_pem()?.expose_secret()),
        ("token.key", generate_secret::<48>()?.expose_secret()),
        ("pepper.key", pepper.expose_secret()),
        ("alice.hash", hash.as_str()),
        ("portcullis.yaml", CONFIG),
    ] {
        private(&dir.join(name), text)?;
    }
    Ok(Pepper::new(&SecretSlice::from(pepper.expose_secret().as_bytes().to_vec()))?)
}

const CONFIG: &str = "\
version: 1
secrets: {signing_key: {file: signing.pem}, token_key: {file: token.key}, key_pepper: {file: pepper.key}}
upstreams: {local: {url: 'http://127.0.0.1:9'}}
auth: {users: [{name: alice, role: user, password_hash: {file: alice.hash}}]}
";

fn private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

fn keys(pepper: &Pepper) -> Outcome<Vec<(SecretString, Key)>> {
    let mut keys = Vec::with_capacity(KEYS + 1);
    for _ in 0..=KEYS {
        let secret = ApiKey::generate()?;
        let key = Key {
            id: secret.id(),
            user: USER.to_owned(),
            name: "a key of many".to_owned(),
            digest: pepper.digest(&secret),
            scopes: vec!["llm:generate".to_owned(), "models:read".to_owned()],
            models: vec!["*".to_owned()],
            networks: Vec::new(),
            quota: None,
            expires_at: None,
            created_at: 1,
            created_by: USER.to_owned(),
            last_used_at: None,
            revoked_at: None,
            source: Source::Config,
        };
        keys.push((secret.reveal(), key));
    }
    Ok(keys)
}

/// A header of each kind that is looked at on the hot path.
fn credentials(
    state: &State,
    key: &SecretString,
) -> Outcome<Vec<(&'static str, Credential, HeaderMap)>> {
    let snapshot = state.snapshot();
    let tokens = snapshot.tokens().ok_or("no tokens")?;
    let person = state.directory().person(USER).ok_or("no user")?;
    let user = tokens.issue_user(UserGrant {
        subject: USER.to_owned(),
        role: AccountRole::User,
        epoch: person.epoch,
        mfa: false,
    })?;
    let scoped = tokens.issue_scoped(ScopedGrant {
        subject: USER.to_owned(),
        epoch: person.epoch,
        session: Some(user.id.clone()),
        key: None,
        scopes: vec!["llm:generate".to_owned()],
        model: "phi".to_owned(),
        max_tokens: 64,
        address: None,
        once: false,
        not_after: None,
    })?;
    Ok(vec![
        ("authn: API key", Credential::Key, bearer(key)?),
        ("authn: user token, seen before", Credential::Login, bearer(&user.token)?),
        ("authn: scoped token, seen before", Credential::ScopedToken, bearer(&scoped.token)?),
    ])
}

fn bearer(secret: &SecretString) -> Outcome<HeaderMap> {
    let value = HeaderValue::try_from(format!("Bearer {}", secret.expose_secret()))?;
    Ok(HeaderMap::from_iter([(http::header::AUTHORIZATION, value)]))
}

fn caller<'a>(state: &'a State, headers: &'a HeaderMap) -> Caller<'a> {
    // The configuration is loaded anew for each request, as it is in the gateway.
    Caller {
        state,
        snapshot: SNAPSHOT.get_or_init(|| state.snapshot()),
        headers,
        method: "POST",
        path: "/v1/chat/completions",
        host: Some(b"127.0.0.1"),
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        certificate: None,
    }
}

static SNAPSHOT: std::sync::OnceLock<Arc<portcullis_filters::snapshot::Snapshot>> =
    std::sync::OnceLock::new();

/// Resident memory of this process, in KiB.
fn resident() -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}
