//! What a step has recorded of the keys that it has seen, as rows of JSON.

use std::sync::Arc;

use aqueduct_commit::{FlowLog, Sighting, SightingsKept, SightingsReader};
use aqueduct_core::{Fs, Result, StdFs};
use chrono::{DateTime, SecondsFormat};
use serde_json::{Map, Value, json};

use crate::flow::Flow;

/// A row for each key, by key; nothing, if the step records none.
///
/// # Errors
/// What it kept is gone, damaged or of a newer version.
pub(super) fn lines(
    flow: &Flow,
    log: &FlowLog,
    step: &str,
) -> Result<Option<impl Iterator<Item = Result<Value>>>> {
    let Some(value) = log.kept().get(step) else { return Ok(None) };
    if SightingsKept::of(value)?.is_none() {
        return Ok(None);
    }
    let fs: Arc<dyn Fs> = Arc::new(StdFs);
    let all = SightingsReader::open(&fs, flow.flow_dir().join("steps").join(step), value)?;
    let entry: Map<_, _> =
        flow.entry.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
    Ok(Some(all.map(move |one| one.map(|(key, sighting)| row(&entry, &key, sighting)))))
}

/// Why there are none.
pub(super) fn none(flow: &Flow, step: &str) -> String {
    format!(
        "`{step}` of {} has recorded no sightings; expected a step `unseen` with `sightings: true` that has committed rows",
        flow.name
    )
}

fn row(entry: &Map<String, Value>, key: &str, sighting: Sighting) -> Value {
    // A key that is too long for itself is its digest.
    let keys: Value = serde_json::from_str(key).unwrap_or_else(|_| key.into());
    let mut row = json!({
        "keys": keys,
        "first_seen": time(sighting.first_seen),
        "last_seen": time(sighting.last_seen),
        "count": sighting.count,
        "from": sighting.from,
    });
    if let Some(row) = row.as_object_mut() {
        if sighting.more {
            row.insert("more".into(), true.into());
        }
        if !entry.is_empty() {
            row.insert("entry".into(), Value::Object(entry.clone()));
        }
    }
    row
}

fn time(micros: i64) -> Value {
    let time = DateTime::from_timestamp_micros(micros);
    time.map(|time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_key_as_it_was_or_its_digest() {
        let from = ["a".to_owned()].into_iter().collect();
        let one = Sighting { first_seen: 0, last_seen: 1_500_000, count: 3, from, more: true };
        let told = row(&Map::new(), r#"{"id":7}"#, one.clone());
        assert_eq!(
            told,
            json!({
                "keys": {"id": 7}, "first_seen": "1970-01-01T00:00:00Z", "last_seen": "1970-01-01T00:00:01.500Z", "count": 3,
                "from": ["a"], "more": true,
            })
        );
        assert_eq!(row(&Map::new(), "blake3:00", one)["keys"], "blake3:00");
    }
}
