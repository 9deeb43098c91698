//! A folder with a configuration and its secrets, a gateway that serves it, and commands that run
//! to their end. Every wait has a bound, and nothing that was started outlives its test.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use portcullis_filters::accounts::{
    ApiKey, Pepper, Profile, generate_secret, generate_signing_key_pem, password,
};
use reqwest::{Client, RequestBuilder, Response};
use rustls::pki_types::CertificateDer;
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at a condition.
const TICK: Duration = Duration::from_millis(10);

/// The password of `alice` and `bob`.
pub(crate) const PASSWORD: &str = "correct horse battery staple";
/// The configuration in a [`Folder`].
pub(crate) const CONFIG: &str = "portcullis.yaml";

static HASH: LazyLock<String> =
    LazyLock::new(|| password::hash(&SecretString::from(PASSWORD), Profile::Owasp).unwrap());

/// A loopback address that no other test process uses, so that its free ports stay free. Only
/// Linux has more than one.
pub(crate) fn own_address() -> IpAddr {
    let [_, a, b, c] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, 100 + a % 100, b, c);
    if cfg!(target_os = "linux") { own.into() } else { Ipv4Addr::LOCALHOST.into() }
}

/// An address and port that nobody listens on.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind((own_address(), 0)).unwrap().local_addr().unwrap()
}

/// Polls until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(TICK).await;
    }
}

/// A temporary folder with keys, the password hash of `alice` and `bob`, and a configuration.
pub(crate) struct Folder {
    dir: TempDir,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// An API key of `alice`.
    pub(crate) key: String,
    /// What would be a leak in any output.
    pub(crate) secrets: Vec<String>,
}

impl Folder {
    /// A folder whose configuration leads to this upstream.
    pub(crate) fn new(upstream: &str) -> Self {
        let pepper = generate_secret::<48>().unwrap();
        let key = ApiKey::generate().unwrap();
        let digest = Pepper::new(&bytes(&pepper)).unwrap().digest(&key).to_string();
        let files = [
            ("signing.pem", generate_signing_key_pem().unwrap().expose_secret().to_owned()),
            ("token.key", generate_secret::<48>().unwrap().expose_secret().to_owned()),
            ("pepper.key", pepper.expose_secret().to_owned()),
            ("store.key", generate_secret::<48>().unwrap().expose_secret().to_owned()),
            ("alice.hash", HASH.clone()),
            ("bob.hash", HASH.clone()),
        ];
        let folder = Self {
            dir: tempfile::tempdir().unwrap(),
            listen: free_address(),
            admin: free_address(),
            key: key.reveal().expose_secret().to_owned(),
            secrets: files.iter().map(|(_, text)| longest_line(text)).collect(),
        };
        for (name, text) in &files {
            folder.write(name, text);
        }
        folder.write(CONFIG, &folder.config(upstream, &key.id().to_string(), &digest));
        folder
    }

    fn config(&self, upstream: &str, id: &str, digest: &str) -> String {
        let Self { listen, admin, .. } = self;
        format!(
            "\
version: 1
server: {{drain_timeout: 20s}}
listeners:
  - {{name: public, address: '{listen}'}}
admin: {{address: '{admin}'}}
secrets:
  signing_key: {{file: signing.pem}}
  token_key: {{file: token.key}}
  key_pepper: {{file: pepper.key}}
upstreams:
  mock: {{kind: ollama, url: '{upstream}'}}
auth:
  users:
    - {{name: alice, role: user, password_hash: {{file: alice.hash}}}}
    - {{name: bob, role: user, password_hash: {{file: bob.hash}}}}
  api_keys:
    - {{id: {id}, user: alice, digest: {digest}, scopes: ['*'], models: ['*']}}
quotas: {{default: {{requests_per_minute: 1000000, burst: 100000, concurrent: 1000}}}}
"
        )
    }

    /// The path of a file in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file that only its owner can read.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(self.path(name));
        file.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Sets the permissions of a file.
    pub(crate) fn chmod(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The text of a file, nothing if it is not there.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Replaces a part of the configuration, which must be in it.
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let old = self.read(CONFIG);
        assert!(old.contains(from), "{from} is not in\n{old}");
        self.write(CONFIG, &old.replacen(from, to, 1));
    }

    /// Adds blocks to the configuration.
    pub(crate) fn add(&self, yaml: &str) {
        self.write(CONFIG, &format!("{}{yaml}", self.read(CONFIG)));
    }

    /// The audit records of requests and reloads so far; a line that is being written is none yet.
    pub(crate) fn records(&self) -> Vec<Value> {
        let text = self.read("audit.jsonl");
        let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        records.filter(|record| record["reason"] != "audit_opened").collect()
    }

    /// Has second factors and e-mail addresses sealed in the store.
    pub(crate) fn seal(&self) {
        self.edit("secrets:\n", "secrets:\n  store_key: {file: store.key}\n");
    }

    /// Runs the command in this folder to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.tell(args, "")
    }

    /// The same, with something on standard input.
    pub(crate) fn tell(&self, args: &[&str], stdin: &str) -> Ran {
        run(portcullis(args).current_dir(&self.dir), stdin)
    }

    /// Runs a command on the configuration, which must succeed, and gives its answer in JSON.
    pub(crate) fn json(&self, args: &[&str], stdin: &str) -> Value {
        let ran = self.tell(&[args, &["-c", CONFIG, "--json"]].concat(), stdin);
        assert_eq!(ran.code, Some(0), "{args:?}: {ran:?}");
        serde_json::from_str(&ran.out).unwrap()
    }

    /// Runs a command on the configuration, which must be refused in these words.
    pub(crate) fn refused(&self, args: &[&str], stdin: &str, words: &str) {
        let ran = self.tell(&[args, &["-c", CONFIG]].concat(), stdin);
        assert_eq!(ran.code, Some(1), "{args:?}: {ran:?}");
        assert!(ran.out.is_empty() && ran.err.contains(words), "{words}: {args:?}: {ran:?}");
        assert!(ran.err.starts_with("portcullis: ") && ran.err.lines().count() == 1, "{ran:?}");
    }

    /// Asserts that the audit trail is whole.
    pub(crate) fn verify_audit(&self) {
        let ran = self.run(&["audit", "verify", "audit.jsonl"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
}

fn longest_line(text: &str) -> String {
    text.lines().max_by_key(|line| line.len()).unwrap_or_default().to_owned()
}

fn bytes(secret: &SecretString) -> SecretSlice<u8> {
    SecretSlice::from(secret.expose_secret().as_bytes().to_vec())
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// The command line of the binary, without what the machine's environment would change.
pub(crate) fn portcullis(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(args).env_remove("RUST_LOG").env("NO_COLOR", "1");
    command
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command, stdin: &str) -> Ran {
    let [mut input, mut out, mut err] = [(); 3].map(|()| tempfile::tempfile().unwrap());
    input.write_all(stdin.as_bytes()).unwrap();
    input.rewind().unwrap();
    command.stdin(input).stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap());
    let mut process = Process(command.spawn().unwrap());
    let code = process.exit(PATIENCE).code();
    Ran { code, out: text(&mut out), err: text(&mut err) }
}

fn text(file: &mut File) -> String {
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

/// A child that is killed when its test ends.
struct Process(Child);

impl Process {
    fn exit(&mut self, within: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < within, "still running after {within:?}");
            std::thread::sleep(TICK);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A gateway that serves.
pub(crate) struct Gateway {
    process: Process,
    pub(crate) url: String,
    pub(crate) admin: String,
    pub(crate) client: Client,
    key: String,
    log: PathBuf,
}

impl Gateway {
    /// Serves the configuration of a folder, and waits until it does.
    pub(crate) async fn serve(folder: &Folder) -> Self {
        let gateway = Self::spawn(folder, &["serve", "-c", CONFIG]);
        gateway.ready(folder).await;
        gateway
    }

    /// Starts a command that serves on the addresses of a folder, and does not wait for it.
    pub(crate) fn spawn(folder: &Folder, args: &[&str]) -> Self {
        let log = folder.path("gateway.log");
        let (out, err) = (File::create(folder.path("gateway.out")), File::create(&log));
        let mut command = portcullis(args);
        command.current_dir(&folder.dir).stdin(Stdio::null());
        command.stdout(out.unwrap()).stderr(err.unwrap());
        Self {
            process: Process(command.spawn().unwrap()),
            url: format!("http://{}", folder.listen),
            admin: format!("http://{}", folder.admin),
            client: client(&[], &[], None),
            key: folder.key.clone(),
            log,
        }
    }

    /// Waits until both listeners answer.
    pub(crate) async fn ready(&self, folder: &Folder) {
        eventually(&format!("{} serves:\n{}", self.url, self.log()), async || {
            let live = self.client.get(format!("{}/livez", self.admin)).send().await;
            let open = tokio::net::TcpStream::connect(folder.listen).await;
            (live.is_ok_and(|live| live.status() == 200) && open.is_ok()).then_some(())
        })
        .await;
    }

    /// Sends a signal, such as `HUP`.
    pub(crate) fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.process.0.id());
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
    }

    /// Waits for the end of the process.
    pub(crate) fn exit(&mut self, within: Duration) -> ExitStatus {
        self.process.exit(within)
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// A `GET` of the public listener, without a credential.
    pub(crate) async fn get(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.url)).send().await.unwrap()
    }

    /// A `POST` to the public listener, without a credential.
    pub(crate) fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.url)).json(body)
    }

    /// A login, and the token that it gave.
    pub(crate) async fn login(&self, form: &Value) -> (u16, String) {
        let answer = self.post("/auth/login", form).send().await.unwrap();
        let (status, body) = (answer.status().as_u16(), answer.json::<Value>().await.unwrap());
        (status, body["access_token"].as_str().unwrap_or_default().to_owned())
    }

    /// The status of a `GET` with a credential.
    pub(crate) async fn status(&self, path: &str, bearer: &str) -> u16 {
        let call = self.client.get(format!("{}{path}", self.url)).bearer_auth(bearer);
        call.send().await.unwrap().status().as_u16()
    }

    /// Waits until a `GET` with a credential has this status: a change of accounts is in force
    /// within a second.
    pub(crate) async fn becomes(&self, path: &str, bearer: &str, status: u16) {
        let begun = Instant::now();
        while self.status(path, bearer).await != status {
            assert!(begun.elapsed() < Duration::from_secs(1), "{path} is not {status}");
            tokio::time::sleep(TICK).await;
        }
    }

    /// A chat with a model, by the API key of `alice`.
    pub(crate) fn chat(&self, model: &str) -> RequestBuilder {
        self.post("/v1/chat/completions", &question(model, false)).bearer_auth(&self.key)
    }

    /// The same, streamed.
    pub(crate) fn stream(&self, model: &str) -> RequestBuilder {
        self.post("/v1/chat/completions", &question(model, true)).bearer_auth(&self.key)
    }

    /// The text of `/metrics`.
    pub(crate) async fn metrics(&self) -> String {
        let answer = self.client.get(format!("{}/metrics", self.admin)).send().await.unwrap();
        answer.text().await.unwrap()
    }

    /// The value of one sample, named with its labels; 0 if it is not there.
    pub(crate) async fn metric(&self, sample: &str) -> f64 {
        let text = self.metrics().await;
        let values = text.lines().filter_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        values.map(|value| value.parse::<f64>().unwrap()).sum()
    }

    /// Reloads, and waits until the reload has come to this result: `success` or `failure`.
    pub(crate) async fn reload(&self, result: &str) {
        let sample = format!("portcullis_config_reloads_total{{result=\"{result}\"}}");
        let before = self.metric(&sample).await;
        self.signal("HUP");
        eventually("the reload is counted", async || {
            (self.metric(&sample).await > before).then_some(())
        })
        .await;
    }
}

/// A chat of one harmless question.
pub(crate) fn question(model: &str, stream: bool) -> Value {
    json!({
        "model": model, "stream": stream, "max_tokens": 100,
        "messages": [{ "role": "user", "content": "What is the capital of France?" }],
    })
}

/// An HTTP client that trusts these certificates only, offers these protocols by ALPN, and finds
/// `localhost` at this address.
pub(crate) fn client(
    roots: &[CertificateDer<'static>],
    alpn: &[&str],
    localhost: Option<SocketAddr>,
) -> Client {
    let mut config = tls_config(roots, rustls::DEFAULT_VERSIONS);
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let builder = Client::builder().no_proxy().timeout(PATIENCE);
    let builder = builder.tls_backend_preconfigured(config);
    localhost.into_iter().fold(builder, |b, at| b.resolve("localhost", at)).build().unwrap()
}

/// TLS that trusts these certificates only.
pub(crate) fn tls_config(
    roots: &[CertificateDer<'static>],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> rustls::ClientConfig {
    let mut store = rustls::RootCertStore::empty();
    roots.iter().for_each(|root| store.add(root.clone()).unwrap());
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth()
}

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
