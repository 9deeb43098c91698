//! Keccak-256 as Ethereum uses it: the sponge of FIPS 202 with the padding it had before it became
//! a standard, for the checksum in the case of an address (EIP-55).

/// Bytes that one permutation takes in: 200 less twice the size of the hash.
const RATE: usize = 136;

const ROUND_CONSTANTS: [u64; 24] = [
    0x0000_0000_0000_0001,
    0x0000_0000_0000_8082,
    0x8000_0000_0000_808a,
    0x8000_0000_8000_8000,
    0x0000_0000_0000_808b,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8009,
    0x0000_0000_0000_008a,
    0x0000_0000_0000_0088,
    0x0000_0000_8000_8009,
    0x0000_0000_8000_000a,
    0x0000_0000_8000_808b,
    0x8000_0000_0000_008b,
    0x8000_0000_0000_8089,
    0x8000_0000_0000_8003,
    0x8000_0000_0000_8002,
    0x8000_0000_0000_0080,
    0x0000_0000_0000_800a,
    0x8000_0000_8000_000a,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8080,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8008,
];

/// Rotations, and the lanes they go to, along the path of the steps rho and pi.
const PATH: [(u32, usize); 24] = [
    (1, 10),
    (3, 7),
    (6, 11),
    (10, 17),
    (15, 18),
    (21, 3),
    (28, 5),
    (36, 16),
    (45, 8),
    (55, 21),
    (2, 24),
    (14, 4),
    (27, 15),
    (41, 23),
    (56, 19),
    (8, 13),
    (25, 12),
    (43, 2),
    (62, 20),
    (18, 14),
    (39, 22),
    (61, 9),
    (20, 6),
    (44, 1),
];

/// The hash of a message shorter than one block; a longer one is cut to it.
pub(super) fn keccak256(message: &[u8]) -> [u8; 32] {
    let mut block = [0u8; RATE];
    let len = message.len().min(RATE - 1);
    block.iter_mut().zip(message.iter().take(len)).for_each(|(to, from)| *to = *from);
    // Padding: a bit at the end of the message, and one at the end of the block.
    block.iter_mut().skip(len).take(1).for_each(|b| *b ^= 0x01);
    block.iter_mut().rev().take(1).for_each(|b| *b ^= 0x80);
    let mut state = [0u64; 25];
    for (lane, bytes) in state.iter_mut().zip(block.as_chunks::<8>().0) {
        *lane = u64::from_le_bytes(*bytes);
    }
    for constant in ROUND_CONSTANTS {
        round(&mut state, constant);
    }
    let mut hash = [0u8; 32];
    let bytes = state.iter().flat_map(|lane| lane.to_le_bytes());
    hash.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    hash
}

#[expect(
    clippy::indexing_slicing,
    reason = "lanes are numbered by constants and by x and y below 5"
)]
fn round(state: &mut [u64; 25], constant: u64) {
    let parity: [u64; 5] = std::array::from_fn(|x| (0..5).fold(0, |sum, y| sum ^ state[x + 5 * y]));
    for x in 0..5 {
        let mixed = parity[(x + 4) % 5] ^ parity[(x + 1) % 5].rotate_left(1);
        (0..5).for_each(|y| state[x + 5 * y] ^= mixed);
    }
    let mut last = state[1];
    for (rotation, lane) in PATH {
        last = std::mem::replace(&mut state[lane], last.rotate_left(rotation));
    }
    for y in 0..5 {
        let row: [u64; 5] = std::array::from_fn(|x| state[x + 5 * y]);
        (0..5).for_each(|x| state[x + 5 * y] = row[x] ^ (!row[(x + 1) % 5] & row[(x + 2) % 5]));
    }
    state[0] ^= constant;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_hashes() {
        for (message, expected) in [
            ("", "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"),
            ("abc", "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"),
        ] {
            let hash: String =
                keccak256(message.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hash, expected, "{message}");
        }
    }
}
