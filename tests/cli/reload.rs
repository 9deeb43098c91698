use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::mock::{Mock, QUICK, SLOW};
use super::support::{CONFIG, Folder, Gateway, eventually};

/// Status and error code of a chat.
async fn outcome(gateway: &Gateway, model: &str) -> (u16, String) {
    let answer = gateway.chat(model).send().await.unwrap();
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap();
    (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn what_is_changed_holds_for_new_requests_and_open_ones_go_on() {
    let mock = Mock::start();
    let folder = Folder::new(&mock.url);
    let gateway = Gateway::serve(&folder).await;
    let mut open = gateway.stream(SLOW).send().await.unwrap();
    let first = open.chunk().await.unwrap().unwrap();
    assert!(first.starts_with(b"data: "));
    assert_eq!(outcome(&gateway, QUICK).await.0, 200);
    assert_eq!(mock.seen().last().unwrap()["max_tokens"], json!(100));

    folder.add("caps: {max_tokens: 64}\n");
    gateway.reload("success").await;
    assert_eq!(outcome(&gateway, QUICK).await.0, 200);
    assert_eq!(mock.seen().last().unwrap()["max_tokens"], json!(64));

    folder.add("roles: {user: {scopes: ['llm:generate'], models: ['llama*']}}\n");
    gateway.reload("success").await;
    assert_eq!(outcome(&gateway, QUICK).await, (403, "model_not_allowed".to_owned()));
    assert_eq!(outcome(&gateway, "llama2").await.0, 200);

    folder.edit("name: alice, role: user", "name: alice, role: read_only");
    gateway.reload("success").await;
    assert_eq!(outcome(&gateway, "llama2").await, (403, "insufficient_scope".to_owned()));

    mock.release();
    let rest = open.text().await.unwrap();
    assert!(rest.ends_with("data: [DONE]\n\n"), "{rest}");
}

#[tokio::test]
async fn a_new_limit_is_in_force_at_once() {
    let mock = Mock::start();
    let folder = Folder::new(&mock.url);
    let gateway = Gateway::serve(&folder).await;
    assert_eq!(outcome(&gateway, QUICK).await.0, 200);
    folder.edit("requests_per_minute: 1000000, burst: 100000", "requests_per_minute: 1, burst: 1");
    gateway.reload("success").await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(outcome(&gateway, QUICK).await);
    }
    let last = statuses.pop().unwrap();
    assert_eq!(last, (429, "rate_limit_exceeded".to_owned()), "after {statuses:?}");
}

#[tokio::test]
async fn a_broken_file_leaves_the_old_configuration_in_force() {
    let mock = Mock::start();
    let folder = Folder::new(&mock.url);
    let gateway = Gateway::serve(&folder).await;
    let good = folder.read(CONFIG);
    for (from, to) in [
        ("version: 1", "verison: 1"),
        ("role: user", "role: [}"),
        ("{file: token.key}", "{file: token.kye}"),
        ("quotas:", "firewall: {rules: [none.yaml]}\nquotas:"),
    ] {
        folder.write(CONFIG, &good);
        folder.edit(from, to);
        gateway.reload("failure").await;
        assert_eq!(outcome(&gateway, QUICK).await.0, 200, "{to}");
    }
    folder.write(CONFIG, &good);
    gateway.reload("success").await;
    assert_eq!(gateway.metric("portcullis_config_reloads_total{result=\"failure\"}").await, 4.0);
    let reloads = eventually("the audit records", async || {
        let mut records = folder.records();
        records.retain(|record| record["operation"] == "configuration");
        (records.len() == 5).then_some(records)
    });
    let statuses: Vec<_> = reloads.await.iter().map(|record| record["status"].clone()).collect();
    assert_eq!(statuses, ["failure", "failure", "failure", "failure", "success"]);
    assert!(gateway.log().contains("verison"), "the operator is told: {}", gateway.log());
}

#[tokio::test]
async fn no_request_is_lost_in_twenty_reloads() {
    let mock = Mock::start();
    let folder = Folder::new(&mock.url);
    let gateway = Arc::new(Gateway::serve(&folder).await);
    let (over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut load = tokio::task::JoinSet::new();
    for turn in 0..4 {
        let (gateway, over, sent) = (Arc::clone(&gateway), Arc::clone(&over), Arc::clone(&sent));
        load.spawn(async move {
            let mut failures = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let request =
                    if turn % 2 == 0 { gateway.chat(QUICK) } else { gateway.stream(QUICK) };
                let answer = request.send().await.unwrap();
                let (status, body) = (answer.status().as_u16(), answer.text().await.unwrap());
                let whole = turn % 2 == 0 || body.ends_with("data: [DONE]\n\n");
                if status != 200 || !whole {
                    failures.push((status, body));
                }
                sent.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            failures
        });
    }
    for _ in 0..20 {
        gateway.reload("success").await;
    }
    over.store(true, Ordering::Relaxed);
    let failures: Vec<_> = load.join_all().await.into_iter().flatten().collect();
    assert!(failures.is_empty(), "{failures:?}");
    assert!(sent.load(Ordering::Relaxed) > 100, "there was load");
}
