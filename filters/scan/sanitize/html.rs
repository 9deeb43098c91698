//! Taking HTML out of text that is no code.
//!
//! Only elements that HTML knows, with attributes as HTML writes them, are taken for markup: people
//! also write `a<b and c>d`, `Vec<String>` and `<ann@example.org>`.

use crate::scan::structure::markup::{Attributes, Markup, markup};

/// Elements that break a line: words around them are not one word.
const BLOCKS: &str =
    "address article aside blockquote body br button caption dd details dialog div dl dt
    fieldset figcaption figure footer form frame h1 h2 h3 h4 h5 h6 head header hr html iframe label
    legend li link main menu meta nav noscript object ol optgroup option p section select summary
    table tbody td template textarea tfoot th thead title tr ul";

/// Elements in a line.
const INLINE: &str =
    "a abbr acronym area audio b base bdi bdo big canvas center cite code col colgroup
    data del dfn em embed font i img input ins kbd map mark marquee math noframes output param
    picture pre progress q rp rt ruby s samp script slot small source span strike strong style sub
    sup svg time track tt u var video wbr";

/// Attributes that are written without a value.
const BARE: &str =
    "allowfullscreen async autofocus autoplay checked controls default defer disabled
    formnovalidate hidden inert ismap itemscope loop multiple muted nomodule novalidate open
    playsinline readonly required reversed selected";

/// The text without comments, tags, scripts and styles.
pub(super) fn without_markup(text: &str) -> String {
    let (mut out, mut kept) = (String::with_capacity(text.len()), 0);
    for (range, found) in markup(text) {
        let taken = text.get(range.clone()).unwrap_or_default();
        let Some(name) = taken_out(found, taken) else { continue };
        out.push_str(text.get(kept..range.start).unwrap_or_default());
        kept = range.end;
        if holds(BLOCKS, name) && !out.is_empty() && !out.ends_with([' ', '\n']) {
            out.push(' ');
        }
    }
    out.push_str(text.get(kept..).unwrap_or_default());
    out
}

/// The text with nothing in it that could begin a tag.
pub(super) fn without_signs(text: &str) -> String {
    text.replace('<', "(")
}

/// The name of what is taken out, which is empty for all but elements.
fn taken_out<'t>(found: Markup<'t>, taken: &str) -> Option<&'t str> {
    let begins = |with: &str| taken.get(..with.len()).is_some_and(|t| t.eq_ignore_ascii_case(with));
    let known = |name: &str| holds(BLOCKS, name) || holds(INLINE, name);
    match found {
        Markup::Comment(_) => taken.ends_with("-->").then_some(""),
        Markup::Other => (begins("<!doctype") || begins("<?xml")).then_some(""),
        Markup::Close(name) => known(name).then_some(name),
        Markup::Program(..) => Some(""),
        Markup::Open(name, attributes) => {
            (known(name) && are_written_out(attributes)).then_some(name)
        }
    }
}

/// Whether every attribute has a value, or is one that needs none.
fn are_written_out(attributes: Attributes<'_>) -> bool {
    attributes.iter().all(|(name, value)| value.is_some() || holds(BARE, name))
}

fn holds(list: &str, name: &str) -> bool {
    list.split_ascii_whitespace().any(|known| known.eq_ignore_ascii_case(name))
}
