//! What a request will cost, guessed from its size before the upstream has counted anything.
//!
//! These are estimates, good enough to hold a quota; what is charged in the end is what the
//! upstream reports. A real tokenizer takes 20 µs for a kilobyte and is right for one family of
//! models only; this is one pass over the bytes.
//!
//! Bound: a byte-level BPE tokenizer never makes more tokens than there are bytes, and the estimate
//! never exceeds the bytes either (beside the frame of each message), so it is low by at most the
//! factor 3.5, for ASCII of which each byte is a token. English prose has 4 to 5 bytes a token,
//! source code about 3.5, Chinese and Japanese 0.7 to 1.3 tokens a character.

/// Estimated tokens of a prompt: each text is one message, or one input.
///
/// Every text pays 4 tokens for its frame and its role, and the prompt 3 for the start of the
/// answer, as in the OpenAI cookbook ("How to count tokens with tiktoken").
pub fn estimate_prompt_tokens<'a>(texts: impl IntoIterator<Item = &'a str>) -> u64 {
    let tokens = texts.into_iter().map(|text| FRAME.saturating_add(text_tokens(text)));
    tokens.fold(REPLY_PRIMER, u64::saturating_add)
}

/// How fast a model reads and writes, to guess the GPU time of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuSpeed {
    /// Prompt tokens in a second.
    pub prompt_per_second: u64,
    /// Completion tokens in a second.
    pub completion_per_second: u64,
}

impl Default for GpuSpeed {
    /// A model of 8 billion parameters, quantised to 4 bits, on one consumer GPU.
    fn default() -> Self {
        Self { prompt_per_second: 2_000, completion_per_second: 50 }
    }
}

impl GpuSpeed {
    /// Estimated milliseconds on one GPU, rounded up. A speed of 0 counts as 1.
    #[must_use]
    pub fn estimate_gpu_ms(&self, prompt_tokens: u64, completion_tokens: u64) -> u64 {
        let ms = |tokens: u64, speed: u64| tokens.saturating_mul(1_000).div_ceil(speed.max(1));
        let prompt = ms(prompt_tokens, self.prompt_per_second);
        prompt.saturating_add(ms(completion_tokens, self.completion_per_second))
    }
}

/// One token for 3.5 bytes of ASCII; one for any other character, and three for those beyond the
/// basic plane, such as emoji, which tokenizers take apart.
fn text_tokens(text: &str) -> u64 {
    text.bytes().map(sevenths).sum::<u64>().div_ceil(7)
}

/// The share of a token, in sevenths. A character that is not ASCII counts at its first byte.
const fn sevenths(byte: u8) -> u64 {
    match byte {
        0..0x80 => 2,
        0x80..0xC0 => 0,
        0xC0..0xF0 => 7,
        0xF0.. => 21,
    }
}

const FRAME: u64 = 4;
const REPLY_PRIMER: u64 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_guessed_from_the_characters() {
        let cases = [
            ("", 0),
            ("a", 1),
            ("abc", 1),
            ("abcd", 2),
            ("1234567", 2),
            ("12345678", 3),
            ("é", 1),
            ("naïve", 3),
            ("漢字", 2),
            ("漢字 ab", 3),
            ("😀", 3),
            ("\0\n\u{7f}", 1),
        ];
        for (text, expected) in cases {
            assert_eq!(text_tokens(text), expected, "{text:?}");
            assert!(expected <= text.len() as u64, "{text:?}: more than a token a byte");
        }
    }

    #[test]
    fn messages_pay_for_their_frames() {
        for (texts, expected) in [(vec![], 3), (vec![""], 7), (vec!["1234567", "漢"], 3 + 6 + 5)] {
            assert_eq!(estimate_prompt_tokens(texts.iter().copied()), expected, "{texts:?}");
        }
    }

    #[test]
    fn gpu_time_is_rounded_up_and_never_overflows() {
        let speed = GpuSpeed { prompt_per_second: 1_000, completion_per_second: 30 };
        let stopped = GpuSpeed { prompt_per_second: 0, completion_per_second: 0 };
        let cases = [
            (speed, 0, 0, 0),
            (speed, 1_000, 30, 2_000),
            (speed, 1, 1, 1 + 34),
            (stopped, 1, 0, 1_000),
            (speed, u64::MAX, u64::MAX, u64::MAX / 1_000 + 1 + u64::MAX / 30 + 1),
        ];
        for (speed, prompt, completion, expected) in cases {
            assert_eq!(
                speed.estimate_gpu_ms(prompt, completion),
                expected,
                "{prompt} {completion}"
            );
        }
    }
}
