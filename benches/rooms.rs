//! What the rooms cost one request, in microseconds of wall time on one thread:
//! `cargo bench --bench rooms`. For ratios in one run; machines are shared and noisy.

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use portcullis_filters::accounts::{ApiKey, Keyring, Pepper, generate_secret};
use portcullis_filters::prompt::{Caps, Prompt};
use portcullis_filters::scan::{Policy, Scanner};
use portcullis_filters::surface::{Listener, recognise};
use secrecy::{ExposeSecret, SecretSlice};

mod measure;
use measure::measure;

/// A chat request of about this many bytes.
fn body(bytes: usize) -> Vec<u8> {
    let sentence = "Please summarise the paragraph about delivery windows in three points. ";
    let text: String = sentence.chars().cycle().take(bytes.saturating_sub(120)).collect();
    format!(
        r#"{{"model":"phi","max_tokens":64,"messages":[{{"role":"system","content":"Be brief."}},{{"role":"user","content":"{text}"}}]}}"#
    )
    .into_bytes()
}

fn main() -> Result<(), Box<dyn Error>> {
    let (operation, _) = recognise(Listener::Public, "POST", "/v1/chat/completions")
        .map_err(|denial| format!("{denial:?}"))?;
    let caps = Caps {
        max_tokens: 4096,
        choices: 1,
        num_ctx: 8192,
        keep_alive: Duration::from_secs(300),
        top_logprobs: 20,
        inputs: 64,
        messages: 64,
        token_context: false,
        extra_params: Vec::new(),
    };
    let scanner = Scanner::builtin().map_err(|errors| format!("{errors:?}"))?;
    let policy = Policy::default();
    for (name, bytes) in [("1 KiB", 1 << 10), ("10 KiB", 10 << 10), ("100 KiB", 100 << 10)] {
        let body = body(bytes);
        let parse = || Prompt::parse(operation, black_box(&body), &caps);
        measure(&format!("prompt: parse, {name}"), || drop(black_box(parse())))?;
        let prompt = parse().map_err(|denial| format!("{denial:?}"))?;
        measure(&format!("scan: whole prompt, {name}"), || {
            drop(black_box(scanner.scan(prompt.pieces(), &policy, 0)));
        })?;
    }
    let secret = generate_secret::<48>()?;
    let pepper = Pepper::new(&SecretSlice::from(secret.expose_secret().as_bytes().to_vec()))?;
    let key = ApiKey::generate()?;
    let mut ring = Keyring::new()?;
    let added = ring.insert(key.id(), pepper.digest(&key), Arc::new(()));
    let text = key.reveal();
    measure("authn: API key", || {
        let found = ApiKey::parse(black_box(text.expose_secret()))
            .map(|key| ring.verify(&pepper, &key).is_ok());
        assert!(added && found == Ok(true), "the key is found");
    })?;
    Ok(())
}
