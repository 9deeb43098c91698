//! Places of a text that lie near one another, kept as few ranges, with how many there were.

use std::ops::Range;

/// How far around a place a region reaches, in bytes: an attack is hardly longer.
const REACH: usize = 384;

/// Ranges in rising order, far enough apart that their surroundings do not overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::scan) struct Regions(Vec<(Range<usize>, usize)>);

impl Regions {
    /// Adds a place that does not start before the last region.
    pub(in crate::scan) fn add(&mut self, place: Range<usize>) {
        match self.0.last_mut() {
            Some((last, count)) if place.start <= last.end.saturating_add(2 * REACH) => {
                *last = last.start.min(place.start)..last.end.max(place.end);
                *count += 1;
            }
            Some(_) | None => self.0.push((place, 1)),
        }
    }

    pub(in crate::scan) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The regions with their surroundings, within a text of `len` bytes.
    pub(in crate::scan) fn iter(&self, len: usize) -> impl Iterator<Item = Range<usize>> {
        self.0.iter().map(move |(place, _)| {
            place.start.saturating_sub(REACH)..place.end.saturating_add(REACH).min(len)
        })
    }

    /// The regions of at least so many places.
    pub(in crate::scan) fn of_many(&self, least: usize) -> Self {
        Self(self.0.iter().filter(|(_, count)| *count >= least).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_places_are_one_region() {
        let mut regions = Regions::default();
        assert!(regions.is_empty());
        for at in [1000, 1500, 5000] {
            regions.add(at..at + 10);
        }
        let found: Vec<_> = regions.iter(5100).collect();
        assert_eq!(regions.of_many(2).iter(5100).count(), 1);
        assert_eq!(found, [1000 - REACH..1510 + REACH, 5000 - REACH..5100]);
    }
}
