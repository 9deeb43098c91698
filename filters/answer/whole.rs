//! A body that is one JSON object: passed on at once, read when it is all there.

use bytes::{Bytes, BytesMut};

use super::broken_off;
use super::nesting::Nesting;
use super::reader::Reader;
use crate::verdict::Denial;

/// What is kept of a body while it passes.
#[derive(Debug)]
pub(super) struct Whole {
    kept: Kept,
    max_buffered: usize,
    bytes: u64,
}

#[derive(Debug)]
enum Kept {
    Copy(BytesMut),
    /// Too large to keep: only its structure is followed.
    Structure(Nesting),
    /// It was read.
    Done,
}

impl Whole {
    pub(super) fn new(max_buffered: usize) -> Self {
        Self { kept: Kept::Copy(BytesMut::new()), max_buffered, bytes: 0 }
    }

    /// How many bytes passed that were not understood, because the body is not at its end.
    pub(super) const fn unread(&self) -> u64 {
        if matches!(self.kept, Kept::Done) { 0 } else { self.bytes }
    }

    /// Takes a chunk, which may go on, and reads the body when it is at its end.
    pub(super) fn push(
        &mut self,
        reader: &mut Reader,
        chunk: &Bytes,
        eos: bool,
    ) -> Result<(), Denial> {
        self.bytes = self.bytes.saturating_add(chunk.len() as u64);
        self.keep(chunk);
        if eos { self.read(reader) } else { Ok(()) }
    }

    fn keep(&mut self, chunk: &[u8]) {
        match &mut self.kept {
            Kept::Copy(copy) if copy.len() + chunk.len() <= self.max_buffered => {
                copy.extend_from_slice(chunk);
            }
            Kept::Copy(copy) => {
                let mut nesting = Nesting::default();
                copy.iter().chain(chunk).for_each(|&byte| nesting.step(byte));
                self.kept = Kept::Structure(nesting);
            }
            Kept::Structure(nesting) => chunk.iter().for_each(|&byte| nesting.step(byte)),
            Kept::Done => {}
        }
    }

    fn read(&mut self, reader: &mut Reader) -> Result<(), Denial> {
        match &self.kept {
            Kept::Copy(copy) => reader.body(copy)?,
            Kept::Structure(nesting) if nesting.is_whole() => reader.unread_body(self.bytes),
            Kept::Structure(_) => return Err(broken_off("the body ends before its JSON does")),
            Kept::Done => {}
        }
        self.kept = Kept::Done;
        Ok(())
    }
}
