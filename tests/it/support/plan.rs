//! What a gateway is to be like, and the folder that this is written into.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use portcullis_filters::accounts::{ApiKey, Pepper, generate_secret, generate_signing_key_pem};
use portcullis_filters::clock::Clock;
use portcullis_filters::config;
use portcullis_filters::snapshot::Snapshot;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use tempfile::TempDir;

use super::database::{Database, Lock};
use super::gateway::Gateway;
use super::tls::Authority;
use super::upstream::Upstream;

/// The one declared user of every gateway, an owner.
pub(crate) const USER: &str = "alice";
/// The password of every user.
pub(crate) const PASSWORD: &str = "correct horse battery staple";
/// Its hash.
pub(crate) const PASSWORD_HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1\
    $2ZOi/e61HRAi423LjcBvLg$ofkSLvqjqZevbg4DB3RzYLB6SGlulnRPbxxanLGSSXA";
/// Another one that a user may take.
pub(crate) const GOOD: &str = "quartz nebula tractor violin";
/// The configuration in a [`Folder`].
const CONFIG: &str = "portcullis.yaml";

/// What a gateway is to be like.
pub(crate) struct Plan {
    blocks: String,
    limits: String,
    quota: String,
    rights: String,
    store: String,
    auth: String,
    secrets: String,
    authority: Option<Authority>,
    clients: Option<String>,
    database: Database,
    files: Vec<(String, String)>,
}

impl Plan {
    /// A gateway with these blocks of configuration, `upstreams` among them.
    pub(crate) fn new(blocks: impl Into<String>) -> Self {
        Self {
            blocks: blocks.into(),
            limits: String::new(),
            quota: "requests_per_minute: 60000, burst: 1000".to_owned(),
            rights: "scopes: ['*'], models: ['*']".to_owned(),
            store: String::new(),
            auth: String::new(),
            secrets: String::new(),
            authority: None,
            clients: None,
            database: Database::File,
            files: Vec::new(),
        }
    }

    /// A gateway in front of this upstream only.
    pub(crate) fn to(upstream: &Upstream) -> Self {
        Self::new(format!("upstreams: {{local: {{url: '{}'}}}}", upstream.url()))
    }

    /// A gateway that has nothing to serve but accounts.
    pub(crate) fn alone() -> Self {
        Self::new("upstreams: {local: {url: 'http://127.0.0.1:9'}}")
    }

    /// More blocks.
    pub(crate) fn with(mut self, blocks: &str) -> Self {
        writeln!(self.blocks, "\n{blocks}").unwrap();
        self
    }

    /// Limits of the listener, as members of a YAML object.
    pub(crate) fn limits(mut self, limits: &str) -> Self {
        self.limits = limits.to_owned();
        self
    }

    /// The quota of the user, as members of a YAML object.
    pub(crate) fn quota(mut self, quota: &str) -> Self {
        self.quota = quota.to_owned();
        self
    }

    /// What the API key may do, as members of a YAML object.
    pub(crate) fn rights(mut self, rights: &str) -> Self {
        self.rights = rights.to_owned();
        self
    }

    /// What the store is like beside its URL, as members of a YAML object.
    pub(crate) fn store(mut self, members: &str) -> Self {
        self.store = members.to_owned();
        self
    }

    /// One more member of the block `auth`.
    pub(crate) fn auth(mut self, member: &str) -> Self {
        writeln!(self.auth, "  {member}").unwrap();
        self
    }

    /// One more member of the block `secrets`.
    pub(crate) fn secret(mut self, member: &str) -> Self {
        writeln!(self.secrets, "  {member}").unwrap();
        self
    }

    /// Serves TLS too, with a certificate of this authority.
    pub(crate) fn tls(mut self, authority: Authority) -> Self {
        self.authority = Some(authority);
        self
    }

    /// Takes certificates of clients whose authority has this one, in PEM.
    pub(crate) fn clients(mut self, ca: String) -> Self {
        self.clients = Some(ca);
        self
    }

    /// Keeps accounts there.
    pub(crate) fn on(mut self, database: Database) -> Self {
        self.database = database;
        self
    }

    /// Puts a file beside the configuration.
    pub(crate) fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Starts it.
    pub(crate) async fn start(self) -> Gateway {
        Gateway::start(self).await
    }

    /// Writes everything down, and gives the declared API key too.
    pub(super) fn write(self) -> (Folder, SecretString) {
        let pepper = generate_secret::<48>().unwrap();
        let (key, id, digest) = new_key(&pepper);
        let config = self.config(&id, &digest);
        let folder = Folder {
            dir: tempfile::tempdir().unwrap(),
            database: self.database,
            authority: self.authority,
            trails: AtomicUsize::new(0),
        };
        folder.write("signing.pem", generate_signing_key_pem().unwrap().expose_secret());
        for name in ["token.key", "store.key"] {
            folder.write(name, generate_secret::<48>().unwrap().expose_secret());
        }
        folder.write("pepper.key", pepper.expose_secret());
        folder.write("alice.hash", PASSWORD_HASH);
        folder.write("store.url", &folder.database.url(folder.dir.path()));
        if let Some(authority) = &folder.authority {
            folder.write("chain.pem", &authority.chain_pem());
            folder.write("key.pem", &authority.key_pem());
        }
        let clients = self.clients.as_ref().map(|ca| ("clients.pem", ca));
        let files = self.files.iter().map(|(name, text)| (name.as_str(), text));
        files.chain(clients).for_each(|(name, text)| folder.write(name, text));
        folder.write(CONFIG, &config);
        (folder, key)
    }

    fn config(&self, id: &str, digest: &str) -> String {
        let Self { blocks, limits, quota, rights, store, auth, secrets, .. } = self;
        let tls = match (&self.authority, &self.clients) {
            (None, _) => "null",
            (_, None) => "{cert_file: chain.pem, key_file: key.pem}",
            (_, Some(_)) => {
                "{cert_file: chain.pem, key_file: key.pem, client_ca_file: clients.pem}"
            }
        };
        format!(
            "\
version: 1
listeners: [{{name: public, address: '127.0.0.1:0', tls: {tls}, limits: {{{limits}}}}}]
admin: {{address: '127.0.0.1:0'}}
store: {{url: {{file: store.url}}, {store}}}
secrets:
  signing_key: {{file: signing.pem}}
  token_key: {{file: token.key}}
  key_pepper: {{file: pepper.key}}
  store_key: {{file: store.key}}
{secrets}
auth:
  users: [{{name: {USER}, role: owner, password_hash: {{file: alice.hash}}}}]
  api_keys: [{{id: {id}, user: {USER}, digest: {digest}, {rights}}}]
{auth}
quotas: {{default: {{{quota}}}, small: {{requests_per_minute: 60, burst: 2}}, two: {{requests_per_day: 2}}}}
{blocks}
"
        )
    }
}

fn new_key(pepper: &SecretString) -> (SecretString, String, String) {
    let pepper = Pepper::new(&SecretSlice::from(pepper.expose_secret().as_bytes().to_vec()));
    let key = ApiKey::generate().unwrap();
    let digest = pepper.unwrap().digest(&key).to_string();
    (key.reveal(), key.id().to_string(), digest)
}

/// A configuration with all that it names; gateways that share it share accounts.
pub(crate) struct Folder {
    dir: TempDir,
    database: Database,
    pub(super) authority: Option<Authority>,
    trails: AtomicUsize,
}

impl Folder {
    /// The configuration.
    pub(super) fn config(&self) -> PathBuf {
        self.dir.path().join(CONFIG)
    }

    /// A name for another audit trail.
    pub(super) fn next_trail(&self) -> String {
        format!("audit-{}.jsonl", self.trails.fetch_add(1, Ordering::Relaxed))
    }

    /// Writes a file that only its owner can read.
    pub(crate) fn write(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Changes the configuration.
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let config = std::fs::read_to_string(self.config()).unwrap();
        assert!(config.contains(from), "{from:?} is not in the configuration");
        self.write(CONFIG, &config.replace(from, to));
    }

    /// The configuration of now, compiled with these variables in the environment.
    pub(crate) fn compile(&self, clock: &Clock, environment: &[(&str, &str)]) -> Snapshot {
        let config = config::load(&self.config()).unwrap_or_else(|problems| panic!("{problems}"));
        let variable = |name: &str| {
            let found = environment.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let secrets = config.resolve_secrets(self.dir.path(), &variable).unwrap();
        Snapshot::compile(&config, &secrets, self.dir.path(), clock).unwrap()
    }

    /// Runs statements in the database, past the store.
    pub(crate) fn sql(&self, statements: &str) {
        self.database.run(self.dir.path(), statements);
    }

    /// Has another process hold the lock of the database for writing.
    pub(crate) fn lock(&self) -> Lock {
        Database::lock(self.dir.path())
    }

    /// Everything that is secret in the folder, by its longest line.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let names = ["signing.pem", "token.key", "pepper.key", "store.key", "alice.hash"];
        names.map(|name| longest_line(&self.dir.path().join(name))).to_vec()
    }
}

fn longest_line(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().max_by_key(|line| line.len()).unwrap().to_owned()
}

/// What gateways share.
pub(crate) type SharedFolder = Arc<Folder>;
