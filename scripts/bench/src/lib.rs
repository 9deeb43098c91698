//! What the mock upstream and the load generator share: a clock, and time stamps that travel in the text of an answer.

use rustix::time::{ClockId, clock_gettime};

/// Letters in a stamp after its leading `T`.
const LETTERS: usize = 16;

/// Nanoseconds of a clock that all processes of one machine share.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// This moment as text: `T` and sixteen letters, never digits, so that no redaction takes it for a card number.
pub fn stamp() -> String {
    let time = now();
    let letter = |i: usize| char::from(b'a' + ((time >> (60 - 4 * i)) & 15) as u8);
    std::iter::once('T').chain((0..LETTERS).map(letter)).collect()
}

/// The moment that a line of an answer carries, if it carries one.
pub fn read_stamp(line: &[u8]) -> Option<u64> {
    let start = memchr::memmem::find(line, b"\"T")? + 2;
    let letters = line.get(start..start + LETTERS)?;
    letters.iter().try_fold(0, |time, letter| match letter {
        b'a'..=b'p' => Some(time << 4 | u64::from(letter - b'a')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_back() {
        let before = now();
        let line = format!("data: {{\"content\":\"{} and more\"}}", stamp());
        let read = read_stamp(line.as_bytes()).unwrap();
        assert!((before..=now()).contains(&read));
    }

    #[test]
    fn other_text_is_no_stamp() {
        for line in ["", "\"T", "\"Tabc\"", "\"Tabcdefghijklmnoz\"", "\"the time\""] {
            assert_eq!(read_stamp(line.as_bytes()), None, "{line}");
        }
    }
}
