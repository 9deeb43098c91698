//! Sanitisation: what a policy may take out of a text before the model reads it.
//!
//! Off unless a policy asks for it, since it changes what was said. What is taken out never makes a
//! text longer, a second pass finds nothing more, and code (between Markdown fences and backticks)
//! keeps every byte but invisible and control characters, which hide in code as well as anywhere.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::structure::fences::prose_ranges;

mod characters;
mod html;

/// Taking something out can make something new: `<<b>b>`. So often it is tried again before all
/// that could begin a tag is taken.
const ROUNDS: usize = 4;

/// One thing that is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a new mode must be thought about in every policy")]
pub enum SanitizeMode {
    /// Characters that cannot be seen, except where a script or an emoji needs them.
    Invisible,
    /// Control characters and the commands of terminals (ECMA-48); tabs and line ends stay.
    Control,
    /// Full-width and mathematical letters and digits become those of ASCII.
    Compatibility,
    /// Tags, comments, scripts and styles of HTML outside of code.
    Html,
    /// Blanks in a row become one, empty lines in a row as well; indentation stays.
    Whitespace,
}

/// What is taken out; in a configuration a list of [`SanitizeMode`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "Vec<SanitizeMode>", into = "Vec<SanitizeMode>")]
pub struct Modes(u8);

impl Modes {
    const ALL: [SanitizeMode; 5] = [
        SanitizeMode::Invisible,
        SanitizeMode::Control,
        SanitizeMode::Compatibility,
        SanitizeMode::Html,
        SanitizeMode::Whitespace,
    ];

    /// Whether nothing is taken out.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this is among what is taken out.
    #[must_use]
    pub const fn has(self, mode: SanitizeMode) -> bool {
        self.0 & bit(mode) != 0
    }
}

impl FromIterator<SanitizeMode> for Modes {
    fn from_iter<I: IntoIterator<Item = SanitizeMode>>(modes: I) -> Self {
        Self(modes.into_iter().fold(0, |bits, mode| bits | bit(mode)))
    }
}

impl From<Vec<SanitizeMode>> for Modes {
    fn from(modes: Vec<SanitizeMode>) -> Self {
        modes.into_iter().collect()
    }
}

impl From<Modes> for Vec<SanitizeMode> {
    fn from(modes: Modes) -> Self {
        Modes::ALL.into_iter().filter(|mode| modes.has(*mode)).collect()
    }
}

const fn bit(mode: SanitizeMode) -> u8 {
    1 << mode as u8
}

/// The text without what the modes take out, or nothing if it has none of it.
#[must_use]
pub fn sanitize(text: &str, modes: Modes) -> Option<String> {
    let mut now = Cow::Borrowed(text);
    if !settle(&mut now, modes) && modes.has(SanitizeMode::Html) {
        now = Cow::Owned(in_prose(&now, &html::without_signs));
        settle(&mut now, modes);
    }
    changed(now)
}

/// Whether the text comes to a state in which there is nothing more to do.
fn settle(text: &mut Cow<'_, str>, modes: Modes) -> bool {
    for _ in 0..ROUNDS {
        match round(text, modes) {
            Some(next) => *text = Cow::Owned(next),
            None => return true,
        }
    }
    false
}

fn changed(text: Cow<'_, str>) -> Option<String> {
    match text {
        Cow::Owned(text) => Some(text),
        Cow::Borrowed(_) => None,
    }
}

/// One pass; nothing if there was nothing to do.
fn round(text: &str, modes: Modes) -> Option<String> {
    let mut now = everywhere(text, modes);
    if modes.has(SanitizeMode::Compatibility) || modes.has(SanitizeMode::Html) {
        now = Cow::Owned(in_prose(&now, &|part| plain_prose(part, modes)));
    }
    if modes.has(SanitizeMode::Whitespace) {
        now = Cow::Owned(characters::tidy(&now, &prose_ranges(&now)));
    }
    changed(now).filter(|now| now != text)
}

/// What goes also from code.
fn everywhere(text: &str, modes: Modes) -> Cow<'_, str> {
    let mut now = Cow::Borrowed(text);
    if modes.has(SanitizeMode::Control) {
        now = Cow::Owned(characters::without_controls(&now));
    }
    if modes.has(SanitizeMode::Invisible) && !now.is_ascii() {
        now = Cow::Owned(characters::without_invisible(&now));
    }
    now
}

/// What goes from text that is no code.
fn plain_prose(part: &str, modes: Modes) -> String {
    let mut now = Cow::Borrowed(part);
    if modes.has(SanitizeMode::Compatibility) && !now.is_ascii() {
        now = Cow::Owned(characters::plain(&now));
    }
    if modes.has(SanitizeMode::Html) && now.contains('<') {
        now = Cow::Owned(html::without_markup(&now));
    }
    now.into_owned()
}

/// The text with its parts that are no code replaced.
fn in_prose(text: &str, replace: &dyn Fn(&str) -> String) -> String {
    let (mut out, mut kept) = (String::with_capacity(text.len()), 0);
    for range in prose_ranges(text) {
        out.push_str(text.get(kept..range.start).unwrap_or_default());
        out.push_str(&replace(text.get(range.clone()).unwrap_or_default()));
        kept = range.end;
    }
    out.push_str(text.get(kept..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(mode: SanitizeMode, text: &str, expected: &str) {
        let found = sanitize(text, Modes::from_iter([mode]));
        assert_eq!(found.as_deref(), Some(expected).filter(|e| *e != text), "{text:?}");
    }

    fn all() -> Modes {
        Modes::from_iter(Modes::ALL)
    }

    #[test]
    fn invisible_characters_go_and_needed_ones_stay() {
        let check = |text, expected| check(SanitizeMode::Invisible, text, expected);
        check("Hi\u{e0049}\u{e0067} \u{200b}t\u{ad}h\u{2060}ere\u{feff}", "Hi there");
        check("a\u{202e}b\u{202c} `c\u{202e}d`", "ab `cd`");
        check("😀\u{fe01}\u{e0159}\u{e0157}", "😀\u{fe01}");
        let needed = "👩\u{200d}👧 ❤\u{fe0f} 1\u{fe0f}\u{20e3} می\u{200c}روم 葛\u{e0100}";
        check(needed, needed);
        let flag = "🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}";
        check(flag, flag);
    }

    #[test]
    fn control_characters_go() {
        let check = |text, expected| check(SanitizeMode::Control, text, expected);
        check("a\0b\u{7f}c\u{9b}\td\r\n", "abc\td\r\n");
        check("\x1b[31;1mred\x1b[0m \x1b\x1b[2Jx", "red x");
    }

    #[test]
    fn letters_of_presentation_become_plain() {
        check(SanitizeMode::Compatibility, "Ｉｇｎ 𝐨𝓻𝔢 ，² `Ａ`", "Ign ore ，² `Ａ`");
    }

    #[test]
    fn html_goes_and_code_stays() {
        let check = |text, expected| check(SanitizeMode::Html, text, expected);
        check("<p>Hello <b>you</b></p><p>there</p>", "Hello you there ");
        check("a<!-- x -->b<script>alert(1)</script>c<style>p{}</style>", "abc");
        check("<img src=x onerror=alert(1)>ok <a href='x'>y</a>", "ok y");
        check(
            "see `<b>` and\n```\n<script>x</script>\n```\n<i>z</i>",
            "see `<b>` and\n```\n<script>x</script>\n```\nz",
        );
        check(
            "if a<b and c>d: Vec<String>, <T> <3 <me@x.org> x << 2",
            "if a<b and c>d: Vec<String>, <T> <3 <me@x.org> x << 2",
        );
        check("<<b>b>bold<<b><i>/b>", "bold");
        check("`<!--` <b>x</b>", "`<!--` x");
    }

    #[test]
    fn blanks_in_a_row_become_one() {
        let check = |text, expected| check(SanitizeMode::Whitespace, text, expected);
        check("a  b \t c\n    d\n\n\n\ne", "a b c\n    d\n\ne");
        check("`a  b`  c\n```\nx  y\n\n\n\n```", "`a  b` c\n```\nx  y\n\n\n\n```");
    }

    #[test]
    fn modes_are_a_list_in_a_configuration() {
        let modes: Modes = serde_json::from_str(r#"["html","invisible"]"#).expect("modes");
        assert!(modes.has(SanitizeMode::Html) && !modes.has(SanitizeMode::Control));
        assert_eq!(serde_json::to_string(&modes).expect("json"), r#"["invisible","html"]"#);
        assert!(Modes::default().is_empty() && serde_json::from_str::<Modes>(r#"["x"]"#).is_err());
    }

    #[test]
    fn cost_grows_with_the_text_and_no_faster() {
        let cost = |text: &str| {
            let run = || {
                let began = Instant::now();
                std::hint::black_box(sanitize(text, all()));
                began.elapsed()
            };
            (0..3).map(|_| run()).min().unwrap_or_default()
        };
        for unit in [
            "<b>",
            "<",
            "<<b>b>",
            "<script>",
            "<!--",
            "<b x=\"",
            "`",
            "` ",
            "```\n",
            " ",
            "\n",
            "\u{200b}",
            "\x1b[",
            "\u{e0041}",
            "Ａ",
            "~~~\n<b>\n",
        ] {
            let half = unit.repeat(100_000 / unit.len());
            let (small, large) = (cost(&half), cost(&half.repeat(4)));
            assert!(
                large < small * 12 + Duration::from_millis(50),
                "{unit:?}: {small:?} {large:?}"
            );
        }
        let nested = |depth: usize| format!("{}{}", "<b".repeat(depth), ">".repeat(depth));
        let (small, large) = (cost(&nested(20_000)), cost(&nested(80_000)));
        assert!(large < small * 12 + Duration::from_millis(50), "nested: {small:?} {large:?}");
    }

    const PARTS: &str = "(\\PC|[a-z ]{1,4}|\n|  |<b>|</b>|<|>|<!--|-->|<script>|</script>|`|```|\
                         ~~~\n|\\u{200b}|\\u{e0041}|\\u{202e}|\\x1b\\[1m|\\x00|Ａ|<i x=\"|\
                         \"|/|=|b){0,40}";

    proptest! {
        #[test]
        fn a_second_pass_finds_nothing_and_nothing_grows(text in PARTS, bits in 0..32u8) {
            let modes = Modes(bits);
            if let Some(made) = sanitize(&text, modes) {
                prop_assert!(made.len() <= text.len() && made != text);
                prop_assert_eq!(sanitize(&made, modes), None, "{:?}", made);
            }
        }

        #[test]
        fn code_keeps_every_byte(
            code in "[a-z<>/\"= \\t!-]{0,30}",
            before in "[a-z<>b/ ]{0,20}",
            after in "[a-z<>/ ]{0,20}",
        ) {
            let block = format!("\n\n```html\n{code}\n```\n\n");
            let modes = Modes::from_iter([SanitizeMode::Html, SanitizeMode::Whitespace]);
            let text = format!("{before}{block}{after}");
            let made = sanitize(&text, modes).unwrap_or(text);
            prop_assert!(made.contains(block.trim()), "{:?}", made);
        }

        #[test]
        fn plain_text_stays(
            text in "[a-zA-Z0-9é忽😀.,;:()'\"!?%&*+-]([ \n]?[a-zA-Zé忽😀0-9.,]){0,60}",
        ) {
            prop_assert_eq!(sanitize(&text, all()), None);
        }
    }
}
