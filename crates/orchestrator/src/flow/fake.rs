//! A registry of components that do nothing, for tests of all that is around them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use aqueduct_core::*;
use aqueduct_primitives::ByteCount;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::flow::{Flow, Settings, load};

/// How rows are told from each other.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// By the file's name.
    Auto,
    Csv,
    Ndjson,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Files {
    /// Where the rows are.
    #[expect(dead_code, reason = "checked only")]
    paths: Vec<String>,
    /// How they are told from each other.
    #[serde(default = "auto")]
    #[schemars(default)]
    #[expect(dead_code, reason = "checked only")]
    format: Option<Format>,
    /// The columns, if they are known.
    #[serde(default)]
    schema: BTreeMap<String, String>,
    /// Sent with every request.
    #[serde(default)]
    #[expect(dead_code, reason = "checked only")]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    auth: Option<Auth>,
    /// Files at once.
    #[serde(default)]
    #[expect(dead_code, reason = "checked only")]
    window: Option<u32>,
    /// What becomes of a run when a file changes.
    #[serde(default)]
    on_change: Option<String>,
    /// Whether what was read cannot be read again.
    #[serde(default)]
    once: bool,
    /// It never ends by itself.
    #[serde(default)]
    endless: bool,
    /// A record larger than this is an error.
    #[serde(default, deserialize_with = "units::optional_byte_count")]
    #[schemars(with = "Option<units::Size>")]
    max_record_bytes: Option<ByteCount>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Auth {
    Bearer(String),
    #[expect(dead_code, reason = "checked only")]
    Basic {
        user: String,
        password: String,
    },
}

fn auto() -> Option<Format> {
    Some(Format::Auto)
}

#[async_trait]
impl SourceConfig for Files {
    fn validate(&self) -> Vec<Problem> {
        let is_bad = |auth: &Auth| matches!(auth, Auth::Bearer(token) if token.contains(' '));
        let problem = self.auth.as_ref().filter(|auth| is_bad(auth));
        problem.map(|auth| Problem::at("/auth/bearer", format!("{auth:?} has a blank"))).into_iter().collect()
    }

    fn known_schema(&self, _: &Planning) -> Result<Option<SchemaRef>, Vec<Problem>> {
        if self.schema.is_empty() {
            return Ok(None);
        }
        let field = |(name, kind): (&String, &String)| match kind.as_str() {
            "int64" => Ok(Field::new(name, DataType::Int64, true)),
            "string" => Ok(Field::new(name, DataType::Utf8, true)),
            other => Err(Problem::at(format!("/schema/{name}"), format!("unknown type `{other}`"))),
        };
        let fields =
            self.schema.iter().map(field).collect::<Result<Vec<_>, _>>().map_err(|problem| vec![problem])?;
        Ok(Some(Arc::new(Schema::new(fields))))
    }

    fn memory(&self, planning: &Planning) -> MemoryNeed {
        MemoryNeed::between(planning.batch_bytes.saturating_mul(2), ByteCount::mib(64))
    }

    fn largest_record(&self) -> ByteCount {
        self.max_record_bytes.unwrap_or_default()
    }

    fn is_replayable(&self) -> bool {
        !self.once
    }

    fn is_endless(&self) -> bool {
        self.endless
    }

    fn takes_back(&self) -> Option<&'static str> {
        self.on_change.as_ref().map(|_| "/on_change")
    }

    async fn open(self: Box<Self>, _: &Context) -> Result<Box<dyn Source>> {
        Err(Error::bug("open", "a fake"))
    }
}

/// Keeps rows that have a column.
#[derive(Debug, Deserialize, JsonSchema)]
struct Filter(String);

impl StageConfig for Filter {
    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        let names = inputs[0].fields().iter().map(|field| field.name().as_str());
        let column = self.0.split(' ').next().unwrap_or_default();
        if inputs[0].field_with_name(column).is_ok() {
            return Ok(Box::new(Same(Arc::clone(&inputs[0]))));
        }
        let hint = nearest(column, names).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        Err(vec![Problem::at("", format!("no column `{column}`{hint}"))])
    }
}

struct Same(SchemaRef);

impl Stage for Same {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0)
    }

    fn run(self: Box<Self>, _: Inputs, _: Context) -> BatchStream {
        Box::pin(futures::stream::empty())
    }
}

/// Ends early.
#[derive(Debug, Deserialize, JsonSchema)]
struct Limit(#[expect(dead_code, reason = "checked only")] u64);

impl StageConfig for Limit {
    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        Ok(Box::new(Same(Arc::clone(&inputs[0]))))
    }
}

/// Puts rows in order.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Sort {
    #[expect(dead_code, reason = "checked only")]
    by: Vec<String>,
}

impl StageConfig for Sort {
    fn memory(&self, _: &Planning) -> MemoryNeed {
        MemoryNeed::between(ByteCount::mib(8), ByteCount::mib(100))
    }

    fn spills(&self) -> bool {
        true
    }

    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        Ok(Box::new(Same(Arc::clone(&inputs[0]))))
    }
}

/// Takes the rows of another step beside its input.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Join {
    #[expect(dead_code, reason = "checked only")]
    with: String,
}

impl StageConfig for Join {
    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        match inputs {
            [left, right] if left != right => Ok(Box::new(Same(Arc::clone(left)))),
            _ => Err(vec![Problem::at("/with", "expected two inputs that differ")]),
        }
    }
}

/// Lets pass what no earlier run has seen.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Once {}

impl StageConfig for Once {
    fn remembers(&self) -> bool {
        true
    }

    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        Ok(Box::new(Same(Arc::clone(&inputs[0]))))
    }
}

/// Writes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Parquet {
    /// The file or folder.
    path: String,
    /// How hard.
    #[serde(default = "three")]
    #[expect(dead_code, reason = "checked only")]
    level: u8,
}

fn three() -> u8 {
    3
}

#[async_trait]
impl SinkConfig for Parquet {
    fn output(&self, planning: &Planning) -> Option<Output> {
        let is_file = Path::new(&self.path).extension().is_some();
        Some(Output { path: planning.resolve(&self.path), is_file, allow_empty: false, mode: None })
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn memory(&self, planning: &Planning) -> MemoryNeed {
        MemoryNeed::between(planning.batch_bytes, ByteCount::mib(128))
    }

    async fn open(self: Box<Self>, _: SchemaRef, _: &Context) -> Result<Box<dyn Sink>> {
        Err(Error::bug("open", "a fake"))
    }
}

/// Writes nothing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Discard {}

#[async_trait]
impl SinkConfig for Discard {
    fn output(&self, _: &Planning) -> Option<Output> {
        None
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    fn memory(&self, _: &Planning) -> MemoryNeed {
        MemoryNeed::default()
    }

    async fn open(self: Box<Self>, _: SchemaRef, _: &Context) -> Result<Box<dyn Sink>> {
        Err(Error::bug("open", "a fake"))
    }
}

/// Gives its rows to those who come.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Live {
    token: Option<String>,
}

#[async_trait]
impl SinkConfig for Live {
    fn output(&self, _: &Planning) -> Option<Output> {
        None
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    fn serving(&self) -> Option<Serving> {
        Some(Serving { token: self.token.clone() })
    }

    fn memory(&self, _: &Planning) -> MemoryNeed {
        MemoryNeed::default()
    }

    async fn open(self: Box<Self>, _: SchemaRef, _: &Context) -> Result<Box<dyn Sink>> {
        Err(Error::bug("open", "a fake"))
    }
}

const fn info(name: &'static str, example: &'static str) -> ComponentInfo {
    ComponentInfo { name, summary: "A fake", example }
}

static FILES: Factory<Files> = Factory::new(info("files", "files: { paths: [a.csv] }"));
static GDELT: Factory<Files> = Factory::new(info("gdelt", "gdelt: { paths: [a.csv] }"));
static FILTER: Factory<Filter> = Factory::new(info("filter", "filter: \"id > 1\""));
static LIMIT: Factory<Limit> = Factory::new(info("limit", "limit: 10"));
static SORT: Factory<Sort> = Factory::new(info("sort", "sort: { by: [id] }"));
static JOIN: Factory<Join> = Factory::new(info("join", "join: { with: other }")).with_side_input("with");
static ONCE: Factory<Once> = Factory::new(info("once", "once: {}"));
static PARQUET: Factory<Parquet> = Factory::new(info("parquet", "parquet: { path: out }"));
static DISCARD: Factory<Discard> = Factory::new(info("discard", "discard: {}"));

static LIVE: Factory<Live> = Factory::new(info("live", "live: {}"));

/// With a sink that serves.
pub(crate) fn serving_registry() -> Registry {
    registry().with_sinks(&[&LIVE])
}

pub(crate) fn registry() -> Registry {
    Registry::new()
        .with_sources(&[&FILES, &GDELT])
        .with_stages(&[&FILTER, &LIMIT, &SORT, &JOIN, &ONCE])
        .with_sinks(&[&PARQUET, &DISCARD])
}

/// Settings with these `--set`s and this environment.
pub(crate) fn settings(set: &[(&str, &str)], env: &[(&str, &str)]) -> Settings {
    let owned = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Vec<_>>()
    };
    Settings { set: owned(set), env: owned(env).into_iter().collect(), ..Settings::default() }
}

/// Loads a flow file of this name and text, from a folder of its own. Errors without the folder's name.
pub(crate) fn load_as(name: &str, text: impl AsRef<[u8]>, settings: &Settings) -> Result<Vec<Flow>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    load(&path, settings, &registry())
        .map_err(|errors| errors.to_string().replace(&format!("{}/", folder.path().display()), ""))
}

/// [`load_as`] of YAML without settings.
pub(crate) fn load_yaml(text: &str) -> Result<Vec<Flow>, String> {
    load_as("flow.yaml", text, &Settings::default())
}
