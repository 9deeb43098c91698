//! The whole room: the shipped file, broken files, hostile files.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

mod auth;

const SHIPPED: &str = include_str!("../../../conf/portcullis.yaml");

#[test]
fn the_shipped_file_says_the_defaults() {
    assert_eq!(parse("portcullis.yaml", SHIPPED), Ok(Config::default()));
    assert_eq!(parse("empty", ""), Ok(Config::default()));
}

#[test]
fn the_examples_of_the_shipped_file_work_and_with_them_every_key_is_in_it() {
    let yaml = with_examples(SHIPPED);
    let config = parse("examples", &yaml).unwrap_or_else(|problems| panic!("{problems}\n{yaml}"));
    assert_eq!(config.upstreams.get("local"), Some(&example_upstream()));
    assert!(config.listeners[0].tls.is_some() && config.secrets.key_pepper.is_some());
    let auth = &config.auth;
    assert_eq!((auth.users.len(), auth.api_keys.len(), config.routes.len()), (1, 1, 1));
    assert_eq!((config.secrets.accept.len(), auth.oidc.len(), auth.services.len()), (2, 1, 1));
    assert_eq!(auth.environment_keys, Some(EnvironmentKeys::default()));
    assert_eq!(auth.mfa.required_for, [RoleName::Owner, RoleName::Admin]);
    let file: Value = serde_saphyr::from_str(&yaml).unwrap();
    let all = serde_json::to_value(&config).unwrap();
    assert_eq!(missing(&all, &file, ""), Vec::<String>::new());
}

/// Examples show a part of a config; the rest is put in here.
#[test]
fn the_examples_of_the_manual_work() {
    let manual = include_str!("../../../docs/configuration.md");
    let examples = manual.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut count = 0;
    for example in examples {
        let mut yaml = example.to_owned();
        for (key, rest) in [
            ("secrets:", "secrets: {key_pepper: {file: p}}"),
            ("upstreams:", "upstreams: {local: {url: 'http://h'}}"),
        ] {
            let there = yaml.lines().any(|line| line.starts_with(key));
            yaml.push_str(if there { "" } else { rest });
            yaml.push('\n');
        }
        let found = parse("example", &yaml);
        assert!(found.is_ok(), "{}\n{yaml}", found.unwrap_err());
        count += 1;
    }
    assert!(count >= 10, "{count}");
}

fn example_upstream() -> Upstream {
    Upstream {
        url: Some(Endpoint {
            tls: false,
            host: "127.0.0.1".into(),
            port: 11434,
            base_path: String::new(),
        }),
        api_key: Some(SecretRef::Env("OPENAI_API_KEY".into())),
        ..Upstream::default()
    }
}

/// Takes every example of the file out of its comment, as a reader would.
fn with_examples(yaml: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in yaml.lines() {
        let example = line.strip_prefix('#').filter(|rest| rest.starts_with("  "));
        let after_example = lines.last().is_some_and(|last| last.starts_with("\u{0}"));
        if let (Some(_), false, Some(before)) = (example, after_example, lines.last_mut()) {
            let empty = [": []", ": {}", ": null"];
            *before = empty.iter().fold(before.clone(), |line, value| line.replacen(value, ":", 1));
        }
        let line = inline_example(example.unwrap_or(line));
        lines.push(format!("{}{line}", if example.is_some() { "\u{0}" } else { "" }));
    }
    lines.join("\n").replace('\u{0}', "")
}

/// `key: null  # e.g. {file: x}: …` becomes `key: {file: x}`.
fn inline_example(line: &str) -> String {
    let Some((setting, example)) = line.split_once("# e.g. ") else { return line.to_owned() };
    let (key, _) = setting.rsplit_once(": ").unwrap();
    let end = example.find(['}', ']']).map_or(example.len(), |at| at + 1);
    format!("{key}: {}", example.get(..end).unwrap())
}

/// The keys of a config that its file lacks.
fn missing(config: &Value, file: &Value, path: &str) -> Vec<String> {
    match (config, file) {
        (Value::Object(keys), Value::Object(written)) => keys
            .iter()
            .flat_map(|(key, value)| match written.get(key) {
                Some(found) => missing(value, found, &format!("{path}.{key}")),
                None => vec![format!("{path}.{key}")],
            })
            .collect(),
        (Value::Array(items), Value::Array(written)) => {
            items.iter().zip(written).flat_map(|(item, found)| missing(item, found, path)).collect()
        }
        _ => Vec::new(),
    }
}

/// Compares a YAML's problems with those expected, `LINE:COL words … words`, and tells a difference.
fn check(yaml: &str, expected: &[&str]) -> Option<String> {
    let problems = parse("f.yaml", yaml).err();
    let shown: Vec<String> = problems
        .iter()
        .flat_map(|problems| problems.as_slice())
        .map(|p| format!("{}:{} {} | {}", p.line, p.column, p.message, p.help))
        .collect();
    let fits = |(shown, expected): (&String, &&str)| {
        let (place, words) = expected.split_once(' ').expect("a place and words");
        shown.starts_with(&format!("{place} "))
            && words.split(" … ").all(|word| shown.contains(word))
    };
    let same = shown.len() == expected.len() && shown.iter().zip(expected).all(fits);
    (!same).then(|| format!("{yaml}\nfound {shown:#?}\nexpected {expected:#?}"))
}

fn check_all(differences: impl Iterator<Item = Option<String>>) {
    let differences: Vec<String> = differences.flatten().collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn broken_yaml_is_explained() {
    let table = [
        (
            "secrets:\n  signing_kye: {file: x}\n",
            "2:3 unknown key `signing_kye` … did you mean `signing_key`? … allowed: signing_key, token_key, key_pepper",
        ),
        ("quota: {}\n", "1:1 unknown key `quota` … did you mean `quotas`?"),
        ("zzzzzz: 1\n", "1:1 unknown key `zzzzzz` | allowed: version, server"),
        (
            "admin: {Address: '127.0.0.1:1'}\n",
            "1:9 unknown key `Address` … did you mean `address`?",
        ),
        (
            "roles:\n  supervisor: {}\n",
            "2:3 unknown key `supervisor` … allowed: owner, admin, user, read_only",
        ),
        (
            "audit: {on_failure: Deny}\n",
            "1:21 unknown value `Deny` … did you mean `deny`? allowed: deny, allow",
        ),
        ("firewall: {on_error: log}\n", "1:22 unknown value `log` … allowed: block, allow"),
        (
            "firewall: {policies: {default: {injection: redact}}}\n",
            "1:44 unknown value `redact` … allowed: allow, flag, block",
        ),
        ("upstreams: {a: {kind: olama}}\n", "1:23 unknown value `olama` … did you mean `ollama`?"),
        (
            "auth: {users: [{name: a, role: usr, password_hash: {env: A}}]}\n",
            "1:32 unknown value `usr` … did you mean `user`?",
        ),
        (
            "auth:\n  users:\n    - name: a\n      role: user\n",
            "4:7 the key `password_hash` is missing … add `password_hash: …`",
        ),
        ("version: 1\naudit: {}\nversion: 1\n", "3:1 the key `version` is there twice"),
        ("upstreams:\n  a: {}\n  a: {}\n", "3:3 the key `a` is there twice"),
        ("server: {drain_timeout: 30}\n", "1:25 `30` is not a duration … 500ms, 10s"),
        ("server:\n  drain_timeout: -3s\n", "2:18 `-3s` is not a duration"),
        ("server: {drain_timeout: 1.5}\n", "1:25 `1.5` is not a duration"),
        ("server: {drain_timeout: 99999999999999999999d}\n", "1:25 is not a duration"),
        ("server: {drain_timeout: null}\n", "1:25 expected a single value"),
        ("server: {body_memory: 8MB}\n", "1:23 `8MB` is not a size … 64KiB"),
        ("server: {threads: two}\n", "1:19 expected a whole number"),
        ("server: {threads: -1}\n", "1:19 expected a whole number"),
        ("server: {trusted_proxies: [10.0.0.0/8, nowhere]}\n", "1:40 `nowhere` is not a network"),
        (
            "listeners: [{address: 'localhost:80'}]\n",
            "1:23 `localhost:80` is not a listen address … 127.0.0.1:8080",
        ),
        ("listeners: [{allow_plaintext: yes}]\n", "1:31 expected true or false"),
        ("listeners: {}\n", "1:12 expected a list"),
        ("listeners:\n  - tls: {cert_file: x}\n", "2:11 the key `key_file` is missing"),
        ("auth:\nroles: {}\n", "1:5 expected a block of keys … `{}`"),
        ("quotas: {default: {burst: [1]}}\n", "1:27 expected a single value"),
        ("firewall: {policies: {default: {threshold: high}}}\n", "1:44 expected a number"),
        ("upstreams: {a: {url: 'http://u:pw@h'}}\n", "1:22 no user or password"),
        ("upstreams: {a: {url: h:1}}\n", "1:22 starts with http:// or https://"),
        ("store: {url: 'postgres://u:pw@h/d'}\n", "1:14 this URL holds a password … {file: PATH}"),
        ("store: {url: portcullis.db}\n", "1:14 not the URL of a store … write sqlite:FILE"),
        ("store: {url: 5}\n", "1:9 expected sqlite:FILE, sqlite::memory:"),
        ("store: {url: {file: a, env: B}}\n", "1:14 a secret is in one place"),
        ("auth: {mode: off}\n", "1:14 unknown value `off` … allowed: required, development"),
        ("auth: {llm_token_algorithm: HS256}\n", "1:29 unknown value `HS256` … mean `hs256`?"),
        ("auth: {environment_keys: {keys: [a]}}\n", "1:27 unknown key `keys` … role, scopes"),
        ("auth: {mfa: {required_for: [admn]}}\n", "1:29 unknown value `admn` … mean `admin`?"),
        (
            "auth: {oidc: [{name: a, issuer: 'http://h'}]}\n",
            "1:33 only https is safe here … https://id.example.com",
        ),
        ("auth: {oidc: [{name: a, issuer: 'https://h'}]}\n", "1:25 the key `audience` is missing"),
        (
            "auth: {oidc: [{name: a, issuer: 'https://h', audience: b, algorithms: [HS256]}]}\n",
            "1:72 unknown value `HS256` … did you mean `RS256`?",
        ),
        (
            "auth: {services: [{name: a, role: user, certificates: [ab12]}]}\n",
            "1:56 not the SHA-256 fingerprint … openssl x509",
        ),
        (
            "secrets: {token_key: correct-horse-battery}\n",
            "1:22 never written into the config … {file: PATH}",
        ),
        ("secrets: {token_key: 12345}\n", "1:22 never written into the config"),
        ("secrets: {token_key: {file: a, env: B}}\n", "1:22 a secret is in one place"),
        ("secrets: {token_key: {}}\n", "1:22 a secret is in one place"),
        ("secrets: {token_key: {path: a}}\n", "1:23 unknown key `path` … allowed: file, env"),
        ("secrets: {token_key: [a]}\n", "1:22 never written into the config"),
        (
            "auth: {api_keys: [{id: a, user: b, scopes: [], digest: abc}]}\n",
            "1:56 43 characters of base64url",
        ),
        (
            "auth: {api_keys: [{id: a, user: b, scopes: [], digest: abc, expires: soon}]}\n",
            "1:56 43 characters of base64url",
        ),
        ("audit: {file: 'a\n", "1:15 unclosed quote"),
        ("audit: {file: a\n", "1:8 unclosed bracket '{'"),
        ("audit:\n  file: a\n on_failure: deny\n", "3:2 "),
        ("audit: *nothing\n", "1:8 reference to unknown value"),
        ("audit: {}\n---\nversion: 1\n", "3:1 a second YAML document"),
        ("a: &a {<<: {}}\naudit: {<<: {file: x}}\n", "1:1 unknown key `a`"),
        ("audit: {<<: {file: x}}\n", "1:9 merge keys"),
        ("audit: !secret {}\n", "1:16 unsupported tag `!secret`"),
        ("- version: 1\n", "1:1 expected a block of keys"),
        ("just words\n", "1:1 expected a block of keys"),
    ];
    check_all(table.into_iter().map(|(yaml, expected)| check(yaml, &[expected])));
}

/// A valid config with one user, one key and one upstream; tests add blocks, or replace a part.
const BASE: &str = "\
secrets: {signing_key: {file: s}, token_key: {file: t}, key_pepper: {file: p}}
upstreams: {up: {url: 'http://127.0.0.1:1'}}
auth:
  users: [{name: ann, role: user, password_hash: {env: ANN}}]
  api_keys:
    - {id: 0123456789aB, user: Ann, digest: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA, scopes: [scan]}
";

/// Line 7 is the first of what is added.
#[test]
fn what_is_added_to_a_good_config_is_checked() {
    let table = [
        ("", None),
        ("version: 2\n", Some("7:10 version 2 of the schema … `version: 1`")),
        ("routes: [{upstream: u}]\n", Some("7:21 there is no upstream `u` … did you mean `up`?")),
        (
            "routes: [{upstream: up, policy: strict}]\n",
            Some("7:33 there is no policy `strict` … default"),
        ),
        (
            "routes: [{upstream: up, match: {path: v1}}]\n",
            Some("7:39 `v1` is not the start of a path"),
        ),
        ("routes: [{upstream: up, match: {model: 'a?'}}]\n", Some("7:40 `a?` is not a pattern")),
        (
            "routes: [{upstream: up, max_body_bytes: 1GiB}]\n",
            Some("7:41 does not fit into `body_memory`"),
        ),
        ("routes: [{upstream: up, max_body_bytes: 0}]\n", Some("7:41 no request would fit")),
        (
            "routes:\n - {upstream: up}\n - {upstream: up}\n",
            Some("9:4 never reached: the one in line 8"),
        ),
        (
            "routes:\n - {upstream: up, match: {model: 'gpt-*'}}\n - {upstream: up, match: {path: /v1/, model: 'gpt-4*'}}\n",
            Some("9:4 never reached"),
        ),
        (
            "routes:\n - {upstream: up, match: {model: 'gpt-4*'}}\n - {upstream: up, match: {model: 'gpt-*'}}\n",
            None,
        ),
        ("routes:\n - {upstream: up, match: {path: /v1/}}\n - {upstream: up}\n", None),
        (
            "roles:\n  user: {scopes: [llm:generat], models: []}\n",
            Some("8:19 unknown scope `llm:generat` … did you mean `llm:generate`?"),
        ),
        ("roles:\n  user: {scopes: ['lm:*'], models: []}\n", Some("8:19 unknown scope `lm:*`")),
        ("roles:\n  user: {scopes: ['llm*'], models: []}\n", Some("8:19 unknown scope `llm*`")),
        ("roles:\n  user: {scopes: ['llm:*', '*'], models: ['a*']}\n", None),
        ("roles:\n  user: {scopes: [], models: ['a b']}\n", Some("8:31 `a b` is not a pattern")),
        (
            "roles:\n  user: {scopes: [], models: [], quota: big}\n",
            Some("8:41 there is no quota `big` … default"),
        ),
        ("quotas: {big: {}}\nroles:\n  user: {scopes: [], models: [], quota: big}\n", None),
        ("quotas: {big: {concurrent: 0}}\n", Some("7:28 0 is out of range")),
        ("quotas: {big: {burst: 0}}\n", Some("7:23 0 is out of range")),
        ("quotas: {'my quota': {}}\n", Some("7:10 `my quota` cannot be a name")),
        ("caps: {choices: 0}\n", Some("7:17 0 is out of range … from 1 to 128")),
        ("caps: {max_tokens: 0}\n", Some("7:20 0 is out of range")),
        (
            "caps: {extra_params: [min_p, max_tokens]}\n",
            Some("7:30 `max_tokens` is bounded by the gateway"),
        ),
        (
            "firewall: {policies: {p: {threshold: 1.5}}}\n",
            Some("7:38 1.5 is out of range … from 0 to 1"),
        ),
        ("firewall: {policies: {p: {threshold: .nan}}}\n", Some("7:38 NaN is out of range")),
        ("audit: {file: ''}\n", Some("7:15 the audit trail has no file")),
        ("server: {threads: 5000}\n", Some("7:19 5000 is out of range")),
        ("server: {body_memory: 1MiB}\n", Some("1:1 does not fit into `body_memory`")),
        (
            "server: {trusted_proxies: [0.0.0.0/0]}\n",
            Some("7:28 lets every client choose its own address"),
        ),
        ("server: {trusted_proxies: [10.1.0.0/8]}\n", Some("7:28 has host bits … 10.0.0.0/8")),
        ("admin: {address: '0.0.0.0:8081'}\n", Some("7:18 open bind: the admin address")),
        ("admin: {address: '[::1]:9'}\n", None),
        (
            "admin: {address: '127.0.0.1:8080'}\n",
            Some("1:1 127.0.0.1:8080 is taken by `admin.address`"),
        ),
        ("listeners: []\n", Some("7:1 there is no listener")),
        (
            "listeners: [{address: '0.0.0.0:8080'}]\n",
            Some("7:23 open bind: 0.0.0.0:8080 would serve without TLS … allow_plaintext"),
        ),
        ("listeners: [{address: '0.0.0.0:8080', allow_plaintext: true}]\n", None),
        ("listeners: [{address: '[::]:8443', tls: {cert_file: c, key_file: k}}]\n", None),
        ("listeners: [{address: '[::ffff:127.0.0.1]:8080'}]\n", None),
        (
            "listeners: [{address: '0.0.0.0:8081', allow_plaintext: true}]\n",
            Some("7:23 is taken by `admin.address`"),
        ),
        (
            "listeners:\n - {name: a}\n - {name: a, address: '127.0.0.1:1'}\n",
            Some("9:11 the listener name `a` is there twice … line 8"),
        ),
        (
            "listeners:\n - {name: a}\n - {name: b}\n",
            Some("9:4 127.0.0.1:8080 is taken by `listeners[0].address`"),
        ),
        (
            "listeners: [{limits: {header_timeout: 0}}]\n",
            Some("7:39 0ns is out of range … more than 0"),
        ),
        ("store: {url: 'sqlite::memory:'}\n", None),
        ("store: {url: {env: 'my store!'}}\n", Some("7:9 not the name of an environment variable")),
        ("store: {url: {file: ''}}\n", Some("7:9 this secret has no file")),
        ("store: {timeout: 99ms}\n", Some("7:18 99ms is out of range … from 100ms to 10s")),
        ("store: {timeout: 11s}\n", Some("7:18 11s is out of range")),
        ("store: {refresh: 501ms}\n", Some("7:18 501ms is out of range … from 50ms to 500ms")),
        ("store: {max_stale: 11m}\n", Some("7:20 660s is out of range … from 1s to 600s")),
        ("store: {max_stale: 0}\n", Some("7:20 0ns is out of range")),
        ("store: {connections: 65}\n", Some("7:22 65 is out of range … from 1 to 64")),
        (
            "listeners: [{limits: {max_header_bytes: 1GiB}}]\n",
            Some("7:41 1073741824 is out of range"),
        ),
    ];
    check_all(
        table
            .into_iter()
            .map(|(added, expected)| check(&format!("{BASE}{added}"), expected.as_slice())),
    );
}

#[test]
fn what_is_changed_in_a_good_config_is_checked() {
    let table = [
        ("url: ", "urls: [], url: ", None),
        ("url: 'http://127.0.0.1:1'", "", Some("2:13 either `url` or `urls`")),
        ("url: ", "urls: ['http://h'], url: ", Some("2:13 either `url` or `urls`")),
        ("url: ", "ca_file: ca.pem, url: ", Some("2:27 only for an https upstream")),
        (
            "url: ",
            "max_tokens_param: max_token, url: ",
            Some("2:36 unknown value `max_token` … did you mean `max_tokens`?"),
        ),
        ("url: ", "gpus: 0, url: ", Some("2:24 0 is out of range")),
        ("url: ", "connect_timeout: 5m, url: ", Some("2:35 300s is out of range")),
        ("url: ", "models: ['a*'], url: ", Some("2:27 `a*` is not the name of a model")),
        (
            "url: ",
            "models: [Phi, phi], url: ",
            Some("2:32 the model `phi` is there twice … line 2"),
        ),
        (
            "upstreams: {",
            "upstreams: {b: {url: 'http://b'}, ",
            Some("1:1 there are several upstreams but no route"),
        ),
        ("{up:", "{'u p':", Some("2:13 `u p` cannot be a name")),
        (
            "name: ann,",
            "name: Ann, role: user, password_hash: {env: B}}, {name: änn,",
            Some("4:68 `änn` cannot be a user name"),
        ),
        (
            "users: [",
            "users: [{name: ANN, role: owner, password_hash: {env: B}}, ",
            Some("4:69 the user name `ann` is there twice"),
        ),
        ("user: Ann", "user: anna", Some("6:32 there is no user `anna` … did you mean `ann`?")),
        ("0123456789aB", "0123456789a-", Some("6:12 `0123456789a-` is not the id of an API key")),
        ("scopes: [scan]", "scopes: []", Some("6:90 this key may do nothing")),
        (
            "scopes: [scan]",
            "scopes: [scn]",
            Some("6:99 unknown scope `scn` … did you mean `scan`?"),
        ),
        ("scopes: [scan]", "scopes: [scan], models: ['']", Some("6:115 `` is not a pattern")),
        ("scopes: [scan]", "scopes: [scan], expires: 2027-01-31T00:00:00Z", None),
        (
            "scopes: [scan]",
            "scopes: [scan], expires: tomorrow",
            Some("6:115 `tomorrow` is not a time … 2027-01-31T00:00:00Z"),
        ),
        ("token_key: {file: t}", "token_key: null", Some("1:46 `secrets.token_key` is missing")),
        (
            "token_key: {file: t}",
            "token_key: {env: 'my key!'}",
            Some("1:35 this is not the name of an environment variable"),
        ),
        ("{file: t}", "{file: ''}", Some("1:35 this secret has no file")),
        ("key_pepper: {file: p}", "key_pepper: null", Some("1:69 `secrets.key_pepper` is missing")),
        (
            "key_pepper: {file: p}",
            "key_pepper: {file: p}, store_key_previous: {file: o}",
            Some("1:1 `secrets.store_key` is missing: `store_key_previous` is the one before it"),
        ),
        (
            "key_pepper: {file: p}",
            "key_pepper: {file: p}, accept: [{until: null}]",
            Some("1:89 either a `signing_key` or a `token_key`"),
        ),
        (
            "key_pepper: {file: p}",
            "key_pepper: {file: p}, accept: [{signing_key: {file: a}, token_key: {file: b}}]",
            Some("1:89 either a `signing_key` or a `token_key`"),
        ),
        (
            "key_pepper: {file: p}",
            "key_pepper: {file: p}, accept: [{token_key: {env: 'a b'}, until: null}]",
            Some("1:90 not the name of an environment variable"),
        ),
        ("scopes: [scan]", "scopes: [scan], networks: [10.0.0.0/8], quota: default", None),
        (
            "scopes: [scan]",
            "scopes: [scan], networks: [10.1.0.0/8]",
            Some("6:117 `10.1.0.0/8` has host bits … write 10.0.0.0/8"),
        ),
        (
            "scopes: [scan]",
            "scopes: [scan], quota: big",
            Some("6:113 there is no quota `big` … default"),
        ),
        (
            "auth:",
            "auth:\n  user_token_ttl: 16m",
            Some("4:19 960s is out of range … from 60s to 900s"),
        ),
        ("auth:", "auth:\n  llm_token_ttl: 61s", Some("4:18 61s is out of range … from 5s to 60s")),
        ("auth:", "auth:\n  llm_token_ttl: 4s", Some("4:18 4s is out of range")),
        ("auth:", "auth:\n  login: {concurrent: 0}", Some("4:23 0 is out of range")),
        ("auth:", "auth:\n  login: {max_failures: 101}", Some("4:25 101 is out of range")),
    ];
    check_all(table.into_iter().map(|(part, instead, expected)| {
        assert!(BASE.contains(part), "{part}");
        check(&BASE.replacen(part, instead, 1), expected.as_slice())
    }));
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    let yaml = "\
routes: [{upstream: nowhere}]
listeners: [{address: '0.0.0.0:80'}]
auth: {llm_token_ttl: 5m, users: [{name: a b, role: user, password_hash: {env: A}}]}
version: 3
";
    let expected = [
        "1:1 `secrets.signing_key` is missing",
        "1:1 `secrets.token_key` is missing",
        "1:21 there is no upstream `nowhere`",
        "2:23 open bind",
        "3:23 300s is out of range",
        "3:42 `a b` cannot be a user name",
        "4:10 version 3",
    ];
    check_all([check(yaml, &expected)].into_iter());
    let open = "listeners: [{address: '0.0.0.0:80', allow_plaintext: true}]\n";
    check_all([check(open, &["1:23 nobody can log in … under `secrets`"])].into_iter());
    let locked = format!("{open}secrets: {{key_pepper: {{file: p}}}}\n");
    check_all([check(&locked, &[])].into_iter());
}

#[test]
fn named_blocks_join_the_built_in_ones() {
    let yaml = "quotas: {big: {}}\nfirewall: {policies: {lax: {pii: flag}}}\n\
                roles: {admin: {scopes: [scan], models: []}}\n";
    let config = parse("f", yaml).unwrap();
    let default = Config::default();
    assert_eq!(config.quotas["default"], default.quotas["default"]);
    assert_eq!(config.quotas["big"], Quota::default());
    assert_eq!(config.firewall.policies["default"], Policy::builtin());
    assert_eq!(config.firewall.policies["lax"].injection, None);
    assert_eq!(config.roles.owner, default.roles.owner);
    assert_eq!(config.roles.admin.scopes, ["scan"]);
    let replaced = parse("f", "quotas: {default: {concurrent: 2}}\n").unwrap();
    assert_eq!(replaced.quotas["default"].requests_per_minute, None);
}

#[test]
fn aliases_work_and_bombs_do_not() {
    let shared = "quotas: {a: &q {concurrent: 2}, b: *q}\n";
    assert_eq!(parse("f", shared).unwrap().quotas["b"].concurrent, Some(2));
    let level = |n: usize| format!("&a{n} [{}]", vec![format!("*a{}", n - 1); 9].join(", "));
    let levels: Vec<String> = (1..9).map(level).collect();
    let bomb = format!("caps: {{extra_params: [&a0 [x], {}]}}\n", levels.join(", "));
    for hostile in [bomb, format!("caps: {}", "[".repeat(10_000)), "{".repeat(10_000)] {
        assert!(parse("f", &hostile).is_err());
    }
    check_all([check(&"#".repeat((1 << 20) + 1), &["1:1 larger than 1048576 bytes"])].into_iter());
}

#[test]
fn a_config_that_is_served_is_a_file_with_an_upstream() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("portcullis.yaml");
    let message =
        |found: Result<Config, Problems>| found.unwrap_err().as_slice()[0].message.clone();
    assert!(message(load(&path)).contains("cannot be read"));
    std::fs::write(&path, b"version: \xff").unwrap();
    assert!(message(load(&path)).contains("UTF-8"));
    std::fs::write(&path, "version: 1\n").unwrap();
    assert_eq!(message(load(&path)), "there is no upstream");
    std::fs::write(&path, BASE).unwrap();
    assert_eq!(load(&path), parse("f", BASE));
}

#[test]
fn debug_and_problems_show_no_secret() {
    let digest = format!("{}A", "xy".repeat(21));
    let config = parse("f", &BASE.replace(&"A".repeat(43), &digest)).unwrap();
    assert!(!format!("{config:?}").contains("xyxy"));
    for yaml in [
        "secrets: {token_key: hunter2-hunter2}",
        "secrets: hunter2-hunter2",
        "secrets: {token_key: {env: 'hunter2-hunter2'}}",
        "secrets: {token_key: [hunter2-hunter2]}",
        "upstreams: {a: {url: 'http://u:hunter2-hunter2@h'}}",
        "auth: {api_keys: [{id: a, user: b, scopes: [], digest: hunter2-hunter2}]}",
        "auth: {users: [{name: a, role: user, password_hash: hunter2-hunter2}]}",
        "store: {url: 'postgres://u:hunter2-hunter2@h/d'}",
        "store: {url: 'postgres://u:hunter2-hunter2@h'}",
        "store: {url: 'mysql://u:hunter2-hunter2@h'}",
        "store: {url: {env: 'hunter2-hunter2'}}",
        "store: {url: [hunter2-hunter2]}",
        "secrets: {accept: [{token_key: hunter2-hunter2}]}",
        "auth: {services: [{name: a, role: user, secret: hunter2-hunter2}]}",
        "auth: {oidc: [{name: a, issuer: 'https://u:hunter2-hunter2@h', audience: b}]}",
    ] {
        let problems = parse("f", yaml).unwrap_err();
        assert!(!format!("{problems} {problems:?}").contains("hunter2"), "{problems}");
    }
}

#[test]
fn a_printed_config_reads_the_same() {
    let config = parse("f", &with_examples(SHIPPED)).unwrap();
    let printed = serde_json::to_string(&config).unwrap();
    assert_eq!(parse("f", &printed), Ok(config));
}

proptest! {
    #[test]
    fn any_text_gives_an_answer(yaml: String) {
        let answer = parse("f", &yaml);
        prop_assert!(answer.map_or_else(|p| !p.as_slice().is_empty(), |c| c.version == 1));
    }

    #[test]
    fn a_damaged_file_gives_an_answer(
        at in 0..SHIPPED.len(),
        cut in 0..40_usize,
        put in "[-{}\\[\\]:,&*!|>'\"%@ \n\t#a1]{0,6}",
    ) {
        let good = with_examples(SHIPPED).into_bytes();
        let (start, end) = (at.min(good.len()), (at + cut).min(good.len()));
        let damaged = [&good[..start], put.as_bytes(), &good[end..]].concat();
        let yaml = String::from_utf8_lossy(&damaged);
        if let Err(problems) = parse("f", &yaml) {
            let lines = yaml.lines().count() as u64 + 1;
            for problem in problems.as_slice() {
                prop_assert!((1..=lines).contains(&problem.line) && problem.column > 0);
                prop_assert!(!problem.message.is_empty() && !problem.help.is_empty());
            }
        }
    }
}
