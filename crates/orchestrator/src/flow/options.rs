//! The keys of a flow file beside its steps: their names, types, defaults and help, from which the JSON Schema
//! is made that files are checked against.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aqueduct_core::units::{self, Period, Size};
use aqueduct_core::{Problem, is_in_store};
use aqueduct_net::{HttpOptions, StorageOptions};
use aqueduct_primitives::ByteCount;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::flow::notify::Notify;
use crate::flow::schedule::Schedule;

/// The keys of a flow beside `source`, `stages`, `sink` and their long forms.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FlowOptions {
    /// The version of the format: 1.
    #[schemars(range(min = 1, max = 1))]
    pub(crate) version: Option<u32>,
    /// Names the flow in the ledger and in messages: letters, digits, - and _.
    #[schemars(with = "Name")]
    pub(crate) name: String,
    /// One budget for everything in flight: 64MB, 1GiB. Default 512MB, or 60 % of a smaller cgroup limit.
    #[serde(deserialize_with = "units::optional_byte_count")]
    #[schemars(with = "Option<Size>")]
    pub(crate) memory: Option<ByteCount>,
    /// Where the ledger, resume data and spill files lie. Default .aqueduct beside the flow file. An object store, s3://lake/state
    /// say, where several machines may run the flow.
    pub(crate) state: Option<PathBuf>,
    /// How rows are batched, how much happens at once, what happens to bad rows.
    pub(crate) execution: Execution,
    /// How often an endless run commits.
    pub(crate) commit: Commit,
    /// Values for ${NAME}.
    #[schemars(with = "BTreeMap<String, Scalar>")]
    pub(crate) vars: Value,
    /// Run the flow once for each entry: a list of maps, or a map of lists for their product.
    #[schemars(with = "Option<Matrix>")]
    pub(crate) matrix: Option<Value>,
    /// Values for ${NAME} that are read at run only and masked wherever they would appear.
    #[schemars(with = "BTreeMap<String, SecretSource>")]
    pub(crate) secrets: Value,
    /// How HTTP requests are made; each key may also stand on a source.
    pub(crate) http: HttpDefaults,
    /// Run again and again: 5m. A turn begins so long after the one before began; what is due while one still runs is skipped
    /// and counted.
    #[serde(deserialize_with = "units::optional_duration")]
    #[schemars(with = "Option<Period>")]
    pub(crate) every: Option<Duration>,
    /// Run by the clock of `timezone`: minute, hour, day of month, month, day of week. 15 6 * * MON-FRI.
    pub(crate) cron: Option<String>,
    /// The zone whose clock `cron` goes by, such as Europe/Paris. Times without a zone are read as UTC.
    #[schemars(with = "Option<String>")]
    pub(crate) timezone: Timezone,
    /// Who is told how runs end: the report is posted.
    pub(crate) notify: Option<Notify>,
    /// How object stores are reached, by prefix: {"s3://lake": {region: eu-west-1}}. The longest prefix wins.
    pub(crate) storage: StorageOptions,
    /// The flow's own tests, run by `aqueduct test`.
    pub(crate) tests: Vec<TestOptions>,
}

impl FlowOptions {
    /// When the flow runs again, if it does.
    ///
    /// # Errors
    /// What is wrong with the keys that say so.
    pub(crate) fn schedule(&self) -> Result<Option<Schedule>, Problem> {
        Schedule::of(self.every, self.cron.as_deref(), self.timezone.0)
    }

    /// What is wrong with where the state lies.
    pub(crate) fn state_problems(&self) -> Vec<Problem> {
        let Some(state) = self.state.as_ref().and_then(|state| state.to_str()) else { return Vec::new() };
        if state.contains("://") && (!is_in_store(Path::new(state)) || state.starts_with("memory:")) {
            let message =
                format!("`{state}` keeps no state; expected a path, or an s3://, gs:// or az:// URL");
            return vec![Problem::at("", message)];
        }
        Vec::new()
    }
}

/// What stands under `http:`: how requests are made, and what every source takes from there that does not say
/// it itself.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct HttpDefaults {
    /// How requests are made.
    #[serde(flatten)]
    pub(crate) requests: HttpOptions,
    /// A record or line larger than this is an error. Default 16MiB.
    #[serde(default, deserialize_with = "units::optional_byte_count")]
    #[schemars(with = "Option<units::Size>")]
    pub(crate) max_record_bytes: Option<ByteCount>,
}

/// A zone of the IANA database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Timezone(pub(crate) chrono_tz::Tz);

impl Default for Timezone {
    fn default() -> Self {
        Self(chrono_tz::UTC)
    }
}

impl TryFrom<String> for Timezone {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let zone = text
            .parse()
            .map_err(|_| format!("`{text}` is no time zone; expected one such as Europe/Paris"))?;
        Ok(Self(zone))
    }
}

/// How rows are batched, how much happens at once, what happens to bad rows.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Execution {
    /// Rows in a batch at most.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 8192))]
    pub batch_size: usize,
    /// Bytes in a batch at most; fewer when `memory` is small.
    #[serde(deserialize_with = "units::byte_count")]
    #[schemars(with = "Size", extend("default" = "4MiB"))]
    pub batch_bytes: ByteCount,
    /// Files, pages or requests at once, per step.
    #[schemars(range(min = 1, max = 10_000), extend("default" = 10))]
    pub max_concurrency: usize,
    /// Memory for global stages, in MB. Default half of memory.
    #[schemars(range(min = 1))]
    pub spill_threshold_mb: Option<u64>,
    /// Where global stages put what memory does not hold.
    pub spill: Spill,
    /// What happens to rows, files and items that are bad.
    #[schemars(extend("default" = "fail"))]
    pub on_error: OnError,
    /// The folder for what `on_error: dead_letter` keeps aside: NDJSON with reason, origin and raw input.
    #[schemars(extend("default" = "rejected/"))]
    pub dead_letter: PathBuf,
    /// How many may be bad: a count, or a share such as 10% (judged from 1000 rows, 10 files on).
    #[schemars(extend("default" = "10%"))]
    pub max_rejected: MaxRejected,
}

impl Default for Execution {
    fn default() -> Self {
        Self {
            batch_size: 8192,
            batch_bytes: ByteCount::mib(4),
            max_concurrency: 10,
            spill_threshold_mb: None,
            spill: Spill::default(),
            on_error: OnError::Fail,
            dead_letter: "rejected/".into(),
            max_rejected: MaxRejected::Percent(10.0),
        }
    }
}

/// Where global stages put what memory does not hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Spill {
    /// The folder. Default in the state folder.
    pub dir: Option<PathBuf>,
    /// The most bytes there. Default 80 % of what is free.
    #[serde(deserialize_with = "units::optional_byte_count")]
    #[schemars(with = "Option<Size>")]
    pub max_bytes: Option<ByteCount>,
}

/// What happens to rows, files and items that are bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The first ends the run.
    Fail,
    /// They are counted and dropped.
    Skip,
    /// They are kept aside, with reason, origin and raw input.
    DeadLetter,
}

/// How many rows or files may be bad before the run fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MaxRejected {
    /// So many of both together.
    Count(u64),
    /// So many in a hundred rows, or in a hundred files.
    Percent(f64),
}

impl MaxRejected {
    /// A count, or a share between `0%` and `100%`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix('%') {
            Some(number) => {
                let percent: f64 = number.trim_end().parse().ok()?;
                (0.0..=100.0).contains(&percent).then_some(Self::Percent(percent))
            }
            None => text.parse().ok().map(Self::Count),
        }
    }
}

impl<'de> Deserialize<'de> for MaxRejected {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = match Value::deserialize(from)? {
            Value::String(text) => text,
            other => other.to_string(),
        };
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no count and no share such as 10%")))
    }
}

impl JsonSchema for MaxRejected {
    fn schema_name() -> Cow<'static, str> {
        "MaxRejected".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["integer", "string"], "minimum": 0, "format": "count-or-share" })
    }
}

/// How often an endless run commits. A run with an end commits at its end unless told otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Commit {
    /// After so much time: 60s.
    #[serde(deserialize_with = "units::optional_duration")]
    #[schemars(with = "Option<Period>")]
    pub every: Option<Duration>,
    /// After so many bytes: 128MiB.
    #[serde(deserialize_with = "units::optional_byte_count")]
    #[schemars(with = "Option<Size>")]
    pub bytes: Option<ByteCount>,
}

/// One of the flow's own tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowTest {
    /// Its name.
    pub name: String,
    /// The file whose rows stand in for those of a step, by step.
    pub given: BTreeMap<String, PathBuf>,
    /// What is expected of each step.
    pub expect: BTreeMap<String, Expected>,
    /// The most memory that the process may take.
    pub peak_memory: Option<ByteCount>,
}

/// What a test expects of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// So many rows.
    Rows(u64),
    /// The rows of this file, in any order.
    File(PathBuf),
}

/// A [`FlowTest`] as it is written.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestOptions {
    /// Its name.
    name: String,
    /// The file whose rows stand in for those of a step, by step.
    #[serde(default)]
    given: BTreeMap<String, PathBuf>,
    /// What is expected of each step: {rows: N} or a file; under peak_memory, the most memory it may take.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, ExpectedOption>")]
    expect: BTreeMap<String, Value>,
}

/// The key among the steps of `expect:` that is no step.
const PEAK_MEMORY: &str = "peak_memory";

impl From<TestOptions> for FlowTest {
    fn from(test: TestOptions) -> Self {
        let mut expect = test.expect;
        let peak_memory = expect.remove(PEAK_MEMORY).and_then(|value| match value {
            Value::String(text) => text.parse().ok(),
            value => value.as_u64().map(ByteCount::new),
        });
        let expect = expect.into_iter().filter_map(|(step, value)| Some((step, expected(&value)?))).collect();
        Self { name: test.name, given: test.given, expect, peak_memory }
    }
}

fn expected(value: &Value) -> Option<Expected> {
    match value {
        Value::String(path) => Some(Expected::File(path.into())),
        value => value.get("rows")?.as_u64().map(Expected::Rows),
    }
}

/// The keys that may stand beside a component's name.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BesideOptions {
    /// The step's name. Default source, sink, or the component's name.
    #[schemars(with = "Option<Name>")]
    pub(crate) name: Option<String>,
    /// The step, or the steps, whose rows it takes. Several merge.
    #[schemars(with = "Option<OneOrMany>")]
    pub(crate) input: Option<Value>,
    /// What happens to bad rows of this step.
    pub(crate) on_error: Option<OnError>,
    /// The folder for bad rows of this step.
    pub(crate) dead_letter: Option<PathBuf>,
    /// Files, pages or requests at once in this step.
    #[schemars(range(min = 1, max = 10_000))]
    pub(crate) max_concurrency: Option<usize>,
}

/// Types that stand in the schema only.
macro_rules! schema_only {
    ($($(#[$doc:meta])* $name:ident = $schema:tt;)*) => {$(
        $(#[$doc])*
        struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

schema_only! {
    /// The name of a flow or step.
    Name = { "type": "string", "minLength": 1, "maxLength": 100, "pattern": "^[A-Za-z0-9_-]+$", "format": "name" };
    /// One value.
    Scalar = { "type": ["string", "number", "boolean", "null"] };
    /// One name or several.
    OneOrMany = { "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" }, "minItems": 1 }] };
    /// Entries, or lists to multiply.
    Matrix = { "anyOf": [
        { "type": "array", "minItems": 1, "items": { "type": "object", "additionalProperties": { "type": ["string", "number", "boolean"] } } },
        { "type": "object", "additionalProperties": { "type": "array", "minItems": 1, "items": { "type": ["string", "number", "boolean"] } } }
    ] };
    /// Where a secret is read.
    SecretSource = { "oneOf": [
        { "type": "object", "properties": { "env": { "type": "string", "description": "A variable of the environment" } }, "required": ["env"], "additionalProperties": false },
        { "type": "object", "properties": { "file": { "type": "string", "description": "A file, without its last line break" } }, "required": ["file"], "additionalProperties": false },
        { "type": "object", "properties": { "command": { "type": "array", "items": { "type": "string" }, "minItems": 1, "description": "What a program prints" } }, "required": ["command"], "additionalProperties": false }
    ] };
    /// What a test expects of a step.
    ExpectedOption = { "anyOf": [
        { "type": "object", "properties": { "rows": { "type": "integer", "minimum": 0 } }, "required": ["rows"], "additionalProperties": false },
        { "type": ["string", "integer"] }
    ] };
}

/// The schema of [`FlowOptions`]. `http:` is closed here, although its keys stand open among a source's.
pub(crate) fn closed<T: JsonSchema>() -> Value {
    let mut schema = schemars::schema_for!(T).to_value();
    if let Some(http) = schema.pointer_mut("/$defs/HttpDefaults").and_then(Value::as_object_mut) {
        http.insert("additionalProperties".into(), false.into());
    }
    schema
}
