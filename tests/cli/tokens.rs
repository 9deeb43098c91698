use serde_json::{Value, json};

use super::mock::{Mock, QUICK};
use super::support::{CONFIG, Folder, Gateway, PASSWORD, eventually, question};

async fn start() -> (Mock, Folder, Gateway) {
    let mock = Mock::start();
    let folder = Folder::new(&mock.url);
    let gateway = Gateway::serve(&folder).await;
    (mock, folder, gateway)
}

const MINT: [&str; 8] =
    ["token", "mint", "--user", "alice", "--model", QUICK, "--max-tokens", "20"];

fn mint(folder: &Folder, args: &[&str]) -> String {
    let made = folder.json(&[&MINT, args].concat(), "");
    assert_eq!((&made["expires_in"], &made["max_tokens"]), (&json!(60), &json!(20)), "{made}");
    made["token"].as_str().unwrap().to_owned()
}

async fn chat(gateway: &Gateway, token: &str) -> u16 {
    let chat = gateway.post("/v1/chat/completions", &question(QUICK, false));
    chat.header("x-llm-token", token).send().await.unwrap().status().as_u16()
}

/// What `token inspect` says: its exit code, whether the token is accepted, and why not.
fn inspect(folder: &Folder, token: &str) -> (i32, Value) {
    let ran = folder.tell(&["token", "inspect", "-c", CONFIG, "--json"], token);
    let signature = token.rsplit('.').next().unwrap();
    assert!(!ran.out.contains(signature), "{ran:?}");
    (ran.code.unwrap(), serde_json::from_str(&ran.out).unwrap_or_default())
}

#[tokio::test]
async fn a_token_is_made_inspected_and_revoked() {
    let (mock, folder, gateway) = start().await;
    let token = mint(&folder, &[]);
    assert_eq!(chat(&gateway, &token).await, 200);
    assert_eq!(mock.seen()[0]["max_tokens"], 20);
    let (code, shown) = inspect(&folder, &token);
    assert_eq!((code, &shown["accepted"]), (0, &json!(true)), "{shown}");
    assert_eq!(
        (&shown["claims"]["sub"], &shown["header"]["alg"]),
        (&json!("alice"), &json!("HS256"))
    );

    folder.json(&["token", "revoke"], &format!("{token}\n"));
    eventually("it is refused", async || (chat(&gateway, &token).await == 401).then_some(())).await;
    let (code, shown) = inspect(&folder, &token);
    assert_eq!(
        (code, &shown["verified"], &shown["reason"]),
        (1, &json!(true), &json!("the session or token was revoked"))
    );

    let by_id = mint(&folder, &[]);
    let (_, shown) = inspect(&folder, &by_id);
    folder.json(&["token", "revoke", shown["claims"]["jti"].as_str().unwrap()], "");
    assert_eq!(inspect(&folder, &by_id).1["reason"], "the session or token was revoked");

    let once = mint(&folder, &["--single-use"]);
    assert_eq!((chat(&gateway, &once).await, chat(&gateway, &once).await), (200, 401));
    let elsewhere = mint(&folder, &["--address", "192.0.2.7"]);
    assert_eq!(chat(&gateway, &elsewhere).await, 401);
}

#[tokio::test]
async fn the_token_of_a_login_ends_with_its_session() {
    let (_mock, folder, gateway) = start().await;
    let form = json!({ "username": "alice", "password": PASSWORD });
    let (_, one) = gateway.login(&form).await;
    let (_, other) = gateway.login(&form).await;
    let id = inspect(&folder, &one).1["claims"]["jti"].as_str().unwrap().to_owned();
    folder.json(&["token", "revoke", &id], "");
    folder.json(&["token", "revoke"], &other);
    for token in [&one, &other] {
        gateway.becomes("/auth/me", token, 401).await;
        assert_eq!(inspect(&folder, token).1["reason"], "the session or token was revoked");
    }
    assert_eq!(folder.json(&["user", "sessions", "alice"], "")["sessions"], json!([]));
    folder.json(&["token", "revoke"], &other);
    let (_, void) = gateway.login(&form).await;
    folder.json(&["user", "revoke", "alice"], "");
    let reason = inspect(&folder, &void).1["reason"].as_str().unwrap().to_owned();
    assert!(reason == "the user's tokens were revoked", "{reason}");
    folder.json(&["user", "disable", "alice"], "");
    assert_eq!(inspect(&folder, &void).1["reason"], "the user is disabled");
}

#[tokio::test]
async fn no_more_than_the_user_holds_is_minted_and_no_secret_is_an_argument() {
    let (_mock, folder, _gateway) = start().await;
    let with = |changes: &[(&'static str, &'static str)]| {
        let value = |at: usize| {
            let changed = changes.iter().find(|(option, _)| at > 0 && MINT[at - 1] == *option);
            changed.map_or(MINT[at], |(_, value)| value)
        };
        (0..MINT.len()).map(value).collect::<Vec<&str>>()
    };
    for (args, words) in [
        ([&MINT[..], &["--scopes", "users:write"]].concat(), "none of a scoped token"),
        ([&MINT[..], &["--scopes", "llm:*"]].concat(), "none of a scoped token"),
        (with(&[("--max-tokens", "0")]), "at least 1"),
        (with(&[("--model", "../etc")]), "not the name of a model"),
        (with(&[("--user", "nobody")]), "there is no user nobody"),
    ] {
        folder.refused(&args, "", words);
    }
    let token = mint(&folder, &[]);
    folder.refused(&["token", "revoke", &token], "", "standard input");
    for (text, words) in [("nothing", "not a token"), ("", "not a token")] {
        folder.refused(&["token", "inspect"], text, words);
    }
    let (head, _) = token.rsplit_once('.').unwrap();
    let (code, shown) = inspect(&folder, &format!("{head}.{}", "A".repeat(43)));
    assert_eq!((code, &shown["verified"]), (1, &json!(false)), "{shown}");
    folder.refused(&["token", "revoke"], &format!("{head}.AAAA"), "no gateway accepts it");
}

#[tokio::test]
async fn everything_is_revoked_at_once() {
    let (_mock, folder, gateway) = start().await;
    folder.json(&["user", "add", "olga", "--role", "owner"], "seven purple tractors hum quietly\n");
    let form = json!({ "username": "bob", "password": PASSWORD });
    let (_, login) = gateway.login(&form).await;
    let scoped = mint(&folder, &[]);
    let all = ["emergency", "revoke-all", "--reason"];
    folder.refused(&[&all[..], &["a laptop was stolen"]].concat(), "", "--yes");
    folder.refused(&[&all[..], &[" ", "--yes"]].concat(), "", "--reason");
    let revoked = folder.json(&[&all[..], &["a laptop was stolen", "--yes"]].concat(), "");
    assert_eq!((&revoked["revoked_keys"], &revoked["revoked_tokens"]), (&json!(1), &json!(1)));
    assert_eq!(revoked["revoked_users"], 3, "{revoked}");
    for bearer in [&folder.key, &login, &scoped] {
        gateway.becomes("/v1/models", bearer, 401).await;
    }
    assert_eq!(gateway.login(&form).await.0, 200, "people log in again");
    let record = eventually("the record", async || {
        let mut records = folder.records().into_iter();
        records.find(|record| record["metadata"]["action"] == "emergency.revoke_all")
    });
    let record = record.await.to_string();
    assert!(record.contains("a laptop was stolen"), "{record}");
}

#[test]
fn the_store_tells_what_is_in_it_and_no_password() {
    let folder = Folder::new("http://127.0.0.1:1");
    folder.seal();
    folder.json(&["user", "add", "olga"], "seven purple tractors hum quietly\n");
    folder.json(&["key", "create", "--user", "olga"], "");
    let status = folder.json(&["store", "status"], "");
    assert!(status["url"].as_str().unwrap().ends_with("portcullis.db"), "{status}");
    assert_eq!((&status["users"], &status["api_keys"]), (&json!(1), &json!(1)), "{status}");
    assert_eq!(status["sealed_with_current_key"], true);
    folder.edit("secrets:\n", "store: {url: {file: url}, timeout: 200ms}\nsecrets:\n");
    folder.write("url", "postgres://gate:hunter2@127.0.0.1:1/accounts");
    folder.refused(&["store", "status"], "", "not available");
    assert!(!folder.run(&["store", "status", "-c", CONFIG]).err.contains("hunter2"));
}
