//! What is missing, and for how long it is asked for again.
//!
//! Time is told by what there is, not by the clock: by the newest interval of a list. Whatever the clock says, nothing is given
//! up before the list has gone on for so long, and nothing while the list stands still.

use super::input::{Input, Missing, Note};
use super::seen::{Key, Seen};
use aqueduct_core::Result;

/// Stands in the place of a time: it is given up.
const GIVEN_UP: u64 = u64::MAX;

/// How long what is missing is asked for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gaps {
    /// The newest of what there is, in seconds since 1970.
    pub(crate) newest: u64,
    /// For so many seconds.
    pub(crate) retry_seconds: u64,
}

impl Gaps {
    /// What to say of something that is missing, by when it was missed first. Nothing, if it is given up.
    fn judge(self, key: Key, first: Option<u64>, told: String) -> Option<Missing> {
        let (since, is_given_up) = match first {
            None => (self.newest, false),
            Some(GIVEN_UP) => return None,
            Some(first) if self.newest.saturating_sub(first) >= self.retry_seconds.max(1) => (GIVEN_UP, true),
            Some(_) => return Some(Missing { told, is_given_up: false, note: None }),
        };
        let told = match is_given_up {
            true => format!("{told}; it stays missing, and is given up (`retry_gaps`)"),
            false => told,
        };
        Some(Missing { told, is_given_up, note: Some(Note { key, since }) })
    }

    /// What to say of files that no list names, in order.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn unlisted(self, seen: &Seen, files: Vec<(Input, String)>) -> Result<Vec<Missing>> {
        let committed = seen.are_known(files.iter().map(|(input, _)| seen.name(input)).collect()).await?;
        let missing: Vec<_> = files
            .into_iter()
            .zip(committed)
            .filter(|(_, is_known)| !is_known)
            .map(|(file, _)| file)
            .collect();
        let keys: Vec<_> = missing.iter().map(|(input, _)| seen.unlisted(input)).collect();
        let first = seen.since(keys.clone()).await?;
        let told = missing.into_iter().zip(keys).zip(first);
        Ok(told.filter_map(|(((_, told), key), first)| self.judge(key, first, told)).collect())
    }

    /// What to say of a file that a list names and that is not there.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn gone(self, seen: &Seen, input: &Input, told: String) -> Result<Option<Missing>> {
        let key = seen.gone(input);
        let first = seen.since(vec![key]).await?.into_iter().next().flatten();
        Ok(self.judge(key, first, told))
    }
}

/// Which of some files are listed, were never there, and are given up.
///
/// # Errors
/// The disk's.
pub(super) async fn are_given_up<'a>(
    seen: &Seen,
    inputs: impl Iterator<Item = &'a Input>,
) -> Result<Vec<bool>> {
    let since = seen.since(inputs.map(|input| seen.gone(input)).collect()).await?;
    Ok(since.into_iter().map(|since| since == Some(GIVEN_UP)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_until_the_list_has_gone_on_for_so_long() {
        let judge = |newest: u64, first: Option<u64>| {
            let missing = Gaps { newest, retry_seconds: 100 }.judge(Key(7), first, "x".into())?;
            Some((missing.is_given_up, missing.note.map(|note| note.since)))
        };
        assert_eq!(judge(1000, None), Some((false, Some(1000))));
        assert_eq!(judge(1099, Some(1000)), Some((false, None)));
        assert_eq!(judge(10, Some(1000)), Some((false, None)), "a list that went back");
        assert_eq!(judge(1100, Some(1000)), Some((true, Some(GIVEN_UP))));
        assert_eq!(judge(5000, Some(GIVEN_UP)), None);
    }
}
