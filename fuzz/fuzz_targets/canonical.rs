//! The canonical view of any text is its own canonical view.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_filters::scan::training::canonical;

fuzz_target!(|text: &str| {
    let once = canonical(text);
    assert_eq!(canonical(&once), once);
});
