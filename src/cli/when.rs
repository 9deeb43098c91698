//! Times on the command line: read as the configuration reads them, and shown as RFC 3339.

use jiff::Timestamp;
use portcullis_filters::config;

/// Seconds of a duration such as `24h`.
///
/// # Errors
/// How durations are written.
pub(super) fn span(text: &str) -> Result<u64, String> {
    config::duration(text).map(|span| span.as_secs())
}

/// Unix seconds of an end: a time such as `2030-01-31T00:00:00Z`, or a duration from now.
///
/// # Errors
/// How both are written.
pub(super) fn end(text: &str, now: u64) -> Result<u64, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(u64::try_from(time.as_second()).unwrap_or(0));
    }
    span(text)
        .map(|span| now.saturating_add(span))
        .map_err(|_| "write how long, as 90d, or until when, as 2030-01-31T00:00:00Z".to_owned())
}

/// Unix seconds as RFC 3339, in UTC.
pub(super) fn shown(at: u64) -> String {
    let time = i64::try_from(at).ok().and_then(|at| Timestamp::from_second(at).ok());
    time.map_or_else(|| at.to_string(), |time| time.to_string())
}

/// The same for a time that may not have come, in a word.
pub(super) fn shown_or(at: Option<u64>, none: &str) -> String {
    at.map_or_else(|| none.to_owned(), shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn ends() {
        for (text, expected) in [
            ("90d", Some(NOW + 90 * 86_400)),
            ("15m", Some(NOW + 900)),
            ("2030-01-31T00:00:00Z", Some(1_896_048_000)),
            ("2030-01-31T01:00:00+01:00", Some(1_896_048_000)),
            ("1960-01-01T00:00:00Z", Some(0)),
            ("2030-01-31", None),
            ("90", None),
            ("-1d", None),
            ("", None),
        ] {
            assert_eq!(end(text, NOW).ok(), expected, "{text}");
        }
    }

    #[test]
    fn spans() {
        for (text, expected) in [("24h", Some(86_400)), ("0", Some(0)), ("24", None), ("", None)] {
            assert_eq!(span(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn times_are_shown_in_utc() {
        for (at, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_896_048_000, "2030-01-31T00:00:00Z"),
            (u64::MAX, "18446744073709551615"),
        ] {
            assert_eq!(shown(at), expected);
        }
        assert_eq!(shown_or(None, "never"), "never");
    }
}
