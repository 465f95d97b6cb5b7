//! The fields of what steps keep: which there are, and which can be set.

use std::collections::BTreeMap;

use aqueduct_commit::KeysKept;
use serde_json::{Number, Value};

use super::Changes;
use crate::flow::{Flow, did_you_mean, list_of};

type Kept = BTreeMap<String, Value>;

/// Whether a flow has a step of this name, or had one that still keeps something.
///
/// # Errors
/// It has not; names the nearest.
pub(super) fn check_step(flow: &Flow, kept: &Kept, step: &str) -> Result<(), String> {
    if of_step(kept, step).next().is_some() { Ok(()) } else { flow.step_named(step).map(|_| ()) }
}

/// The names under which a step keeps something: its own, and those of the copies of its inputs.
pub(super) fn of_step<'a>(kept: &'a Kept, step: &'a str) -> impl Iterator<Item = &'a String> {
    let is_of_step = move |name: &&String| {
        *name == step || name.strip_prefix(step).is_some_and(|rest| rest.starts_with(".input"))
    };
    kept.keys().filter(is_of_step)
}

/// What a step is to keep, once a field of it has another value.
///
/// # Errors
/// There is no such field, or its value is of another type.
pub(super) fn assign(kept: &Kept, field: &str, text: &str, file: &str) -> Result<Changes, String> {
    if let Some(step) = keeps_keys(kept, field) {
        return Err(format!(
            "`{step}` keeps keys it has seen, which cannot be set; `aqueduct state {file} reset {step}` forgets them all"
        ));
    }
    let fields = settable(kept);
    let Some((step, pointer)) = fields.get(field) else { return Err(unknown(field, &fields)) };
    let mut value = kept.get(step).cloned().unwrap_or_default();
    let Some(there) = value.pointer_mut(pointer) else { return Err(unknown(field, &fields)) };
    *there = typed(there, text)
        .map_err(|expected| format!("`{field}` is {there}; expected {expected}, not `{text}`"))?;
    Ok(Changes::from([(step.clone(), Some(value))]))
}

/// The step of a field, if it keeps keys.
fn keeps_keys<'a>(kept: &Kept, field: &'a str) -> Option<&'a str> {
    let step = field.split('.').next()?;
    matches!(KeysKept::of(kept.get(step)?), Ok(Some(_)) | Err(_)).then_some(step)
}

/// The fields that can be set, as they are named, each with its step and the place in what that keeps.
fn settable(kept: &Kept) -> BTreeMap<String, (String, String)> {
    let mut fields = BTreeMap::new();
    // A name with a dot is none of a step: what is kept under it, the runner keeps.
    for (step, value) in kept.iter().filter(|(step, _)| !step.contains('.')) {
        if !matches!(KeysKept::of(value), Ok(Some(_)) | Err(_)) {
            gather(value, &(step.clone(), String::new()), step, &mut fields);
        }
    }
    fields
}

fn gather(
    value: &Value,
    place: &(String, String),
    name: &str,
    found: &mut BTreeMap<String, (String, String)>,
) {
    match value {
        Value::Object(fields) => {
            for (key, below) in fields {
                let pointer = format!("{}{}", place.1, aqueduct_core::pointer_to(key));
                gather(below, &(place.0.clone(), pointer), &format!("{name}.{key}"), found);
            }
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            found.insert(name.to_owned(), place.clone());
        }
        Value::Null | Value::Array(_) => {}
    }
}

fn unknown(field: &str, fields: &BTreeMap<String, (String, String)>) -> String {
    if fields.is_empty() {
        return format!("no `{field}`; no step of this flow keeps a value that can be set");
    }
    let names = || fields.keys().map(String::as_str);
    format!("no `{field}`; expected one of {}{}", list_of(names()), did_you_mean(field, names()))
}

/// A text as a value of the type that is there.
fn typed(there: &Value, text: &str) -> Result<Value, &'static str> {
    match there {
        Value::Bool(_) => text.parse().map(Value::Bool).map_err(|_| "true or false"),
        Value::Number(number) if number.is_f64() => {
            let number = text.parse().ok().and_then(Number::from_f64);
            number.map(Value::Number).ok_or("a number")
        }
        Value::Number(_) => {
            let signed = text.parse::<i64>().map(Number::from);
            let number = signed.or_else(|_| text.parse::<u64>().map(Number::from));
            number.map(Value::Number).map_err(|_| "a whole number")
        }
        _ => Ok(Value::String(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kept() -> Kept {
        let seen = json!({"kept": {"keys": ["id"]}, "seen": {"format": 1, "versioned": false, "runs": []}});
        let cursor = json!({"since": "2026-01-01", "page": 5, "lag": 0.5, "is_new": true, "of": {"a/b": 1}, "list": [1]});
        BTreeMap::from([
            ("api".to_owned(), cursor),
            ("once".to_owned(), seen),
            ("join.input0".to_owned(), json!({"run_id": "r"})),
        ])
    }

    fn set(field: &str, text: &str) -> Result<Value, String> {
        let changed = assign(&kept(), field, text, "flow.yaml")?;
        Ok(changed.into_values().next().flatten().unwrap())
    }

    #[test]
    fn a_scalar_gets_a_value_of_its_type_and_the_rest_stays() {
        assert_eq!(set("api.since", "2026-02-01").unwrap()["since"], "2026-02-01");
        assert_eq!(set("api.page", "-7").unwrap()["page"], -7);
        assert_eq!(set("api.lag", "2").unwrap()["lag"], 2.0);
        assert_eq!(set("api.is_new", "false").unwrap()["is_new"], false);
        let changed = set("api.of.a/b", "18446744073709551615").unwrap();
        assert_eq!((&changed["of"]["a/b"], &changed["page"]), (&u64::MAX.into(), &5.into()));
    }

    #[test]
    fn another_type_an_unknown_field_and_keys_are_refused_by_name() {
        for (field, text, told) in [
            ("api.page", "five", "`api.page` is 5; expected a whole number, not `five`"),
            ("api.page", "5.5", "expected a whole number"),
            ("api.lag", "NaN", "expected a number"),
            ("api.is_new", "1", "expected true or false"),
            ("api.sinse", "x", "no `api.sinse`; expected one of api.is_new, api.lag"),
            ("api.sinse", "x", "did you mean `api.since`?"),
            ("api.list", "1", "no `api.list`"),
            ("api.of", "1", "no `api.of`"),
            ("join.input0.run_id", "x", "no `join.input0.run_id`"),
            ("once.seen.format", "2", "`once` keeps keys it has seen, which cannot be set"),
            ("once", "2", "state flow.yaml reset once"),
        ] {
            let error = set(field, text).unwrap_err();
            assert!(error.contains(told), "{field}={text}: {error}");
        }
        let none = assign(&Kept::new(), "a.b", "1", "flow.yaml").unwrap_err();
        assert!(none.contains("no step of this flow keeps"), "{none}");
    }

    #[test]
    fn a_step_forgets_the_copies_of_its_inputs_too() {
        assert_eq!(of_step(&kept(), "join").collect::<Vec<_>>(), ["join.input0"]);
        assert_eq!(of_step(&kept(), "api").collect::<Vec<_>>(), ["api"]);
        assert_eq!(of_step(&kept(), "on").count(), 0);
    }
}
