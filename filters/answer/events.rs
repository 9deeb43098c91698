//! Cuts a stream into events and passes on each as soon as it is whole.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::reader::{Pass, Reader};
use super::sse::Scan;
use super::{Broken, Framing, broken_off, ndjson};
use crate::verdict::Denial;

/// A stream of events, of which the last may not be whole yet.
#[derive(Debug)]
pub(super) struct Events {
    boundary: Boundary,
    max_event: usize,
    pending: BytesMut,
    /// Where the events end that have become whole; kept to save an allocation a chunk.
    ends: Vec<usize>,
}

#[derive(Debug)]
enum Boundary {
    Sse(Scan),
    NdJson,
}

impl Events {
    pub(super) fn new(framing: Framing, max_event: usize) -> Self {
        let boundary = match framing {
            Framing::Sse => Boundary::Sse(Scan::default()),
            Framing::NdJson | Framing::Json | Framing::Text => Boundary::NdJson,
        };
        Self { boundary, max_event, pending: BytesMut::new(), ends: Vec::new() }
    }

    /// Takes a chunk and gives the whole events that are now there, as `reader` lets them pass.
    pub(super) fn push(
        &mut self,
        reader: &mut Reader,
        chunk: &Bytes,
        eos: bool,
    ) -> Result<Bytes, Box<Broken>> {
        let mut passed = Passed::new(self.collect(chunk));
        let read = self.read(reader, &mut passed);
        let ended = if eos { read.and_then(|()| self.finish(reader, &mut passed)) } else { read };
        match ended {
            Ok(()) => Ok(passed.into_bytes()),
            Err(denial) => Err(Box::new(Broken { whole: passed.into_bytes(), denial })),
        }
    }

    /// Gives what is whole now, and keeps the rest.
    fn collect(&mut self, chunk: &Bytes) -> Bytes {
        self.ends.clear();
        let held = self.pending.len();
        match &mut self.boundary {
            Boundary::Sse(scan) => scan.ends(chunk, held, &mut self.ends),
            Boundary::NdJson => ndjson::ends(chunk, held, &mut self.ends),
        }
        let whole = self.ends.last().copied().unwrap_or(0);
        if held == 0 {
            self.pending.extend_from_slice(chunk.get(whole..).unwrap_or_default());
            return chunk.slice(..whole);
        }
        self.pending.extend_from_slice(chunk);
        self.pending.split_to(whole).freeze()
    }

    fn read(&self, reader: &mut Reader, passed: &mut Passed) -> Result<(), Denial> {
        let mut start = 0;
        for &end in &self.ends {
            self.bound(end - start)?;
            let pass = reader.event(passed.source(start..end))?;
            passed.add(start..end, pass);
            start = end;
        }
        self.bound(self.pending.len())
    }

    fn bound(&self, length: usize) -> Result<(), Denial> {
        if length > self.max_event {
            return Err(broken_off(format!("an event is longer than {} bytes", self.max_event)));
        }
        Ok(())
    }

    /// The end of the body. What is left over goes on only if it is whole after all: an event whose
    /// last line end lost its LF, or a last line without one that ends the stream.
    fn finish(&mut self, reader: &mut Reader, passed: &mut Passed) -> Result<(), Denial> {
        let rest = self.pending.split();
        let is_event = match &self.boundary {
            Boundary::Sse(scan) => scan.ends_here(),
            Boundary::NdJson => !rest.is_empty() && !reader.has_ended(),
        };
        if is_event {
            let pass = reader.event(&rest)?;
            if reader.has_ended() {
                passed.append(&rest, pass);
            }
        }
        if reader.has_ended() { Ok(()) } else { Err(broken_off("no end mark")) }
    }
}

/// The events of one chunk on their way out: not copied as long as all are kept.
struct Passed {
    source: Bytes,
    /// The prefix of `source` that goes on unchanged.
    kept: usize,
    /// What goes on instead, once something was changed.
    edited: Option<BytesMut>,
}

impl Passed {
    const fn new(source: Bytes) -> Self {
        Self { source, kept: 0, edited: None }
    }

    fn source(&self, range: Range<usize>) -> &[u8] {
        self.source.get(range).unwrap_or_default()
    }

    /// Adds the next event of the source.
    fn add(&mut self, range: Range<usize>, pass: Pass) {
        match pass {
            Pass::Keep if self.edited.is_none() => self.kept = range.end,
            Pass::Keep | Pass::Drop | Pass::Replace(_) => {
                let event = self.source.slice(range);
                self.append(&event, pass);
            }
        }
    }

    /// Adds an event that may come from elsewhere.
    fn append(&mut self, event: &[u8], pass: Pass) {
        let kept = self.source.get(..self.kept).unwrap_or_default();
        let edited = self.edited.get_or_insert_with(|| BytesMut::from(kept));
        match pass {
            Pass::Keep => edited.extend_from_slice(event),
            Pass::Replace(bytes) => edited.extend_from_slice(&bytes),
            Pass::Drop => {}
        }
    }

    fn into_bytes(self) -> Bytes {
        match self.edited {
            Some(edited) => edited.freeze(),
            None => self.source.slice(..self.kept),
        }
    }
}
