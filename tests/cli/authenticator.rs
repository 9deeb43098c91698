//! An authenticator app, made from the RFCs alone, so that the gateway is not checked by itself.

/// The six digits that a secret in base32 has at a time (RFC 6238, with HMAC-SHA-1 and 30 seconds).
pub(crate) fn code(secret: &str, unix_secs: u64) -> String {
    let mac = hmac(&base32(secret), &(unix_secs / 30).to_be_bytes());
    let at = usize::from(mac[19] & 15);
    let number = u32::from_be_bytes(mac[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", number % 1_000_000)
}

/// RFC 4648 section 6
fn base32(text: &str) -> Vec<u8> {
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let (mut bits, mut count, mut bytes) = (0_u64, 0, Vec::new());
    for symbol in text.chars() {
        bits = bits << 5 | alphabet.find(symbol).unwrap() as u64;
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

/// RFC 2104
fn hmac(key: &[u8], message: &[u8]) -> [u8; 20] {
    let padded = |pad: u8| (0..64).map(|at| key.get(at).unwrap_or(&0) ^ pad).collect::<Vec<u8>>();
    let inner = sha1(&[&padded(0x36), message].concat());
    sha1(&[&padded(0x5c)[..], &inner].concat())
}

/// RFC 3174
fn sha1(message: &[u8]) -> [u8; 20] {
    let mut state = [0x6745_2301_u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let mut text = [message, &[0x80]].concat();
    text.resize((text.len() + 8).next_multiple_of(64) - 8, 0);
    text.extend((message.len() as u64 * 8).to_be_bytes());
    for block in text.chunks(64) {
        let mut w: Vec<u32> =
            block.chunks(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect();
        for t in 16..80 {
            w.push((w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16]).rotate_left(1));
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (t, word) in w.iter().enumerate() {
            let (f, k) = match t {
                0..20 => ((b & c) | (!b & d), 0x5a82_7999),
                20..40 => (b ^ c ^ d, 0x6ed9_eba1),
                40..60 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6_u32),
            };
            let sum = a.rotate_left(5).wrapping_add(f).wrapping_add(e);
            let next = sum.wrapping_add(*word).wrapping_add(k);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (old, new) in state.iter_mut().zip([a, b, c, d, e]) {
            *old = old.wrapping_add(new);
        }
    }
    let bytes: Vec<u8> = state.iter().flat_map(|word| word.to_be_bytes()).collect();
    bytes.try_into().unwrap()
}

#[test]
fn it_shows_the_codes_of_rfc_6238_appendix_b() {
    let secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
    for (time, expected) in [
        (59, "287082"),
        (1_111_111_109, "081804"),
        (1_111_111_111, "050471"),
        (1_234_567_890, "005924"),
        (2_000_000_000, "279037"),
        (20_000_000_000, "353130"),
    ] {
        assert_eq!(code(secret, time), expected, "{time}");
    }
}
