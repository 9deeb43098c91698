//! Values that are written as one word: durations, sizes, addresses, networks, times.
//!
//! Each is read from text and printed in the same form, so that a printed config can be read again.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

/// A value that is written as one word.
///
/// Sizes are plain `u64`, so this is implemented for it; counts do not go through this trait.
pub(super) trait Word: Sized {
    /// # Errors
    /// What is wrong, and on a second line how to write it.
    fn read(text: &str) -> Result<Self, String>;

    fn print(&self) -> String;
}

/// For `#[serde(with = "units::word")]`.
pub(super) mod word {
    use super::{Deserializer, Read, Serializer, Word};
    use serde::Deserialize as _;

    pub(in super::super) fn deserialize<'de, T: Word, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        Read::deserialize(deserializer).map(|Read(value)| value)
    }

    pub(in super::super) fn serialize<T: Word, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&value.print())
    }
}

/// For `#[serde(with = "units::optional")]`: `null` is nothing.
pub(super) mod optional {
    use super::{Deserializer, Read, Serializer, Word};
    use serde::{Deserialize as _, Serialize as _};

    pub(in super::super) fn deserialize<'de, T: Word, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        Option::deserialize(deserializer).map(|found| found.map(|Read(value)| value))
    }

    pub(in super::super) fn serialize<T: Word, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(Word::print).serialize(serializer)
    }
}

/// For `#[serde(with = "units::list")]`.
pub(super) mod list {
    use super::{Deserializer, Read, Serializer, Word};
    use serde::Deserialize as _;

    pub(in super::super) fn deserialize<'de, T: Word, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<T>, D::Error> {
        let items = Vec::deserialize(deserializer)?;
        Ok(items.into_iter().map(|Read(value)| value).collect())
    }

    pub(in super::super) fn serialize<T: Word, S: Serializer>(
        values: &[T],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(Word::print))
    }
}

/// The serde face of a [`Word`].
struct Read<T>(T);

impl<'de, T: Word> Deserialize<'de> for Read<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        T::read(&text).map(Self).map_err(D::Error::custom)
    }
}

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Units of time in milliseconds, largest first.
const TIMES: [(&str, u64); 5] = [("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND), ("ms", 1)];

/// Units of size in bytes, largest first.
const SIZES: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl Word for Duration {
    fn read(text: &str) -> Result<Self, String> {
        let millis = if text == "0" { Some(0) } else { scaled(text, &TIMES) };
        millis.map(Self::from_millis).ok_or_else(|| {
            bad(text, "a duration", "write a whole number and its unit: 500ms, 10s, 5m, 1h, 90d")
        })
    }

    fn print(&self) -> String {
        let millis = u64::try_from(self.as_millis()).unwrap_or(u64::MAX);
        unscaled(millis, &TIMES)
    }
}

/// A size in bytes.
impl Word for u64 {
    fn read(text: &str) -> Result<Self, String> {
        whole(text).or_else(|| scaled(text, &SIZES)).ok_or_else(|| {
            bad(text, "a size", "write bytes, or a whole number and its unit: 64KiB, 8MiB, 1GiB")
        })
    }

    fn print(&self) -> String {
        unscaled(*self, &SIZES)
    }
}

impl Word for SocketAddr {
    fn read(text: &str) -> Result<Self, String> {
        let help = "write an IP address and a port: 127.0.0.1:8080, [::1]:8080, 0.0.0.0:8443";
        text.parse().map_err(|_| bad(text, "a listen address", help))
    }

    fn print(&self) -> String {
        self.to_string()
    }
}

impl Word for IpNet {
    fn read(text: &str) -> Result<Self, String> {
        let help = "write an address and a prefix length: 10.0.0.0/8, 192.0.2.7/32, 2001:db8::/32";
        text.parse().map_err(|_| bad(text, "a network", help))
    }

    fn print(&self) -> String {
        self.to_string()
    }
}

impl Word for Timestamp {
    fn read(text: &str) -> Result<Self, String> {
        let help = "write it as in RFC 3339, with its zone: 2027-01-31T00:00:00Z";
        text.parse().map_err(|_| bad(text, "a time", help))
    }

    fn print(&self) -> String {
        self.to_string()
    }
}

fn bad(text: &str, kind: &str, help: &str) -> String {
    format!("{} is not {kind}\n{help}", super::diagnostic::quote(text))
}

/// Digits only: `parse` alone would also take a sign.
fn whole(digits: &str) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// Reads `10s` as 10 times the factor of `s`; nothing on overflow.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    units.iter().find_map(|(unit, factor)| whole(text.strip_suffix(unit)?)?.checked_mul(*factor))
}

/// Prints in the largest unit that divides the value; without a unit if there is none.
fn unscaled(value: u64, units: &[(&str, u64)]) -> String {
    let fits = |(_, factor): &&(&str, u64)| value != 0 && value.is_multiple_of(*factor);
    units
        .iter()
        .find(fits)
        .map_or_else(|| value.to_string(), |(unit, factor)| format!("{}{unit}", value / factor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check<T: Word>(text: &str, printed: Option<&str>) {
        let found = T::read(text).ok().map(|value| value.print());
        assert_eq!(found.as_deref(), printed, "{text}");
    }

    #[test]
    fn durations() {
        for (text, printed) in [
            ("500ms", Some("500ms")),
            ("10s", Some("10s")),
            ("120s", Some("2m")),
            ("5m", Some("5m")),
            ("24h", Some("1d")),
            ("90d", Some("90d")),
            ("0", Some("0")),
            ("0s", Some("0")),
            ("10", None),
            ("", None),
            ("s", None),
            ("-1s", None),
            ("+1s", None),
            ("1.5s", None),
            ("1 s", None),
            ("1h30m", None),
            ("1w", None),
            ("10S", None),
            ("18446744073709551615d", None),
            ("99999999999999999999s", None),
            ("١s", None),
        ] {
            check::<Duration>(text, printed);
        }
    }

    #[test]
    fn sizes() {
        for (text, printed) in [
            ("1000", Some("1000")),
            ("0", Some("0")),
            ("65536", Some("64KiB")),
            ("8MiB", Some("8MiB")),
            ("1GiB", Some("1GiB")),
            ("8MB", None),
            ("8M", None),
            ("8mib", None),
            ("-1", None),
            ("1.5MiB", None),
            ("99999999999GiB", None),
        ] {
            check::<u64>(text, printed);
        }
    }

    #[test]
    fn addresses_networks_and_times() {
        check::<SocketAddr>("[::1]:80", Some("[::1]:80"));
        check::<SocketAddr>("localhost:80", None);
        check::<SocketAddr>("127.0.0.1", None);
        check::<IpNet>("10.0.0.0/8", Some("10.0.0.0/8"));
        check::<IpNet>("10.0.0.0/33", None);
        check::<IpNet>("10.0.0.1", None);
        check::<Timestamp>("2027-01-31T01:00:00+01:00", Some("2027-01-31T00:00:00Z"));
        check::<Timestamp>("2027-01-31", None);
        check::<Timestamp>("tomorrow", None);
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_the_same(value: u64) {
            prop_assert_eq!(u64::read(&value.print()), Ok(value));
            let time = Duration::from_millis(value);
            prop_assert_eq!(Duration::read(&time.print()), Ok(time));
        }
    }
}
