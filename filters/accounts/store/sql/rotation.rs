//! The rotation of `store_key`: when a store is opened, what the previous key sealed is sealed anew.
//!
//! A few rows at a time, each only if nobody changed it meanwhile, so that a gateway that still has
//! the previous key as its current one can go on.

use super::super::Result;
use super::super::seal::{MARK_LEN, Place};
use super::mfa::secret_of;
use super::rows::{column, integer};
use super::tx::Tx;
use super::users::email_of;
use super::{Inner, Kind, query, unavailable};

/// Rows that are sealed anew in one transaction.
const BATCH: usize = 200;

/// A column that holds sealed texts.
#[derive(Clone, Copy)]
struct Column {
    /// Gives the start of every sealed text, once.
    marks: &'static str,
    /// Gives some rows after a name that begin with a mark.
    some: &'static str,
    /// Replaces a text that is still the same.
    replace: &'static str,
    place: fn(&str) -> Place<'_>,
}

const COLUMNS: [Column; 2] = [
    Column {
        marks: "SELECT DISTINCT substr(email, 1, CAST($1 AS INTEGER)) AS mark FROM users WHERE email IS NOT NULL",
        some: "SELECT name AS id, email AS sealed FROM users \
               WHERE substr(email, 1, CAST($1 AS INTEGER)) = $2 AND name > $3 ORDER BY name LIMIT $4",
        replace: "UPDATE users SET email = $1 WHERE name = $2 AND email = $3",
        place: email_of,
    },
    Column {
        marks: "SELECT DISTINCT substr(secret, 1, CAST($1 AS INTEGER)) AS mark FROM second_factors",
        some: "SELECT user_name AS id, secret AS sealed FROM second_factors \
               WHERE substr(secret, 1, CAST($1 AS INTEGER)) = $2 AND user_name > $3 ORDER BY user_name LIMIT $4",
        replace: "UPDATE second_factors SET secret = $1 WHERE user_name = $2 AND secret = $3",
        place: secret_of,
    },
];

impl Inner {
    /// Seals anew what is due.
    ///
    /// # Errors
    /// If something was sealed under a key that is not given: it is refused here, before anybody
    /// relies on it.
    pub(super) async fn rotate(&self) -> Result<()> {
        for of in COLUMNS {
            let marks = self.run(Kind::Read, |mut tx| Box::pin(async move { tx.marks(of).await }));
            let marks = marks.await?;
            self.refuse_unknown(&marks)?;
            if marks.iter().any(|mark| self.is_due(mark)) {
                self.seal_anew(of).await?;
            }
        }
        Ok(())
    }

    fn refuse_unknown(&self, marks: &[String]) -> Result<()> {
        let known = [self.seals.current_mark(), self.seals.previous_mark()];
        let unknown = marks.iter().find(|mark| !known.contains(&Some(mark.as_str())));
        unknown.map_or(Ok(()), |mark| {
            Err(unavailable(format!(
                "it holds values that were sealed under the key {mark:?}, which neither store_key \
                 nor store_key_previous is"
            )))
        })
    }

    fn is_due(&self, mark: &str) -> bool {
        self.seals.current_mark().is_some()
            && self.seals.previous_mark() == Some(mark)
            && self.seals.current_mark() != Some(mark)
    }

    async fn seal_anew(&self, of: Column) -> Result<()> {
        let mut after = Some(String::new());
        while let Some(last) = after {
            let batch = self
                .run(Kind::Write, |mut tx| Box::pin(async move { tx.seal_batch(of, &last).await }));
            after = batch.await?;
        }
        Ok(())
    }
}

impl Tx<'_> {
    async fn marks(&mut self, of: Column) -> Result<Vec<String>> {
        let rows = query(of.marks).bind(length(MARK_LEN)).fetch_all(&mut *self.conn).await?;
        rows.iter().map(|row| column(row, "mark")).collect()
    }

    /// Gives the last name of the batch, if there was one. A text that is not genuine is left as it
    /// is: it says so to whoever asks for it.
    async fn seal_batch(&mut self, of: Column, after: &str) -> Result<Option<String>> {
        let Some(mark) = self.seals.previous_mark() else { return Ok(None) };
        let some = query(of.some).bind(length(MARK_LEN)).bind(mark).bind(after);
        let rows = some.bind(length(BATCH)).fetch_all(&mut *self.conn).await?;
        let mut last = None;
        for row in &rows {
            let (id, sealed): (String, String) = (column(row, "id")?, column(row, "sealed")?);
            if let Ok(text) = self.seals.open((of.place)(&id), &sealed) {
                let anew = self.seals.seal((of.place)(&id), &text)?;
                let replacing = query(of.replace).bind(anew).bind(id.as_str()).bind(sealed);
                replacing.execute(&mut *self.conn).await?;
            }
            last = Some(id);
        }
        Ok(last)
    }
}

fn length(of: usize) -> i64 {
    integer(u64::try_from(of).unwrap_or(u64::MAX))
}
