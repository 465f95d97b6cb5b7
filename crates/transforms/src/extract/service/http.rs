//! Plain requests: a section is put to a URL of our choice, a question posted as JSON, the section deleted.

use async_trait::async_trait;
use http::Method;
use serde_json::{Map, Value};

use super::super::config::Api;
use super::{
    Answered, CallFailed, Caller, Common, RemoteFile, Request, Service, Trouble, TroubleKind, Upload,
    Uploaded, answer_json, or_gone, some_text,
};

pub(super) struct Http {
    pub(super) common: Common,
    pub(super) api: Api,
}

#[async_trait]
impl Service for Http {
    async fn upload(&self, caller: &Caller, upload: Upload) -> Result<Uploaded, CallFailed> {
        let put = Request::new(Method::PUT, self.url(&self.api.upload, &upload.name))
            .header("content-type", upload.media_type)
            .body([upload.bytes]);
        caller.once(&put).await?;
        Ok(Uploaded { id: upload.name.clone(), reference: upload.name, media_type: upload.media_type })
    }

    fn question(&self, prompt: &str, about: Option<&Uploaded>) -> Request {
        let file = about.map(|file| file.reference.as_str());
        let question = match &self.api.body {
            Some(body) => self.filled(body, prompt, file.unwrap_or_default()),
            None => self.usual_question(prompt, file),
        };
        Request::json(self.url(&self.api.ask, file.unwrap_or_default()), &question)
    }

    fn answer(&self, body: &[u8]) -> Result<Answered, Trouble> {
        let answer = answer_json(body)?;
        let text = match answer.pointer(&self.api.answer) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) => String::new(),
            Some(value) => value.to_string(),
            None => {
                let message = format!(
                    "there is nothing at `{}` in what the service sent; see `api.answer`",
                    self.api.answer
                );
                return Err(Trouble::new(TroubleKind::EmptyAnswer, message));
            }
        };
        some_text(text, answer.pointer(&self.api.tokens).and_then(Value::as_u64))
    }

    async fn delete(&self, caller: &Caller, file: &RemoteFile) -> Result<(), CallFailed> {
        let delete = Request::new(Method::DELETE, self.url(&self.api.delete, &file.name));
        or_gone(caller.to_clear_up(&delete).await, &[404, 410])
    }
}

impl Http {
    fn url(&self, path: &str, file: &str) -> String {
        format!("{}{}", self.common.url, path.replace("{file}", file))
    }

    fn usual_question(&self, prompt: &str, file: Option<&str>) -> Value {
        let Common { model, options, form, .. } = &self.common;
        let mut question = Map::new();
        question.insert("prompt".into(), prompt.into());
        if let Some(file) = file {
            question.insert("file".into(), file.into());
        }
        if !model.is_empty() {
            question.insert("model".into(), model.as_str().into());
        }
        if let Some(form) = form {
            question.insert("schema".into(), form.json_schema());
        }
        question.extend(options.clone());
        question.into()
    }

    /// A value with what is asked in the place of its names. What is filled in is not looked at again.
    fn filled(&self, value: &Value, prompt: &str, file: &str) -> Value {
        match value {
            Value::String(text) => Value::String(self.filled_text(text, prompt, file)),
            Value::Array(items) => items.iter().map(|item| self.filled(item, prompt, file)).collect(),
            Value::Object(members) => {
                let members = members.iter();
                Value::Object(
                    members.map(|(name, of)| (name.clone(), self.filled(of, prompt, file))).collect(),
                )
            }
            other => other.clone(),
        }
    }

    fn filled_text(&self, text: &str, prompt: &str, file: &str) -> String {
        let names = [("{prompt}", prompt), ("{file}", file), ("{model}", self.common.model.as_str())];
        let (mut filled, mut rest) = (String::new(), text);
        while let Some(at) = rest.find('{') {
            filled.push_str(&rest[..at]);
            rest = &rest[at..];
            match names.iter().find(|(name, _)| rest.starts_with(name)) {
                Some((name, value)) => {
                    filled.push_str(value);
                    rest = &rest[name.len()..];
                }
                None => {
                    filled.push('{');
                    rest = &rest[1..];
                }
            }
        }
        filled.push_str(rest);
        filled
    }
}
