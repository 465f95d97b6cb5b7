//! What becomes of a run when a file changes while it is read.

use aqueduct_core::{Changed, Error, ReadAgain};
use schemars::JsonSchema;
use serde::Deserialize;

use super::input::Input;

/// What becomes of a run when a file changes while it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnChange {
    /// It ends, with an error that names both versions.
    #[default]
    Fail,
    /// What it has not committed is dropped, and it goes on from its last commit: the file is read as it is then. A file of
    /// which rows are committed is an error all the same, for they cannot be taken back; so is one that changes three times
    /// before the run commits anything, or whose versions nothing tells apart, no ETag and no time of change.
    Reread,
}

impl OnChange {
    /// The pointer of the option, if rows are to be taken back.
    pub(crate) fn takes_back(self) -> Option<&'static str> {
        (self == Self::Reread).then_some("/on_change")
    }

    /// What is wrong with a file that could not be read on, for the policy to decide about.
    ///
    /// # Errors
    /// It changed, and is to be read again: nothing that was given of it counts, whatever the policy.
    pub(crate) fn unless_again(self, input: &Input, error: Error) -> Result<Error, Error> {
        let is_again = |change: &&Changed| self == Self::Reread && are_told_apart(change);
        match error.cause::<Changed>().filter(is_again) {
            None => Ok(error),
            Some(change) => {
                let again = ReadAgain { file: input.name.to_string(), change: change.clone() };
                Err(error.with("file", &input.name).with_source(again))
            }
        }
    }
}

/// Whether the next attempt would see that the version is another, if rows of the one that was are committed by then: ETags are
/// compared as weak ones there.
fn are_told_apart(Changed { was, is }: &Changed) -> bool {
    let name = |version: &str| version.strip_prefix("W/").unwrap_or(version).to_owned();
    name(was) != name(is)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use aqueduct_core::ErrorKind;
    use aqueduct_net::{Location, Trust};

    use super::*;

    /// Whether a file that was and is so is read again.
    fn is_again(on_change: OnChange, was: &str, is: &str) -> bool {
        let input = Input::new(Location::parse("a.csv", Path::new("/data")).unwrap(), Trust::Flow);
        let change = Changed { was: was.into(), is: is.into() };
        let error = Error::new(ErrorKind::Io, "read", "it changed").with_source(change.clone());
        match on_change.unless_again(&input, error) {
            Ok(_) => false,
            Err(error) => {
                let again = ReadAgain { file: "/data/a.csv".into(), change };
                assert_eq!(error.cause(), Some(&again));
                assert!(error.chain().contains(was) && error.chain().contains(is), "{}", error.chain());
                true
            }
        }
    }

    #[test]
    fn what_changed_is_read_again_if_that_is_asked_for_and_its_versions_are_told_apart() {
        assert!(is_again(OnChange::Reread, "\"a\"", "\"b\""));
        assert!(!is_again(OnChange::Fail, "\"a\"", "\"b\""));
        assert!(!is_again(OnChange::Reread, "no name", "no name"));
        assert!(!is_again(OnChange::Reread, "W/\"a\"", "\"a\""));
        let input = Input::new(Location::parse("a.csv", Path::new("/data")).unwrap(), Trust::Flow);
        let damaged = Error::new(ErrorKind::Data, "read", "it is damaged");
        assert_eq!(OnChange::Reread.unless_again(&input, damaged).unwrap().kind(), ErrorKind::Data);
    }
}
