//! The options of `extract`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use aqueduct_core::{MemoryNeed, Planning, Problem, pointer_to, units};
use aqueduct_formats::parse_type;
use aqueduct_net::{HttpOptions, Location};
use aqueduct_primitives::ByteCount;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::pairs::Pairs;

/// More at once would be more connections than services and this machine allow.
const MAX_AT_ONCE: usize = 1000;
/// Longer prompts and answers are documents: a section of a flow goes into the memory of one call.
const MAX_TEXT_BYTES: ByteCount = ByteCount::mib(64);
/// What a call takes beside its prompt and its answer: heads, a connection's buffers.
const BESIDE_TEXTS: ByteCount = ByteCount::kib(256);
/// A prompt lies in memory as text, within a question, and on its way; an answer as it came, as text, and as a column.
const COPIES_OF_TEXTS: u64 = 4;

/// Options of `extract`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Whose interface the service has: `gemini` (files and `generateContent`), `openai` (files and chat completions, as many
    /// others have them), or `http`: plain requests, as `api` says.
    pub(super) service: ServiceKind,
    /// Where the service is. Default of `gemini` and `openai`: the public one.
    pub(super) url: Option<String>,
    /// The model that is asked. `gemini` and `openai` need one.
    pub(super) model: Option<String>,
    /// What is asked about each section: a text in which `{column}` stands for a value of the row, and `{{` for a brace.
    pub(super) prompt: String,
    /// The column with the section: a PDF or other bytes, or a text. Default: `pdf`, else `text`.
    pub(super) section: Option<String>,
    /// Whether the section is sent to the service as a file, which is always deleted there. Without, the prompt has all that
    /// is asked about: `{text}` say.
    #[serde(default = "yes")]
    pub(super) upload: bool,
    /// Where the answer goes, and what it looks like.
    #[serde(default)]
    pub(super) answer: Answer,
    /// How many sections are asked about at once: a number, or `adaptive`, as many as memory, `max_concurrency` and the
    /// service's limits admit.
    #[serde(default)]
    pub(super) concurrency: Concurrency,
    /// How long each call may take.
    #[serde(
        default = "default_timeout",
        deserialize_with = "units::duration",
        serialize_with = "units::write_duration"
    )]
    #[schemars(with = "String")]
    pub(super) timeout: Duration,
    /// At most so many questions are asked in a run, those that are asked again among them. Then the run fails, and the next
    /// one goes on. Default: no limit.
    pub(super) max_requests: Option<u64>,
    /// Whether answers are kept from run to run: the same section, prompt, model and options are asked about once. Without,
    /// they are kept for as long as a run that has committed something goes on.
    #[serde(default = "yes")]
    pub(super) cache: bool,
    /// A pause before each section but the first ones.
    #[serde(
        default = "default_delay",
        deserialize_with = "units::duration",
        serialize_with = "units::write_duration"
    )]
    #[schemars(with = "String")]
    pub(super) delay: Duration,
    /// The longest wait before a call is made again. While the service says that there are too many, nothing is asked.
    #[serde(
        default = "default_cool_down",
        deserialize_with = "units::duration",
        serialize_with = "units::write_duration"
    )]
    #[schemars(with = "String")]
    pub(super) cool_down: Duration,
    /// A longer prompt, with the row's values in it, is not asked: its section has failed.
    #[serde(default = "default_text_bytes", deserialize_with = "units::byte_count")]
    #[schemars(with = "units::Size", extend("default" = "256KiB"))]
    pub(super) max_prompt_bytes: ByteCount,
    /// A longer answer is not taken: its section has failed.
    #[serde(default = "default_text_bytes", deserialize_with = "units::byte_count")]
    #[schemars(with = "units::Size", extend("default" = "256KiB"))]
    pub(super) max_answer_bytes: ByteCount,
    /// What else the service is told with each question, as it names it: `{temperature: 0}`.
    #[serde(default)]
    pub(super) options: BTreeMap<String, Value>,
    /// How a service of kind `http` is called.
    pub(super) api: Option<Api>,
    /// How calls are made, on top of the flow's `http`; `retries` is 3 unless either says otherwise.
    #[serde(flatten)]
    pub(super) http: HttpOptions,
}

/// Whose interface a service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ServiceKind {
    /// Google's Gemini API.
    Gemini,
    /// OpenAI's API, and those like it.
    Openai,
    /// Plain requests.
    Http,
}

impl ServiceKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gemini => "gemini",
            Self::Openai => "openai",
            Self::Http => "http",
        }
    }
}

/// Where the answer goes, and what it looks like.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Answer {
    /// The column of answers.
    #[serde(default = "default_column")]
    pub(super) column: String,
    /// Names and types of what is asked for, as `cast` writes them: the service is told to answer in this form, and the column
    /// is a `struct` of it. Without, an answer is a text.
    pub(super) schema: Option<Pairs>,
}

impl Default for Answer {
    fn default() -> Self {
        Self { column: default_column(), schema: None }
    }
}

/// How many sections are asked about at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Concurrency {
    /// So many.
    Sections(usize),
    /// As many as there is room for.
    Named(Adaptive),
}

/// As many as there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Adaptive {
    /// The only one.
    Adaptive,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self::Sections(1)
    }
}

/// How a service of kind `http` is called. Paths go on from `url`; `{file}` is the name of the uploaded file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Api {
    /// Where a section is sent, by PUT.
    pub(super) upload: String,
    /// Where is asked, by POST.
    pub(super) ask: String,
    /// Where a section is deleted, by DELETE.
    pub(super) delete: String,
    /// What is asked, as JSON: in its texts `{prompt}`, `{file}` and `{model}` are filled in. Default: an object of `prompt`,
    /// `file`, `model`, `schema` and the `options`.
    pub(super) body: Option<Value>,
    /// Where in the JSON that comes back the answer stands (RFC 6901).
    pub(super) answer: String,
    /// Where it says how many tokens were used, if it does.
    pub(super) tokens: String,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            upload: "/files/{file}".into(),
            ask: "/ask".into(),
            delete: "/files/{file}".into(),
            body: None,
            answer: "/answer".into(),
            tokens: "/tokens".into(),
        }
    }
}

fn yes() -> bool {
    true
}

fn default_column() -> String {
    "answer".into()
}

fn default_timeout() -> Duration {
    Duration::from_secs(300)
}

fn default_delay() -> Duration {
    Duration::from_millis(100)
}

fn default_cool_down() -> Duration {
    Duration::from_secs(60)
}

fn default_text_bytes() -> ByteCount {
    ByteCount::kib(256)
}

impl Config {
    /// All that is wrong with the options themselves.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = self.http.validate();
        let mut wrong =
            |pointer: &str, message: &str| problems.push(Problem::at(pointer, message.to_owned()));
        let is_http = self.service == ServiceKind::Http;
        match &self.url {
            None if is_http => wrong("/url", "missing; expected where the service is"),
            Some(url) if !matches!(Location::parse(url, Path::new("")), Ok(Location::Http(_))) => {
                wrong("/url", "expected an http or https URL");
            }
            _ => {}
        }
        match &self.model {
            None if !is_http => wrong("/model", "missing; expected the name of the model that is asked"),
            Some(model) if !is_model(model) => {
                wrong("/model", "expected letters, digits and any of - _ . : / in a model's name");
            }
            _ => {}
        }
        if self.prompt.trim().is_empty() {
            wrong("/prompt", "nothing is asked; expected a text");
        }
        if self.api.is_some() && !is_http {
            wrong("/api", "only a service of kind `http` is told how it is called");
        }
        if matches!(self.concurrency, Concurrency::Sections(n) if n == 0 || n > MAX_AT_ONCE) {
            wrong("/concurrency", &format!("expected 1 to {MAX_AT_ONCE} sections at once, or `adaptive`"));
        }
        if self.timeout.is_zero() {
            wrong("/timeout", "no time at all; expected a duration such as 300s");
        }
        if self.max_requests == Some(0) {
            wrong("/max_requests", "nothing could be asked; expected at least 1");
        }
        if self.max_requests.is_some() && !self.cache {
            let message = "a run that has asked all it may goes on by the answers that are kept; expected `cache: true`";
            wrong("/max_requests", message);
        }
        for (pointer, bytes) in
            [("/max_prompt_bytes", self.max_prompt_bytes), ("/max_answer_bytes", self.max_answer_bytes)]
        {
            if bytes == ByteCount::ZERO || bytes > MAX_TEXT_BYTES {
                wrong(pointer, &format!("expected at least 1 byte and at most {MAX_TEXT_BYTES}"));
            }
        }
        problems.extend(self.answer.problems());
        problems
    }

    /// The memory that one section takes beside its row, from the question to the answer's column.
    pub(super) fn slot(&self) -> ByteCount {
        let texts = self.max_prompt_bytes.saturating_add(self.max_answer_bytes);
        texts.saturating_mul(COPIES_OF_TEXTS).saturating_add(BESIDE_TEXTS)
    }

    /// One slot to ask in, and one whose row is on its way.
    pub(super) fn memory_need(&self, planning: &Planning) -> MemoryNeed {
        let slots = self.n_at_once(planning.max_concurrency).saturating_add(1) as u64;
        MemoryNeed::between(self.slot().saturating_mul(2), self.slot().saturating_mul(slots.max(2)))
    }

    pub(super) fn n_at_once(&self, max_concurrency: usize) -> usize {
        match self.concurrency {
            Concurrency::Sections(n) => n,
            Concurrency::Named(Adaptive::Adaptive) => max_concurrency,
        }
        .max(1)
    }

    pub(super) fn is_adaptive(&self) -> bool {
        matches!(self.concurrency, Concurrency::Named(Adaptive::Adaptive))
    }
}

impl Answer {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.column.is_empty() || matches!(self.column.as_str(), "status" | "error" | "error_message") {
            let message =
                "`status`, `error` and `error_message` are columns of their own; expected another name";
            problems.push(Problem::at("/answer/column", message));
        }
        for (name, text) in self.schema.iter().flat_map(Pairs::iter) {
            let pointer = format!("/answer/schema{}", pointer_to(name));
            match parse_type(text) {
                Ok(column) if column.time.is_some() => {
                    let message =
                        "answers are JSON, whose times are written in one way; expected `timestamp` alone";
                    problems.push(Problem::at(pointer, message));
                }
                Ok(_) => {}
                Err(problem) => problems.push(Problem::at(pointer, problem.message)),
            }
        }
        problems
    }
}

/// It stands in URLs as it is.
fn is_model(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/');
    !name.is_empty() && name.chars().all(is_plain) && !name.contains("..")
}
