//! What a loss of power can leave of a disk.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::disk::{Bytes, Disk, File};
use super::tree::ROOT;

/// So many draws that give no new disk are the end. More find rarer disks where few are left, and take longer.
const MAX_REPEATS: usize = 200;

/// The distinct disks that a loss of power can leave: those most likely to be wrong, then any.
pub(super) fn after_power_loss(disk: Disk, seed: u64) -> impl Iterator<Item = Disk> {
    let n_pending = disk.pending.len();
    let mut extremes = extremes(n_pending);
    let mut random = Random(seed);
    let mut seen = BTreeSet::new();
    std::iter::from_fn(move || {
        let mut n_draws = 0;
        while n_draws < MAX_REPEATS {
            let remains = extremes.next().unwrap_or_else(|| {
                n_draws += 1;
                Remains::draw(n_pending, &mut random)
            });
            let after = remains.of(&disk);
            let contents = after.contents(ROOT).map(|(path, bytes)| (path, bytes.cloned()));
            if seen.insert(contents.collect::<Vec<_>>()) {
                return Some(after);
            }
        }
        None
    })
}

/// Which of the pending changes were on the disk already, and how much of the files.
struct Remains {
    is_kept: Vec<bool>,
    contents: Contents,
}

/// What is left of a file that was not synced.
#[derive(Clone, Copy)]
enum Contents {
    /// What was synced.
    Synced,
    /// All that was written.
    Written,
    /// As many bytes as were written, but zeroes.
    Zeroes,
    /// Any of these, or a part of what was written, for each file anew.
    Drawn(u64),
}

/// Nothing kept, everything kept, names without what is in the files; each single change lost; each single one
/// kept; and what a journal that is written in order would have.
fn extremes(n_pending: usize) -> impl Iterator<Item = Remains> {
    let with = move |contents, is_kept: &dyn Fn(usize) -> bool| Remains {
        is_kept: (0..n_pending).map(is_kept).collect(),
        contents,
    };
    let nothing = with(Contents::Synced, &|_| false);
    let names =
        [Contents::Written, Contents::Synced, Contents::Zeroes].map(|contents| with(contents, &|_| true));
    let one_lost = (0..n_pending).map(move |lost| with(Contents::Written, &|nth| nth != lost));
    let one_kept = (0..n_pending).map(move |kept| with(Contents::Synced, &|nth| nth == kept));
    let in_order = (0..n_pending).map(move |n_kept| with(Contents::Synced, &|nth| nth < n_kept));
    std::iter::once(nothing).chain(names).chain(one_lost).chain(one_kept).chain(in_order)
}

impl Remains {
    fn draw(n_pending: usize, random: &mut Random) -> Self {
        let is_kept = (0..n_pending).map(|_| random.below(2) == 0).collect();
        Self { is_kept, contents: Contents::Drawn(random.next()) }
    }

    /// The disk that is found when the power is back.
    fn of(&self, disk: &Disk) -> Disk {
        let mut after = disk.clone();
        after.log.push("power loss".to_owned());
        let mut tree = disk.durable.clone();
        for (pending, is_kept) in after.pending.drain(..).zip(&self.is_kept) {
            if *is_kept {
                tree.apply(&pending.change);
            } else {
                let names: Vec<_> =
                    pending.change.places().map(|place| place.name.to_string_lossy()).collect();
                after.log.push(format!("  lost: {} [{}]", disk.log[pending.operation], names.join(", ")));
            }
        }
        let reached: BTreeSet<_> = tree.below(ROOT).into_iter().map(|(_, node)| node).collect();
        after.files.retain(|node, _| reached.contains(node));
        self.contents.settle(&mut after);
        after.live = tree.clone();
        after.durable = tree;
        after
    }
}

impl Contents {
    /// Gives every file the bytes that are left of it.
    fn settle(self, disk: &mut Disk) {
        let mut random = Random(if let Self::Drawn(seed) = self { seed } else { 0 });
        for file in disk.files.values_mut().filter(|file| file.live != file.synced) {
            let left = self.left_of(file, &mut random);
            let n_written = file.live.len();
            disk.log.push(format!("  left of {}: {} of {n_written} bytes", file.path.display(), said(&left)));
            file.live = Arc::clone(&left);
            file.synced = left;
        }
    }

    fn left_of(self, file: &File, random: &mut Random) -> Bytes {
        match self {
            Self::Synced => Arc::clone(&file.synced),
            Self::Written => Arc::clone(&file.live),
            Self::Zeroes => {
                let mut bytes = file.live[..n_safe(file)].to_vec();
                bytes.resize(file.live.len(), 0);
                Arc::new(bytes)
            }
            Self::Drawn(_) => match random.below(4) {
                0 => Self::Synced.left_of(file, random),
                1 => Self::Written.left_of(file, random),
                2 => Self::Zeroes.left_of(file, random),
                _ => {
                    let n_safe = n_safe(file);
                    let n_left = n_safe + random.below(file.live.len() - n_safe + 1);
                    Arc::new(file.live[..n_left].to_vec())
                }
            },
        }
    }
}

/// How many bytes from the beginning on cannot be lost: those that were synced, unless they were written over.
fn n_safe(file: &File) -> usize {
    if file.live.starts_with(&file.synced) { file.synced.len() } else { 0 }
}

fn said(left: &Bytes) -> String {
    let n_zeroes = left.iter().rev().take_while(|byte| **byte == 0).count();
    if n_zeroes == 0 {
        left.len().to_string()
    } else {
        format!("{} and {n_zeroes} zeroes", left.len() - n_zeroes)
    }
}

/// `SplitMix64`: the same numbers from the same seed, whatever the machine or the version of a crate.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of the first so many numbers, from 0 on.
    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap_or_default()
    }
}
