//! The names of accounts.

/// Most characters of a name.
pub const MAX_NAME: usize = 64;

/// The name as it is stored, in lower case: 1 to 64 of `a-z 0-9 . _ @ -`. `None` for any other
/// character; ASCII only, so that no two names look or normalise (NFKC) alike.
#[must_use]
pub fn account_name(text: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte);
    let valid = (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(plain);
    valid.then(|| text.to_ascii_lowercase())
}

/// The name of an account that may be there already: that of a user whom an external issuer vouches
/// for is `issuer:user`, which nobody can make.
#[must_use]
pub fn known_name(text: &str) -> Option<String> {
    match text.split_once(':') {
        None => account_name(text),
        Some((issuer, user)) => Some([&account_name(issuer)?, ":", &account_name(user)?].concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_ascii_in_lower_case() {
        for (text, expected) in [
            ("Alice", Some("alice")),
            ("a.b_c@d-9", Some("a.b_c@d-9")),
            (&*"a".repeat(64), Some(&*"a".repeat(64))),
            (&*"a".repeat(65), None),
            ("", None),
            ("a b", None),
            ("a\0", None),
            ("corp:ann", None),
            ("\u{ff21}lice", None),
            ("ali\u{441}e", None),
        ] {
            assert_eq!(account_name(text).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn only_users_of_issuers_have_a_colon() {
        for (text, expected) in [
            ("Bob", Some("bob")),
            ("Corp:Ann", Some("corp:ann")),
            (":environment", None),
            ("corp:", None),
            ("a:b:c", None),
        ] {
            assert_eq!(known_name(text).as_deref(), expected, "{text:?}");
        }
    }
}
