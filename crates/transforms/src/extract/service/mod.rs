//! What `extract` needs of a service, and whose interfaces it knows: one file each.
//!
//! What a service sends is believed in nothing: ids go into URLs only if they are plain, texts are bounded by the caller.

mod gemini;
mod http;
mod openai;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Map, Value};

use super::answers::Answered;
use super::call::{CallFailed, Caller, Request};
use super::config::{Config, ServiceKind};
use super::form::Form;
use super::journal::RemoteFile;
use super::trouble::{Trouble, TroubleKind};

/// A section on its way to the service.
pub(super) struct Upload {
    /// What we call it: letters, digits and `-`, at most 32.
    pub(super) name: String,
    /// What people see.
    pub(super) shown_name: String,
    pub(super) media_type: &'static str,
    pub(super) bytes: Bytes,
}

/// A file that the service has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Uploaded {
    /// What the service calls it.
    pub(super) id: String,
    /// How a question speaks of it.
    pub(super) reference: String,
    pub(super) media_type: &'static str,
}

/// A service that answers questions about files.
#[async_trait]
pub(super) trait Service: Send + Sync {
    /// Sends a file, once; it can be asked about when this returns. After a failure it may be there all the same.
    async fn upload(&self, caller: &Caller, upload: Upload) -> Result<Uploaded, CallFailed>;

    /// The request that asks about a file, or about nothing but the prompt.
    fn question(&self, prompt: &str, about: Option<&Uploaded>) -> Request;

    /// What was answered.
    fn answer(&self, body: &[u8]) -> Result<Answered, Trouble>;

    /// Deletes a file, once; one that is not there is no failure.
    async fn delete(&self, caller: &Caller, file: &RemoteFile) -> Result<(), CallFailed>;
}

/// What every question says.
struct Common {
    url: String,
    model: String,
    options: Map<String, Value>,
    form: Option<Form>,
}

/// The service that the options name, and its URL.
pub(super) fn service_of(config: &Config, form: Option<Form>) -> (Box<dyn Service>, String) {
    let default = match config.service {
        ServiceKind::Gemini => gemini::URL,
        ServiceKind::Openai => openai::URL,
        ServiceKind::Http => "",
    };
    let url = config.url.as_deref().unwrap_or(default).trim_end_matches('/').to_owned();
    let common = Common {
        url: url.clone(),
        model: config.model.clone().unwrap_or_default(),
        options: config.options.clone().into_iter().collect(),
        form,
    };
    let service: Box<dyn Service> = match config.service {
        ServiceKind::Gemini => Box::new(gemini::Gemini(common)),
        ServiceKind::Openai => Box::new(openai::Openai(common)),
        ServiceKind::Http => Box::new(http::Http { common, api: config.api.clone().unwrap_or_default() }),
    };
    (service, url)
}

/// Longer ids are none.
const MAX_ID_BYTES: usize = 256;

/// An id that can stand in a URL as it is.
fn plain_id(id: Option<&Value>) -> Result<String, CallFailed> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    match id.and_then(Value::as_str) {
        Some(id)
            if !id.is_empty()
                && id.len() <= MAX_ID_BYTES
                && id.chars().all(is_plain)
                && !id.contains("..") =>
        {
            Ok(id.to_owned())
        }
        Some(_) => Err(CallFailed::odd("the service calls a file by what is no id")),
        None => Err(CallFailed::odd("the service does not say what it calls a file")),
    }
}

/// The JSON of an answer to an upload.
fn json_of(body: &[u8]) -> Result<Value, CallFailed> {
    serde_json::from_slice(body)
        .map_err(|error| CallFailed::odd(format!("the service sent no JSON: {error}")))
}

/// The JSON of an answer to a question.
fn answer_json(body: &[u8]) -> Result<Value, Trouble> {
    serde_json::from_slice(body)
        .map_err(|error| Trouble::new(TroubleKind::BadAnswer, format!("the service sent no JSON: {error}")))
}

/// A deletion of what is not there has done all there is to do.
fn or_gone<T>(deleted: Result<T, CallFailed>, gone: &[u16]) -> Result<(), CallFailed> {
    match deleted {
        Err(failed) if !failed.status.is_some_and(|status| gone.contains(&status)) => Err(failed),
        _ => Ok(()),
    }
}

/// A text, unless there is nothing in it.
fn some_text(text: String, tokens: Option<u64>) -> Result<Answered, Trouble> {
    if text.trim().is_empty() {
        return Err(Trouble::new(TroubleKind::EmptyAnswer, "the service answered with nothing"));
    }
    Ok(Answered { text, tokens })
}

/// It does not want to answer.
fn refused(why: impl std::fmt::Display) -> Trouble {
    Trouble::new(TroubleKind::Refused, format!("the service refused to answer: {why}"))
}

/// It has said as much as it may, and not all.
fn broken_off(why: &str) -> Trouble {
    let message = format!("the answer breaks off ({why}); ask for less, or allow more by `options`");
    Trouble::new(TroubleKind::BadAnswer, message)
}
