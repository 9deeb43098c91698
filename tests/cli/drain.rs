use std::time::Duration;

use reqwest::Response;
use serde_json::Value;

use super::mock::{Mock, SLOW};
use super::support::{Folder, Gateway, eventually};

/// From the last byte of the last answer, or from SIGINT, to the end of the process.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A gateway with an open stream.
async fn streaming(mock: &Mock, folder: &Folder) -> (Gateway, Response) {
    let gateway = Gateway::serve(folder).await;
    let mut open = gateway.stream(SLOW).send().await.unwrap();
    assert_eq!(open.status(), 200);
    assert!(open.chunk().await.unwrap().unwrap().starts_with(b"data: "));
    assert_eq!(mock.seen().len(), 1);
    (gateway, open)
}

/// Status, error code, and whether the connection is closed.
async fn refusal(answer: Response) -> (u16, String, bool) {
    let status = answer.status().as_u16();
    let closes = answer.headers().get("connection").is_some_and(|value| value == "close");
    let body: Value = answer.json().await.unwrap();
    (status, body["error"]["code"].as_str().unwrap_or_default().to_owned(), closes)
}

/// Asserts that the stream has left its record.
fn assert_recorded(folder: &Folder, request_id: &str, status: &str) {
    let records = folder.records();
    let found: Vec<_> =
        records.iter().filter(|record| record["request_id"] == request_id).collect();
    assert_eq!(found.len(), 1, "one record of the stream: {records:?}");
    assert_eq!(found[0]["status"], status, "{}", found[0]);
}

fn id_of(answer: &Response) -> String {
    answer.headers()["x-request-id"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn sigterm_refuses_new_requests_and_finishes_open_ones() {
    let mock = Mock::start();
    let folder = Folder::new(&mock.url);
    let (mut gateway, open) = streaming(&mock, &folder).await;
    let id = id_of(&open);
    // Kept open and idle by the clients' pool: that must not hold the process up.
    assert_eq!(gateway.get("/readyz").await.status(), 200);

    gateway.signal("TERM");
    let ready = eventually("readyz says no", async || {
        let ready = gateway.get("/readyz").await;
        (ready.status() != 200).then_some(ready)
    });
    let (status, code, _) = refusal(ready.await).await;
    assert_eq!((status, &*code), (503, "draining"));
    let admin = gateway.client.get(format!("{}/readyz", gateway.admin)).send().await.unwrap();
    assert_eq!(admin.status(), 503);
    assert_eq!(gateway.get("/livez").await.status(), 200, "draining is alive");
    let new = gateway.chat(SLOW).send().await.unwrap();
    assert!(new.headers().contains_key("retry-after"));
    assert_eq!(refusal(new).await, (503, "draining".to_owned(), true));

    mock.release();
    let rest = open.text().await.unwrap();
    assert!(rest.ends_with("data: [DONE]\n\n"), "{rest}");
    assert_eq!(gateway.exit(AT_ONCE).code(), Some(0), "{}", gateway.log());
    assert_recorded(&folder, &id, "success");
    folder.verify_audit();
}

#[tokio::test]
async fn an_idle_gateway_ends_at_once() {
    let mock = Mock::start();
    let folder = Folder::new(&mock.url);
    let mut gateway = Gateway::serve(&folder).await;
    assert_eq!(gateway.get("/livez").await.status(), 200);
    gateway.signal("TERM");
    assert_eq!(gateway.exit(AT_ONCE).code(), Some(0), "{}", gateway.log());
    folder.verify_audit();
}

#[tokio::test]
async fn sigint_ends_at_once() {
    let mock = Mock::start();
    let folder = Folder::new(&mock.url);
    let (mut gateway, open) = streaming(&mock, &folder).await;
    let id = id_of(&open);
    gateway.signal("INT");
    assert_eq!(gateway.exit(AT_ONCE).code(), Some(0), "{}", gateway.log());
    assert_not_whole(open).await;
    assert_recorded(&folder, &id, "aborted");
    folder.verify_audit();
}

#[tokio::test]
async fn sigint_cuts_a_drain_short() {
    let mock = Mock::start();
    let folder = Folder::new(&mock.url);
    let (mut gateway, _open) = streaming(&mock, &folder).await;
    gateway.signal("TERM");
    eventually("readyz says no", async || {
        (gateway.get("/readyz").await.status() != 200).then_some(())
    })
    .await;
    gateway.signal("INT");
    assert_eq!(gateway.exit(AT_ONCE).code(), Some(0), "{}", gateway.log());
    folder.verify_audit();
}

#[tokio::test]
async fn a_stream_without_end_is_cut_after_the_drain_timeout() {
    let mock = Mock::start();
    let folder = Folder::new(&mock.url);
    folder.edit("20s", "300ms");
    let (mut gateway, open) = streaming(&mock, &folder).await;
    let id = id_of(&open);
    gateway.signal("TERM");
    assert_eq!(gateway.exit(Duration::from_millis(300) + AT_ONCE).code(), Some(0));
    assert_not_whole(open).await;
    assert_recorded(&folder, &id, "aborted");
    folder.verify_audit();
}

/// A stream that was cut is never taken for a whole one.
async fn assert_not_whole(open: Response) {
    let rest = open.text().await;
    assert!(rest.as_ref().is_ok_and(|rest| !rest.contains("[DONE]")) || rest.is_err(), "{rest:?}");
}
