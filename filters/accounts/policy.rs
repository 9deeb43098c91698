//! Which new passwords are acceptable: long, hard to guess, and not known to everybody.
//!
//! Length and a judgement of guessability instead of composition rules (NIST SP 800-63B 5.1.1.2,
//! ASVS 6.2). The judge is zxcvbn; what it lets through although every word list has it, such as
//! lines of songs and films, and `Summer-2031!!!!`, is on a block-list, to which operators add.
//! Passwords are judged in the NFKC form that is hashed.

use std::collections::HashSet;
use std::fmt;

use secrecy::SecretString;
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;
use zxcvbn::{Score, zxcvbn};

use super::password::{PasswordError, checked};
use crate::verdict::{Denial, Reason};

/// Less than this many guesses are not acceptable: 10^8, which withstands an attack on a stolen
/// Argon2id hash for months and any attack over the network.
const LEAST_SCORE: Score = Score::Three;
/// How many characters zxcvbn sees. Its work grows faster than their square and with the ways to
/// read `4@1|7!` as letters: 100 such characters take up to 0.9 s, 32 at most 0.07 s. A password
/// has to be strong in its first 32 characters, and what follows makes it only stronger.
const JUDGED_CHARS: usize = 32;
/// Parts of the user's name that are shorter are no hint.
const LEAST_HINT: usize = 3;
const PRODUCT: &str = "portcullis";
const COMMON: &str = include_str!("common_passwords.txt");

/// Why a new password is not acceptable. Never contains any of it; the text says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "each has its own advice")]
pub enum Unacceptable {
    /// Too short or too long.
    Length(PasswordError),
    /// There is a NUL or another control character in it.
    ControlCharacter,
    /// It is on the block-list.
    Listed,
    /// Too easily guessed, also with the name of the user in mind.
    Guessable,
}

impl fmt::Display for Unacceptable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(error) => write!(f, "{error}: use four or five unrelated words"),
            Self::ControlCharacter => {
                f.write_str("password contains a control character: use what can be typed and seen")
            }
            Self::Listed => f.write_str(
                "password is one that many people use: use words that belong to no known phrase",
            ),
            Self::Guessable => f.write_str(
                "password is too easy to guess: use four or five unrelated words, and no names, \
                 dates, repetitions or rows of keys at its start",
            ),
        }
    }
}

impl std::error::Error for Unacceptable {}

impl From<Unacceptable> for Denial {
    fn from(error: Unacceptable) -> Self {
        Self::new(Reason::InvalidRequest, error.to_string()).param("password")
    }
}

/// Whether the user may take this new password. Up to 0.1 s of work: not for an async thread.
///
/// # Errors
/// What is wrong with it. More than 512 bytes are refused before anything else is done.
pub fn check(
    user: &str,
    password: &SecretString,
    blocklist: &Blocklist,
) -> Result<(), Unacceptable> {
    let normal = checked(password).map_err(Unacceptable::Length)?;
    if normal.chars().any(char::is_control) {
        return Err(Unacceptable::ControlCharacter);
    }
    if blocklist.contains(&normal) {
        return Err(Unacceptable::Listed);
    }
    let hints = hints(user);
    if is_one_of(&hints, &normal) || score(&normal, &hints) < LEAST_SCORE {
        return Err(Unacceptable::Guessable);
    }
    Ok(())
}

/// Passwords that are known to everybody: the built-in ones and those of the operator.
///
/// Capitals, spaces, punctuation and digits at the end make no difference: with `Acme Corp. 2024`
/// on the list `acmecorp2031!` is refused too.
#[derive(Clone)]
pub struct Blocklist(HashSet<String>);

impl Blocklist {
    /// The built-in list and these, one a line.
    #[must_use]
    pub fn from_lines(text: &str) -> Self {
        let lines = COMMON.lines().chain(text.lines());
        Self(lines.map(|line| fold(line).to_string()).filter(|line| !line.is_empty()).collect())
    }

    fn contains(&self, password: &str) -> bool {
        self.0.contains(fold(password).as_str())
    }
}

impl Default for Blocklist {
    fn default() -> Self {
        Self::from_lines("")
    }
}

impl fmt::Debug for Blocklist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blocklist({} entries)", self.0.len())
    }
}

/// Letters and digits in lower case, without the digits at the end unless there is nothing else.
fn fold(text: &str) -> Zeroizing<String> {
    let letters = text.nfkc().flat_map(char::to_lowercase).filter(|c| c.is_alphanumeric());
    let folded: Zeroizing<String> = Zeroizing::new(letters.collect());
    match folded.trim_end_matches(|c: char| c.is_ascii_digit()) {
        "" => folded,
        word => Zeroizing::new(word.to_owned()),
    }
}

/// The names that an attacker tries first.
fn hints(user: &str) -> Vec<&str> {
    let parts = user.split(|c: char| !c.is_alphanumeric()).filter(|part| part.len() >= LEAST_HINT);
    [user, PRODUCT].into_iter().chain(parts).collect()
}

/// `alice2031!!!!` is three words to zxcvbn, and it takes any three for 10^8 guesses.
fn is_one_of(hints: &[&str], normal: &str) -> bool {
    let password = fold(normal);
    hints.iter().any(|hint| fold(hint) == password)
}

fn score(normal: &str, hints: &[&str]) -> Score {
    let judged: Zeroizing<String> = Zeroizing::new(normal.chars().take(JUDGED_CHARS).collect());
    zxcvbn(&judged, hints).score()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    fn judge(user: &str, password: &str) -> Result<(), Unacceptable> {
        check(user, &password.into(), &Blocklist::default())
    }

    #[test]
    fn passwords_are_judged_by_what_they_are_worth() {
        use Unacceptable::{ControlCharacter, Guessable, Length, Listed};
        let (short, long) = (Length(PasswordError::TooShort), Length(PasswordError::TooLong));
        let cases = [
            ("vessel-orchid-tundra-nickel", Ok(())),
            ("no digit and no capital needed", Ok(())),
            ("xK9#mQ2$vL5n", Ok(())),
            ("schaukelpferdchen am äquator", Ok(())),
            ("лошадь батарея скрепка верно", Ok(())),
            ("馬電池留め金正解靴下山川海空", Ok(())),
            ("", Err(short)),
            ("xK9#mQ2$vL5", Err(short)),
            (&"vessel orchid ".repeat(10), Err(long)),
            (&"v".repeat(1 << 20), Err(long)),
            ("vessel-orchid-\0tundra", Err(ControlCharacter)),
            ("vessel-orchid\ntundra-nickel", Err(ControlCharacter)),
            ("vessel-orchid\u{7f}tundra-nickel", Err(ControlCharacter)),
            ("vessel-orchid\u{85}tundra-nickel", Err(ControlCharacter)),
            ("passwordpassword", Err(Guessable)),
            ("Password12345678!", Err(Listed)),
            ("Summer-2031!!!!", Err(Listed)),
            ("Portcullis-2031!!!!", Err(Guessable)),
            ("aaaaaaaaaaaaaaaaaaaaaaaa", Err(Guessable)),
            ("qwertyuiop12345", Err(Guessable)),
            ("abcabcabcabcabc", Err(Guessable)),
            ("portcullisportcullis", Err(Guessable)),
            ("correct horse battery staple", Err(Listed)),
            ("CorrectHorseBatteryStaple!1", Err(Listed)),
            ("May the Force be with you.", Err(Listed)),
        ];
        for (password, expected) in cases {
            assert_eq!(judge("alice", password), expected, "{password:.60}");
        }
    }

    #[test]
    fn the_name_of_the_user_is_no_password() {
        let cases = [
            ("wolkowitzer.tamsin@example.org", "wolkowitzer.tamsin@example.org"),
            ("wolkowitzer.tamsin@example.org", "tamsinwolkowitzer"),
            ("wolkowitzer", "Wolkowitzer1!"),
            ("wolkowitzer", "Wolkowitzer-2031!!!!"),
            ("wolkowitzer.tamsin@example.org", "TAMSIN-2031!!!!"),
        ];
        for (user, password) in cases {
            assert_eq!(judge(user, password), Err(Unacceptable::Guessable), "{password}");
            assert_eq!(judge("bob", password), Ok(()), "{password}");
        }
    }

    #[test]
    fn spellings_are_judged_alike() {
        for password in ["ｐａｓｓｗｏｒｄｐａｓｓｗｏｒｄ", "𝐩𝐚𝐬𝐬𝐰𝐨𝐫𝐝𝐩𝐚𝐬𝐬𝐰𝐨𝐫𝐝"]
        {
            assert_eq!(judge("alice", password), Err(Unacceptable::Guessable), "{password}");
        }
        let wide = "ｃｏｒｒｅｃｔ　ｈｏｒｓｅ　ｂａｔｔｅｒｙ　ｓｔａｐｌｅ";
        assert_eq!(judge("alice", wide), Err(Unacceptable::Listed));
    }

    #[test]
    fn the_built_in_list_has_only_what_else_would_pass() {
        for line in COMMON.lines() {
            assert_eq!(fold(line).as_str(), line, "as it is compared");
            let passes = |password: String| {
                check("alice", &password.into(), &Blocklist(HashSet::new())).is_ok()
            };
            assert!(passes(line.to_owned()) || passes(format!("{line}-2031!!!!")), "{line}");
        }
        assert!(COMMON.lines().is_sorted());
    }

    #[test]
    fn operators_add_their_own_words() {
        let list = Blocklist::from_lines("Quaffle Brothers 2024\r\n\n  \n748159263748159263\n!?\n");
        let cases = [
            ("quafflebrothers", Err(Unacceptable::Listed)),
            ("Quaffle-Brothers-2031!", Err(Unacceptable::Listed)),
            ("748159263748159263", Err(Unacceptable::Listed)),
            ("Quaffle Sisters by the sea", Ok(())),
            ("!?%&/()=!?%&+#,:;_", Ok(())),
            ("correct horse battery staple", Err(Unacceptable::Listed)),
        ];
        for (password, expected) in cases {
            assert_eq!(check("alice", &password.into(), &list), expected, "{password}");
        }
        assert!(!format!("{list:?}").contains("quaffle"));
    }

    #[test]
    fn a_strong_end_does_not_hide_a_weak_start() {
        let weak = format!("{}vessel-orchid-tundra", "a".repeat(JUDGED_CHARS));
        assert_eq!(judge("alice", &weak), Err(Unacceptable::Guessable));
    }

    #[test]
    fn the_costliest_passwords_are_judged_in_bounded_time() {
        let costly: String = "4@83({[6911!|70$5+7%x2".chars().cycle().take(128).collect();
        let begun = Instant::now();
        assert_eq!(judge("alice", &costly), Ok(()));
        assert!(begun.elapsed() < Duration::from_secs(5), "unoptimised, beside other tests");
    }

    #[test]
    fn texts_tell_what_to_do_and_not_the_password() {
        for password in ["Tr0ub4dor", "passwordpassword", "with\0control characters"] {
            let denial = Denial::from(judge("alice", password).unwrap_err());
            assert_eq!(denial.reason(), Reason::InvalidRequest);
            assert_eq!(denial.param_name(), Some("password"));
            assert!(denial.message().contains(": use "), "{}", denial.message());
            assert!(!denial.message().contains(password));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn judging_never_panics(password in "\\PC{0,40}|[0-9/. -]{8,40}|[a4@1!|l7$s]{12,20}") {
            let judged = judge("alice", &password);
            let chars = password.chars().count();
            prop_assert!(chars >= 12 || matches!(judged, Err(Unacceptable::Length(_))));
        }
    }
}
