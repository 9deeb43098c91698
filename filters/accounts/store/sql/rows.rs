//! Rows to values. A value that this program cannot have written is an error, not a default.

use std::str::FromStr;

use ipnet::IpNet;
use serde_json::Value;
use sqlx::any::AnyRow;
use sqlx::{Any, Decode, Row, Type};

use super::super::{Key, Result, Session, Source, StoreError, User};
use super::error::unexpected;

/// The columns that [`user`] reads.
macro_rules! user_columns {
    () => {
        "name, role, password_hash, disabled, source, mfa, epoch, created_at, created_by, \
         last_login_at"
    };
}

/// The start of a statement that gives what [`key`] reads.
macro_rules! select_keys {
    () => {
        "SELECT api_keys.id, user_name, name, digest, scopes, models, networks, quota, \
         expires_at, created_at, created_by, used_at, revoked_at, source, revision \
         FROM api_keys LEFT JOIN api_key_uses ON api_key_uses.id = api_keys.id "
    };
}

/// The start of a statement that gives what [`session`] reads.
macro_rules! select_sessions {
    () => {
        "SELECT sessions.id, user_name, created_at, used_at, expires_at, address, device, mfa \
         FROM sessions LEFT JOIN session_uses ON session_uses.id = sessions.id "
    };
}

pub(super) use {select_keys, select_sessions, user_columns};

pub(super) fn user(row: &AnyRow) -> Result<User> {
    Ok(User {
        name: column(row, "name")?,
        role: parsed(row, "role")?,
        password_hash: column(row, "password_hash")?,
        disabled: flag(row, "disabled")?,
        source: source(row)?,
        mfa: flag(row, "mfa")?,
        epoch: number(row, "epoch")?,
        created_at: number(row, "created_at")?,
        created_by: column(row, "created_by")?,
        last_login_at: some_number(row, "last_login_at")?,
    })
}

pub(super) fn key(row: &AnyRow) -> Result<Key> {
    Ok(Key {
        id: parsed(row, "id")?,
        user: column(row, "user_name")?,
        name: column(row, "name")?,
        digest: parsed(row, "digest")?,
        scopes: list(row, "scopes")?,
        models: list(row, "models")?,
        networks: networks(row)?,
        quota: column(row, "quota")?,
        expires_at: some_number(row, "expires_at")?,
        created_at: number(row, "created_at")?,
        created_by: column(row, "created_by")?,
        last_used_at: some_number(row, "used_at")?,
        revoked_at: some_number(row, "revoked_at")?,
        source: source(row)?,
    })
}

pub(super) fn session(row: &AnyRow) -> Result<Session> {
    let created_at = number(row, "created_at")?;
    Ok(Session {
        id: column(row, "id")?,
        user: column(row, "user_name")?,
        created_at,
        last_seen_at: some_number(row, "used_at")?.unwrap_or(created_at).max(created_at),
        expires_at: number(row, "expires_at")?,
        address: parsed(row, "address")?,
        device: column(row, "device")?,
        mfa: flag(row, "mfa")?,
    })
}

pub(super) fn column<'r, T>(row: &'r AnyRow, name: &str) -> Result<T>
where
    T: Decode<'r, Any> + Type<Any>,
{
    row.try_get(name).map_err(StoreError::from)
}

/// A time, a count or an epoch.
pub(super) fn number(row: &AnyRow, name: &str) -> Result<u64> {
    u64::try_from(column::<i64>(row, name)?).map_err(|_| unexpected())
}

pub(super) fn some_number(row: &AnyRow, name: &str) -> Result<Option<u64>> {
    let value: Option<i64> = column(row, name)?;
    value.map(u64::try_from).transpose().map_err(|_| unexpected())
}

pub(super) fn flag(row: &AnyRow, name: &str) -> Result<bool> {
    column::<i64>(row, name).map(|value| value != 0)
}

fn parsed<T: FromStr>(row: &AnyRow, name: &str) -> Result<T> {
    column::<&str>(row, name)?.parse().map_err(|_| unexpected())
}

fn list(row: &AnyRow, name: &str) -> Result<Vec<String>> {
    serde_json::from_str(column(row, name)?).map_err(|_| unexpected())
}

fn networks(row: &AnyRow) -> Result<Vec<IpNet>> {
    list(row, "networks")?.iter().map(|text| text.parse().map_err(|_| unexpected())).collect()
}

fn source(row: &AnyRow) -> Result<Source> {
    let name: &str = column(row, "source")?;
    let all = [Source::Store, Source::Config, Source::Issuer];
    all.into_iter().find(|source| source.as_str() == name).ok_or_else(unexpected)
}

/// As a column holds it. Numbers beyond its range are far in the future, and stay so.
pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A list as a column holds it.
pub(super) fn json<T: ToString>(list: &[T]) -> String {
    let texts: Vec<Value> = list.iter().map(|item| Value::String(item.to_string())).collect();
    Value::Array(texts).to_string()
}
