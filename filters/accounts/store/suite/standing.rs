//! Limits and the firewall, as operators change them: set, replaced, taken back, and told to every
//! reader once.

use std::sync::Arc;

use super::super::{
    Changes, EmergencyLimits, QuotaOverride, Standing, Store, StoreError, StrictFirewall, Told,
};
use super::{NOW, admin, make, on_every_database, operator};
use crate::accounts::AccountRole::User as Plain;
use crate::config::Quota;
use crate::standing::SubjectName;

on_every_database!(
    overrides_are_set_replaced_and_taken_back,
    emergencies_are_set_replaced_and_taken_back,
    a_strict_firewall_is_set_replaced_and_taken_back,
    readers_are_told_of_changes_once,
    a_reset_is_told_to_those_who_were_there,
    what_the_command_line_does_is_noted,
    what_is_over_is_forgotten,
);

fn name(text: &str) -> SubjectName {
    SubjectName::parse(text).unwrap()
}

fn limit(subject: &str, concurrent: u32) -> QuotaOverride {
    QuotaOverride {
        subject: name(subject),
        quota: Quota { concurrent: Some(concurrent), burst: 3, ..Quota::default() },
        ends_at: Some(NOW + 60),
        reason: "a test".into(),
        set_by: "root".into(),
        set_at: NOW,
    }
}

fn emergency(per_user: u32) -> EmergencyLimits {
    EmergencyLimits {
        per_user,
        per_address: 50,
        ends_at: NOW + 60,
        reason: "a flood".into(),
        set_by: "root".into(),
        set_at: NOW,
    }
}

fn strict(ends_at: Option<u64>) -> StrictFirewall {
    StrictFirewall { ends_at, reason: "a wave".into(), set_by: "root".into(), set_at: NOW }
}

async fn overrides_are_set_replaced_and_taken_back(store: Arc<dyn Store>) {
    let by = admin();
    let (first, other) = (limit("user/alice", 1), limit("global", 9));
    let second = QuotaOverride { ends_at: None, ..limit("user/alice", 2) };
    assert_eq!(store.set_override(&first, &by).await, Ok(None));
    assert_eq!(store.set_override(&other, &by).await, Ok(None));
    assert_eq!(store.set_override(&second, &by).await, Ok(Some(first)));
    let both = vec![second.clone(), other.clone()];
    let expected = Standing { overrides: both, ..Standing::default() };
    assert_eq!(store.standing().await, Ok(expected));
    assert_eq!(store.remove_override(&name("user/alice"), NOW, &by).await, Ok(second));
    let again = store.remove_override(&name("user/alice"), NOW, &by).await;
    assert_eq!(again, Err(StoreError::NotFound));
    assert_eq!(store.standing().await.unwrap().overrides, [other]);
}

async fn emergencies_are_set_replaced_and_taken_back(store: Arc<dyn Store>) {
    let by = admin();
    assert_eq!(store.clear_emergency(NOW, &by).await, Ok(None));
    assert_eq!(store.set_emergency(&emergency(10), &by).await, Ok(None));
    assert_eq!(store.set_emergency(&emergency(5), &by).await, Ok(Some(emergency(10))));
    assert_eq!(store.standing().await.unwrap().emergency, Some(emergency(5)));
    assert_eq!(store.clear_emergency(NOW, &by).await, Ok(Some(emergency(5))));
    assert_eq!(store.standing().await, Ok(Standing::default()));
}

async fn a_strict_firewall_is_set_replaced_and_taken_back(store: Arc<dyn Store>) {
    let (by, short, long) = (admin(), strict(Some(NOW + 60)), strict(None));
    assert_eq!(store.clear_strict_firewall(None, NOW, &by).await, Ok(None));
    assert_eq!(store.set_strict_firewall(&short, &by).await, Ok(None));
    assert_eq!(store.set_strict_firewall(&long, &by).await, Ok(Some(short)));
    let expected = Standing { firewall: Some(long.clone()), ..Standing::default() };
    assert_eq!(store.standing().await, Ok(expected));
    assert_eq!(store.clear_emergency(NOW, &by).await, Ok(None), "each measure is by itself");
    assert_eq!(store.clear_strict_firewall(Some("calm"), NOW, &by).await, Ok(Some(long)));
    assert_eq!(store.standing().await, Ok(Standing::default()));
}

async fn readers_are_told_of_changes_once(store: Arc<dyn Store>) {
    make(&store, "alice", Plain).await;
    let mut seen = store.revision().await.unwrap();
    assert_eq!(store.changes(0).await.unwrap().standing, Some(Standing::default()));
    for step in 0..6 {
        match step {
            0 => drop(store.set_override(&limit("user/alice", 1), &admin()).await.unwrap()),
            1 => drop(store.set_emergency(&emergency(10), &admin()).await.unwrap()),
            2 => {
                drop(store.remove_override(&name("user/alice"), NOW, &admin()).await.unwrap());
            }
            3 => drop(store.clear_emergency(NOW, &admin()).await.unwrap()),
            4 => drop(store.set_strict_firewall(&strict(None), &admin()).await.unwrap()),
            _ => drop(store.clear_strict_firewall(None, NOW, &admin()).await.unwrap()),
        }
        let Changes { revision, full, standing, .. } = store.changes(seen).await.unwrap();
        assert_eq!((revision, full), (seen + 1, false), "step {step}");
        assert_eq!(standing, Some(store.standing().await.unwrap()), "step {step}");
        seen = revision;
    }
    store.revoke_user("alice", NOW, &admin()).await.unwrap();
    assert_eq!(store.changes(seen).await.unwrap().standing, None, "it did not change");
    let before = store.revision().await;
    store.clear_emergency(NOW, &admin()).await.unwrap();
    store.clear_strict_firewall(None, NOW, &admin()).await.unwrap();
    assert_eq!(store.revision().await, before, "there was none");
}

async fn a_reset_is_told_to_those_who_were_there(store: Arc<dyn Store>) {
    make(&store, "alice", Plain).await;
    let start = store.revision().await.unwrap();
    let resets = async |since| {
        let resets = store.changes(since).await.unwrap().resets.into_iter();
        resets.map(|reset| reset.subject).collect::<Vec<_>>()
    };
    store.reset_quota(&name("user/alice"), "a test", NOW, &admin()).await.unwrap();
    let first = store.revision().await.unwrap();
    store.reset_quota(&name("global"), "a test", NOW, &admin()).await.unwrap();
    let second = store.revision().await.unwrap();
    assert_eq!(resets(start).await, [name("user/alice"), name("global")]);
    assert_eq!(resets(first).await, [name("global")]);
    assert_eq!(resets(second).await, []);
    assert_eq!(resets(0).await, [], "who starts has nothing to forget");
    assert_eq!(resets(second + 9).await, [], "an older copy of the store came back");
    store.reset_quota(&name("user/alice"), "again", NOW + 1, &admin()).await.unwrap();
    assert_eq!(resets(second).await, [name("user/alice")]);
    assert_eq!(store.changes(second).await.unwrap().standing, None);
}

async fn what_the_command_line_does_is_noted(store: Arc<dyn Store>) {
    let by = operator();
    store.set_override(&limit("user/alice", 1), &by).await.unwrap();
    store.set_override(&limit("user/alice", 2), &by).await.unwrap();
    store.remove_override(&name("user/alice"), NOW, &by).await.unwrap();
    store.reset_quota(&name("global"), "a test", NOW, &by).await.unwrap();
    store.set_emergency(&emergency(10), &by).await.unwrap();
    store.clear_emergency(NOW, &by).await.unwrap();
    store.set_emergency(&emergency(10), &admin()).await.unwrap();
    store.set_strict_firewall(&strict(None), &by).await.unwrap();
    store.clear_strict_firewall(Some("calm"), NOW, &by).await.unwrap();
    store.set_strict_firewall(&strict(None), &admin()).await.unwrap();
    let events = store.take_events().await.unwrap();
    let noted: Vec<_> = events.iter().map(|e| (e.action.as_str(), e.target.as_str())).collect();
    let expected = [
        ("quota.set", "user/alice"),
        ("quota.set", "user/alice"),
        ("quota.unset", "user/alice"),
        ("quota.reset", "global"),
        ("emergency.rate_limit_on", "everybody"),
        ("emergency.rate_limit_off", "everybody"),
        ("emergency.sanitization_on", "everybody"),
        ("emergency.sanitization_off", "everybody"),
    ];
    assert_eq!(noted, expected);
    let told = |concurrent: u32| {
        format!("{{\"limits\":{{\"concurrent\":{concurrent}}},\"until\":{}}}", NOW + 60)
    };
    let expected =
        Told { before: Some(told(1)), after: Some(told(2)), reason: Some("a test".into()) };
    assert_eq!(events[1].told, expected);
    assert_eq!(events[2].told, Told { before: Some(told(2)), ..Told::default() });
    let told = "{\"level\":\"strict\",\"until\":null}".to_owned();
    let on = Told { after: Some(told.clone()), reason: Some("a wave".into()), before: None };
    let off = Told { before: Some(told), reason: Some("calm".into()), after: None };
    assert_eq!((&events[6].told, &events[7].told), (&on, &off));
}

async fn what_is_over_is_forgotten(store: Arc<dyn Store>) {
    let by = admin();
    let forever = QuotaOverride { ends_at: None, ..limit("global", 9) };
    store.set_override(&limit("user/alice", 1), &by).await.unwrap();
    store.set_override(&forever, &by).await.unwrap();
    store.set_emergency(&emergency(10), &by).await.unwrap();
    store.set_strict_firewall(&strict(Some(NOW + 60)), &by).await.unwrap();
    let before = store.revision().await.unwrap();
    store.reset_quota(&name("user/alice"), "a test", NOW, &by).await.unwrap();
    store.prune(NOW + 59).await.unwrap();
    let standing = store.standing().await.unwrap();
    assert_eq!((standing.overrides.len(), standing.emergency.is_some()), (2, true));
    assert!(standing.firewall.is_some());
    store.prune(NOW + 60).await.unwrap();
    let left = Standing { overrides: vec![forever], ..Standing::default() };
    assert_eq!(store.standing().await.unwrap(), left);
    assert_eq!(store.changes(before).await.unwrap().resets.len(), 1);
    store.set_strict_firewall(&strict(None), &by).await.unwrap();
    store.prune(NOW + 86_400).await.unwrap();
    assert_eq!(store.changes(before).await.unwrap().resets, []);
    assert_eq!(store.standing().await.unwrap().firewall, Some(strict(None)), "it has no end");
}
