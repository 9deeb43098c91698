//! The users and keys of the configuration, made those of the store. What differs is changed, what
//! is equal is left alone, so that a restart changes nothing.

use std::collections::HashSet;

use secrecy::ExposeSecret;

use super::super::{Actor, Key, NewUser, Result, Source, User};
use super::query;
use super::rows::{column, integer, json, user};
use super::tx::Tx;

/// Who declared it; the change of a configuration is recorded by whoever loads it.
fn configuration() -> Actor {
    Actor { name: "configuration".into(), unrecorded: false }
}

impl Tx<'_> {
    pub(super) async fn declare(
        &mut self,
        users: &[NewUser],
        keys: &[Key],
        now: u64,
    ) -> Result<()> {
        self.lock().await?;
        for user in users {
            self.declare_user(user, now).await?;
        }
        for key in keys {
            self.declare_key(key).await?;
        }
        self.undeclare_keys(keys, now).await?;
        self.undeclare_users(users, now).await
    }

    async fn declare_user(&mut self, new: &NewUser, now: u64) -> Result<()> {
        let declared = NewUser { source: Source::Config, ..new.clone() };
        let Some(row) = self.user_row(&new.name).await? else {
            return self.create_user(&declared, now, &configuration()).await.map(drop);
        };
        let before = user(&row)?;
        let hash = if before.source == Source::Config {
            column(&row, "declared_hash")?
        } else {
            before.password_hash.clone()
        };
        let other_password = hash != new.password_hash;
        if before.source != Source::Config {
            self.adopt(&before).await?;
        }
        if other_password {
            self.set_password(&new.name, new.password_hash.as_ref(), true).await?;
        }
        if before.role != new.role {
            self.set_standing(&new.name, new.role, before.disabled).await?;
        }
        if other_password || new.role < before.role {
            self.begin_epoch(&new.name, now).await?;
        }
        self.declare_email(new).await
    }

    /// Makes a user of the store a declared one, with the password it has.
    async fn adopt(&mut self, before: &User) -> Result<()> {
        let revision = self.change().await?;
        query(
            "UPDATE users SET source = $1, declared_hash = password_hash, revision = $2 \
             WHERE name = $3",
        )
        .bind(Source::Config.as_str())
        .bind(revision)
        .bind(before.name.as_str())
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    /// An address that is not declared may have been set otherwise, and stays.
    async fn declare_email(&mut self, new: &NewUser) -> Result<()> {
        let Some(email) = &new.email else { return Ok(()) };
        let before = self.email(&new.name).await?;
        if before.is_some_and(|before| before.expose_secret() == email.expose_secret()) {
            return Ok(());
        }
        self.set_email(&new.name, Some(email)).await
    }

    async fn declare_key(&mut self, new: &Key) -> Result<()> {
        let Some((before, undeclared)) = self.declared_key(new.id).await? else {
            return self.insert_key(&Key { source: Source::Config, ..new.clone() }).await;
        };
        if !undeclared && is_same(&before, new) {
            return Ok(());
        }
        // Another secret is another key; with the same one, what was revoked stays so.
        let revoked_at =
            before.revoked_at.filter(|_| !undeclared && before.digest.matches(&new.digest));
        self.replace_key(new, revoked_at).await
    }

    async fn replace_key(&mut self, new: &Key, revoked_at: Option<u64>) -> Result<()> {
        let revision = self.change().await?;
        query(
            "UPDATE api_keys SET user_name = $1, name = $2, digest = $3, scopes = $4, \
             models = $5, networks = $6, quota = $7, expires_at = $8, revoked_at = $9, \
             undeclared = 0, source = $10, revision = $11 WHERE id = $12",
        )
        .bind(new.user.as_str())
        .bind(new.name.as_str())
        .bind(new.digest.to_string())
        .bind(json(&new.scopes))
        .bind(json(&new.models))
        .bind(json(&new.networks))
        .bind(new.quota.as_deref())
        .bind(new.expires_at.map(integer))
        .bind(revoked_at.map(integer))
        .bind(Source::Config.as_str())
        .bind(revision)
        .bind(new.id.to_string())
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    async fn undeclare_keys(&mut self, declared: &[Key], now: u64) -> Result<()> {
        let declared: HashSet<String> = declared.iter().map(|key| key.id.to_string()).collect();
        let sql = "SELECT id FROM api_keys WHERE source = 'config' AND revoked_at IS NULL";
        for id in self.texts(sql, "id").await?.into_iter().filter(|id| !declared.contains(id)) {
            let revision = self.change().await?;
            query(
                "UPDATE api_keys SET revoked_at = $1, undeclared = 1, revision = $2 WHERE id = $3",
            )
            .bind(integer(now))
            .bind(revision)
            .bind(id)
            .execute(&mut *self.conn)
            .await?;
        }
        Ok(())
    }

    async fn undeclare_users(&mut self, declared: &[NewUser], now: u64) -> Result<()> {
        let declared: HashSet<&str> = declared.iter().map(|user| user.name.as_str()).collect();
        let names = self.texts("SELECT name FROM users WHERE source = 'config'", "name").await?;
        for name in names.iter().filter(|name| !declared.contains(name.as_str())) {
            self.remove_user(name, now).await?;
        }
        Ok(())
    }

    async fn texts(&mut self, sql: &'static str, name: &str) -> Result<Vec<String>> {
        let rows = query(sql).fetch_all(&mut *self.conn).await?;
        rows.iter().map(|row| column(row, name)).collect()
    }
}

/// Whether the declaration says what the store has.
fn is_same(stored: &Key, declared: &Key) -> bool {
    stored.source == Source::Config
        && stored.digest.matches(&declared.digest)
        && (&stored.user, &stored.name) == (&declared.user, &declared.name)
        && (&stored.scopes, &stored.models) == (&declared.scopes, &declared.models)
        && (&stored.networks, &stored.quota) == (&declared.networks, &declared.quota)
        && stored.expires_at == declared.expires_at
}
