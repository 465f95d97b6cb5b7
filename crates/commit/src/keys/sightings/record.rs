//! What is known of the sightings of a key, and how it lies in a file.
//!
//! | bytes | |
//! |---|---|
//! | 2 | length of the key |
//! | … | the key |
//! | 8, 8 | first and last seen: microseconds since 1970, two's complement |
//! | 8 | how often |
//! | 1 | 1, if there were more places than are named |
//! | 1 | number of places |
//! | 2, … | for each its length and its text |
//!
//! Numbers are big endian.

use std::collections::BTreeSet;

/// Keys and places that are longer are known by a digest. The same in all versions, because it decides which are alike.
pub(super) const MAX_TEXT_BYTES: usize = 1 << 10;

/// So many places are named of a key, the first of them by name, so that they are the same whatever came first.
pub(super) const MAX_PLACES: usize = 16;

/// No record is longer.
pub(super) const MAX_RECORD_BYTES: usize = 2 + MAX_TEXT_BYTES + 26 + MAX_PLACES * (2 + MAX_TEXT_BYTES);

const MICROS_A_DAY: i64 = 86_400_000_000;

/// When, how often and where a key was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// When it was seen first, in microseconds since 1970.
    pub first_seen: i64,
    /// When it was seen last.
    pub last_seen: i64,
    /// How many rows had it.
    pub count: u64,
    /// Where they came from, by name; at most 16.
    pub from: BTreeSet<String>,
    /// Whether some came from elsewhere.
    pub more: bool,
}

impl Sighting {
    /// One row at a time from a place, if that is known.
    pub(super) fn once(at: i64, from: Option<&str>) -> Self {
        let from = from.map(|from| short(from).into_owned()).into_iter().collect();
        Self { first_seen: at, last_seen: at, count: 1, from, more: false }
    }

    /// The same after a later one. What was not seen for more than so many days in between was forgotten.
    pub(super) fn then(mut self, later: Self, forget_after_days: Option<u16>) -> Self {
        if self.is_forgotten(later.first_seen, forget_after_days) {
            return later;
        }
        self.first_seen = self.first_seen.min(later.first_seen);
        self.last_seen = self.last_seen.max(later.last_seen);
        self.count = self.count.saturating_add(later.count);
        self.from.extend(later.from);
        self.more |= later.more || self.from.len() > MAX_PLACES;
        while self.from.len() > MAX_PLACES {
            self.from.pop_last();
        }
        self
    }

    /// Whether at some time it was not seen for more than so many days.
    pub(super) fn is_forgotten(&self, at: i64, after_days: Option<u16>) -> bool {
        let day = |micros: i64| micros.div_euclid(MICROS_A_DAY);
        let gap = day(at) - day(self.last_seen);
        after_days.is_some_and(|days| gap > i64::from(days))
    }

    /// About so much memory.
    pub(super) fn weight(&self) -> usize {
        size_of::<Self>() + self.from.iter().map(|from| from.len() + 2 * size_of::<String>()).sum::<usize>()
    }

    pub(super) fn push(&self, key: &str, bytes: &mut Vec<u8>) {
        push_text(key, bytes);
        bytes.extend_from_slice(&self.first_seen.to_be_bytes());
        bytes.extend_from_slice(&self.last_seen.to_be_bytes());
        bytes.extend_from_slice(&self.count.to_be_bytes());
        bytes.push(u8::from(self.more));
        bytes.push(u8::try_from(self.from.len()).unwrap_or(u8::MAX));
        self.from.iter().for_each(|from| push_text(from, bytes));
    }

    /// The first record of some bytes, which is taken off; none, if it is none.
    pub(super) fn take(bytes: &mut &[u8]) -> Option<(String, Self)> {
        let key = take_text(bytes)?;
        let first_seen = i64::from_be_bytes(take(bytes)?);
        let last_seen = i64::from_be_bytes(take(bytes)?);
        let count = u64::from_be_bytes(take(bytes)?);
        let [more, n_places] = take(bytes)?;
        let from = (0..n_places).map(|_| take_text(bytes)).collect::<Option<_>>()?;
        Some((key, Self { first_seen, last_seen, count, from, more: more == 1 }))
    }
}

/// A text, or its digest if it is long.
pub(super) fn short(text: &str) -> std::borrow::Cow<'_, str> {
    if text.len() <= MAX_TEXT_BYTES {
        return text.into();
    }
    format!("blake3:{}", blake3::hash(text.as_bytes()).to_hex()).into()
}

fn push_text(text: &str, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

fn take_text(bytes: &mut &[u8]) -> Option<String> {
    let length = usize::from(u16::from_be_bytes(take(bytes)?));
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).ok()
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sighting(day: i64, from: impl IntoIterator<Item = usize>) -> Sighting {
        let at = day * MICROS_A_DAY;
        let from: BTreeSet<_> = from.into_iter().map(|n| format!("feed-{n:02}")).collect();
        Sighting { first_seen: at, last_seen: at, count: 1, from, more: false }
    }

    #[test]
    fn it_does_not_matter_which_are_joined_first() {
        let three = [sighting(1, 0..16), sighting(2, 8..20), sighting(3, [0, 30])];
        let join = |a: Sighting, b: Sighting| a.then(b, None);
        let [a, b, c] = three.clone();
        let left = join(join(a, b), c);
        let [a, b, c] = three;
        assert_eq!(left, join(a, join(b, c)));
        assert_eq!((left.count, left.from.len(), left.more), (3, MAX_PLACES, true));
        assert_eq!(left.from.last().map(String::as_str), Some("feed-15"));
    }

    #[test]
    fn what_was_forgotten_in_between_counts_no_more() {
        let join = |a, b, days| sighting(a, [1]).then(sighting(b, [2]), Some(days)).count;
        assert_eq!((join(1, 4, 3), join(1, 5, 3)), (2, 1));
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_half_of_one_is_none() {
        let mut one = sighting(20_000, [1, 2]);
        one.more = true;
        let mut bytes = Vec::new();
        one.push("{\"id\":7}", &mut bytes);
        assert!((0..bytes.len()).all(|n| Sighting::take(&mut &bytes[..n]).is_none()));
        assert_eq!(Sighting::take(&mut bytes.as_slice()), Some(("{\"id\":7}".to_owned(), one)));
        assert!(short(&"x".repeat(MAX_TEXT_BYTES + 1)).starts_with("blake3:"));
    }
}
