//! E-mail addresses: an `@` with a local part before it and a domain name after it.

use std::ops::Range;

use super::{Detector, Survey};

/// RFC 5321 section 4.5.3.1: 64 octets of local part, and 254 in all (erratum 1690).
const MAX_LOCAL: usize = 64;
const MAX_ADDRESS: usize = 254;

/// Octets of one label (RFC 1035 section 2.3.4).
const MAX_LABEL: usize = 63;

/// Endings that make a name like `icon@2x.png` a file and no address.
const FILE_TYPES: [&str; 14] = [
    "png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "json", "html", "ts", "tsx", "mjs",
    "local",
];

pub(super) const EMAIL: Detector = Detector {
    name: "email",
    placeholder: "[EMAIL]",
    default: true,
    longest: MAX_ADDRESS,
    shape: || r"[0-9A-Za-z._%+'&\x80-\xd6-]{1,64}@[0-9A-Za-z.\x80-\xd6-]{0,189}[\x00-\xff]",
    find: emails,
};

fn emails(survey: &Survey<'_>) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for at in memchr::memchr_iter(b'@', survey.text()) {
        let free = found.last().map_or(0, |last| last.end);
        found.extend(email(survey.text(), at).filter(|span| span.start >= free));
    }
    found
}

/// The address around the `@` at `at`.
fn email(text: &[u8], at: usize) -> Option<Range<usize>> {
    let (before, after) = (text.get(..at)?, text.get(at + 1..)?);
    let local = before.iter().rev().take(MAX_LOCAL + 1).take_while(|&&b| is_local(b)).count();
    // What is left of a letter of another script is none of the address.
    let cut = before.get(at - local..)?.iter().take_while(|&&b| is_continuation(b)).count();
    let start = at.checked_sub(local).filter(|_| local <= MAX_LOCAL)? + cut;
    let local = local - cut;
    let marks = before.get(start..)?.iter().take_while(|&&b| matches!(b, b'.' | b'\'')).count();
    let room = MAX_ADDRESS - MAX_LOCAL - 1;
    let domain = after.iter().take(room).take_while(|&&b| is_domain(b)).count();
    let domain = domain_len(after.get(..domain)?)?;
    let next = after.get(domain);
    let is_remote = matches!(next, Some(b':' | b'/')) && is_service(before.get(start..)?);
    let is_password = before.get(..start)?.ends_with(b":") && is_url(before.get(..start)?);
    (marks < local && !is_remote && !is_password).then_some(start + marks..at + 1 + domain)
}

/// The user of a remote repository, as in `git@github.com:me/it`.
fn is_service(local: &[u8]) -> bool {
    [&b"git"[..], b"hg", b"svn", b"ssh", b"root"].contains(&local)
}

/// Whether a user of a URL stands at the end: what follows is its password.
fn is_url(before: &[u8]) -> bool {
    let near = before.get(before.len().saturating_sub(MAX_LOCAL)..).unwrap_or_default();
    let near = near.rsplit(|b| b.is_ascii_whitespace()).next().unwrap_or_default();
    memchr::memmem::find(near, b"://").is_some()
}

const fn is_local(b: u8) -> bool {
    is_letter(b) || matches!(b, b'0'..=b'9' | b'.' | b'_' | b'%' | b'+' | b'-' | b'\'' | b'&')
}

const fn is_domain(b: u8) -> bool {
    is_letter(b) || matches!(b, b'0'..=b'9' | b'.' | b'-')
}

/// A letter of ASCII or a byte of another alphabet up to Armenian (RFC 6531). Scripts without spaces
/// between words cannot be told from the words around.
const fn is_letter(b: u8) -> bool {
    b.is_ascii_alphabetic() || is_continuation(b) || matches!(b, 0xc3..=0xd6)
}

const fn is_continuation(b: u8) -> bool {
    matches!(b, 0x80..=0xbf)
}

/// The length of the domain name at the start of `text`: labels, of which the last is letters.
fn domain_len(text: &[u8]) -> Option<usize> {
    let (mut len, mut valid) = (0, None);
    for (index, label) in text.split(|&b| b == b'.').enumerate() {
        let is_label = !label.is_empty() && label.len() <= MAX_LABEL && !label.starts_with(b"-");
        let trimmed = label.len() - label.iter().rev().take_while(|&&b| b == b'-').count();
        if !is_label || trimmed == 0 {
            break;
        }
        if index > 0 && is_top_level(label.get(..trimmed)?) {
            valid = Some(len + trimmed);
        }
        len += label.len() + 1;
    }
    valid
}

fn is_top_level(label: &[u8]) -> bool {
    let letters = (2..=24).contains(&label.len()) && label.iter().all(|&b| is_letter(b));
    let is_file = FILE_TYPES.iter().any(|ext| label.eq_ignore_ascii_case(ext.as_bytes()));
    (letters || label.starts_with(b"xn--")) && !is_file
}

#[cfg(test)]
mod tests {
    use super::super::PiiKind;
    use super::super::testing::check;

    #[test]
    fn addresses() {
        let check = |text: &str, expected: &[&str]| check(PiiKind::Email, text, expected);
        check("write to Ann.Lee+x@mail.example.com.", &["Ann.Lee+x@mail.example.com"]);
        check("<a@b.co>,c@d.org;", &["a@b.co", "c@d.org"]);
        check("请联系test@example.com谢谢", &["test@example.com"]);
        check("...x@example.com--", &["x@example.com"]);
        check("an müller@example.de", &["müller@example.de"]);
        check("john@münchen.de, иван@почта.рф", &["john@münchen.de", "иван@почта.рф"]);
        check("'me@example.com'", &["me@example.com"]);
        check("o'neil@example.xn--p1ai", &["o'neil@example.xn--p1ai"]);
        check("a@b a@b. @b.com a@.com a@-b.com a@b.c a@1.2.3.4", &[]);
        check("icon@2x.png, git@github.com:me/it, @types/node@18.1.0", &[]);
        check("postgres://app:hunter2@db.example.com/x", &[]);
        let long = format!("{}@example.com", "a".repeat(65));
        check(&long, &[]);
        check("a@b.com@c.org", &["a@b.com"]);
    }
}
