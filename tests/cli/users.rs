use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::{Value, json};

use super::authenticator;
use super::mock::Mock;
use super::support::{CONFIG, Folder, Gateway, PASSWORD, eventually, portcullis};

const STRONG: &str = "seven purple tractors hum quietly\n";

fn now() -> u64 {
    jsonwebtoken::get_current_timestamp()
}

#[test]
fn a_user_is_made_changed_and_removed() {
    let folder = Folder::new("http://127.0.0.1:1");
    folder.seal();
    let made = folder.json(&["user", "add", "Carol", "--email"], &format!("{STRONG}c@x.org\n"));
    assert_eq!((&made["username"], &made["role"]), (&json!("carol"), &json!("user")), "{made}");
    folder.refused(&["user", "add", "carol"], STRONG, "there is a user carol already");
    for (args, member, value) in [
        (&["user", "show", "CAROL"][..], "email", json!("c@x.org")),
        (&["user", "role", "carol", "admin"], "role", json!("admin")),
        (&["user", "disable", "carol"], "disabled", json!(true)),
        (&["user", "enable", "carol"], "disabled", json!(false)),
        (&["user", "show", "carol"], "sessions", json!(0)),
    ] {
        assert_eq!(folder.json(args, "")[member], value, "{args:?}");
    }
    folder.json(&["user", "passwd", "carol"], "nine yellow kettles sing at dusk\n");
    let listed = folder.json(&["user", "list"], "");
    assert_eq!(listed["users"][0]["username"], "carol");
    let table = folder.run(&["user", "list", "-c", CONFIG]).out;
    let (head, row) = table.trim_end().split_once('\n').unwrap();
    assert_eq!(head.find("ROLE"), row.find("admin"), "{table}");
    folder.refused(&["user", "delete", "carol"], "", "--yes");
    assert_eq!(folder.json(&["user", "delete", "carol", "--yes"], "")["revoked_keys"], 0);
    folder.refused(&["user", "show", "carol"], "", "there is no user carol");
}

#[test]
fn what_the_endpoints_refuse_is_refused_here_too() {
    let folder = Folder::new("http://127.0.0.1:1");
    folder.json(&["user", "add", "olga", "--role", "owner"], STRONG);
    for (args, stdin, words) in [
        (&["user", "add", "dan"][..], "short\n", "shorter than 12"),
        (&["user", "add", "dan"], "dandandandan\n", "too easy to guess"),
        (&["user", "add", "dan"], "correct horse battery staple\n", "many people use"),
        (&["user", "add", "dan"], "", "shorter than 12"),
        (&["user", "add", "d n"], STRONG, "1 to 64"),
        (&["user", "add", "dаn"], STRONG, "1 to 64"),
        (&["user", "add", "dan", "--email"], STRONG, "not an e-mail address"),
        (&["user", "role", "olga", "user"], "", "last enabled owner"),
        (&["user", "disable", "olga"], "", "last enabled owner"),
        (&["user", "delete", "olga", "--yes"], "", "last enabled owner"),
        (&["user", "mfa", "enable", "olga"], "", "store_key"),
        (&["user", "mfa", "reset", "olga", "--yes"], "", "none"),
        (&["user", "revoke", "olga", "--session", "x"], "", "no such session"),
        (&["user", "show", "nobody"], "", "there is no user nobody"),
        (&["user", "show", "alice"], "", "when a gateway has served"),
    ] {
        folder.refused(args, stdin, words);
    }
    let ran = folder.run(&["user", "add", "dan", "--role", "root", "-c", CONFIG]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
}

#[tokio::test]
async fn a_change_is_in_force_on_a_running_gateway_and_recorded_there() {
    let mock = Mock::start();
    let folder = Folder::new(&mock.url);
    let gateway = Gateway::serve(&folder).await;
    let form = json!({ "username": "alice", "password": PASSWORD });
    let (_, token) = gateway.login(&form).await;
    let sessions = folder.json(&["user", "sessions", "alice"], "");
    let [session] = sessions["sessions"].as_array().unwrap().as_slice() else {
        panic!("{sessions}")
    };
    let id = session["id"].as_str().unwrap();
    folder.json(&["user", "revoke", "alice", "--session", id], "");
    gateway.becomes("/auth/me", &token, 401).await;

    let (_, token) = gateway.login(&form).await;
    assert_eq!(folder.json(&["user", "revoke", "alice"], "")["revoked_sessions"], 1);
    gateway.becomes("/auth/me", &token, 401).await;
    assert_eq!(gateway.status("/v1/models", &folder.key).await, 200, "keys stay");

    folder.json(&["user", "disable", "alice"], "");
    gateway.becomes("/v1/models", &folder.key, 401).await;
    assert_eq!(gateway.login(&form).await.0, 401);
    folder.json(&["user", "enable", "alice"], "");
    gateway.becomes("/v1/models", &folder.key, 200).await;
    folder.refused(&["user", "passwd", "alice"], STRONG, "declared in the configuration");

    for action in ["session.revoke", "user.revoke", "user.disable", "user.enable"] {
        let record = eventually(action, async || {
            let mut records = folder.records().into_iter();
            records.find(|record| record["metadata"]["action"] == action)
        });
        let record = record.await;
        assert_eq!(record["operation"], "account", "{record}");
        assert_eq!(record["metadata"]["via"], "command line", "{record}");
        assert!(!record["user_id"].as_str().unwrap_or_default().is_empty(), "{record}");
    }
}

/// Sets up a second factor as a person does who reads what is shown, and gives that.
fn enrol(folder: &Folder, user: &str) -> Value {
    let args = ["user", "mfa", "enable", user, "-c", CONFIG, "--json"];
    let mut command = portcullis(&args);
    command.current_dir(folder.path("")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let shown: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    let code = authenticator::code(shown["secret"].as_str().unwrap(), now());
    writeln!(child.stdin.take().unwrap(), "{code}").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "{\"mfa_enabled\":true}");
    assert!(child.wait().unwrap().success());
    shown
}

#[tokio::test]
async fn a_second_factor_is_set_up_used_and_reset() {
    let mock = Mock::start();
    let folder = Folder::new(&mock.url);
    folder.seal();
    let gateway = Gateway::serve(&folder).await;
    let shown = enrol(&folder, "bob");
    let codes = shown["backup_codes"].as_array().unwrap();
    assert_eq!(codes.len(), 10);
    let uri = shown["provisioning_uri"].as_str().unwrap();
    assert!(uri.starts_with("otpauth://totp/Portcullis:bob?secret="), "{uri}");
    let secret = shown["secret"].as_str().unwrap();
    let mut form = json!({ "username": "bob", "password": PASSWORD });
    assert_eq!(gateway.login(&form).await.0, 401, "without a code");
    for (code, status) in [
        (authenticator::code(secret, now() + 30), 200),
        (codes[0].as_str().unwrap().to_owned(), 200),
        (codes[0].as_str().unwrap().to_owned(), 401),
        ("000000".to_owned(), 401),
    ] {
        form["mfa_code"] = json!(code);
        assert_eq!(gateway.login(&form).await.0, status, "{code}");
    }
    assert_eq!(folder.json(&["user", "show", "bob"], "")["backup_codes_left"], 9);
    folder.refused(&["user", "mfa", "enable", "bob"], "", "has a second factor");
    folder.refused(&["user", "mfa", "reset", "bob"], "", "--yes");
    folder.json(&["user", "mfa", "reset", "bob", "--yes"], "");
    assert_eq!(folder.json(&["user", "show", "bob"], "")["mfa_enabled"], false);
    let form = json!({ "username": "bob", "password": PASSWORD });
    assert_eq!(gateway.login(&form).await.0, 200, "with the password alone");
}

#[test]
fn a_second_factor_that_is_not_confirmed_does_not_count() {
    let folder = Folder::new("http://127.0.0.1:1");
    folder.seal();
    folder.json(&["user", "add", "carol"], STRONG);
    let shown = folder.json(&["user", "mfa", "enable", "carol", "--no-confirm"], "");
    let text = folder.tell(&["user", "mfa", "enable", "carol", "-c", CONFIG], "123\n");
    assert_eq!(text.code, Some(1), "{text:?}");
    assert!(text.err.contains("not confirmed") && text.out.contains("otpauth://"), "{text:?}");
    assert!(!text.out.contains(shown["secret"].as_str().unwrap()), "each is drawn anew");
    assert_eq!(folder.json(&["user", "show", "carol"], "")["mfa_enabled"], false);
}
