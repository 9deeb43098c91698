//! Active HTML in answers that are shown on pages (OWASP LLM05:2025): elements that run or load
//! something, event handlers, and addresses that are scripts.

use super::super::report::Action;
use super::adapters::label;
use super::detector::Detector;
use super::released::Topic;
use super::shape::ShapeError;

/// Elements whose tags are active by themselves.
const ELEMENTS: &str = concat!(
    r"(?i)</?(?:script|iframe|object|embed|applet|base|form|frame|frameset|portal)",
    r"(?:[\s/][^<>]*)?>"
);

/// Any tag with an event handler, or with an address that is a script.
const ATTRIBUTES: &str = concat!(
    r#"(?i)<[a-z][^<>]*[\s/"'](?:on[a-z]{3,24}\s*=|srcdoc\s*=|"#,
    r#"(?:href|src|action|formaction|data)\s*=\s*["']?\s*(?:javascript|vbscript|data):)[^<>]*>?"#
);

/// A link of a markdown text that is a script.
const ADDRESSES: &str = r"(?i)\]\(\s*<?((?:javascript|vbscript|data:text/html)[^\s)]*)";

/// The detectors of active HTML.
///
/// # Errors
/// If an expression does not parse: never, as the tests show.
pub fn markup(action: Action) -> Result<[Detector; 3], ShapeError> {
    let name = |rule| label(Topic::Markup, "active_html", rule, action, "[HTML]");
    Ok([
        Detector::of_pattern(name("html-element"), ELEMENTS)?,
        Detector::of_pattern(name("html-attribute"), ATTRIBUTES)?,
        Detector::of_pattern(name("script-address"), ADDRESSES)?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let found = markup(Action::Redact).expect("detectors").map(|d| d.find(text));
        let found: Vec<&str> =
            found.iter().flatten().filter_map(|at| text.get(at.clone())).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn active_html() {
        check("a <script>x</script>", &["<script>", "</script>"]);
        check("<IFRAME src=//x>", &["<IFRAME src=//x>"]);
        check("<img src=x onerror=alert(1)>", &["<img src=x onerror=alert(1)>"]);
        check("<a href='javascript:x'>", &["<a href='javascript:x'>"]);
        check("[a](javascript:alert(1))", &["](javascript:alert(1"]);
    }

    #[test]
    fn quiet_html() {
        for text in
            ["<b>bold</b>", "a < b on c = d > e", "<scripture>", "<a href=\"/x\">", "if a<b"]
        {
            check(text, &[]);
        }
    }
}
