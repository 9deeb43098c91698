use serde_json::Value;

use super::support::{CONFIG, Folder, Ran, root};

/// Replaces the first text by the second in a good configuration, and tells what `check` says.
fn check(from: &str, to: &str) -> Ran {
    let folder = Folder::new("http://127.0.0.1:1");
    folder.edit(from, to);
    folder.run(&["check", "-c", CONFIG])
}

/// What is changed, and what the first line says: the place, then some of the words.
const MISTAKES: &[(&str, &str, &str, &str)] = &[
    ("version: 1", "version: 2", "1:10", "version 2"),
    ("version: 1", "verion: 1", "1:1", "unknown key `verion`"),
    ("server: {", "server: {treads: 2, ", "2:10", "unknown key `treads`"),
    ("20s", "20", "2:25", "not a duration"),
    ("20s", "2h", "2:25", "out of range"),
    ("server: {", "server: {body_memory: 1MiB, ", "4:5", "does not fit into `body_memory`"),
    ("server: {", "server: {trusted_proxies: [0.0.0.0/0], ", "2:28", "choose its own address"),
    ("name: public, ", "name: public, limits: {max_connections: 0}, ", "4:46", "out of range"),
    ("name: public, ", "name: public, tls: {cert_file: c}, ", "4:26", "`key_file` is missing"),
    ("name: public, ", "name: public, tls: {cert_file: c, key_file: k}, ", "4:20", "c: "),
    ("file: token.key", "file: token.kye", "8:3", "cannot be read"),
    ("token_key: {file: token.key}", "token_key: {env: NOT_SET_HERE}", "8:3", "is not set"),
    ("token_key: {file: token.key}", "token_key: zx81", "8:14", "never written into the config"),
    ("  token_key: {file: token.key}\n", "", "6:1", "`secrets.token_key` is missing"),
    ("kind: ollama", "kind: olama", "11:16", "unknown value `olama`"),
    ("url: 'http:", "url: 'ftp:", "11:29", "starts with http:// or https://"),
    ("role: user", "role: superuser", "14:27", "unknown value `superuser`"),
    ("name: bob", "name: Alice", "15:14", "is there twice"),
    ("user: alice", "user: alicia", "17:32", "there is no user `alicia`"),
    ("scopes: ['*']", "scopes: ['llm:genrate']", "17:", "unknown scope `llm:genrate`"),
    ("concurrent: 1000", "concurrent: 0", "18:", "out of range"),
    ("quotas:", "routes: [{upstream: moc}]\nquotas:", "18:21", "there is no upstream `moc`"),
    ("quotas:", "firewall: {rules: [none.yaml]}\nquotas:", "18:20", "none.yaml"),
    (
        "quotas:",
        "roles: {user: {scopes: [], models: [], quota: q}}\nquotas:",
        "18:",
        "no quota `q`",
    ),
    ("quotas:", "quotas: {}\nquotas:", "19:1", "there twice"),
    ("quotas:", "quotas: {default: [", "18:", ""),
];

#[test]
fn every_mistake_is_told_with_its_place() {
    let wrong: Vec<_> = MISTAKES
        .iter()
        .filter_map(|(from, to, place, words)| {
            let ran = check(from, to);
            let (first, help) = ran.out.split_once('\n').unwrap_or_default();
            let told = first.starts_with(&format!("{CONFIG}:{place}"))
                && is_placed(first)
                && first.contains(words);
            let right =
                told && ran.code == Some(1) && !help.trim().is_empty() && ran.err.is_empty();
            (!right).then(|| format!("{to} {place} {words}: {ran:?}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// `FILE:LINE:COLUMN: message`
fn is_placed(line: &str) -> bool {
    let mut parts = line.splitn(4, ':').skip(1);
    let mut number = || parts.next().is_some_and(|part| part.parse::<u32>().is_ok_and(|n| n > 0));
    number() && number() && parts.next().is_some_and(|message| message.trim().len() > 5)
}

#[test]
fn all_mistakes_are_told_at_once_and_as_json_too() {
    let folder = Folder::new("http://127.0.0.1:1");
    folder.edit("role: user", "role: admin");
    folder.edit("user: alice", "user: carol");
    folder.edit("concurrent: 1000", "concurrent: 0");
    let ran = folder.run(&["check", "-c", CONFIG, "--json"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let problems: Vec<Value> = serde_json::from_str(&ran.out).unwrap();
    let lines: Vec<_> = problems.iter().map(|problem| problem["line"].as_u64()).collect();
    assert_eq!(lines, [Some(17), Some(18)], "{}", ran.out);
    for problem in &problems {
        assert_eq!(problem["file"], CONFIG);
        assert!(problem["column"].as_u64() > Some(0));
        assert!(["message", "help"].iter().all(|key| !problem[key].as_str().unwrap().is_empty()));
    }
}

#[test]
fn a_configuration_without_an_upstream_serves_nothing() {
    let folder = Folder::new("");
    folder.write("none.yaml", "version: 1\n");
    let ran = folder.run(&["check", "-c", "none.yaml"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.out.starts_with("none.yaml:1:1: there is no upstream"), "{ran:?}");
}

#[test]
fn good_configurations_pass() {
    let folder = Folder::new("http://127.0.0.1:1");
    let shipped = std::fs::read_to_string(root().join("conf/portcullis.yaml")).unwrap();
    let one = "upstreams: {local: {url: 'http://127.0.0.1:11434'}}";
    folder.write("shipped.yaml", &shipped.replace("\nupstreams: {}", &format!("\n{one}")));
    folder.write("least.yaml", one);
    for file in [CONFIG, "shipped.yaml", "least.yaml"] {
        let ran = folder.run(&["check", "-c", file]);
        assert_eq!((ran.code, ran.out.trim()), (Some(0), &*format!("{file}: ok")), "{ran:?}");
        let ran = folder.run(&["check", "--json", "--config", file]);
        assert_eq!((ran.code, ran.out.trim()), (Some(0), "[]"), "{ran:?}");
    }
}
