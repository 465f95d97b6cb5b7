//! What is asked for when a run is started.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// More values than this are a mistake or an attack.
const MAX_VALUES: usize = 100;
/// The longest value.
const MAX_VALUE_BYTES: usize = 4096;

/// The body of `POST /runs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartRequest {
    /// The flow's `name:`.
    pub(crate) flow: String,
    /// Values for its variables.
    #[serde(default, deserialize_with = "values", skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) set: BTreeMap<String, String>,
    /// As `--fresh`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) fresh: bool,
    /// As `--full-refresh`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) full_refresh: bool,
}

impl StartRequest {
    /// The request that a body is.
    ///
    /// # Errors
    /// It is none; says what was expected.
    pub(crate) fn read(body: &[u8]) -> Result<Self, String> {
        let request: Self = serde_json::from_slice(body)
            .map_err(|error| format!("{error}; expected {{\"flow\": NAME, \"set\": {{VARIABLE: VALUE}}}}"))?;
        if request.set.len() > MAX_VALUES {
            return Err(format!("set: {} values; the limit is {MAX_VALUES}", request.set.len()));
        }
        for (key, value) in &request.set {
            // Who may start a flow may not rewrite it: its file says where it reads and writes.
            if key.contains('.') {
                return Err(format!(
                    "set.{key}: a key of the file, which cannot be changed from here; expected a variable `${{NAME}}` of the flow"
                ));
            }
            if value.len() > MAX_VALUE_BYTES {
                return Err(format!("set.{key}: {} bytes; the limit is {MAX_VALUE_BYTES}", value.len()));
            }
        }
        Ok(request)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Texts, numbers and truth values, as the command line would have them.
fn values<'de, D: serde::Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let text = |(key, value): (String, Value)| match value {
        Value::String(text) => Ok((key, text)),
        Value::Number(_) | Value::Bool(_) => Ok((key, value.to_string())),
        _ => Err(serde::de::Error::custom(format!("set.{key}: expected a text, a number or a truth value"))),
    };
    BTreeMap::<String, Value>::deserialize(from)?.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::StartRequest;

    #[test]
    fn what_is_wrong_with_a_request_is_named() {
        for (body, told) in [
            ("{\"folw\": \"quick\"}", "unknown field `folw`, expected one of `flow`"),
            ("{}", "missing field `flow`"),
            ("nonsense", "expected"),
            ("{\"flow\": \"a\", \"set\": {\"x\": [1]}}", "set.x: expected a text"),
            ("{\"flow\": \"a\", \"set\": {\"sink.parquet.path\": \"/etc\"}}", "cannot be changed from here"),
        ] {
            let error = StartRequest::read(body.as_bytes()).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
        let long = format!("{{\"flow\": \"a\", \"set\": {{\"x\": \"{}\"}}}}", "y".repeat(5000));
        assert!(StartRequest::read(long.as_bytes()).unwrap_err().contains("the limit is 4096"));
    }

    #[test]
    fn values_are_texts_as_on_the_command_line() {
        let request = StartRequest::read(
            b"{\"flow\": \"a\", \"set\": {\"n\": 7, \"on\": true, \"day\": \"2026-01-02\"}}",
        );
        let set = request.unwrap().set;
        assert_eq!(set.values().collect::<Vec<_>>(), ["2026-01-02", "7", "true"]);
    }
}
