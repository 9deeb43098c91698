//! The file that a model is kept in.
//!
//! All numbers are little-endian:
//!
//! | bytes | meaning |
//! |---|---|
//! | 4 | `PCLM` |
//! | 1 | version of the format, 1 |
//! | 1 | [`Kinds`] of features |
//! | 1 | tokens in a window |
//! | 1 | 0 |
//! | 4 | `u32`: n, the number of weights |
//! | 4 × 5 | `f32`: floor of the window's norm, scale of the weights, bias, slope and offset of the calibration |
//! | n | `i8` weights |
//! | 4 | CRC-32 of everything before it |

use std::fmt;

use super::features::Kinds;
use super::pool::{MAX_WINDOW, Shape};

const MAGIC: [u8; 4] = *b"PCLM";
const VERSION: u8 = 1;
const HEADER: usize = 32;
/// The longest file, 512 KiB: more does not fit beside everything else in a second-level cache.
const MAX_FILE: usize = 512 * 1024;
/// The most weights that fit into a file.
pub const MAX_WEIGHTS: usize = MAX_FILE - HEADER - 4;

/// Why a weight file was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelError {
    /// It does not begin like one.
    NotAModel,
    /// It is of another version of the format.
    Version(u8),
    /// Its length is not what its header says.
    Length,
    /// It was changed or cut after it was written.
    Checksum,
    /// A number in the header makes no sense.
    Header,
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAModel => f.write_str("not a model file"),
            Self::Version(version) => write!(f, "model format {version} is not known"),
            Self::Length => f.write_str("the model file has the wrong length"),
            Self::Checksum => f.write_str("the model file is damaged"),
            Self::Header => f.write_str("a number in the header of the model file is out of range"),
        }
    }
}

impl std::error::Error for ModelError {}

/// What a weight file holds.
#[derive(Clone, PartialEq)]
pub struct Weights {
    /// The features it was trained on.
    pub kinds: Kinds,
    /// How windows are weighed.
    pub shape: Shape,
    /// What one step of an `i8` weight is worth.
    pub scale: f32,
    /// The margin of a text without features.
    pub bias: f32,
    /// Calibration: the probability is the logistic function of `slope * margin + offset`.
    pub slope: f32,
    /// See `slope`.
    pub offset: f32,
    /// The weights; [`index`] says which one is whose.
    pub table: Vec<i8>,
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Weights").field("table", &self.table.len()).finish_non_exhaustive()
    }
}

impl Weights {
    /// Reads a weight file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_bytes(file: &[u8]) -> Result<Self, ModelError> {
        let (body, sum) = file.split_last_chunk::<4>().ok_or(ModelError::NotAModel)?;
        let (header, table) = body.split_first_chunk::<HEADER>().ok_or(ModelError::NotAModel)?;
        let [m0, m1, m2, m3, version, kinds, window, _, n0, n1, n2, n3, numbers @ ..] = header;
        if [*m0, *m1, *m2, *m3] != MAGIC {
            return Err(ModelError::NotAModel);
        }
        if *version != VERSION {
            return Err(ModelError::Version(*version));
        }
        let count = u32::from_le_bytes([*n0, *n1, *n2, *n3]) as usize;
        if table.len() != count || !(1..=MAX_WEIGHTS).contains(&count) {
            return Err(ModelError::Length);
        }
        if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
            return Err(ModelError::Checksum);
        }
        let (chunks, _) = numbers.as_chunks::<4>();
        let &[floor, scale, bias, slope, offset] = chunks else { return Err(ModelError::Header) };
        Self {
            kinds: Kinds(*kinds),
            shape: Shape { window: *window, floor: f32::from_le_bytes(floor) },
            scale: f32::from_le_bytes(scale),
            bias: f32::from_le_bytes(bias),
            slope: f32::from_le_bytes(slope),
            offset: f32::from_le_bytes(offset),
            table: table.iter().map(|b| b.cast_signed()).collect(),
        }
        .checked()
    }

    /// Writes a weight file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut file = Vec::with_capacity(HEADER + self.table.len() + 4);
        file.extend(MAGIC);
        file.extend([VERSION, self.kinds.0, self.shape.window, 0]);
        file.extend((self.table.len() as u32).to_le_bytes());
        for number in [self.shape.floor, self.scale, self.bias, self.slope, self.offset] {
            file.extend(number.to_le_bytes());
        }
        file.extend(self.table.iter().map(|w| w.cast_unsigned()));
        file.extend(crc32fast::hash(&file).to_le_bytes());
        file
    }

    fn checked(self) -> Result<Self, ModelError> {
        let numbers = [self.shape.floor, self.scale, self.bias, self.slope, self.offset];
        let window = usize::from(self.shape.window);
        let sane = numbers.iter().all(|n| n.is_finite())
            && (1..=MAX_WINDOW).contains(&window)
            && self.shape.floor >= 0.0
            && self.scale > 0.0
            && self.slope > 0.0;
        if sane { Ok(self) } else { Err(ModelError::Header) }
    }

    /// The weight of a feature, by its hash.
    pub(super) fn of(&self, hash: u32) -> i8 {
        self.table.get(index(hash, self.table.len())).copied().unwrap_or_default()
    }
}

/// Where in a table of so many weights the weight of a feature stands.
#[must_use]
pub const fn index(hash: u32, weights: usize) -> usize {
    ((hash as u64 * weights as u64) >> 32) as usize
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// A model of 256 weights that are all 0.
    pub(crate) fn blank() -> Weights {
        Weights {
            kinds: Kinds::WORDS.and(Kinds::PAIRS),
            shape: Shape { window: 32, floor: 4.0 },
            scale: 0.05,
            bias: -1.0,
            slope: 1.5,
            offset: -0.5,
            table: vec![0; 256],
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::testing::blank;
    use super::*;

    #[track_caller]
    fn check(change: impl Fn(&mut Vec<u8>), expected: ModelError) {
        let mut file = blank().to_bytes();
        change(&mut file);
        assert_eq!(Weights::from_bytes(&file), Err(expected));
        assert!(!expected.to_string().is_empty());
    }

    fn sealed(mut weights: Weights, change: impl Fn(&mut Weights)) -> Result<Weights, ModelError> {
        change(&mut weights);
        Weights::from_bytes(&weights.to_bytes())
    }

    #[test]
    fn what_was_written_is_read() {
        let mut weights = blank();
        weights.table[7] = -128;
        assert_eq!(Weights::from_bytes(&weights.to_bytes()), Ok(weights));
    }

    #[test]
    fn a_broken_file_is_an_error() {
        check(Vec::clear, ModelError::NotAModel);
        check(|file| file.truncate(20), ModelError::NotAModel);
        check(|file| file[0] = b'X', ModelError::NotAModel);
        check(|file| file[4] = 2, ModelError::Version(2));
        check(|file| file[10] = 31, ModelError::Length);
        check(|file| file.truncate(200), ModelError::Length);
        check(|file| file[40] ^= 1, ModelError::Checksum);
    }

    #[test]
    fn senseless_numbers_are_an_error() {
        let changes: [fn(&mut Weights); 5] = [
            |w| w.scale = f32::NAN,
            |w| w.slope = 0.0,
            |w| w.bias = f32::INFINITY,
            |w| w.shape.window = 0,
            |w| w.shape.window = 65,
        ];
        for change in changes {
            assert_eq!(sealed(blank(), change), Err(ModelError::Header));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(file in proptest::collection::vec(any::<u8>(), 0..400), like in any::<bool>()) {
            let mut file = file;
            if like && file.len() > 12 {
                file[..4].copy_from_slice(b"PCLM");
                file[4] = 1;
                file[8..12].copy_from_slice(&[1, 0, 0, 0]);
            }
            if let Ok(weights) = Weights::from_bytes(&file) {
                prop_assert_eq!(weights.to_bytes(), file);
            }
        }
    }
}
