//! Whether a style keeps text from being seen (CSS 2.2 and its successors).

/// Smaller sizes cannot be read, in CSS pixels and points.
const LEAST_SIZE: f32 = 2.0;

/// Places further off are out of the window, in CSS pixels.
const OFF_SCREEN: f32 = -500.0;

/// How a style keeps text from being seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Concealment {
    /// It does not.
    None,
    /// As menus and texts for screen readers are: off until they are wanted.
    Folded,
    /// In a way that only makes sense if nobody is to read it.
    Disguised,
}

/// How the declarations of a style hide the text of their element, which stands on `behind`.
pub(super) fn concealment(style: &str, behind: Option<&str>) -> Concealment {
    let mut look = Look { background: behind, ..Look::default() };
    for declaration in style.split(';') {
        if let Some((property, value)) = declaration.split_once(':') {
            look.take(property.trim_ascii(), value.trim_ascii());
        }
    }
    if look.disguised || look.color.is_some_and(|color| look.is_lost(color)) {
        Concealment::Disguised
    } else if look.folded || (look.flat && look.clipped) {
        Concealment::Folded
    } else {
        Concealment::None
    }
}

/// The background that a style sets.
pub(super) fn background(style: &str) -> Option<&str> {
    let mut pairs = style.split(';').filter_map(|declaration| declaration.split_once(':'));
    pairs.rfind(|(property, _)| is_background(property.trim_ascii())).map(|(_, value)| value)
}

fn is_background(property: &str) -> bool {
    ["background", "background-color"].iter().any(|name| name.eq_ignore_ascii_case(property))
}

/// What the declarations together say.
#[derive(Default)]
struct Look<'s> {
    folded: bool,
    disguised: bool,
    flat: bool,
    clipped: bool,
    color: Option<&'s str>,
    background: Option<&'s str>,
}

impl<'s> Look<'s> {
    fn take(&mut self, property: &str, value: &'s str) {
        let says =
            |word: &str| value.get(..word.len()).is_some_and(|v| v.eq_ignore_ascii_case(word));
        let below = |least: f32| number(value).is_some_and(|n| n < least);
        match property.to_ascii_lowercase().as_str() {
            "color" => self.color = Some(value),
            "background" | "background-color" => self.background = Some(value),
            "width" | "height" | "max-width" | "max-height" => self.flat |= below(1.0),
            "overflow" => self.clipped |= says("hidden") || says("clip"),
            "display" => self.folded |= says("none"),
            "visibility" => self.folded |= says("hidden") || says("collapse"),
            "clip" => self.folded |= says("rect(0") || says("rect(1px"),
            "clip-path" => self.folded |= says("inset(50%") || says("inset(100%"),
            "left" | "right" | "top" | "text-indent" | "margin-left" | "margin-top" => {
                self.folded |= below(OFF_SCREEN);
            }
            "opacity" => self.disguised |= below(0.05),
            "font-size" => self.disguised |= is_unreadable(value),
            "transform" => self.disguised |= says("scale(0)"),
            "mso-hide" => self.disguised |= says("all"),
            _ => {}
        }
    }

    /// Whether a colour cannot be told from what is behind it: a page is white unless it says so.
    fn is_lost(&self, color: &str) -> bool {
        let behind = self.background.map_or(Paint::White, Paint::of);
        let color = Paint::of(color);
        color == Paint::Clear || color == behind
    }
}

/// A colour, as far as it matters.
#[derive(PartialEq)]
enum Paint {
    White,
    Clear,
    Other(String),
}

impl Paint {
    fn of(value: &str) -> Self {
        let value = value.split('!').next().unwrap_or_default();
        let mut text = value.to_ascii_lowercase();
        text.retain(|c| !c.is_ascii_whitespace());
        match text.as_str() {
            "white"
            | "#fff"
            | "#ffff"
            | "#ffffff"
            | "#ffffffff"
            | "snow"
            | "#fefefe"
            | "#fdfdfd"
            | "rgb(255,255,255)"
            | "rgb(254,254,254)"
            | "rgba(255,255,255,1)"
            | "hsl(0,0%,100%)" => Self::White,
            "transparent" => Self::Clear,
            _ if is_clear(&text) => Self::Clear,
            _ => Self::Other(text),
        }
    }
}

/// `rgba(1, 2, 3, 0)` and `#rrggbb00`.
fn is_clear(color: &str) -> bool {
    let inner = color.strip_prefix("rgba(").or_else(|| color.strip_prefix("hsla("));
    let alpha = inner.and_then(|inner| inner.strip_suffix(')')?.rsplit(',').next());
    let clear = |alpha: &str| number(alpha).is_some_and(|alpha| alpha < 0.05);
    alpha.is_some_and(clear)
        || (color.len() == 9 && color.starts_with('#') && color.ends_with("00"))
}

/// A size below what can be read: `0`, `0.1em`, `1px`, `1%`.
fn is_unreadable(value: &str) -> bool {
    let unit = value.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let least = match unit.trim_end_matches("!important").trim() {
        "em" | "rem" => 0.15,
        "vw" | "vh" => 0.1,
        "%" => 15.0,
        _ => LEAST_SIZE,
    };
    number(value).is_some_and(|size| size < least)
}

/// The number that a value begins with.
fn number(value: &str) -> Option<f32> {
    let end = value.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '-' | '+'));
    value.get(..end.unwrap_or(value.len()))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn styles_that_hide() {
        for style in [
            "display:none",
            "DISPLAY : None !important; color: red",
            "visibility:hidden",
            "opacity: 0.01",
            "font-size:0",
            "font-size: 1px",
            "font-size:.1em",
            "color:#fff",
            "color: White; font-size: 12px",
            "color: rgb(255, 255, 255)",
            "color: transparent",
            "color:rgba(0,0,0,0)",
            "color:#12345600",
            "color:#000;background:#000",
            "position:absolute; left:-9999px",
            "text-indent: -9999px",
            "height:0; overflow:hidden",
            "clip: rect(0,0,0,0)",
        ] {
            assert_ne!(concealment(style, None), Concealment::None, "{style}");
        }
    }

    #[test]
    fn only_some_ways_to_hide_are_of_use_to_honest_pages() {
        assert_eq!(concealment("display:none", None), Concealment::Folded);
        assert_eq!(concealment("display:none; opacity:0", None), Concealment::Disguised);
    }

    #[test]
    fn what_is_behind_counts() {
        let behind = background("margin:0; background-color: #036; x");
        assert_eq!(behind.map(str::trim), Some("#036"));
        assert_eq!(concealment("color:white", behind), Concealment::None);
        assert_eq!(concealment("color:#036", behind), Concealment::Disguised);
    }

    #[test]
    fn styles_that_show() {
        for style in [
            "",
            "display:block",
            "opacity: 1; height: 0",
            "font-size: 12px; color: #333",
            "font-size: 0.9em",
            "color:#fff; background:#000",
            "color:white;background-color:navy",
            "margin-left: -10px; left: 0",
            "overflow:hidden; height:10px",
            "no declaration",
        ] {
            assert_eq!(concealment(style, None), Concealment::None, "{style}");
        }
    }
}
