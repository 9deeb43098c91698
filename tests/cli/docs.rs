use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use portcullis_filters::surface::{Access, Listener, Target, operations};
use reqwest::Method;
use serde_json::{Value, json};

use super::mock::{Mock, QUICK, SLOW};
use super::support::{Folder, Gateway, eventually, question, root};

/// The files that are, or would be, in the repository.
fn files() -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .unwrap();
    let names = String::from_utf8(listed.stdout).unwrap();
    let paths = names.split('\0').filter(|name| !name.is_empty()).map(|name| root().join(name));
    paths.filter(|path| path.is_file()).collect()
}

/// The targets of the links of a Markdown text that lead to files.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.filter(|link| !link.contains("://") && !link.starts_with(['#', 'm']));
    files.filter_map(|link| link.split('#').next()).filter(|link| !link.is_empty()).collect()
}

#[test]
fn links_lead_to_files() {
    let documents = files().into_iter().filter(|path| path.extension() == Some("md".as_ref()));
    let mut missing = Vec::new();
    for path in documents {
        let text = std::fs::read_to_string(&path).unwrap();
        let folder = path.parent().unwrap();
        let broken = links(&text).into_iter().filter(|link| !folder.join(link).exists());
        missing.extend(broken.map(|link| format!("{}: {link}", path.display())));
    }
    assert!(root().join("README.md").is_file() && missing.is_empty(), "{missing:#?}");
}

#[test]
fn the_links_of_a_text_are_found() {
    let text = "[a](docs/a.md#top) ![b](b.png) [c](https://x/y) [d](#d) [e](mailto:x@y) `f`";
    assert_eq!(links(text), ["docs/a.md", "b.png"]);
}

#[test]
fn no_file_knows_the_machine_that_it_was_written_on() {
    let places = ["work", "root", "home"].map(|folder| format!("/{folder}/"));
    let allowed = |line: &str| line.contains("/home/nonroot") || line.contains("/var/");
    let mut found = Vec::new();
    for path in files() {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let lines = text.lines().filter(|line| places.iter().any(|place| is_path(line, place)));
        let named = |line: &str| format!("{}: {line}", relative(&path));
        found.extend(lines.filter(|line| !allowed(line)).map(named));
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Whether a line has an absolute path that begins like this: not a part of a longer one.
fn is_path(line: &str, place: &str) -> bool {
    let before = line.match_indices(place).map(|(at, _)| line[..at].chars().next_back());
    before
        .into_iter()
        .any(|before| !before.is_some_and(|c| c.is_alphanumeric() || "}.-_".contains(c)))
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

#[test]
fn the_changelog_has_a_place_for_what_is_next() {
    let text = std::fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    let (_, next) = text.split_once("\n## [Unreleased]\n").expect("an Unreleased section");
    assert!(next.trim_start().starts_with("### "), "with a group of changes");
}

/// The public contract: these names and labels stay.
const METRICS: &[(&str, &str)] = &[
    ("requests_total", "endpoint,status,reason"),
    ("request_duration_seconds", ""),
    ("overhead_seconds", "room"),
    ("ttft_seconds", ""),
    ("tokens_total", "direction,model"),
    ("gpu_seconds_total", "model,upstream"),
    ("findings_total", "kind,action,direction"),
    ("auth_failures_total", "reason"),
    ("quota_refusals_total", "meter"),
    ("reservations_open", ""),
    ("queue_depth", "upstream"),
    ("streams_open", ""),
    ("upstream_up", "upstream"),
    ("degraded", "component"),
    ("audit_records_total", ""),
    ("audit_failures_total", ""),
    ("panics_total", ""),
    ("config_reloads_total", "result"),
];

#[tokio::test]
async fn every_promised_metric_is_there() {
    let mock = Mock::start();
    let folder = Folder::new(&mock.url);
    folder.edit("name: alice, role: user", "name: alice, role: read_only");
    folder.add("roles: {read_only: {scopes: ['llm:*'], models: ['*'], quota: one}}\n");
    folder.edit("quotas: {", "quotas: {one: {requests_per_minute: 1, burst: 1}, ");
    let gateway = Gateway::serve(&folder).await;
    // One of each: a stream with an address to redact, a wrong key, one too many, a reload.
    let mut body = question(QUICK, true);
    body["messages"][0]["content"] = json!("Write to ann@example.org");
    let stream = gateway.post("/v1/chat/completions", &body).bearer_auth(&folder.key);
    assert_eq!(stream.send().await.unwrap().text().await.unwrap().matches("[DONE]").count(), 1);
    let wrong = gateway.post("/v1/chat/completions", &body).bearer_auth("sk_wrong");
    assert_eq!(wrong.send().await.unwrap().status(), 401);
    assert_eq!(gateway.chat(QUICK).send().await.unwrap().status(), 429);
    gateway.reload("success").await;
    let text = gateway.metrics().await;
    let missing: Vec<_> =
        METRICS.iter().filter(|(name, labels)| !is_shown(&text, name, labels)).collect();
    assert!(missing.is_empty(), "{missing:?} in\n{text}");
}

#[tokio::test]
async fn gauges_follow_an_open_stream() {
    let mock = Mock::start();
    let folder = Folder::new(&mock.url);
    let gateway = Gateway::serve(&folder).await;
    let open = gateway.stream(SLOW).send().await.unwrap();
    for (name, expected) in [("streams_open", 1.0), ("reservations_open", 1.0)] {
        assert_eq!(gateway.metric(&format!("portcullis_{name}")).await, expected, "{name}");
    }
    mock.release();
    assert!(open.text().await.unwrap().ends_with("data: [DONE]\n\n"));
    eventually("both are closed", async || {
        let streams = gateway.metric("portcullis_streams_open").await;
        let reservations = gateway.metric("portcullis_reservations_open").await;
        (streams + reservations == 0.0).then_some(())
    })
    .await;
    let rooms = gateway.metrics().await;
    for room in ["authn", "body", "prompt", "scan", "quota", "total"] {
        let sample = format!("portcullis_overhead_seconds_count{{room=\"{room}\"}} 1");
        assert!(rooms.contains(&sample), "{sample}");
    }
}

/// Whether there is a sample of this metric with these labels.
fn is_shown(text: &str, name: &str, labels: &str) -> bool {
    let wanted: BTreeSet<&str> = labels.split(',').filter(|label| !label.is_empty()).collect();
    text.lines().filter(|line| !line.starts_with('#')).any(|line| {
        let Some(rest) = line.strip_prefix(&format!("portcullis_{name}")) else { return false };
        let rest = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| rest.strip_prefix(suffix))
            .unwrap_or(rest);
        let found = match rest.split_once('}') {
            Some((inner, _)) if rest.starts_with('{') => inner[1..].split("\",").collect(),
            _ if rest.starts_with(' ') => Vec::new(),
            _ => return false,
        };
        let found: BTreeSet<&str> = found
            .into_iter()
            .filter_map(|pair| pair.split('=').next())
            .filter(|label| *label != "le")
            .collect();
        found == wanted
    })
}

fn openapi() -> Value {
    let text = std::fs::read_to_string(root().join("docs/openapi.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Methods and paths in the description.
fn documented() -> BTreeSet<(String, String)> {
    let document = openapi();
    let paths = document["paths"].as_object().unwrap();
    let each = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().keys();
        methods.map(move |method| (method.to_uppercase(), path.clone()))
    });
    each.collect()
}

#[test]
fn the_description_has_every_own_endpoint_but_the_metrics() {
    let own = operations().filter(|operation| {
        matches!(operation.target, Target::Own(_))
            && (operation.listeners.contains(&Listener::Public) || operation.access != Access::Open)
    });
    let served: BTreeSet<_> =
        own.map(|operation| (operation.method.to_owned(), operation.path.to_owned())).collect();
    assert_eq!(documented(), served);
}

#[tokio::test]
async fn every_described_path_is_served() {
    let mock = Mock::start();
    let folder = Folder::new(&mock.url);
    let gateway = Gateway::serve(&folder).await;
    for (method, path) in documented() {
        let method: Method = method.parse().unwrap();
        let listener = if path.starts_with("/internal/") { &gateway.admin } else { &gateway.url };
        let mut call = gateway.client.request(method.clone(), format!("{listener}{path}"));
        if [Method::POST, Method::PUT].contains(&method) {
            call = call.json(&json!({}));
        }
        let status = call.send().await.unwrap().status().as_u16();
        assert!([200, 400, 401].contains(&status), "{method} {path}: {status}");
    }
    let served: Value = gateway.get("/openapi.json").await.json().await.unwrap();
    assert_eq!(served, openapi());
}
