//! OpenAI's API and those like it: files (<https://platform.openai.com/docs/api-reference/files>) and chat completions
//! (<https://platform.openai.com/docs/api-reference/chat>).
//!
//! The service chooses the ids of files. One of which no id was heard is found by its name, which no other file has.

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::{
    Answered, CallFailed, Caller, Common, RemoteFile, Request, Service, Trouble, Upload, Uploaded,
    answer_json, broken_off, json_of, or_gone, plain_id, refused, some_text,
};

/// The public service.
pub(super) const URL: &str = "https://api.openai.com/v1";

/// What files are for.
const PURPOSE: &str = "user_data";
/// Of the service's list of files so many pages are read, newest first.
const MAX_PAGES: usize = 20;
const FILES_A_PAGE: usize = 100;

pub(super) struct Openai(pub(super) Common);

#[async_trait]
impl Service for Openai {
    async fn upload(&self, caller: &Caller, upload: Upload) -> Result<Uploaded, CallFailed> {
        let boundary = format!("aqueduct-{}", upload.name);
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\n{PURPOSE}\r\n\
             --{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{}\"\r\n\
             Content-Type: {}\r\n\r\n",
            file_name(&upload.name, &upload.shown_name),
            upload.media_type
        );
        let tail = format!("\r\n--{boundary}--\r\n");
        let send = Request::new(Method::POST, format!("{}/files", self.0.url))
            .header("content-type", &format!("multipart/form-data; boundary={boundary}"))
            .body([Bytes::from(head), upload.bytes, Bytes::from(tail)]);
        let sent = json_of(&caller.once(&send).await?.body)?;
        let id = plain_id(sent.get("id"))?;
        Ok(Uploaded { reference: id.clone(), id, media_type: upload.media_type })
    }

    fn question(&self, prompt: &str, about: Option<&Uploaded>) -> Request {
        let Common { url, model, options, form } = &self.0;
        let content = match about {
            Some(file) => json!([
                {"type": "file", "file": {"file_id": file.reference}},
                {"type": "text", "text": prompt},
            ]),
            None => json!(prompt),
        };
        let mut question = options.clone();
        question.insert("model".into(), model.as_str().into());
        question.insert("messages".into(), json!([{"role": "user", "content": content}]));
        if let Some(form) = form {
            let schema = json!({"name": "answer", "strict": true, "schema": form.json_schema()});
            question.insert("response_format".into(), json!({"type": "json_schema", "json_schema": schema}));
        }
        Request::json(format!("{url}/chat/completions"), &question.into())
    }

    fn answer(&self, body: &[u8]) -> Result<Answered, Trouble> {
        let answer = answer_json(body)?;
        let text_at = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str);
        if let Some(why) = text_at("/choices/0/message/refusal") {
            return Err(refused(why));
        }
        match text_at("/choices/0/finish_reason") {
            Some("content_filter") => return Err(refused("content_filter")),
            Some("length") => return Err(broken_off("length")),
            _ => {}
        }
        let text = text_at("/choices/0/message/content").unwrap_or_default().to_owned();
        some_text(text, answer.pointer("/usage/total_tokens").and_then(Value::as_u64))
    }

    async fn delete(&self, caller: &Caller, file: &RemoteFile) -> Result<(), CallFailed> {
        match &file.id {
            Some(id) => self.delete_id(caller, id).await,
            None => {
                for id in self.find(caller, &file_name(&file.name, &file.shown_name)).await? {
                    self.delete_id(caller, &id).await?;
                }
                Ok(())
            }
        }
    }
}

impl Openai {
    async fn delete_id(&self, caller: &Caller, id: &str) -> Result<(), CallFailed> {
        let delete = Request::new(Method::DELETE, format!("{}/files/{id}", self.0.url));
        or_gone(caller.to_clear_up(&delete).await, &[404])
    }

    /// The ids of files of this name.
    async fn find(&self, caller: &Caller, name: &str) -> Result<Vec<String>, CallFailed> {
        let (mut found, mut after) = (Vec::new(), String::new());
        for _ in 0..MAX_PAGES {
            let url =
                format!("{}/files?purpose={PURPOSE}&order=desc&limit={FILES_A_PAGE}{after}", self.0.url);
            let page = json_of(&caller.to_clear_up(&Request::new(Method::GET, url)).await?.body)?;
            let files = page.get("data").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            for file in files.iter().filter(|file| file.get("filename").and_then(Value::as_str) == Some(name))
            {
                found.push(plain_id(file.get("id"))?);
            }
            match files.last() {
                Some(last) if page.get("has_more") == Some(&Value::Bool(true)) => {
                    after = format!("&after={}", plain_id(last.get("id"))?);
                }
                _ => break,
            }
        }
        Ok(found)
    }
}

/// What the service is told that the file is called: what people see, and by what we know it.
fn file_name(name: &str, shown_name: &str) -> String {
    format!("{name}-{shown_name}")
}
