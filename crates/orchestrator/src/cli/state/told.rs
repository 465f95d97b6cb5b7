//! A flow's state as text for people, and as JSON.

use std::path::Path;

use aqueduct_commit::{FlowLog, KeysKept, LastRun, SightingsKept, Stands};
use aqueduct_core::{Positions, Result};
use aqueduct_net::Location;
use aqueduct_primitives::ByteCount;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use crate::flow::Flow;
use crate::progress::grouped;
use crate::report::timestamp;

/// Under this name it is kept which letters were replayed: no step has it.
pub(in crate::cli) const REPLAYED: &str = ".replayed";

/// What is told of a value is no longer than this: `export` tells all of it.
const MAX_VALUE_CHARS: usize = 200;

/// A flow's name, with the values of its matrix entry.
pub(super) fn title(flow: &Flow) -> String {
    let values = flow.entry.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
    if values.is_empty() { flow.name.clone() } else { format!("{} ({})", flow.name, values.join(", ")) }
}

/// The state, a line for each thing.
///
/// # Errors
/// A newer version wrote it.
pub(super) fn shown(flow: &Flow, log: &FlowLog) -> Result<String> {
    let mut lines = vec![("state".to_owned(), flow.log_dir().display().to_string())];
    let last = log.last_run();
    match last {
        Some(last) => lines.push(("last run".to_owned(), run_shown(&last))),
        None => lines.push(("last run".to_owned(), "none has committed anything".to_owned())),
    }
    for (source, positions) in last.iter().flat_map(positions) {
        lines.extend(
            positions.iter().map(|(split, position)| (source.clone(), position_shown(split, position))),
        );
    }
    for (step, value) in kept(log) {
        lines.push((step.to_owned(), kept_shown(step, value)?));
    }
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    let lines = lines.into_iter().map(|(name, text)| format!("  {name:width$}  {text}\n"));
    Ok(format!("{}\n{}", title(flow), lines.collect::<String>()))
}

/// The state, with all that steps keep.
pub(super) fn exported(flow: &Flow, log: &FlowLog) -> Value {
    let last_run = log.last_run().map(|last| {
        json!({
            "run_id": last.run_id,
            "started": timestamp(last.started),
            "committed": timestamp(last.committed),
            "status": stands(last.stands),
            "rows_in": last.counts.rows_in,
            "rows_out": last.counts.rows_out,
            "rows_rejected": last.counts.rows_rejected,
        })
    });
    let position = |positions: &Positions| {
        let splits = positions.iter().map(|(split, position)| (split.to_owned(), position.clone()));
        Value::Object(splits.collect())
    };
    let last = log.last_run();
    let told = last.iter().flat_map(positions).map(|(source, one)| (source.clone(), position(one)));
    let steps = kept(log).map(|(step, value)| (step.to_owned(), value.clone()));
    json!({
        "flow": flow.name,
        "entry": flow.entry.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect::<Map<_, _>>(),
        "state": flow.log_dir().display().to_string(),
        "last_run": last_run,
        "positions": told.collect::<Map<_, _>>(),
        "steps": steps.collect::<Map<_, _>>(),
    })
}

/// Masks every text of a value, and what URLs hold beside their addresses.
pub(super) fn mask(value: &mut Value, masked: &dyn Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = masked(&without_credentials(text)),
        Value::Array(items) => items.iter_mut().for_each(|item| mask(item, masked)),
        Value::Object(fields) => {
            let taken = std::mem::take(fields).into_iter().map(|(key, mut below)| {
                mask(&mut below, masked);
                (masked(&without_credentials(&key)), below)
            });
            *fields = taken.collect();
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn without_credentials(text: &str) -> String {
    let is_url = text.starts_with("http://") || text.starts_with("https://");
    match Location::parse(text, Path::new("")) {
        Ok(location) if is_url => location.to_string(),
        _ => text.to_owned(),
    }
}

/// What steps keep that counts: a copy of rows is of no use but to its own run.
fn kept(log: &FlowLog) -> impl Iterator<Item = (&str, &Value)> {
    let unfinished = log.unfinished().map(|run| run.run_id);
    let counts = move |(step, value): &(&String, &Value)| {
        !step.contains(".input") || value.get("run_id").and_then(Value::as_str) == unfinished
    };
    log.kept().iter().filter(counts).map(|(step, value)| (step.as_str(), value))
}

/// How far sources were read: of a run that is complete, they were read to their end.
fn positions<'a>(last: &LastRun<'a>) -> impl Iterator<Item = (&'a String, &'a Positions)> + use<'a> {
    let is_open = last.stands != Stands::Finished;
    last.positions.iter().filter(move |_| is_open)
}

fn run_shown(last: &LastRun<'_>) -> String {
    let LastRun { run_id, started, committed, counts, .. } = last;
    let stands = match last.stands {
        Stands::Finished => "finished",
        Stands::Unfinished => "not finished, the next run goes on with it",
        Stands::Dropped => "not finished, and dropped",
    };
    let (rows_in, rows_out) = (grouped(counts.rows_in), grouped(counts.rows_out));
    format!(
        "{run_id}, begun {}, committed {}: {stands}; {rows_in} rows in, {rows_out} rows out",
        seconds(*started),
        seconds(*committed)
    )
}

fn stands(stands: Stands) -> &'static str {
    match stands {
        Stands::Finished => "finished",
        Stands::Unfinished => "unfinished",
        Stands::Dropped => "dropped",
    }
}

fn seconds(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A set of files sums up in one value; other positions are told as they are.
fn position_shown(split: &str, position: &Value) -> String {
    let Some(upto) = position.get("upto").and_then(Value::as_u64) else {
        return format!("{split}: {}", cut(position));
    };
    let of = |pair: &Value| Some(pair.get(1)?.as_u64()?.checked_sub(pair.get(0)?.as_u64()?)? + 1);
    let further = position.get("done").and_then(Value::as_array).into_iter().flatten().filter_map(of);
    let n_done = upto.saturating_add(further.sum());
    let mut text = format!("{split}: {} done", grouped(n_done));
    for (number, open) in position.get("open").and_then(Value::as_object).into_iter().flatten() {
        let rows = open.get("rows").and_then(Value::as_u64).unwrap_or_default();
        let number = number.parse::<u64>().unwrap_or_default().saturating_add(1);
        text.push_str(&format!(", number {} up to row {}", grouped(number), grouped(rows)));
    }
    text
}

fn kept_shown(step: &str, value: &Value) -> Result<String> {
    if let Some(KeysKept { n_keys, n_bytes, files }) = KeysKept::of(value)? {
        let keys = if step == REPLAYED { "replayed letters" } else { "keys seen" };
        let bytes = ByteCount::new(n_bytes).human();
        let sightings = SightingsKept::of(value)?.map(|kept| {
            let bytes = ByteCount::new(kept.n_bytes).human();
            format!("; {} sightings, {bytes}: `export {step}` tells them", grouped(kept.n_sightings))
        });
        let (n_keys, n_files) = (grouped(n_keys), grouped(files.len() as u64));
        return Ok(format!("{n_keys} {keys}, {bytes} in {n_files} files{}", sightings.unwrap_or_default()));
    }
    Ok(format!("keeps {}", cut(value)))
}

fn cut(value: &Value) -> String {
    let mut value = value.clone();
    mask(&mut value, &str::to_owned);
    let text = value.to_string();
    match text.char_indices().nth(MAX_VALUE_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_told_in_words_or_as_it_is() {
        let files = json!({"upto": 3, "done": [[4, 6], [9, 9]], "open": {"3": {"rows": 1200}}});
        assert_eq!(position_shown("files", &files), "files: 7 done, number 4 up to row 1,200");
        assert_eq!(position_shown("page", &json!({"next": 7})), r#"page: {"next":7}"#);
        assert_eq!(cut(&json!("x".repeat(500))).chars().count(), MAX_VALUE_CHARS + 1);
    }

    #[test]
    fn no_text_and_no_key_shows_a_secret_or_what_a_url_holds_beside_its_address() {
        let url = "https://me:hunter2@host/a?sig=abc";
        let mut value = json!({"cursor": {"hidden": [url, "with pass"]}, url: 1});
        mask(&mut value, &|text| text.replace("pass", "***"));
        let text = value.to_string();
        assert!(!text.contains("hunter2") && !text.contains("pass"), "{text}");
        assert!(text.contains("host/a") && text.contains("with ***"), "{text}");
    }
}
