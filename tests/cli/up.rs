use std::process::Command;

use serde_json::Value;

use super::mock::{ANSWER, Mock};
use super::support::{Folder, Gateway, eventually, run};

/// The arguments of an `up` on the addresses of a folder.
fn args<'a>(upstream: &'a str, listen: &'a str, admin: &'a str) -> Vec<&'a str> {
    let state = "state";
    let fixed = ["up", "--upstream", upstream, "--listen", listen, "--admin", admin];
    [&fixed[..], &["--state-dir", state]].concat()
}

/// Starts `up` and gives what it printed, once it serves.
async fn up(folder: &Folder, upstream: &str, more: &[&str]) -> (Gateway, String) {
    let (listen, admin) = (folder.listen.to_string(), folder.admin.to_string());
    let args = [&args(upstream, &listen, &admin)[..], more].concat();
    let gateway = Gateway::spawn(folder, &args);
    gateway.ready(folder).await;
    let printed = eventually("the greeting", async || {
        let printed = folder.read("gateway.out");
        printed.contains("\ncurl ").then_some(printed)
    });
    (gateway, printed.await)
}

fn key_in(printed: &str) -> Option<&str> {
    printed.split_whitespace().find(|word| word.starts_with("sk_"))
}

#[test]
fn only_loopback_is_served() {
    let folder = Folder::new("");
    for (listen, admin) in [("0.0.0.0:0", "127.0.0.1:0"), ("127.0.0.1:0", "[::]:0")] {
        let ran = folder.run(&args("http://127.0.0.1:1", listen, admin));
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.err.contains("loopback only"), "{ran:?}");
    }
    assert!(!folder.path("state").exists(), "nothing is written before the check");
}

#[test]
fn without_an_upstream_it_says_what_to_do() {
    let folder = Folder::new("");
    let upstream = format!("http://{}", folder.admin);
    let ran = folder.run(&args(&upstream, "127.0.0.1:0", "127.0.0.1:0"));
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    for words in [&*upstream, "--with-model", "--upstream"] {
        assert!(ran.err.contains(words), "{words}: {}", ran.err);
    }
}

#[tokio::test]
async fn the_printed_curl_works_and_the_key_stays() {
    let (mock, folder) = (Mock::start(), Folder::new(""));
    let (gateway, printed) = up(&folder, &mock.url, &[]).await;
    let key = key_in(&printed).unwrap().to_owned();
    let curl = printed.lines().find(|line| line.starts_with("curl ")).unwrap();
    assert_eq!(answered(&gateway, curl, &key).await, ANSWER, "{curl}");
    drop(gateway);

    let (gateway, printed) = up(&folder, &mock.url, &[]).await;
    assert!(!printed.contains("sk_") && printed.contains("--new-key"), "{printed}");
    assert_eq!(status(&gateway, &key).await, 200, "the state was kept");
    drop(gateway);

    let (gateway, printed) = up(&folder, &mock.url, &["--new-key"]).await;
    let new = key_in(&printed).unwrap();
    assert_eq!((status(&gateway, &key).await, status(&gateway, new).await), (401, 200));
}

/// What the model said to the printed command or, without curl, to the same request.
async fn answered(gateway: &Gateway, curl: &str, key: &str) -> String {
    let body = if Command::new("curl").arg("--version").output().is_ok() {
        let ran = run(Command::new("sh").args(["-c", curl]), "");
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran.out
    } else {
        let chat = gateway.chat("phi").bearer_auth(key);
        chat.send().await.unwrap().text().await.unwrap()
    };
    let answer: Value = serde_json::from_str(&body).unwrap();
    answer["choices"][0]["message"]["content"].as_str().unwrap_or(&body).to_owned()
}

async fn status(gateway: &Gateway, key: &str) -> u16 {
    let list = gateway.client.get(format!("{}/v1/models", gateway.url)).bearer_auth(key);
    list.send().await.unwrap().status().as_u16()
}
