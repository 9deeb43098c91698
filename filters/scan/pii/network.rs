//! Addresses of the network: IPv4, IPv6 and hardware.
//!
//! Private and documentation ranges are found like any other, since a text does not tell whose
//! network it is; what no host has (unspecified, loopback, broadcast, masks) and what names a whole
//! network (`10.0.0.0/8`) is not.

use std::net::Ipv6Addr;
use std::ops::Range;

use super::cues::Cue;
use super::survey::number;
use super::{Detector, Survey};

/// Characters of the longest IPv6 address, and of a hardware address.
const MAX_V6: usize = 45;
const MAC_LEN: usize = 17;

pub(super) const IP: Detector = Detector {
    name: "ip",
    placeholder: "[IP]",
    default: true,
    longest: MAX_V6,
    shape: || r"(?:[0-9]{1,3}(?:\.[0-9]{0,3}){0,3}/?|[0-9A-Fa-f]{0,4}(?:[:.][0-9A-Fa-f]{0,4}){0,10})[\x00-\xff]{1,2}",
    find: ips,
};

pub(super) const MAC: Detector = Detector {
    name: "mac",
    placeholder: "[MAC]",
    default: true,
    longest: MAC_LEN,
    shape: || r"[0-9A-Fa-f]{2}(?:[0-9A-Fa-f:.-]){0,15}[\x00-\xff]",
    find: macs,
};

fn ips(survey: &Survey<'_>) -> Vec<Range<usize>> {
    let mut found = survey.at_groups(v4);
    found.extend(at_colons(survey, v6));
    found.sort_unstable_by_key(|span| span.start);
    found
}

/// Four numbers of one byte, divided by dots.
fn v4(survey: &Survey<'_>, groups: &[Range<usize>]) -> Option<Range<usize>> {
    let groups = groups.get(..4)?;
    let dotted = groups
        .iter()
        .zip(groups.iter().skip(1))
        .all(|(a, b)| a.end + 1 == b.start && survey.byte(a.end) == Some(b'.'));
    if !dotted || !groups.iter().all(|group| is_octet(survey.slice(group.clone()))) {
        return None;
    }
    let span = groups.first()?.start..groups.last()?.end;
    let is_host = !matches!(number(survey.slice(groups.first()?.clone())), 0 | 127 | 255);
    let single = groups.iter().all(|group| group.len() == 1);
    let cues = survey.cues(&span);
    let named = !single || cues.mentions(Cue::Network) || is_in_url(survey, &span);
    (is_host && named && !cues.is_about(Cue::Version) && stands_alone(survey, &span))
        .then_some(span)
}

fn is_octet(digits: &[u8]) -> bool {
    let plain = digits.len() == 1 || digits.first() != Some(&b'0');
    digits.len() <= 3 && plain && number(digits) <= 255
}

/// Whether a port follows, or what stands before a host in a URL or a login.
fn is_in_url(survey: &Survey<'_>, span: &Range<usize>) -> bool {
    let after = survey.slice(span.end..(span.end + 2).min(survey.text().len()));
    let before = survey.slice(span.start.saturating_sub(2)..span.start);
    matches!(after, [b':', b'0'..=b'9'] | [b']', b':'])
        || matches!(before, [b'/', b'/'] | [b'a'..=b'z' | b'0'..=b'9', b'@'])
}

/// Whether the address is neither part of a name or a version, nor that of a network.
fn stands_alone(survey: &Survey<'_>, span: &Range<usize>) -> bool {
    let before = survey.slice(span.start.saturating_sub(2)..span.start);
    let begins = match before {
        [b'/', b'/'] => true,
        [b'\\', b'n' | b't' | b'r'] => true,
        [b'=' | b'>' | b'<' | b'~' | b'^' | b'!', b'='] => false,
        [.., b] => !b.is_ascii_alphanumeric() && !b"._-/~^".contains(b),
        [] => true,
    };
    let after = survey.slice(span.end..(span.end + 2).min(survey.text().len()));
    let ends = match after {
        [b'.' | b'-' | b'/', b, ..] => !b.is_ascii_alphanumeric(),
        [b, ..] => !b.is_ascii_alphanumeric() && *b != b'_',
        [] => true,
    };
    let route = matches!(after, [b'/', b'a'..=b'z' | b'A'..=b'Z']);
    begins && (ends || route)
}

/// Tries `find` with the run of hexadecimal digits, colons and dots around each colon.
fn at_colons(
    survey: &Survey<'_>,
    find: impl Fn(&Survey<'_>, Range<usize>) -> Option<Range<usize>>,
) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut free = 0;
    for at in memchr::memchr_iter(b':', survey.text()) {
        // Two or more belong to an address, and prose has one at a time.
        let near = survey.slice(at + 1..(at + 6).min(survey.text().len()));
        if at < free || !near.contains(&b':') {
            continue;
        }
        let is_part = |b: u8| b.is_ascii_hexdigit() || matches!(b, b':' | b'.');
        match survey.run(at, MAX_V6, is_part) {
            Some(run) => {
                free = run.end;
                found.extend(find(survey, run));
            }
            // What is too long around one colon is so around all of them.
            None => {
                let rest = survey.text().get(at..).unwrap_or_default();
                free = at + rest.iter().take_while(|&&b| is_part(b)).count();
            }
        }
    }
    found
}

fn v6(survey: &Survey<'_>, run: Range<usize>) -> Option<Range<usize>> {
    let raw = survey.slice(run.clone());
    let text = std::str::from_utf8(raw).ok()?;
    let trimmed = text.trim_end_matches('.');
    let trimmed = trimmed.strip_suffix(':').filter(|t| !t.ends_with(':')).unwrap_or(trimmed);
    let address: Ipv6Addr = trimmed.parse().ok()?;
    let span = run.start..run.start + trimmed.len();
    let first = trimmed.split(':').next().unwrap_or_default();
    let wide = trimmed.split(':').any(|part| part.len() > 2);
    let whole = !trimmed.contains("::") && wide;
    let global = first.len() == 4
        && matches!(address.segments().first(), Some(0x2000..=0x3fff | 0xfc00..=0xfebf));
    let outside = |b: u8| !b.is_ascii_alphanumeric() && b != b'_';
    let begins = survey.previous(span.start).is_none_or(outside);
    let after = survey.slice(span.end..(span.end + 2).min(survey.text().len()));
    let network = matches!(after, [b'/', b'0'..=b'9']);
    let ends = survey.byte(span.end).is_none_or(outside) && !network;
    ((whole || global) && begins && ends).then_some(span)
}

fn macs(survey: &Survey<'_>) -> Vec<Range<usize>> {
    let mut found = at_colons(survey, |survey, run| is_mac(survey, &run, b':', 2).then_some(run));
    found.extend(survey.at_groups(|survey, groups| {
        let at = groups.first()?.start;
        let near = survey.slice(at.saturating_sub(4)..(at + 5).min(survey.text().len()));
        let (mark, size) = match () {
            () if near.contains(&b'-') => (b'-', 2),
            () if near.contains(&b'.') => (b'.', 4),
            () => return undivided(survey, at),
        };
        let mut run = survey.run(at, MAC_LEN, |b| b.is_ascii_hexdigit() || b == mark)?;
        // The mark may also be a full stop or a dash of the text.
        run.end -= usize::from(survey.slice(run.clone()).ends_with(&[mark]));
        is_mac(survey, &run, mark, size).then_some(run)
    }));
    found.sort_unstable_by_key(|span| span.start);
    found
}

/// Twelve hexadecimal digits in one, where the text says that they are a hardware address.
fn undivided(survey: &Survey<'_>, at: usize) -> Option<Range<usize>> {
    let run = survey.run(at, MAC_LEN, |b| b.is_ascii_alphanumeric() || b == b'_')?;
    let text = survey.slice(run.clone());
    let fits = text.len() == 12 && text.iter().all(u8::is_ascii_hexdigit);
    // The groups of one run need to be read once only.
    let first = survey.slice(run.start..at).iter().all(u8::is_ascii_alphabetic);
    (fits && first && survey.cues(&run).mentions(Cue::Hardware)).then_some(run)
}

/// Twelve hexadecimal digits in equal parts, not all the same.
fn is_mac(survey: &Survey<'_>, run: &Range<usize>, mark: u8, size: usize) -> bool {
    let text = survey.slice(run.clone());
    let parts = || text.split(|&b| b == mark);
    let fits = parts().count() == 12 / size
        && parts().all(|part| part.len() == size && part.iter().all(u8::is_ascii_hexdigit));
    let varied = parts().any(|part| Some(part) != parts().next());
    let outside = |b: u8| !b.is_ascii_alphanumeric() && !b"_:-.".contains(&b);
    let begins = survey.previous(run.start).is_none_or(|b| outside(b) || b == b':' || b == b'-');
    let ends = survey.byte(run.end).is_none_or(|b| outside(b) || b == b'.' || b == b'-');
    fits && varied && begins && ends
}

#[cfg(test)]
mod tests {
    use super::super::PiiKind;
    use super::super::testing::check;

    #[test]
    fn internet_addresses() {
        let check = |text: &str, expected: &[&str]| check(PiiKind::Ip, text, expected);
        check("from 203.0.113.7, 10.0.0.12:8080.", &["203.0.113.7", "10.0.0.12"]);
        check("http://192.168.1.20/x root@8.8.4.40", &["192.168.1.20", "8.8.4.40"]);
        check("|19.253.176.22|%20/", &["19.253.176.22"]);
        check("2001:db8::8a2e:370:7334 is up", &["2001:db8::8a2e:370:7334"]);
        check(
            "at 4f8a:c99e:dc86:faf9:5988:5f63:375e:8a2a.",
            &["4f8a:c99e:dc86:faf9:5988:5f63:375e:8a2a"],
        );
        check("[fe80::1ff:fe23:4567:890a]", &["fe80::1ff:fe23:4567:890a"]);
        check(
            "ssh root@8.8.8.8, [8.8.4.4]:53, http://1.1.1.1/",
            &["8.8.8.8", "8.8.4.4", "1.1.1.1"],
        );
        check("127.0.0.1 0.0.0.0 255.255.255.0 256.1.1.10 01.20.30.40 1.2.3.4.5", &[]);
        check("version 10.20.30.40, v10.20.30.40, ==10.20.30.40, Chrome/120.0.0.10", &[]);
        check("10.0.0.0/8, see 4.1.2.3, 12:34:56, std::fs::add, a::b, ::1, 2001:db8::/32", &[]);
        check("aa:bb:cc:dd:ee:ff:00:11", &[]);
    }

    #[test]
    fn hardware_addresses() {
        let check = |text: &str, expected: &[&str]| check(PiiKind::Mac, text, expected);
        check("00:1A:2B:3C:4D:5E", &["00:1A:2B:3C:4D:5E"]);
        check("mac=00-1a-2b-3c-4d-5e, 001a.2b3c.4d5e.", &["00-1a-2b-3c-4d-5e", "001a.2b3c.4d5e"]);
        check("MAC 001A2B3C4D5E", &["001A2B3C4D5E"]);
        check("commit 001A2B3C4D5E, order 001122334455", &[]);
        check("ab:cd:ef:ab:cd:ee", &["ab:cd:ef:ab:cd:ee"]);
        check("00:00:00:00:00:00 00:1A:2B:3C:4D 00:1A:2B:3C:4D:5E:6F 0g:1A:2B:3C:4D:5E", &[]);
        check("12:34:56, 550e8400-e29b-41d4-a716-446655440000", &[]);
    }
}
