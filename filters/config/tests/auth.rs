//! Who may come in: keys of the environment, second factors, issuers, services, modes.

use super::{BASE, check, check_all};

/// Adds keys to `auth`, in line 3 of [`BASE`]; line 4 is the first of what is added.
#[test]
fn what_is_added_to_auth_is_checked() {
    let table = [
        ("environment_keys: {}", None),
        ("environment_keys: {scopes: []}", Some("4:22 this key may do nothing")),
        ("environment_keys: {scopes: [scn]}", Some("4:31 unknown scope `scn` … mean `scan`?")),
        ("environment_keys: {models: ['a b']}", Some("4:31 `a b` is not a pattern")),
        ("password_blocklist: words.txt", None),
        ("password_blocklist: ''", Some("4:23 this list has no file")),
        ("mfa: {issuer: 'A: B'}", Some("4:17 `A: B` cannot be the name that apps show … a colon")),
        ("mfa: {issuer: ''}", Some("4:17 `` cannot be the name")),
        ("mfa: {required_for: [admin]}", Some("1:1 `secrets.store_key` is missing: `auth.mfa`")),
        ("oidc: [{name: a, issuer: 'https://h/x', audience: b, default_role: user}]", None),
        (
            "oidc: [{name: A, issuer: 'https://h', audience: b, default_role: user}]",
            Some("4:17 `A` cannot be a name … a-z 0-9 -"),
        ),
        (
            "oidc: [{name: a, issuer: 'https://h?x', audience: b, default_role: user}]",
            Some("4:28 an issuer is a URL without a query"),
        ),
        (
            "oidc: [{name: a, issuer: 'https://h', audience: '', default_role: user}]",
            Some("4:51 `` is not the audience"),
        ),
        (
            "oidc: [{name: a, issuer: 'https://h', audience: b}]",
            Some("4:10 no user of this issuer would have a role … default_role"),
        ),
        (
            "oidc: [{name: a, issuer: 'https://h', audience: b, role_map: {x: user}}]",
            Some("4:54 `role_claim` and `role_map` need each other"),
        ),
        (
            "oidc: [{name: a, issuer: 'https://h', audience: b, role_claim: g, default_role: user}]",
            Some("4:66 `role_claim` and `role_map` need each other"),
        ),
        (
            "oidc: [{name: a, issuer: 'https://h', audience: b, role_claim: '', role_map: {x: user}}]",
            Some("4:66 `` is not the name of a claim"),
        ),
        (
            "oidc: [{name: a, issuer: 'https://h', audience: b, role_claim: g, role_map: {'': user}}]",
            Some("4:84 `` is not a value of `role_claim`"),
        ),
        (
            "oidc: [{name: a, issuer: 'https://h', audience: b, default_role: user, algorithms: []}]",
            Some("4:74 no token of this issuer could be checked"),
        ),
        (
            "oidc: [{name: a, issuer: 'https://h', audience: b, default_role: user, algorithms: [RS256, RS256]}]",
            Some("4:94 the algorithm `RS256` is there twice"),
        ),
        (
            "oidc: [{name: a, issuer: 'https://h', audience: b, default_role: user}, {name: a, issuer: 'https://i', audience: b, default_role: user}]",
            Some("4:82 the name of an issuer or service `a` is there twice"),
        ),
        (
            "oidc: [{name: a, issuer: 'https://h', audience: b, default_role: user}, {name: c, issuer: 'https://h', audience: d, default_role: user}]",
            Some("4:93 the issuer `https://h` is there twice"),
        ),
        ("services: [{name: a, role: user, secret: {env: A}, max_skew: 5m}]", None),
        (
            "oidc: [{name: a, issuer: 'https://h', audience: b, default_role: user}]\n  services: [{name: a, role: user, secret: {env: A}}]",
            Some("5:21 the name of an issuer or service `a` is there twice … line 4"),
        ),
        (
            "services: [{name: a, role: user}]",
            Some("4:14 this service could not prove that it is itself … certificates"),
        ),
        (
            "services: [{name: a, role: user, secret: {env: ''}}]",
            Some("4:36 not the name of an environment variable"),
        ),
        (
            "services: [{name: a, role: user, secret: {env: A}, max_skew: 301s}]",
            Some("4:64 301s is out of range … from 1s to 300s"),
        ),
        (
            "services: [{name: a b, role: user, secret: {env: A}}]",
            Some("4:21 `a b` cannot be a name"),
        ),
        (
            "services: [{name: a, role: user, secret: {env: A}}, {name: a, role: user, secret: {env: B}}]",
            Some("4:62 the name of an issuer or service `a` is there twice"),
        ),
    ];
    check_all(table.into_iter().map(|(added, expected)| {
        check(&BASE.replacen("auth:", &format!("auth:\n  {added}"), 1), expected.as_slice())
    }));
}

#[test]
fn certificates_of_services_need_a_listener_that_asks_for_them() {
    let print = "ab".repeat(32);
    let service = |certificates: &str| {
        let added =
            format!("auth:\n  services: [{{name: a, role: user, certificates: [{certificates}]}}]");
        BASE.replacen("auth:", &added, 1)
    };
    let tls = "listeners: [{tls: {cert_file: c, key_file: k, client_ca_file: a}}]\n";
    let capitals = print.to_uppercase();
    check_all(
        [
            check(
                &service(&print),
                &["4:36 no listener asks for a client certificate … client_ca_file"],
            ),
            check(&(service(&print) + tls), &[]),
            check(
                &(service(&format!("{print}, {capitals}")) + tls),
                &["4:117 the certificate `abab … is there twice"],
            ),
        ]
        .into_iter(),
    );
}

#[test]
fn development_mode_is_for_loopback() {
    let auth = "auth: {mode: development}\nsecrets: {key_pepper: {file: p}}\n";
    let open = "listeners: [{address: '[::1]:1'}, {name: b, address: '0.0.0.0:2', allow_plaintext: true}]\n";
    check_all(
        [
            check(auth, &[]),
            check(
                &format!("{auth}{open}"),
                &["1:14 would serve 0.0.0.0:2 without any credential … `mode: required`"],
            ),
        ]
        .into_iter(),
    );
}

#[test]
fn lists_are_bounded() {
    let repeated = |count: usize, item: &dyn Fn(usize) -> String| {
        (0..count).map(item).collect::<Vec<_>>().join(", ")
    };
    let networks = repeated(65, &|n| format!("10.0.{n}.0/24"));
    let accept = repeated(9, &|n| format!("{{token_key: {{file: k{n}}}}}"));
    let issuer =
        |n| format!("{{name: a{n}, issuer: 'https://h{n}', audience: b, default_role: user}}");
    let roles = repeated(257, &|n| format!("g{n}: user"));
    let service = |n| format!("{{name: a{n}, role: user, secret: {{env: A{n}}}}}");
    let prints = repeated(17, &|n| format!("{n:064x}"));
    let tls = "listeners: [{tls: {cert_file: c, key_file: k, client_ca_file: a}}]\n";
    let table = [
        (
            BASE.replace("scopes: [scan]", &format!("scopes: [scan], networks: [{networks}]")),
            "6:106 65 entries are too many … at most 64",
        ),
        (format!("secrets: {{accept: [{accept}]}}"), "1:11 9 entries are too many … at most 8"),
        (
            format!("auth: {{oidc: [{}]}}", repeated(17, &issuer)),
            "1:8 17 entries are too many … at most 16",
        ),
        (
            format!(
                "auth: {{oidc: [{{name: a, issuer: 'https://h', audience: b, role_claim: g, role_map: {{{roles}}}}}]}}"
            ),
            "1:74 257 entries are too many … at most 256",
        ),
        (
            format!("auth: {{services: [{}]}}", repeated(65, &service)),
            "1:8 65 entries are too many … at most 64",
        ),
        (
            format!("{tls}auth: {{services: [{{name: a, role: user, certificates: [{prints}]}}]}}"),
            "2:41 17 entries are too many … at most 16",
        ),
    ];
    check_all(table.into_iter().map(|(yaml, expected)| check(&yaml, &[expected])));
}
