//! A stand-in for AI services: it takes files, answers questions about them, forgets files that are deleted, and counts all of it.
//! It speaks as much of Gemini's and OpenAI's interfaces, and of plain requests, as the stage `extract` does.
//!
//! An answer repeats the prompt and says how long the file is, so that who reads it knows what was asked. What a prompt says can
//! make it fail: `[refuse]`, `[empty]`, `[broken off]`, `[fail]`, `[stall]`, and `[busy]`, which is answered the second time.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aqueduct_chaos::{Answer, Limits, Request, Server};
use bytes::Bytes;
use serde_json::{Map, Value, json};

/// A request with a file is no longer.
const MAX_REQUEST_BYTES: usize = 64 << 20;
/// More connections wait.
const MAX_CONNECTIONS: usize = 4096;

/// How the service behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Behaviour {
    /// How long an answer takes.
    pub answers_after: Duration,
    /// Of all calls, this part is answered with 500.
    pub fails: f64,
    /// This part is never answered.
    pub stalls: f64,
    /// Of this part the connection is ended after what was asked was done.
    pub drops: f64,
    /// Another seed is another choice of calls.
    pub seed: u64,
}

/// What was done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Files taken.
    pub uploads: u64,
    /// Files deleted.
    pub deletes: u64,
    /// Questions that came.
    pub questions: u64,
    /// Questions that were answered well, for all the service knows.
    pub answers: u64,
    /// Files that are there.
    pub open_files: u64,
    /// The most that were there at one moment.
    pub peak_open_files: u64,
    /// Calls that were answered with 500, or never, or whose connection was ended, by choice of [`Behaviour`].
    pub spoiled: u64,
    /// By what was asked about which content, how often it was answered.
    pub asked: BTreeMap<String, u64>,
}

/// The running service. Dropping it ends it.
pub struct AiService {
    server: Server,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    behaviour: Behaviour,
    address: String,
    counts: Counts,
    n_calls: u64,
    /// By what the service calls it.
    files: BTreeMap<String, File>,
    busy: HashMap<String, u64>,
}

struct File {
    /// As who uploaded it called it.
    name: String,
    bytes: Bytes,
}

impl AiService {
    /// A service on a free port of this machine.
    ///
    /// # Panics
    /// There is none.
    #[expect(clippy::expect_used, reason = "a test whose server cannot start has failed")]
    pub async fn start(behaviour: Behaviour) -> Self {
        Self::bind((Ipv4Addr::LOCALHOST, 0).into(), behaviour).await.expect("a free port")
    }

    /// A service at an address.
    ///
    /// # Errors
    /// The address is taken, or not of this machine.
    pub async fn bind(address: SocketAddr, behaviour: Behaviour) -> io::Result<Self> {
        let limits = Limits {
            max_connections: MAX_CONNECTIONS,
            max_request_bytes: MAX_REQUEST_BYTES,
            keeps_requests: false,
        };
        let server = Server::bind(address, limits).await?;
        let state = State { behaviour, address: server.url(""), ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let answering = Arc::clone(&state);
        server.route("*", move |request| lock(&answering).answer(request));
        Ok(Self { server, state })
    }

    /// Its URL, for a service of kind `gemini` or `http`.
    pub fn url(&self) -> String {
        self.server.url("")
    }

    /// Its URL, for a service of kind `openai`.
    pub fn openai_url(&self) -> String {
        self.server.url("/v1")
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        lock(&self.state).counts()
    }

    /// Behaves otherwise from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        lock(&self.state).behaviour = behaviour;
    }

    /// Waits until this holds.
    ///
    /// # Panics
    /// It does not within a minute.
    pub async fn until(&self, holds: impl Fn(&Counts) -> bool) {
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while !holds(&self.counts()) {
            assert!(std::time::Instant::now() < deadline, "still {:?}", self.counts());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What becomes of a call.
enum Fate {
    Good,
    Fails,
    Stalls,
    Drops,
}

impl State {
    fn counts(&self) -> Counts {
        Counts { open_files: self.files.len() as u64, ..self.counts.clone() }
    }

    fn answer(&mut self, request: &Request) -> Answer {
        if (request.method.as_str(), request.path.as_str()) == ("GET", "/counts") {
            return self.told();
        }
        match self.fate() {
            Fate::Good => self.done(request),
            Fate::Fails => error(500, "it was to fail"),
            Fate::Stalls => Answer::silence(),
            Fate::Drops => {
                self.done(request);
                Answer::raw("")
            }
        }
    }

    /// By the number of the call: the same calls, whoever makes them.
    fn fate(&mut self) -> Fate {
        self.n_calls += 1;
        let Behaviour { fails, stalls, drops, seed, .. } = self.behaviour;
        let hash = blake3::hash(&[seed.to_le_bytes(), self.n_calls.to_le_bytes()].concat());
        let mut four = [0; 4];
        four.copy_from_slice(&hash.as_bytes()[..4]);
        let at = f64::from(u32::from_le_bytes(four)) / f64::from(u32::MAX);
        let fate = if at < fails {
            Fate::Fails
        } else if at < fails + stalls {
            Fate::Stalls
        } else if at < fails + stalls + drops {
            Fate::Drops
        } else {
            return Fate::Good;
        };
        self.counts.spoiled += 1;
        fate
    }

    fn done(&mut self, request: &Request) -> Answer {
        let path = request.path.trim_matches('/');
        let parts: Vec<&str> = path.split('/').collect();
        match (request.method.as_str(), parts.as_slice()) {
            ("POST", ["upload", "v1beta", "files"]) => self.begin_upload(request),
            ("POST", ["upload", "session", name, ..]) => {
                self.keep(format!("files/{name}"), (*name).to_owned(), request.body.clone());
                ok(&json!({"file": self.gemini_file(&format!("files/{name}"))}))
            }
            ("GET", ["v1beta", "files", name]) => ok(&self.gemini_file(&format!("files/{name}"))),
            ("DELETE", ["v1beta", "files", name]) => self.delete(&format!("files/{name}"), 403),
            ("POST", ["v1beta", "models", ..]) => self.gemini_question(&json_of(request)),
            ("POST", ["v1", "files"]) => self.multipart(request),
            ("GET", ["v1", "files"]) => self.openai_files(),
            ("DELETE", ["v1", "files", id]) => self.delete(id, 404),
            ("POST", ["v1", "chat", "completions"]) => self.openai_question(&json_of(request)),
            ("PUT", ["files", name]) => {
                self.keep((*name).to_owned(), (*name).to_owned(), request.body.clone());
                ok(&json!({"id": name}))
            }
            ("DELETE", ["files", name]) => self.delete(name, 404),
            ("POST", ["ask"]) => self.plain_question(&json_of(request)),
            _ => error(404, "no such path"),
        }
    }

    fn told(&self) -> Answer {
        let Counts { uploads, deletes, questions, answers, open_files, peak_open_files, spoiled, asked } =
            self.counts();
        let most = asked.values().max().copied().unwrap_or_default();
        ok(&json!({
            "uploads": uploads, "deletes": deletes, "questions": questions, "answers": answers,
            "open_files": open_files, "peak_open_files": peak_open_files, "spoiled": spoiled,
            "different_questions": asked.len(), "most_answers_to_one_question": most,
        }))
    }

    fn keep(&mut self, id: String, name: String, bytes: Bytes) {
        self.files.insert(id, File { name, bytes });
        self.counts.uploads += 1;
        self.counts.peak_open_files = self.counts.peak_open_files.max(self.files.len() as u64);
    }

    fn delete(&mut self, id: &str, unknown: u16) -> Answer {
        match self.files.remove(id) {
            Some(_) => {
                self.counts.deletes += 1;
                ok(&json!({"id": id, "deleted": true}))
            }
            None => error(unknown, "no such file"),
        }
    }

    fn begin_upload(&self, request: &Request) -> Answer {
        let about = json_of(request);
        let name =
            about.pointer("/file/name").and_then(Value::as_str).and_then(|name| name.strip_prefix("files/"));
        match name {
            Some(name) if request.header("x-goog-upload-command") == Some("start") => {
                ok(&json!({})).header("X-Goog-Upload-URL", format!("{}/upload/session/{name}", self.address))
            }
            _ => error(400, "no upload is begun so"),
        }
    }

    fn gemini_file(&self, id: &str) -> Value {
        json!({"name": id, "uri": format!("{}/v1beta/{id}", self.address), "state": "ACTIVE"})
    }

    fn gemini_question(&mut self, question: &Value) -> Answer {
        let parts =
            question.pointer("/contents/0/parts").and_then(Value::as_array).cloned().unwrap_or_default();
        let prompt = parts.iter().find_map(|part| part.get("text")?.as_str()).unwrap_or_default();
        let uri = parts.iter().find_map(|part| part.pointer("/file_data/file_uri")?.as_str());
        let id = uri.map(|uri| uri.rsplit_once("v1beta/").map_or(uri, |(_, id)| id).to_owned());
        let schema = question.pointer("/generationConfig/responseSchema");
        match self.say(prompt, id.as_deref(), schema) {
            Said::Text(text) => self.slowly(&json!({
                "candidates": [{"content": {"parts": [{"text": text}]}, "finishReason": "STOP"}],
                "usageMetadata": {"totalTokenCount": 10},
            })),
            Said::BrokenOff => self.slowly(&json!({
                "candidates": [{"content": {"parts": [{"text": "so far"}]}, "finishReason": "MAX_TOKENS"}],
            })),
            Said::Refused => self.slowly(&json!({"promptFeedback": {"blockReason": "SAFETY"}})),
            Said::Otherwise(answer) => answer,
        }
    }

    fn openai_question(&mut self, question: &Value) -> Answer {
        let content = question.pointer("/messages/0/content").cloned().unwrap_or_default();
        let parts = content.as_array().cloned().unwrap_or_else(|| vec![json!({"text": content})]);
        let prompt = parts.iter().find_map(|part| part.get("text")?.as_str()).unwrap_or_default();
        let id = parts.iter().find_map(|part| part.pointer("/file/file_id")?.as_str());
        let schema = question.pointer("/response_format/json_schema/schema");
        match self.say(prompt, id, schema) {
            Said::Text(text) => self.slowly(&json!({
                "choices": [{"message": {"content": text, "refusal": null}, "finish_reason": "stop"}],
                "usage": {"total_tokens": 10},
            })),
            Said::BrokenOff => self.slowly(&json!({
                "choices": [{"message": {"content": "so far"}, "finish_reason": "length"}],
            })),
            Said::Refused => self.slowly(&json!({"choices": [{"message": {"refusal": "No."}}]})),
            Said::Otherwise(answer) => answer,
        }
    }

    fn plain_question(&mut self, question: &Value) -> Answer {
        let text = |name: &str| question.get(name).and_then(Value::as_str);
        match self.say(text("prompt").unwrap_or_default(), text("file"), question.get("schema")) {
            Said::Text(text) => self.slowly(&json!({"answer": text, "tokens": 10})),
            Said::BrokenOff => self.slowly(&json!({"answer": null})),
            Said::Refused => error(451, "no"),
            Said::Otherwise(answer) => answer,
        }
    }

    fn say(&mut self, prompt: &str, id: Option<&str>, schema: Option<&Value>) -> Said {
        self.counts.questions += 1;
        let content = match id.map(|id| self.files.get(id)) {
            Some(None) => return Said::Otherwise(error(403, "no such file")),
            Some(Some(file)) => file.bytes.clone(),
            None => Bytes::new(),
        };
        let says = |word: &str| prompt.contains(word);
        if says("[busy]") {
            let n_asked = self.busy.entry(prompt.to_owned()).or_default();
            *n_asked += 1;
            if *n_asked == 1 {
                return Said::Otherwise(error(429, "too many").header("Retry-After", "0"));
            }
        }
        match () {
            () if says("[refuse]") => return Said::Refused,
            () if says("[broken off]") => return Said::BrokenOff,
            () if says("[fail]") => return Said::Otherwise(error(500, "it always fails")),
            () if says("[stall]") => return Said::Otherwise(Answer::silence()),
            () if says("[empty]") => return Said::Text(String::new()),
            () => {}
        }
        self.counts.answers += 1;
        *self.counts.asked.entry(format!("{prompt} | {}", blake3::hash(&content).to_hex())).or_default() += 1;
        Said::Text(match schema {
            Some(schema) => filled(schema, prompt, content.len()).to_string(),
            None => format!("{prompt} ({} bytes)", content.len()),
        })
    }

    fn slowly(&self, answer: &Value) -> Answer {
        ok(answer).delay(self.behaviour.answers_after)
    }

    /// Takes `file` out of a form (RFC 7578).
    fn multipart(&mut self, request: &Request) -> Answer {
        let body = &request.body;
        let find = |what: &[u8], from: usize| {
            body[from..].windows(what.len()).position(|window| window == what).map(|at| from + at)
        };
        let parsed = (|| {
            let boundary = request.header("content-type")?.split_once("boundary=")?.1.to_owned();
            let name_at = find(b"filename=\"", 0)? + 10;
            let name_end = find(b"\"", name_at)?;
            let start = find(b"\r\n\r\n", name_end)? + 4;
            let end = find(format!("\r\n--{boundary}").as_bytes(), start)?;
            Some((String::from_utf8_lossy(&body[name_at..name_end]).into_owned(), body.slice(start..end)))
        })();
        let Some((name, bytes)) = parsed else { return error(400, "no form with a file") };
        let id = format!("file-{}", self.counts.uploads + 1);
        self.keep(id.clone(), name.clone(), bytes);
        ok(&json!({"id": id, "filename": name, "purpose": "user_data"}))
    }

    fn openai_files(&self) -> Answer {
        let files = self.files.iter().map(|(id, file)| json!({"id": id, "filename": file.name}));
        ok(&json!({"data": files.collect::<Vec<_>>(), "has_more": false}))
    }
}

/// What is said to a question.
enum Said {
    Text(String),
    Refused,
    BrokenOff,
    Otherwise(Answer),
}

/// A value of a form: texts are the prompt, numbers the length of the file.
fn filled(schema: &Value, prompt: &str, n_bytes: usize) -> Value {
    let kind = schema.get("type").and_then(Value::as_str).unwrap_or_default().to_lowercase();
    match kind.as_str() {
        "object" => {
            let members = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
            Value::Object(
                members.map(|(name, of)| (name.clone(), filled(of, prompt, n_bytes))).collect::<Map<_, _>>(),
            )
        }
        "array" => json!([filled(&schema["items"], prompt, n_bytes)]),
        "integer" | "number" => json!(n_bytes),
        "boolean" => json!(true),
        _ => json!(prompt),
    }
}

fn json_of(request: &Request) -> Value {
    serde_json::from_slice(&request.body).unwrap_or_default()
}

fn ok(body: &Value) -> Answer {
    Answer::ok(body.to_string()).header("Content-Type", "application/json")
}

fn error(status: u16, message: &str) -> Answer {
    Answer::new(status).body(json!({"error": {"message": message}}).to_string())
}
