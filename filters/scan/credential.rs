//! What makes a value a credential: that it is assigned to a telling name, and that it looks random
//! and not like a word, a variable or a placeholder.

/// What is written where a credential should be: masks, and advice to put one.
const PLACEHOLDERS: [&[u8]; 16] = [
    b"xxxx",
    b"****",
    b"...",
    b"\xe2\x80\xa6",
    b"01234567890",
    b"12345678901",
    b"exampleexampleexample",
    b"your_",
    b"your-",
    b"_here",
    b"-here",
    b"placeholder",
    b"redacted",
    b"changeme",
    b"insert",
    b"${",
];

/// The expression for `value` where it is assigned to something with one of the names; its first
/// group is the value.
pub(super) fn assigned(names: &[String], value: &str) -> String {
    let names: Vec<String> = names.iter().map(String::as_str).map(in_any_case).collect();
    format!("(?:{}){ASSIGNS}({value}){end}", names.join("|"), end = r#"(?:[\s'"`;,)\]}<&]|\\|$)"#)
}

/// What stands between a name and the value that is assigned to something with it, in code, in a
/// configuration, in a table or in a sentence.
pub(super) const ASSIGNS: &str =
    concat!(r"[ \t\w.\-]{0,20}", r#"[\s'"]{0,3}(?:=|>|:{1,3}=?|=>|\?=|\|\||,|\bis)[\s'"`=]{0,5}"#);

/// Short names turn up across words, as in `CameraKit`: they are only known in one case.
const SHORT: usize = 7;

fn in_any_case(name: &str) -> String {
    let lower = regex::escape(name);
    if name.len() > SHORT {
        return format!("(?i:{lower})");
    }
    let mut letters = name.chars();
    let first = letters.next().map(|c| c.to_ascii_uppercase()).into_iter();
    let capital: String = first.chain(letters).collect();
    let upper = regex::escape(&name.to_ascii_uppercase());
    format!("{lower}|{}|{upper}", regex::escape(&capital))
}

/// Whether a value is an identifier by its form (RFC 9562), which are secret only by agreement.
pub(super) fn is_uuid(text: &[u8]) -> bool {
    let lens = text.split(|&b| b == b'-').map(<[u8]>::len);
    lens.eq([8, 4, 4, 4, 12])
}

/// Whether a credential is only a stand-in: a mask, or one character over and over.
pub(super) fn is_placeholder(lower: &[u8]) -> bool {
    let holds = |word: &&[u8]| memchr::memmem::find(lower, word).is_some();
    PLACEHOLDERS.iter().any(holds)
}

/// How often neighbours differ in their class, small letter, capital or digit, from 0 to 1: about
/// 0.6 in random base 62, 0.45 in random hexadecimal, and below 0.3 in words and identifiers.
pub(super) fn mixture(text: &[u8]) -> f32 {
    let class = |b: &u8| match b {
        b'a'..=b'z' => Some(0),
        b'A'..=b'Z' => Some(1),
        b'0'..=b'9' => Some(2),
        _ => None,
    };
    let mut classes = text.iter().filter_map(class);
    let Some(mut last) = classes.next() else { return 0.0 };
    let (mut pairs, mut changes) = (0u32, 0u32);
    for class in classes {
        pairs += 1;
        changes += u32::from(class != last);
        last = class;
    }
    changes as f32 / pairs.max(1) as f32
}

/// Shannon's entropy of the bytes, in bits a byte.
pub(super) fn entropy(text: &[u8]) -> f32 {
    let mut counts = [0u32; 256];
    for &b in text {
        if let Some(count) = counts.get_mut(usize::from(b)) {
            *count += 1;
        }
    }
    let total = text.len() as f32;
    counts.iter().filter(|&&n| n > 0).map(|&n| n as f32 / total).map(|p| -p * p.log2()).sum()
}

#[cfg(test)]
mod tests {
    use regex::bytes::RegexBuilder;

    use super::*;

    #[test]
    fn entropy_tells_keys_from_words() {
        assert!(entropy(b"aaaaaaaa") < 0.1);
        assert!(entropy(b"q7Rz0PwLx2Vt9KmN") > 3.9);
    }

    #[test]
    fn random_texts_mix_what_identifiers_keep_apart() {
        assert!(
            mixture(b"q7Rz0PwLx2Vt9KmN") > 0.5
                && mixture(b"c91f4e07a2d85b3664b0e1f79d2c8a53") > 0.3
        );
        assert!(
            mixture(b"AbstractSingletonProxyFactory2") < 0.3 && mixture(b"jwt-binding-0.9.2") < 0.1
        );
        assert!(mixture(b"") < 0.1 && mixture(b"-") < 0.1 && mixture(b"a") < 0.1);
    }

    #[test]
    fn placeholders() {
        for text in [&b"sk-xxxxxxxx"[..], b"your_api_key", b"eyj0...", b"sk_012345678901"] {
            assert!(is_placeholder(text), "{text:?}");
        }
        assert!(!is_placeholder(b"q7rz0pwlx2vt9kmn"));
    }

    #[test]
    fn identifiers() {
        assert!(is_uuid(b"01234567-89ab-cdef-0123-456789abcdef"));
        assert!(!is_uuid(b"0123456789abcdef-0123-456789abcdef"));
    }

    #[test]
    fn assignments_in_code_configuration_and_sentences() {
        let pattern = assigned(&["acme".to_owned(), "a.c".to_owned()], "[0-9a-f]{8}|[A-Z]{4}");
        let regex = RegexBuilder::new(&pattern).unicode(false).build().expect("regex");
        for (text, expected) in [
            ("ACME_KEY=0123abcd", Some("0123abcd")),
            ("\"acmeToken\": \"0123abcd\",", Some("0123abcd")),
            ("acme.secret => '0123abcd'", Some("0123abcd")),
            ("my acme key is ABCD", Some("ABCD")),
            ("acme 0123abcd", None),
            ("acme=0123abcdef", None),
            ("abc=0123abcd", None),
            ("macMeal=0123abcd", None),
        ] {
            let value = regex.captures(text.as_bytes()).and_then(|groups| groups.get(1));
            assert_eq!(value.map(|value| value.as_bytes()), expected.map(str::as_bytes), "{text}");
        }
    }
}
