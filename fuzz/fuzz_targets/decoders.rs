//! Any text decodes, to no more texts than it has bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_filters::scan::parts::Parts;

fuzz_target!(|text: &str| {
    assert!(Parts::decode(text) <= text.len());
});
