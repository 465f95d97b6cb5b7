//! `matrix:`: the entries that a flow runs for, each a set of values.

use crate::flow::error::Mistake;
use crate::flow::node::{Kind, Node};
use crate::flow::secrets::Secrets;
use crate::flow::settings::Settings;
use crate::flow::substitute::fill;
use crate::flow::values::Values;

/// Each entry is a run with a ledger entry of its own; products grow quickly.
pub(crate) const MAX_ENTRIES: usize = 1000;

/// The values of one entry, by name, in the order of the file.
pub(crate) type MatrixEntry = Vec<(String, String)>;

/// An entry as messages name it: `country=FR, year=2026`.
pub(crate) fn shown(entry: &MatrixEntry) -> String {
    entry.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
}

/// The entries of a file, those that `--only` asks for. Without a matrix: one without values. What has a wrong
/// shape is left for the check of the whole file to tell.
pub(crate) fn entries(
    file: &Node,
    settings: &Settings,
    secrets: &Secrets<'_>,
    mistakes: &mut Vec<Mistake>,
) -> Vec<MatrixEntry> {
    let Some(entry) = file.entry("matrix") else {
        if let Some((key, _)) = settings.only.first() {
            mistakes.push(Mistake::new(file.at, "", format!("--only {key}: the flow has no `matrix`")));
        }
        return vec![Vec::new()];
    };
    let mut matrix = entry.value.clone();
    fill(&mut matrix, "matrix", &Values::new(settings, secrets, &[], file), mistakes);
    let all = match &matrix.kind {
        Kind::List(items) => Some(items.iter().map(values_of).collect()),
        Kind::Map(_) => product(&matrix),
        _ => None,
    };
    let Some(all) = all.filter(|all| !all.is_empty()) else {
        let message =
            format!("a matrix of more than {MAX_ENTRIES} entries, or of none; the limit is {MAX_ENTRIES}");
        mistakes.push(Mistake::new(entry.key_at, "matrix", message));
        return vec![Vec::new()];
    };
    chosen(all, settings, entry.key_at, mistakes)
}

fn values_of(entry: &Node) -> MatrixEntry {
    entry.entries().iter().filter_map(|one| Some((one.key.clone(), one.value.scalar_text()?))).collect()
}

/// Every combination, the last key changing fastest; `None` if there are too many.
fn product(matrix: &Node) -> Option<Vec<MatrixEntry>> {
    let mut all: Vec<MatrixEntry> = vec![Vec::new()];
    for dimension in matrix.entries() {
        let values: Vec<String> = dimension.value.items().iter().filter_map(Node::scalar_text).collect();
        if all.len().saturating_mul(values.len()) > MAX_ENTRIES {
            return None;
        }
        let with = |entry: &MatrixEntry, value: &String| {
            let mut entry = entry.clone();
            entry.push((dimension.key.clone(), value.clone()));
            entry
        };
        all = all
            .iter()
            .flat_map(|entry| values.iter().map(|value| with(entry, value)).collect::<Vec<_>>())
            .collect();
    }
    Some(all)
}

/// The entries that have every value that `--only` names.
fn chosen(
    mut all: Vec<MatrixEntry>,
    settings: &Settings,
    at: crate::flow::Span,
    mistakes: &mut Vec<Mistake>,
) -> Vec<MatrixEntry> {
    if all.len() > MAX_ENTRIES {
        let message = format!("{} entries; the limit is {MAX_ENTRIES}", all.len());
        mistakes.push(Mistake::new(at, "matrix", message));
        all.truncate(1);
    }
    for (key, value) in &settings.only {
        let kept: Vec<_> =
            all.iter().filter(|entry| entry.iter().any(|(k, v)| k == key && v == value)).cloned().collect();
        if kept.is_empty() {
            mistakes.push(Mistake::new(
                at,
                "matrix",
                format!("--only {key}={value}: no entry has this value"),
            ));
            all.truncate(1);
            return all;
        }
        all = kept;
    }
    all
}
