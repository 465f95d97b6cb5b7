//! Google's Gemini API, v1beta: files (<https://ai.google.dev/api/files>) are uploaded by its resumable protocol in one go, and
//! questions asked by `generateContent` (<https://ai.google.dev/api/generate-content>).
//!
//! We choose the names of files, so that one can be deleted although the answer to its upload never came.

use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use serde_json::{Value, json};

use super::{
    Answered, CallFailed, Caller, Common, RemoteFile, Request, Service, Trouble, Upload, Uploaded,
    answer_json, broken_off, json_of, or_gone, refused, some_text,
};

/// The public service.
pub(super) const URL: &str = "https://generativelanguage.googleapis.com";

/// Between two looks at a file that the service is still working on.
const LOOK: Duration = Duration::from_secs(1);

pub(super) struct Gemini(pub(super) Common);

#[async_trait]
impl Service for Gemini {
    async fn upload(&self, caller: &Caller, upload: Upload) -> Result<Uploaded, CallFailed> {
        let id = format!("files/{}", upload.name);
        let about = json!({"file": {"name": id, "display_name": upload.shown_name}});
        let begin = Request::json(format!("{}/upload/v1beta/files", self.0.url), &about)
            .header("x-goog-upload-protocol", "resumable")
            .header("x-goog-upload-command", "start")
            .header("x-goog-upload-header-content-length", &upload.bytes.len().to_string())
            .header("x-goog-upload-header-content-type", upload.media_type);
        let begun = caller.once(&begin).await?;
        let to = begun.headers.get("x-goog-upload-url").and_then(|url| url.to_str().ok());
        let to = to.ok_or_else(|| CallFailed::odd("the service does not say where to upload"))?;
        let send = Request::new(Method::POST, to)
            .named_by_service()
            .header("x-goog-upload-offset", "0")
            .header("x-goog-upload-command", "upload, finalize")
            .body([upload.bytes]);
        let sent = json_of(&caller.once(&send).await?.body)?;
        let file = self.until_active(caller, &id, sent.get("file").cloned().unwrap_or_default()).await?;
        let reference = file.get("uri").and_then(Value::as_str);
        let reference =
            reference.ok_or_else(|| CallFailed::odd("the service does not say where the file is"))?;
        Ok(Uploaded { id, reference: reference.to_owned(), media_type: upload.media_type })
    }

    fn question(&self, prompt: &str, about: Option<&Uploaded>) -> Request {
        let Common { url, model, options, form } = &self.0;
        let mut parts = Vec::new();
        if let Some(file) = about {
            parts.push(json!({"file_data": {"mime_type": file.media_type, "file_uri": file.reference}}));
        }
        parts.push(json!({"text": prompt}));
        let mut config = options.clone();
        if let Some(form) = form {
            config.insert("responseMimeType".into(), "application/json".into());
            config.insert("responseSchema".into(), form.open_api());
        }
        let question = json!({"contents": [{"role": "user", "parts": parts}], "generationConfig": config});
        Request::json(format!("{url}/v1beta/models/{model}:generateContent"), &question)
    }

    fn answer(&self, body: &[u8]) -> Result<Answered, Trouble> {
        let answer = answer_json(body)?;
        let text_at = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str);
        if let Some(why) = text_at("/promptFeedback/blockReason") {
            return Err(refused(why));
        }
        match text_at("/candidates/0/finishReason") {
            None | Some("STOP" | "FINISH_REASON_UNSPECIFIED") => {}
            Some("MAX_TOKENS") => return Err(broken_off("MAX_TOKENS")),
            Some(why) => return Err(refused(why)),
        }
        let parts = answer.pointer("/candidates/0/content/parts").and_then(Value::as_array);
        // What it thought is no part of the answer.
        let is_said = |part: &&Value| part.get("thought") != Some(&Value::Bool(true));
        let texts = parts.into_iter().flatten().filter(is_said).filter_map(|part| part.get("text")?.as_str());
        some_text(texts.collect(), answer.pointer("/usageMetadata/totalTokenCount").and_then(Value::as_u64))
    }

    /// Of a file that is not there, or not ours, the service says 403.
    async fn delete(&self, caller: &Caller, file: &RemoteFile) -> Result<(), CallFailed> {
        let url = format!("{}/v1beta/files/{}", self.0.url, file.name);
        let deleted = caller.to_clear_up(&Request::new(Method::DELETE, url)).await;
        or_gone(deleted, &[403, 404])
    }
}

impl Gemini {
    /// Waits until the service can be asked about a file; what it says of it.
    async fn until_active(&self, caller: &Caller, id: &str, mut file: Value) -> Result<Value, CallFailed> {
        let begun = tokio::time::Instant::now();
        loop {
            match file.get("state").and_then(Value::as_str) {
                Some("PROCESSING" | "STATE_UNSPECIFIED") => {}
                Some("FAILED") => {
                    return Err(CallFailed {
                        may_pass: false,
                        ..CallFailed::odd("the service cannot read the file")
                    });
                }
                _ => return Ok(file),
            }
            if begun.elapsed() >= caller.timeout {
                let failed = CallFailed::odd("the service is still reading the file");
                return Err(CallFailed { is_timeout: true, ..failed });
            }
            tokio::time::sleep(LOOK).await;
            let look = Request::new(Method::GET, format!("{}/v1beta/{id}", self.0.url));
            file = json_of(&caller.once(&look).await?.body)?;
        }
    }
}
