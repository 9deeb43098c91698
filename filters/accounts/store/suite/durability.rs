//! What was acknowledged is there after the process was killed at any moment.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::super::Store;
use super::{Database, block_on, make};
use crate::accounts::AccountRole::User as Plain;

/// Where the child that is killed writes.
const VICTIM: &str = "PORTCULLIS_TEST_VICTIM";
/// Users that the child has made when it is killed, at least.
const ENOUGH: usize = 40;

#[test]
fn a_kill_loses_nothing_that_was_acknowledged_in_a_file() {
    survives(&Database::file());
}

#[test]
fn a_kill_loses_nothing_that_was_acknowledged_on_a_server() {
    if let Some(database) = Database::postgres() {
        survives(&database);
    }
}

fn survives(database: &Database) {
    for round in 0..3 {
        let acknowledged = kill_a_writer(database, round);
        assert!(acknowledged.len() >= ENOUGH, "{}", acknowledged.len());
        let store = database.open();
        block_on(async {
            for name in &acknowledged {
                assert!(store.user(name).await.unwrap().is_some(), "{name} is lost");
            }
            let changes = store.changes(0).await.unwrap();
            assert!(changes.revision >= u64::try_from(acknowledged.len()).unwrap());
        });
    }
}

/// Starts this test program again as the one that is killed, and gives the names it told of.
fn kill_a_writer(database: &Database, round: u32) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "--include-ignored"])
        .arg(concat!(module_path!(), "::victim").split_once("::").unwrap().1)
        .env(VICTIM, format!("{round} {}", database.url()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let told = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut names = Vec::new();
    for line in told.map_while(Result::ok) {
        names.extend(line.strip_prefix("acknowledged ").map(str::to_owned));
        if names.len() == ENOUGH {
            child.kill().unwrap(); // SIGKILL
        }
    }
    child.wait().unwrap();
    names
}

/// Makes users until it is killed. It does nothing unless it is told where.
#[test]
#[ignore = "it is started by the other tests here"]
fn victim() {
    let Ok(told) = std::env::var(VICTIM) else { return };
    let (round, url) = told.split_once(' ').unwrap();
    let options = super::StoreOptions { url: url.into(), ..Database::memory().options() };
    let store: Arc<dyn Store> = Arc::new(super::SqlStore::open(options).unwrap());
    block_on(async {
        for n in 0..100_000 {
            let name = format!("user-{round}-{n}");
            make(&store, &name, Plain).await;
            let mut out = std::io::stdout();
            writeln!(out, "acknowledged {name}").unwrap();
            out.flush().unwrap();
        }
    });
}
