use serde_json::{Value, json};

use super::mock::{Mock, QUICK};
use super::support::{CONFIG, Folder, Gateway, PASSWORD, eventually, portcullis, run};

const MODELS: &str = "/v1/models";

/// Makes a key and gives its id and text.
fn create(folder: &Folder, args: &[&str]) -> (String, String) {
    let made = folder.json(&[&["key", "create", "--user", "bob"], args].concat(), "");
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    (text("id"), text("api_key"))
}

fn listed(folder: &Folder, id: &str) -> Value {
    let keys = folder.json(&["key", "list", "--user", "bob"], "");
    let mut keys = keys["api_keys"].as_array().unwrap().clone();
    keys.retain(|key| key["id"] == id);
    keys.pop().unwrap_or_default()
}

#[tokio::test]
async fn a_key_is_made_rotated_and_revoked_beside_a_running_gateway() {
    let mock = Mock::start();
    let folder = Folder::new(&mock.url);
    let gateway = Gateway::serve(&folder).await;
    let (id, key) = create(&folder, &["--name", "batch", "--expires", "90d"]);
    gateway.becomes(MODELS, &key, 200).await;
    let shown = listed(&folder, &id);
    assert_eq!((&shown["name"], &shown["models"]), (&json!("batch"), &json!(["*"])), "{shown}");
    let ends = shown["expires_at"].as_u64().unwrap() - shown["created_at"].as_u64().unwrap();
    assert!((7_775_990..=7_776_000).contains(&ends), "{shown}");
    assert!(!shown.to_string().contains(&key), "it was shown once");

    let rotated = folder.json(&["key", "rotate", &id], "");
    let next = rotated["api_key"].as_str().unwrap();
    gateway.becomes(MODELS, next, 200).await;
    assert_eq!(gateway.status(MODELS, &key).await, 200, "both work for a while");
    let last = folder.json(&["key", "rotate", rotated["id"].as_str().unwrap(), "--grace", "0"], "");
    gateway.becomes(MODELS, next, 401).await;
    let (id, last) = (last["id"].as_str().unwrap(), last["api_key"].as_str().unwrap());
    assert_eq!(gateway.status(MODELS, last).await, 200);

    folder.refused(&["key", "revoke", id], "", "--yes");
    folder.json(&["key", "revoke", &format!("sk_{id}"), "--yes"], "");
    gateway.becomes(MODELS, last, 401).await;
    folder.json(&["key", "revoke", id, "--yes"], "");
    folder.refused(&["key", "rotate", id], "", "the key is revoked");
    let table = folder.run(&["key", "list", "-c", CONFIG]).out;
    assert!(table.lines().any(|line| line.starts_with(id) && line.contains("revoked")), "{table}");
    for action in ["key.create", "key.rotate", "key.revoke"] {
        eventually(action, async || {
            let records = folder.records();
            records.iter().any(|record| record["metadata"]["action"] == action).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_key_has_what_was_asked_and_no_more_than_its_user() {
    let mock = Mock::start();
    let folder = Folder::new(&mock.url);
    let quota = "quotas: {two: {requests_per_minute: 2, burst: 2}, ";
    folder.edit("quotas: {", quota);
    let gateway = Gateway::serve(&folder).await;
    let (_, far) = create(&folder, &["--networks", "192.0.2.0/24,2001:db8::/32"]);
    let (_, list_only) = create(&folder, &["--scopes", "models:read"]);
    let (_, few) = create(&folder, &["--quota", "two"]);
    gateway.becomes(MODELS, &few, 200).await;
    assert_eq!(gateway.status(MODELS, &far).await, 401, "from another network");
    let chat = gateway.post("/v1/chat/completions", &super::support::question(QUICK, false));
    assert_eq!(chat.bearer_auth(&list_only).send().await.unwrap().status(), 403);
    gateway.becomes(MODELS, &few, 429).await;
    for (args, words) in [
        (&["--scopes", "users:write"][..], "does not hold users:write"),
        (&["--scopes", "*"], "does not hold *"),
        (&["--scopes", "llm:genrate"], "does not hold llm:genrate"),
        (&["--networks", "10.0.0.0/33"], "--networks"),
        (&["--quota", "three"], "no such quota"),
        (&["--models", ""], "--models"),
        (&["--expires", "90"], "--expires"),
        (&["--expires", "2020-01-31T00:00:00Z"], "in the future"),
        (&["--name", "a\nb"], "--name"),
    ] {
        folder.refused(&[&["key", "create", "--user", "bob"], args].concat(), "", words);
    }
    folder.refused(&["key", "create", "--user", "nobody"], "", "there is no user nobody");
    folder.refused(&["key", "revoke", "0123456789AB"], "", "there is no key");
    folder.refused(&["key", "rotate", &folder.key], "", "12 letters and digits");
    let id = folder.key.get(3..15).unwrap();
    folder.refused(&["key", "rotate", id], "", "declared in the configuration");
    folder.refused(&["key", "rotate", id, "--grace", "31d"], "", "at most 30d");
}

#[tokio::test]
async fn a_generated_key_and_a_hashed_password_work_once_they_are_pasted() {
    let mock = Mock::start();
    let folder = Folder::new(&mock.url);
    let asked = ["key", "generate", "-c", CONFIG, "--user", "bob", "--name", "batch"];
    let ran =
        folder.run(&[&asked[..], &["--expires", "90d", "--networks", "127.0.0.0/8"]].concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let key = ran.out.lines().next().unwrap().to_owned();
    let entry = ran.out.lines().find(|line| line.trim_start().starts_with("- {")).unwrap();
    folder.edit("  api_keys:\n", &format!("  api_keys:\n    {}\n", entry.trim_start()));
    let password = "eight new words for the second user";
    let hash = folder.tell(&["user", "hash"], password);
    assert_eq!(hash.code, Some(0), "{hash:?}");
    folder.write("bob.hash", &hash.out);
    let mut gateway = Gateway::serve(&folder).await;
    assert_eq!(gateway.status(MODELS, &key).await, 200);
    let chat = super::support::question(QUICK, false);
    let chat = gateway.post("/v1/chat/completions", &chat).header("x-api-key", &key);
    assert_eq!(chat.send().await.unwrap().status(), 200);
    for (password, status) in [(password, 200), (PASSWORD, 401)] {
        let form = json!({ "username": "bob", "password": password });
        assert_eq!(gateway.login(&form).await.0, status);
    }
    let records = eventually("four records", async || {
        let records = folder.records();
        (records.len() == 4).then_some(records)
    });
    let used = records.await.iter().filter(|record| record["key_id"].is_string()).count();
    assert_eq!(used, 2, "records name the key by its id");
    gateway.signal("TERM");
    gateway.exit(std::time::Duration::from_secs(5));
    let written = folder.read("audit.jsonl") + &gateway.log() + &folder.read("gateway.out");
    for secret in [key.as_str(), password, PASSWORD] {
        assert!(!written.contains(secret), "a secret was written");
    }
}

#[test]
fn a_bare_key_is_one_for_the_environment() {
    let folder = Folder::new("http://127.0.0.1:1");
    folder.edit("auth:\n", "auth:\n  environment_keys: {role: user}\n");
    let made = folder.run(&["key", "generate", "--bare"]);
    assert_eq!((made.code, made.out.lines().count()), (Some(0), 1), "{made:?}");
    for (key, code) in [(made.out.trim(), 0), ("sk_made_up", 1)] {
        let mut check = portcullis(&["check", "-c", CONFIG]);
        let ran = run(check.current_dir(folder.path("")).env("API_KEY", key), "");
        assert_eq!(ran.code, Some(code), "{ran:?}");
    }
    for args in [&["--user", "bob"][..], &["-c", CONFIG], &["--bare", "--user", "bob"]] {
        let ran = folder.run(&[&["key", "generate"], args].concat());
        assert_eq!(ran.code, Some(2), "{args:?}: {ran:?}");
    }
    let folder = Folder::new("http://127.0.0.1:1");
    folder.refused(&["key", "generate", "--user", "carol"], "", "no user carol");
}
