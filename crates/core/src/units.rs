//! Durations and byte counts as flow files write them: `10s`, `16MiB`. For `#[serde(deserialize_with)]`, and
//! beside it [`Size`] or [`Period`] for `#[schemars(with)]`; a duration with a default says `serialize_with`, too.

use std::borrow::Cow;
use std::time::Duration;

use aqueduct_primitives::ByteCount;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serializer;
use serde::de::{Deserialize, Deserializer, Error};

/// The JSON Schema of what [`byte_count`] reads: a number, or text with a unit.
#[derive(Clone, Copy, Debug)]
pub struct Size;

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "minimum": 0, "format": "bytes" })
    }
}

/// The JSON Schema of what [`duration`] reads: text with a unit.
#[derive(Clone, Copy, Debug)]
pub struct Period;

impl JsonSchema for Period {
    fn schema_name() -> Cow<'static, str> {
        "Period".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "duration" })
    }
}

/// A number, or text with a unit.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

/// Reads `10s`, `1m 30s`, `250ms`. A number without a unit is refused: it might be meant in anything.
///
/// # Errors
/// It is no duration.
pub fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    read_duration(Written::deserialize(from)?)
}

/// Writes what [`duration`] reads. For `#[serde(serialize_with)]`, by which a default stands in the JSON Schema as a flow
/// file would have it.
///
/// # Errors
/// Those of the serializer.
pub fn write_duration<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&humantime::format_duration(*duration))
}

/// [`duration`], or nothing.
///
/// # Errors
/// It is there and no duration.
pub fn optional_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    Option::<Written>::deserialize(from)?.map(read_duration).transpose()
}

/// Reads `16MiB`, `5MB`, or a number of bytes.
///
/// # Errors
/// It is no number of bytes.
pub fn byte_count<'de, D: Deserializer<'de>>(from: D) -> Result<ByteCount, D::Error> {
    read_byte_count(Written::deserialize(from)?)
}

/// [`byte_count`], or nothing.
///
/// # Errors
/// It is there and no number of bytes.
pub fn optional_byte_count<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ByteCount>, D::Error> {
    Option::<Written>::deserialize(from)?.map(read_byte_count).transpose()
}

fn read_duration<E: Error>(written: Written) -> Result<Duration, E> {
    match written {
        Written::Text(text) => humantime::parse_duration(&text).map_err(|error| {
            E::custom(format!("`{text}` is not a duration ({error}); expected one such as 10s or 2m"))
        }),
        Written::Number(number) => {
            Err(E::custom(format!("`{number}` is a duration without a unit; expected one such as {number}s")))
        }
    }
}

fn read_byte_count<E: Error>(written: Written) -> Result<ByteCount, E> {
    match written {
        Written::Number(bytes) => Ok(ByteCount::new(bytes)),
        Written::Text(text) => text.parse().map_err(E::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Options {
        #[serde(deserialize_with = "duration")]
        per: Duration,
        #[serde(default, deserialize_with = "optional_byte_count")]
        size: Option<ByteCount>,
    }

    #[test]
    fn units_are_read_and_asked_for() {
        let read = |json: &str| serde_json::from_str::<Options>(json);
        assert_eq!(
            read(r#"{"per": "1m 30s", "size": "4MiB"}"#).unwrap(),
            Options { per: Duration::from_secs(90), size: Some(ByteCount::mib(4)) }
        );
        assert_eq!(read(r#"{"per": "250ms"}"#).unwrap().size, None);
        assert!(read(r#"{"per": 10}"#).unwrap_err().to_string().contains("such as 10s"));
        assert!(read(r#"{"per": "1s", "size": "4 apples"}"#).is_err());
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for text in ["1s", "250ms", "1m 30s"] {
            let read = duration(serde_json::Value::from(text)).unwrap();
            assert_eq!(write_duration(&read, serde_json::value::Serializer).unwrap(), text);
        }
    }
}
