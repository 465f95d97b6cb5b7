//! Whether files are still what they were when an earlier process of the run read them: rows of two versions must not stand
//! in one output.

use std::sync::Arc;

use aqueduct_core::{Changed, Error, ErrorKind, Result};
use aqueduct_net::Validator;
use aqueduct_primitives::{WindowLimit, window};
use futures::StreamExt;

use super::input::Input;
use super::journal::Journal;
use super::open::Opener;

/// Looks at all files that were done before this process began, as many at once as are read at once.
///
/// # Errors
/// One changed or is gone; or it cannot be looked at.
///
/// # Cancel safety
/// Dropping the future ends the requests.
pub(super) async fn check_done(opener: Arc<Opener>, journal: Journal, n_done: u64) -> Result<()> {
    let n_done = usize::try_from(n_done).unwrap_or(usize::MAX);
    let (limit, tasks) = (WindowLimit::tasks(opener.division.n_files), opener.cx.tasks().clone());
    let mut looks = window(journal.noted().take(n_done), limit, &tasks, move |read| {
        let opener = Arc::clone(&opener);
        async move {
            let (input, was) = read?.into_parts()?;
            check(&opener, &input, &was).await
        }
    });
    while let Some(looked) = looks.next().await {
        let (is_unchanged, _place) = looked?.into_parts();
        is_unchanged?;
    }
    Ok(())
}

async fn check(opener: &Opener, input: &Input, was: &Validator) -> Result<()> {
    if was.is_empty() {
        return Ok(());
    }
    let looked = opener.fetcher.meta(&input.location, input.trust.clone(), opener.cx.metrics()).await;
    match looked {
        Ok(meta) => compare(input, was, &meta.validator()),
        Err(error) => Err(since_then(input, was, error)),
    }
}

/// Whether a file is still the one that it was.
///
/// # Errors
/// It is another.
pub(super) fn compare(input: &Input, was: &Validator, is: &Validator) -> Result<()> {
    match was.has_become_another(is) {
        true => Err(changed(input, was, &is.to_string())),
        false => Ok(()),
    }
}

/// Whether a file that is opened once more is still the one that is being read.
///
/// # Errors
/// It is another: see [`Changed`].
pub(super) fn compare_again(input: &Input, was: &Validator, is: &Validator) -> Result<()> {
    if !was.has_become_another(is) {
        return Ok(());
    }
    let change = Changed { was: was.to_string(), is: is.to_string() };
    let message = format!("it changed while it was read: {change}; run again");
    Err(Error::new(ErrorKind::Io, "read", message).with("file", &input.name).with_source(change))
}

/// What it means that a file cannot be opened of which rows were given: that it is gone, or what the error says.
pub(super) fn since_then(input: &Input, was: &Validator, error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => changed(input, was, "gone").with_source(error),
        _ => error.with("file", &input.name),
    }
}

fn changed(input: &Input, was: &Validator, is: &str) -> Error {
    let message = "a file changed since this run read it: its rows are committed as they were and cannot be taken back, \
                   and those of both versions would be mixed; `--fresh` begins anew";
    Error::new(ErrorKind::Conflict, "resume", message)
        .with("file", &input.name)
        .with("was", was)
        .with("is", is)
}
