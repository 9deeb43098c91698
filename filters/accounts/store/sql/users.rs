//! Users: made, changed, removed.

use secrecy::SecretString;
use sqlx::any::AnyRow;

use super::super::seal::Place;
use super::super::{Actor, NewUser, Result, Revoked, Source, StoreError, User, UserChange};
use super::query;
use super::rows::{column, integer, number, user, user_columns};
use super::tx::Tx;
use crate::accounts::AccountRole;

impl Tx<'_> {
    pub(super) async fn user(&mut self, name: &str) -> Result<Option<User>> {
        let row = self.user_row(name).await?;
        row.as_ref().map(user).transpose()
    }

    pub(super) async fn users(&mut self) -> Result<Vec<User>> {
        let sql = concat!("SELECT ", user_columns!(), " FROM users");
        let rows = query(sql).fetch_all(&mut *self.conn).await?;
        let mut users = rows.iter().map(user).collect::<Result<Vec<_>>>()?;
        users.sort_unstable_by(|a, b| a.name.cmp(&b.name)); // databases sort by language
        Ok(users)
    }

    pub(super) async fn email(&mut self, name: &str) -> Result<Option<SecretString>> {
        let Some(row) = self.user_row(name).await? else { return Err(StoreError::NotFound) };
        let sealed: Option<&str> = column(&row, "email")?;
        sealed.map(|sealed| self.seals.open(email_of(name), sealed)).transpose()
    }

    pub(super) async fn create_user(
        &mut self,
        new: &NewUser,
        now: u64,
        by: &Actor,
    ) -> Result<User> {
        let revision = self.change().await?;
        let again = self.forget_tombstone(&new.name, revision).await?;
        let email = new.email.as_ref().map(|email| self.seals.seal(email_of(&new.name), email));
        let declared = (new.source == Source::Config).then_some(new.password_hash.as_deref());
        query(
            "INSERT INTO users (name, role, password_hash, declared_hash, email, disabled, \
             source, mfa, epoch, created_at, created_by, revision) \
             VALUES ($1, $2, $3, $4, $5, 0, $6, 0, $7, $8, $9, $10)",
        )
        .bind(new.name.as_str())
        .bind(new.role.as_str())
        .bind(new.password_hash.as_deref())
        .bind(declared.flatten())
        .bind(email.transpose()?)
        .bind(new.source.as_str())
        .bind(self.first_epoch(now, again).await?)
        .bind(integer(now))
        .bind(by.name.as_str())
        .bind(revision)
        .execute(&mut *self.conn)
        .await?;
        self.note(by, now, "user.create", &new.name).await?;
        self.existing(&new.name).await
    }

    pub(super) async fn update_user(
        &mut self,
        name: &str,
        change: &UserChange,
        now: u64,
        by: &Actor,
    ) -> Result<User> {
        self.change().await?;
        let before = self.existing(name).await?;
        refuse_declared(&before, change)?;
        let role = change.role.unwrap_or(before.role);
        let disabled = change.disabled.unwrap_or(before.disabled);
        if is_active_owner(&before) && (role != AccountRole::Owner || disabled) {
            self.keep_an_owner(name).await?;
        }
        self.set_standing(name, role, disabled).await?;
        if let Some(hash) = &change.password_hash {
            self.set_password(name, Some(hash), false).await?;
        }
        if let Some(email) = &change.email {
            self.set_email(name, email.as_ref()).await?;
        }
        let told_by_tokens = before.source == Source::Issuer;
        let weaker = (role < before.role && !told_by_tokens) || (disabled && !before.disabled);
        if weaker || change.password_hash.is_some() {
            self.begin_epoch(name, now).await?;
        }
        self.note_update(&before, change, now, by).await?;
        self.existing(name).await
    }

    async fn note_update(
        &mut self,
        before: &User,
        change: &UserChange,
        now: u64,
        by: &Actor,
    ) -> Result<()> {
        let changes = [
            (change.role.is_some_and(|role| role != before.role), "user.role"),
            (change.disabled == Some(true) && !before.disabled, "user.disable"),
            (change.disabled == Some(false) && before.disabled, "user.enable"),
            (change.password_hash.is_some(), "user.password"),
            (change.email.is_some(), "user.email"),
        ];
        for (_, action) in changes.into_iter().filter(|(changed, _)| *changed) {
            self.note(by, now, action, &before.name).await?;
        }
        Ok(())
    }

    pub(super) async fn rehash(&mut self, name: &str, old: &str, new: &str) -> Result<()> {
        let revision = self.change().await?;
        query(
            "UPDATE users SET password_hash = $1, revision = $2 \
             WHERE name = $3 AND password_hash = $4",
        )
        .bind(new)
        .bind(revision)
        .bind(name)
        .bind(old)
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    pub(super) async fn delete_user(
        &mut self,
        name: &str,
        now: u64,
        by: &Actor,
    ) -> Result<Revoked> {
        self.change().await?;
        let user = self.existing(name).await?;
        if user.source == Source::Config {
            return Err(StoreError::Declared);
        }
        if is_active_owner(&user) {
            self.keep_an_owner(name).await?;
        }
        let revoked = self.remove_user(name, now).await?;
        self.note(by, now, "user.delete", name).await?;
        Ok(revoked)
    }

    pub(super) async fn set_standing(
        &mut self,
        name: &str,
        role: AccountRole,
        disabled: bool,
    ) -> Result<()> {
        let revision = self.change().await?;
        query("UPDATE users SET role = $1, disabled = $2, revision = $3 WHERE name = $4")
            .bind(role.as_str())
            .bind(i64::from(disabled))
            .bind(revision)
            .bind(name)
            .execute(&mut *self.conn)
            .await?;
        Ok(())
    }

    /// Sets the password. What the configuration declares is remembered apart, because the hash is
    /// replaced when it is made stronger.
    pub(super) async fn set_password(
        &mut self,
        name: &str,
        hash: Option<&String>,
        declared: bool,
    ) -> Result<()> {
        let revision = self.change().await?;
        query(
            "UPDATE users SET password_hash = $1, declared_hash = $2, revision = $3 \
             WHERE name = $4",
        )
        .bind(hash)
        .bind(hash.filter(|_| declared))
        .bind(revision)
        .bind(name)
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    pub(super) async fn set_email(
        &mut self,
        name: &str,
        email: Option<&SecretString>,
    ) -> Result<()> {
        let sealed = email.map(|email| self.seals.seal(email_of(name), email)).transpose()?;
        query("UPDATE users SET email = $1 WHERE name = $2")
            .bind(sealed)
            .bind(name)
            .execute(&mut *self.conn)
            .await?;
        Ok(())
    }

    /// Refuses if no other owner is there; one whom an issuer vouches for can be gone tomorrow. The
    /// counter is taken, so two cannot leave at once.
    async fn keep_an_owner(&mut self, name: &str) -> Result<()> {
        let sql = "SELECT COUNT(*) AS others FROM users \
                   WHERE role = 'owner' AND disabled = 0 AND source <> 'issuer' AND name <> $1";
        let row = query(sql).bind(name).fetch_one(&mut *self.conn).await?;
        if number(&row, "others")? == 0 { Err(StoreError::LastOwner) } else { Ok(()) }
    }

    pub(super) async fn existing(&mut self, name: &str) -> Result<User> {
        self.user(name).await?.ok_or(StoreError::NotFound)
    }

    pub(super) async fn user_row(&mut self, name: &str) -> Result<Option<AnyRow>> {
        if name.contains('\0') {
            return Ok(None); // Postgres has no texts with NUL, so nobody is called that
        }
        let sql = concat!(
            "SELECT ",
            user_columns!(),
            ", declared_hash, email FROM users WHERE name = $1"
        );
        Ok(query(sql).bind(name).fetch_optional(&mut *self.conn).await?)
    }
}

/// Where the e-mail address of a user stands.
pub(super) const fn email_of(name: &str) -> Place<'_> {
    Place { column: "users.email", row: name }
}

/// Whether it is one of the owners of whom one must stay: those of an issuer do not count.
fn is_active_owner(user: &User) -> bool {
    user.role == AccountRole::Owner && !user.disabled && user.source != Source::Issuer
}

/// Role and password of a declared user are the configuration's. It knows no disabled users: that
/// is done and undone here.
fn refuse_declared(user: &User, change: &UserChange) -> Result<()> {
    let role = change.role.is_some_and(|role| role != user.role);
    let declared = user.source == Source::Config && (role || change.password_hash.is_some());
    if declared { Err(StoreError::Declared) } else { Ok(()) }
}
