//! The operations of the trait, each in a transaction of the right kind and bounded in time.
//!
//! Arguments are copied, because the work goes on where the caller may already be gone.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;

use super::super::{
    Actor, Changes, EmergencyLimits, Event, Key, NewUser, QuotaOverride, Result, Revoked, Session,
    Standing, Store, StrictFirewall, ThrottleLimits, Touches, User, UserChange,
};
use super::upkeep::{EXPIRED, ORPHANS, Used};
use super::{Kind, SqlStore};
use crate::accounts::api_key::KeyId;
use crate::standing::SubjectName;

/// Uses that are written down in one transaction.
const TOUCHES: usize = 200;

/// `self`, the kind, the time it may take; what is copied; the operation.
macro_rules! operation {
    ($store:ident, $kind:ident, $limit:ident, [$($copied:ident),*], |$tx:ident| $work:expr) => {{
        $(let $copied = $copied.to_owned();)*
        let limit = $store.$limit();
        $store.run(Kind::$kind, limit, move |mut $tx| Box::pin(async move { $work.await })).await
    }};
}

#[async_trait]
impl Store for SqlStore {
    async fn revision(&self) -> Result<u64> {
        operation!(self, Read, usual, [], |tx| tx.revision())
    }

    async fn changes(&self, since: u64) -> Result<Changes> {
        operation!(self, Snapshot, long, [], |tx| tx.changes(since))
    }

    async fn user(&self, name: &str) -> Result<Option<User>> {
        operation!(self, Read, usual, [name], |tx| tx.user(&name))
    }

    async fn users(&self) -> Result<Vec<User>> {
        operation!(self, Read, long, [], |tx| tx.users())
    }

    async fn email(&self, name: &str) -> Result<Option<SecretString>> {
        operation!(self, Read, usual, [name], |tx| tx.email(&name))
    }

    async fn create_user(&self, user: NewUser, now: u64, by: &Actor) -> Result<User> {
        operation!(self, Write, usual, [by], |tx| tx.create_user(&user, now, &by))
    }

    async fn update_user(
        &self,
        name: &str,
        change: UserChange,
        now: u64,
        by: &Actor,
    ) -> Result<User> {
        operation!(self, Write, usual, [name, by], |tx| tx.update_user(&name, &change, now, &by))
    }

    async fn rehash(&self, name: &str, old: &str, new: &str) -> Result<()> {
        operation!(self, Write, usual, [name, old, new], |tx| tx.rehash(&name, &old, &new))
    }

    async fn delete_user(&self, name: &str, now: u64, by: &Actor) -> Result<Revoked> {
        operation!(self, Write, usual, [name, by], |tx| tx.delete_user(&name, now, &by))
    }

    async fn declare(&self, users: &[NewUser], keys: &[Key], now: u64) -> Result<()> {
        operation!(self, Write, long, [users, keys], |tx| tx.declare(&users, &keys, now))
    }

    async fn begin_mfa(
        &self,
        name: &str,
        secret: &SecretString,
        codes: &[String],
        now: u64,
        by: &Actor,
    ) -> Result<()> {
        operation!(self, Write, usual, [name, secret, codes, by], |tx| tx
            .begin_mfa(&name, &secret, &codes, now, &by))
    }

    async fn mfa(&self, name: &str) -> Result<Option<(SecretString, bool)>> {
        operation!(self, Read, usual, [name], |tx| tx.mfa(&name))
    }

    async fn use_totp(&self, name: &str, step: u64, _now: u64) -> Result<bool> {
        operation!(self, Write, usual, [name], |tx| tx.use_totp(&name, step))
    }

    async fn use_backup_code(&self, name: &str, digest: &str) -> Result<bool> {
        operation!(self, Write, usual, [name, digest], |tx| tx.use_backup_code(&name, &digest))
    }

    async fn backup_codes(&self, name: &str) -> Result<u64> {
        operation!(self, Read, usual, [name], |tx| tx.backup_codes(&name))
    }

    async fn remove_mfa(&self, name: &str, now: u64, by: &Actor) -> Result<()> {
        operation!(self, Write, usual, [name, by], |tx| tx.remove_mfa(&name, now, &by))
    }

    async fn create_key(&self, key: &Key, by: &Actor) -> Result<()> {
        operation!(self, Write, usual, [key, by], |tx| tx.create_key(&key, &by))
    }

    async fn keys(&self, user: Option<&str>) -> Result<Vec<Key>> {
        let user = user.map(str::to_owned);
        operation!(self, Read, long, [], |tx| tx.keys(user.as_deref()))
    }

    async fn revoke_key(&self, id: KeyId, now: u64, by: &Actor) -> Result<bool> {
        operation!(self, Write, usual, [by], |tx| tx.revoke_key(id, now, &by))
    }

    async fn rotate_key(
        &self,
        old: KeyId,
        old_expires_at: u64,
        new: &Key,
        by: &Actor,
    ) -> Result<()> {
        operation!(self, Write, usual, [new, by], |tx| tx.rotate_key(
            old,
            old_expires_at,
            &new,
            &by
        ))
    }

    async fn open_session(&self, session: &Session) -> Result<()> {
        operation!(self, Write, usual, [session], |tx| tx.open_session(&session))
    }

    async fn sessions(&self, user: &str, now: u64) -> Result<Vec<Session>> {
        operation!(self, Read, usual, [user], |tx| tx.sessions(&user, now))
    }

    async fn revoke_session(&self, user: &str, id: &str, now: u64, by: &Actor) -> Result<()> {
        operation!(self, Write, usual, [user, id, by], |tx| tx.revoke_session(&user, &id, now, &by))
    }

    async fn revoke_token(&self, id: &str, expires_at: u64, by: &Actor) -> Result<()> {
        operation!(self, Write, usual, [id, by], |tx| tx.revoke_token(&id, expires_at, &by))
    }

    async fn revoke_user(&self, name: &str, now: u64, by: &Actor) -> Result<Revoked> {
        operation!(self, Write, usual, [name, by], |tx| tx.revoke_user(&name, now, &by))
    }

    async fn revoke_all(&self, reason: &str, now: u64, by: &Actor) -> Result<Revoked> {
        operation!(self, Write, long, [reason, by], |tx| tx.revoke_all(&reason, now, &by))
    }

    async fn use_once(&self, id: &str, _now: u64, expires_at: u64) -> Result<bool> {
        operation!(self, Write, usual, [id], |tx| tx.use_once(&id, expires_at))
    }

    async fn charge_login(
        &self,
        name: &str,
        address: IpAddr,
        limits: ThrottleLimits,
        now: u64,
    ) -> Result<std::result::Result<(), Duration>> {
        operation!(self, Write, usual, [name], |tx| tx.charge_login(&name, address, limits, now))
    }

    async fn forgive_login(&self, name: &str, address: IpAddr) -> Result<()> {
        operation!(self, Write, usual, [name], |tx| tx.forgive_login(&name, address))
    }

    async fn refund_login(&self, name: &str, address: IpAddr) -> Result<()> {
        operation!(self, Write, usual, [name], |tx| tx.refund_login(&name, address))
    }

    async fn set_override(&self, new: &QuotaOverride, by: &Actor) -> Result<Option<QuotaOverride>> {
        operation!(self, Write, usual, [new, by], |tx| tx.set_override(&new, &by))
    }

    async fn remove_override(
        &self,
        subject: &SubjectName,
        now: u64,
        by: &Actor,
    ) -> Result<QuotaOverride> {
        operation!(self, Write, usual, [subject, by], |tx| tx.remove_override(&subject, now, &by))
    }

    async fn reset_quota(
        &self,
        subject: &SubjectName,
        reason: &str,
        now: u64,
        by: &Actor,
    ) -> Result<()> {
        operation!(self, Write, usual, [subject, reason, by], |tx| tx
            .reset_quota(&subject, &reason, now, &by))
    }

    async fn set_emergency(
        &self,
        new: &EmergencyLimits,
        by: &Actor,
    ) -> Result<Option<EmergencyLimits>> {
        operation!(self, Write, usual, [new, by], |tx| tx.set_emergency(&new, &by))
    }

    async fn clear_emergency(&self, now: u64, by: &Actor) -> Result<Option<EmergencyLimits>> {
        operation!(self, Write, usual, [by], |tx| tx.clear_emergency(now, &by))
    }

    async fn set_strict_firewall(
        &self,
        new: &StrictFirewall,
        by: &Actor,
    ) -> Result<Option<StrictFirewall>> {
        operation!(self, Write, usual, [new, by], |tx| tx.set_strict_firewall(&new, &by))
    }

    async fn clear_strict_firewall(
        &self,
        reason: Option<&str>,
        now: u64,
        by: &Actor,
    ) -> Result<Option<StrictFirewall>> {
        let reason = reason.map(str::to_owned);
        operation!(self, Write, usual, [by], |tx| tx.clear_strict_firewall(
            reason.as_deref(),
            now,
            &by
        ))
    }

    async fn standing(&self) -> Result<Standing> {
        operation!(self, Snapshot, long, [], |tx| tx.standing())
    }

    async fn take_events(&self) -> Result<Vec<Event>> {
        operation!(self, Write, usual, [], |tx| tx.take_events())
    }

    async fn touch(&self, touches: &Touches) -> Result<()> {
        let keys = touches.keys.iter().map(|(id, at)| (id.to_string(), *at)).collect();
        self.write_down(Used::Key, keys).await?;
        self.write_down(Used::Session, touches.sessions.clone()).await
    }

    async fn prune(&self, now: u64) -> Result<()> {
        for statement in EXPIRED {
            operation!(self, Write, long, [], |tx| tx.forget(statement, now))?;
        }
        for statement in ORPHANS {
            operation!(self, Write, long, [], |tx| tx.forget_orphans(statement))?;
        }
        operation!(self, Write, usual, [], |tx| tx.forget_tombstones(now))
    }
}

impl SqlStore {
    /// A few at a time, so that others can write in between.
    async fn write_down(&self, used: Used, mut uses: Vec<(String, u64)>) -> Result<()> {
        uses.sort_unstable_by(|a, b| (&a.0, b.1).cmp(&(&b.0, a.1)));
        uses.dedup_by(|later, first| later.0 == first.0); // the latest use of an id comes first
        for some in uses.chunks(TOUCHES) {
            operation!(self, Write, usual, [some], |tx| tx.touch(used, &some))?;
        }
        Ok(())
    }
}
