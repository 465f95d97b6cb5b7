//! A file that is no flow, read as flow files are: by its own schema, every mistake with its place.

use std::path::Path;

use aqueduct_core::Problem;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::flow::error::Mistake;
use crate::flow::{FlowErrors, Masks, Places, check, closed, read};

/// Reads a file of this type. `problems` are those that its schema cannot say. Blocks.
///
/// # Errors
/// All that is wrong with it, at once.
pub(crate) fn read_document<T: DeserializeOwned + JsonSchema>(
    path: &Path,
    problems: impl FnOnce(&T) -> Vec<Problem>,
) -> Result<T, FlowErrors> {
    let file = path.display().to_string();
    let failed = |mistakes: Vec<Mistake>| {
        let told = mistakes.into_iter().map(|mistake| mistake.in_file(&file, &Masks::default()));
        FlowErrors(told.collect())
    };
    let mut root = read::read(path).map_err(|mistake| failed(vec![mistake]))?;
    let at = root.at;
    let mut wrong = check::check(&mut root, &closed::<T>(), "", at);
    if !wrong.is_empty() {
        wrong.sort_by_key(|mistake| mistake.at);
        return Err(failed(wrong));
    }
    let places = Places::of(&root, String::new(), at);
    let at_pointer = |pointer: &str, message: String| {
        let (at, path) = places.find(pointer);
        Mistake::new(at, path.trim_start_matches('.'), message)
    };
    let document: T = serde_path_to_error::deserialize(root.to_json()).map_err(|error| {
        let pointer = format!("/{}", error.path().to_string().replace(['.', '['], "/").replace(']', ""));
        failed(vec![at_pointer(&pointer, error.inner().to_string())])
    })?;
    let mut wrong: Vec<_> =
        problems(&document).into_iter().map(|one| at_pointer(&one.pointer, one.message)).collect();
    if wrong.is_empty() {
        return Ok(document);
    }
    wrong.sort_by_key(|mistake| mistake.at);
    Err(failed(wrong))
}
