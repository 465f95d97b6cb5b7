//! Runs that are killed at named points, one after the other.

use std::collections::BTreeSet;

use anyhow::Result;

use super::named::check_all_hit;
use super::night::{ALL_SHAPES, Field, Folder, Kill, Shape};
use super::results::Tally;

/// Points in what a run does about those that died before it.
const RECOVERY: &str = "recovery.";

/// Where a run is killed before, so that the next has something to recover. The first leaves what most of it is about.
const BEFORE: [&str; 5] = [
    "commit.finish.recorded",
    "commit.epoch.recorded",
    "commit.stage.made",
    "commit.record.linked",
    "keys.run.synced",
];

/// Runs killed at one point in one night: each passes it once more than the one before.
const MAX_PASSES: u64 = 3;

/// In the first night nothing is there yet, in the second what the first has left.
const N_NIGHTS: u64 = 2;

/// Kills runs at every point, each in the first shape of flow in which one dies there.
///
/// # Errors
/// Something is lost, or twice, or seen too early. Or no run passes some point.
pub(super) fn each_once(field: Field<'_>, names: &[String]) -> Result<Tally> {
    let (mut tally, mut hit) = (Tally::default(), BTreeSet::new());
    for (nth, name) in names.iter().enumerate() {
        // Each begins with another shape, so that points of all are not all tried in one.
        for shape in ALL_SHAPES.into_iter().cycle().skip(nth % ALL_SHAPES.len()).take(ALL_SHAPES.len()) {
            if dies(field, shape, name, &mut tally)? {
                hit.insert(name.as_str());
                break;
            }
        }
    }
    check_all_hit(names, |name| hit.contains(name))?;
    Ok(tally)
}

/// Kills runs of one shape at a point, the first, the second, … time that they pass it; whether one died there.
pub(super) fn dies(field: Field<'_>, shape: Shape, point: &str, tally: &mut Tally) -> Result<bool> {
    if !point.starts_with(RECOVERY) {
        return dies_behind(field, shape, None, point, tally);
    }
    for before in BEFORE {
        if dies_behind(field, shape, Some(before), point, tally)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn dies_behind(
    field: Field<'_>,
    shape: Shape,
    mut before: Option<&str>,
    point: &str,
    tally: &mut Tally,
) -> Result<bool> {
    let mut folder = Folder::new(field, shape)?;
    for _ in 0..N_NIGHTS {
        let mut n_armed = 0;
        folder.night(tally, |_| {
            if let Some(before) = before.take() {
                return Some(Kill::Point { name: before.to_owned(), nth: 1 });
            }
            n_armed += 1;
            (n_armed <= MAX_PASSES).then(|| Kill::Point { name: point.to_owned(), nth: n_armed })
        })?;
    }
    if !folder.died_at().is_empty() {
        // A run that was complete when it was killed is judged by the next.
        folder.night(tally, |_| None)?;
    }
    Ok(folder.died_at().contains(point))
}
