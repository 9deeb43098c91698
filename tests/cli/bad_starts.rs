use std::net::TcpListener;

use super::support::{CONFIG, Folder, free_address};

/// Breaks a good folder, starts it, and expects one clear message and nothing else.
fn check(break_it: impl FnOnce(&Folder), words: &str) {
    let folder = Folder::new("http://127.0.0.1:1");
    break_it(&folder);
    let ran = folder.run(&["serve", "-c", CONFIG]);
    assert_eq!(ran.code, Some(1), "{words}: {ran:?}");
    assert!(ran.err.contains(words), "{words}: {}", ran.err);
    assert!(ran.out.is_empty() && ran.err.starts_with("portcullis: "), "{words}: {ran:?}");
    let lines: Vec<_> = ran.err.lines().collect();
    assert!(lines.len() <= 2, "more than a message and its help: {}", ran.err);
    for noise in ["panicked", "RUST_BACKTRACE", "Error {", "Os {"] {
        assert!(!ran.err.contains(noise), "{}", ran.err);
    }
    for secret in &folder.secrets {
        assert!(!ran.err.contains(secret.as_str()), "a secret in {}", ran.err);
    }
}

#[test]
fn secrets_that_others_know_are_refused() {
    check(|f| f.chmod("token.key", 0o644), "world-readable");
    check(|f| f.chmod("signing.pem", 0o640), "group-readable");
    check(|f| f.write("token.key", "tooshort"), "shorter than 32 bytes");
    let sample = "your-256-bit-secret-your-256-bit-secret";
    check(|f| f.write("token.key", sample), "sample keys");
    check(|f| f.write("pepper.key", &"0".repeat(64)), "weak key");
    check(|f| f.write("pepper.key", &f.read("token.key")), "the same secret as `token_key`");
}

#[test]
fn secrets_that_are_not_there_are_refused() {
    check(|f| std::fs::remove_file(f.path("pepper.key")).unwrap(), "cannot be read");
    check(|f| f.edit("{file: pepper.key}", "{env: PORTCULLIS_NOT_SET}"), "is not set");
    let inline = "zx81-spectrum-amiga-500-atari-st";
    check(
        |f| {
            f.edit("{file: token.key}", inline);
            assert!(!f.run(&["serve", "-c", CONFIG]).err.contains(inline));
        },
        "never written into the config",
    );
}

#[test]
fn secrets_that_do_not_work_are_refused() {
    check(|f| f.write("signing.pem", &f.read("token.key")), "not an Ed25519 private key");
    let damaged = |f: &Folder| f.read("signing.pem").replace("BCIEI", "BCIEIA");
    check(|f| f.write("signing.pem", &damaged(f)), "not an Ed25519 private key");
    check(|f| f.write("alice.hash", "correct horse battery staple"), "portcullis user hash");
    check(|f| f.write("alice.hash", "$2b$12$abcdefghijklmnopqrstuv"), "Argon2id");
}

#[test]
fn open_binds_are_refused() {
    let address = |f: &Folder| format!("'{}'", f.listen);
    check(|f| f.edit(&address(f), "'0.0.0.0:18443'"), "would serve without TLS");
    check(|f| f.edit(&format!("'{}'", f.admin), "'0.0.0.0:18081'"), "not a loopback address");
}

#[test]
fn what_cannot_be_served_is_refused() {
    check(|f| f.edit("version: 1", "verison: 1"), "did you mean `version`?");
    check(|f| std::fs::remove_file(f.path(CONFIG)).unwrap(), "cannot be read");
    check(|f| f.add("audit: {file: no/such/folder/audit.jsonl}\n"), "no/such/folder");
    check(|f| f.add("firewall: {rules: [none.yaml]}\n"), "none.yaml");
    let mock = "kind: ollama, url: 'http://127.0.0.1:1'";
    let https = "kind: ollama, ca_file: none.pem, url: 'https://127.0.0.1:1'";
    check(|f| f.edit(mock, https), "none.pem");
}

#[test]
fn a_taken_port_is_an_error_and_no_panic() {
    let taken = free_address();
    let holder = TcpListener::bind(taken).unwrap();
    check(|f| f.edit(&f.listen.to_string(), &taken.to_string()), &format!("{taken}"));
    check(|f| f.edit(&f.admin.to_string(), &taken.to_string()), "in use");
    drop(holder);
}

#[test]
fn bad_certificates_are_errors_and_no_panics() {
    let made = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (one, other) = (made(), made());
    let with_tls = |f: &Folder, chain: &str, key: &str| {
        f.edit("name: public, ", "name: public, tls: {cert_file: c.pem, key_file: k.pem}, ");
        f.write("c.pem", chain);
        f.write("k.pem", key);
    };
    let (chain, key) = (one.cert.pem(), one.signing_key.serialize_pem());
    check(|f| with_tls(f, "", &key), "there is no certificate in it");
    check(|f| with_tls(f, "-----BEGIN CERTIFICATE-----\nAAAA", &key), "c.pem");
    check(|f| with_tls(f, &chain, "no key"), "k.pem");
    check(|f| with_tls(f, &chain, &other.signing_key.serialize_pem()), "it is not the key of");
    check(
        |f| {
            with_tls(f, &chain, &key);
            std::fs::remove_file(f.path("c.pem")).unwrap();
        },
        "c.pem",
    );
}
