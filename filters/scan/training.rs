//! What the trainer shares with the gateway: the same views of a text, the same features.

use super::canonical::View;
use super::decode::decode;
use super::disguise::{signs, unleet};

pub use super::model::features::{Gram, Kinds, Sink, walk};
pub use super::model::pool::{MAX_WINDOW, Pool, Shape};
pub use super::model::weights::{MAX_WEIGHTS, Weights, index};
pub use super::model::{Model, ModelError};

/// The view of a text that the model reads.
#[must_use]
pub fn canonical(text: &str) -> String {
    View::canonical(text).text().to_owned()
}

/// The canonical view, what decodes from the text, and both without leet where they show signs.
#[must_use]
pub fn views(text: &str) -> Vec<String> {
    let plain = View::plain(text);
    let decoded = decode(plain.text()).into_iter().map(|found| canonical(&found.text));
    let mut views: Vec<String> = std::iter::once(canonical(text)).chain(decoded).collect();
    let unmasked: Vec<_> =
        views.iter().filter(|view| signs(view).leet).map(|view| unleet(view)).collect();
    views.extend(unmasked);
    views
}
