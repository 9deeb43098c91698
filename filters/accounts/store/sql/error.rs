//! Errors of the database to answers of the store.

use sqlx::error::{DatabaseError, ErrorKind};

use super::super::StoreError;
use super::unavailable;

#[expect(clippy::wildcard_enum_match_arm, reason = "the driver's errors may grow")]
impl From<sqlx::Error> for StoreError {
    /// Values and statements stay out of the text; words of the server are for operators.
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => answer(error.as_ref()),
            sqlx::Error::Io(error) => unavailable(error),
            sqlx::Error::Tls(error) => unavailable(format!("TLS: {error}")),
            sqlx::Error::Configuration(_) => unavailable("its URL is not understood"),
            sqlx::Error::PoolTimedOut => unavailable("no connection in time"),
            sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
                unavailable("its connection is closed")
            }
            _ => unexpected(),
        }
    }
}

/// What the database holds is not what this program wrote.
pub(super) fn unexpected() -> StoreError {
    unavailable("it holds something unexpected")
}

fn answer(error: &dyn DatabaseError) -> StoreError {
    if error.kind() == ErrorKind::UniqueViolation {
        StoreError::Exists
    } else if error.kind() == ErrorKind::ForeignKeyViolation {
        StoreError::NotFound
    } else {
        unavailable(error.message())
    }
}
