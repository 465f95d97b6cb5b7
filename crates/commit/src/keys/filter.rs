//! Says of most keys that a run does not have them, without a look at the disk.

/// What is looked at for one key: as much as a processor fetches at once.
const LINE_BYTES: usize = 64;
/// Bits that a key sets in its line. Few, because a filter that is folded is fuller than it was made for.
const PROBES: u32 = 4;
const PROBE_BITS: u32 = 9;
/// With more it says hardly more often no.
const MOST_BITS_A_KEY: u64 = 10;
/// With fewer it hardly ever says no.
const LEAST_BITS_A_KEY: u64 = 2;
/// It can be folded so many times; its size is a multiple of a line by two to this power.
const FOLDS: u32 = 3;
const GRANULE: u64 = (LINE_BYTES as u64) << FOLDS;

/// A Bloom filter in lines: each key has its bits in one. Lines are in the order of keys, so that sorted keys go through
/// it once from the beginning to its end, and two neighbours can be laid over each other: a filter of half the size.
#[derive(Debug)]
pub(super) struct Filter {
    lines: Vec<[u64; LINE_BYTES / 8]>,
    n_keys: u64,
}

impl Filter {
    /// An empty one for so many keys, of at most so many bytes; none, where it would be of no use.
    pub(super) fn new(n_keys: u64, max_bytes: u64) -> Option<Self> {
        let n_bytes = Self::best_bytes(n_keys).min(max_bytes / GRANULE * GRANULE);
        if n_keys == 0 || n_bytes * 8 < n_keys * LEAST_BITS_A_KEY {
            return None;
        }
        let n_lines = usize::try_from(n_bytes / LINE_BYTES as u64).ok()?;
        Some(Self { lines: vec![[0; LINE_BYTES / 8]; n_lines], n_keys })
    }

    /// With more it gets hardly better.
    pub(super) fn best_bytes(n_keys: u64) -> u64 {
        (n_keys * MOST_BITS_A_KEY).div_ceil(8).next_multiple_of(GRANULE)
    }

    pub(super) fn n_bytes(&self) -> u64 {
        (self.lines.len() * LINE_BYTES) as u64
    }

    pub(super) fn insert(&mut self, key: u128) {
        let line = place(key, self.lines.len());
        if let Some(line) = self.lines.get_mut(line) {
            for (word, bit) in probes(key) {
                line[word] |= bit;
            }
        }
    }

    /// Whether the run may have the key; if not, it has it not.
    pub(super) fn may_have(&self, key: u128) -> bool {
        let line = self.lines.get(place(key, self.lines.len()));
        line.is_none_or(|line| probes(key).all(|(word, bit)| line[word] & bit != 0))
    }

    /// Half as large, and says less often no; none, where it would say it hardly ever.
    pub(super) fn folded(mut self) -> Option<Self> {
        let n_bytes = self.n_bytes() / 2;
        if self.lines.len() % 2 == 1 || n_bytes * 8 < self.n_keys * LEAST_BITS_A_KEY {
            return None;
        }
        for at in 0..self.lines.len() / 2 {
            let (left, right) = (self.lines[2 * at], self.lines[2 * at + 1]);
            self.lines[at] = std::array::from_fn(|word| left[word] | right[word]);
        }
        self.lines.truncate(self.lines.len() / 2);
        self.lines.shrink_to_fit();
        Some(self)
    }

    /// As it is written down, a line at a time.
    pub(super) fn bytes(&self) -> impl Iterator<Item = [u8; 8]> {
        self.lines.iter().flatten().map(|word| word.to_le_bytes())
    }

    /// One that was written down, in so many bytes, folded as often as it takes to have at most so many; none, where it
    /// would be of no use. Its lines are yet to come.
    pub(super) fn loading(n_keys: u64, n_bytes: u64, max_bytes: u64) -> Option<Loading> {
        let folds = (0..=FOLDS).find(|folds| n_bytes >> folds <= max_bytes)?;
        let is_of_use = (n_bytes >> folds) * 8 >= n_keys * LEAST_BITS_A_KEY && n_bytes > 0;
        let n_lines = usize::try_from(n_bytes / LINE_BYTES as u64).ok()? >> folds;
        let filter = Self { lines: vec![[0; LINE_BYTES / 8]; n_lines], n_keys };
        is_of_use.then_some(Loading { filter, n_words: 0, folds })
    }
}

/// A filter that is read back.
pub(super) struct Loading {
    filter: Filter,
    n_words: usize,
    folds: u32,
}

impl Loading {
    /// Takes the next bytes, a multiple of eight.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        const WORDS: usize = LINE_BYTES / 8;
        for word in bytes.as_chunks().0 {
            let (line, at) = ((self.n_words / WORDS) >> self.folds, self.n_words % WORDS);
            if let Some(line) = self.filter.lines.get_mut(line) {
                line[at] |= u64::from_le_bytes(*word);
            }
            self.n_words += 1;
        }
    }

    pub(super) fn end(self) -> Filter {
        self.filter
    }
}

/// The line of a key, by its upper half: lines are in the order of keys.
fn place(key: u128, n_lines: usize) -> usize {
    let upper = key >> 64;
    usize::try_from((upper * n_lines as u128) >> 64).unwrap_or_default()
}

/// The bits of a key in its line, by its lower half.
fn probes(key: u128) -> impl Iterator<Item = (usize, u64)> {
    (0..PROBES).map(move |nth| {
        let bit = (key >> (nth * PROBE_BITS)) as usize % (LINE_BYTES * 8);
        (bit / 64, 1 << (bit % 64))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> u128 {
        let hash = blake3::hash(&n.to_be_bytes());
        u128::from_be_bytes(*hash.as_bytes().first_chunk().unwrap())
    }

    fn filled(n_keys: u64, max_bytes: u64) -> Filter {
        let mut filter = Filter::new(n_keys, max_bytes).unwrap();
        (0..n_keys).for_each(|n| filter.insert(key(n)));
        filter
    }

    /// Of a hundred keys that it does not have, how many it may have.
    fn wrong(filter: &Filter) -> u64 {
        (0..10_000).filter(|n| filter.may_have(key(1_000_000 + n))).count() as u64 / 100
    }

    #[test]
    fn what_it_has_it_never_denies_and_the_rest_mostly_and_folded_less_often() {
        let mut filter = filled(10_000, 1 << 20);
        for most in [3, 13, 50] {
            assert!((0..10_000).all(|n| filter.may_have(key(n))));
            assert!(wrong(&filter) <= most, "{} of 100", wrong(&filter));
            match filter.folded() {
                Some(folded) => filter = folded,
                None => return assert_eq!(most, 50),
            }
        }
        panic!("a filter of so few bits is of no use");
    }

    #[test]
    fn what_was_written_down_reads_back_in_as_many_bytes_as_there_are() {
        let filter = filled(10_000, 1 << 20);
        let bytes: Vec<u8> = filter.bytes().flatten().collect();
        assert_eq!(bytes.len() as u64, filter.n_bytes());
        let load = |max_bytes| {
            let mut loading = Filter::loading(10_000, bytes.len() as u64, max_bytes)?;
            bytes.chunks(1024).for_each(|piece| loading.push(piece));
            Some(loading.end())
        };
        let whole = load(bytes.len() as u64).unwrap();
        assert_eq!(whole.lines, filter.lines);
        let half = load(bytes.len() as u64 - 1).unwrap();
        assert_eq!(half.lines, filter.folded().unwrap().lines);
        assert!(load(bytes.len() as u64 / 8).is_none());
    }

    #[test]
    fn without_room_there_is_none() {
        assert!(Filter::new(10_000, 2000).is_none());
        assert!(Filter::new(0, 1 << 20).is_none());
    }
}
