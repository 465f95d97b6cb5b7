//! The answers to requests: what each path is, and what it takes.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::{JobStatus, Query, Refused, Runs, StartRequest};
use crate::logging::Console;

/// Runs on a page unless told otherwise, and at most.
const DEFAULT_PAGE: usize = 50;
const MAX_PAGE: usize = 1000;
/// When to ask again where too many wait.
const RETRY_AFTER_SECONDS: &str = "10";

/// Answers requests about runs.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) runs: Runs,
    /// Knows what must not be shown.
    pub(super) console: Console,
}

impl Api {
    /// The answer to a request below `/flows`, `/runs` and `/server`.
    pub(super) async fn answer(&self, request: Request<Bytes>) -> Response<Bytes> {
        let path = request.uri().path().trim_end_matches('/').to_owned();
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let (method, query) =
            (request.method().clone(), request.uri().query().unwrap_or_default().to_owned());
        match (parts.as_slice(), &method) {
            (["flows"], &Method::GET) => self.flows().await,
            (["runs"], &Method::GET) => self.list(&query),
            (["runs"], &Method::POST) => self.start(request.body()).await,
            (["runs", id], &Method::GET) => self.tell(id).await,
            (["runs", id], &Method::DELETE) => self.cancel(id).await,
            (["flows" | "server"] | ["runs", _, "events"], _) => self.not_allowed("GET"),
            (["runs"], _) => self.not_allowed("GET, POST"),
            (["runs", _], _) => self.not_allowed("GET, DELETE"),
            _ => self.error(
                StatusCode::NOT_FOUND,
                "no such page; there are /, /flows, /runs, /metrics and /healthz",
            ),
        }
    }

    async fn flows(&self) -> Response<Bytes> {
        match self.runs.flows().await {
            Ok(flows) => self.json(StatusCode::OK, json!({ "flows": flows })),
            Err(refused) => self.refuse(&refused),
        }
    }

    fn list(&self, query: &str) -> Response<Bytes> {
        match read_query(query) {
            Ok(query) => {
                let page = self.runs.page(&query);
                self.json(
                    StatusCode::OK,
                    json!({ "runs": page.runs, "next": page.next, "total": page.total }),
                )
            }
            Err(message) => self.error(StatusCode::BAD_REQUEST, &message),
        }
    }

    async fn start(&self, body: &[u8]) -> Response<Bytes> {
        let request = match StartRequest::read(body) {
            Ok(request) => request,
            Err(message) => return self.error(StatusCode::BAD_REQUEST, &message),
        };
        match self.runs.start(request).await {
            Ok(job) => {
                let answer = self.json(StatusCode::CREATED, self.runs.summary(&job));
                with(answer, LOCATION, &format!("/runs/{}", job.id))
            }
            Err(refused) => self.refuse(&refused),
        }
    }

    async fn tell(&self, id: &str) -> Response<Bytes> {
        match self.runs.job(id) {
            Some(job) => self.json(StatusCode::OK, self.runs.detail(&job).await),
            None => self.unknown_run(),
        }
    }

    async fn cancel(&self, id: &str) -> Response<Bytes> {
        if !self.runs.starts_runs() && self.runs.job(id).is_some() {
            return self.refuse(&Refused::NotOurs);
        }
        match self.runs.cancel(id).await {
            // It goes on until what is complete is committed.
            Some(job) if !job.status().has_ended() => {
                self.json(StatusCode::ACCEPTED, self.runs.summary(&job))
            }
            Some(job) => self.json(StatusCode::OK, self.runs.summary(&job)),
            None => self.unknown_run(),
        }
    }

    fn refuse(&self, refused: &Refused) -> Response<Bytes> {
        let message = refused.to_string();
        match refused {
            Refused::Unknown(_) => self.error(StatusCode::NOT_FOUND, &message),
            Refused::Wrong(_) => self.error(StatusCode::BAD_REQUEST, &message),
            Refused::NotHere | Refused::NotOurs => {
                with(self.error(StatusCode::METHOD_NOT_ALLOWED, &message), ALLOW, "GET")
            }
            Refused::Busy { id } => {
                let answer = self.json(StatusCode::CONFLICT, json!({ "error": message, "run": id }));
                with(answer, LOCATION, &format!("/runs/{id}"))
            }
            Refused::Full { .. } | Refused::Closing => {
                with(self.error(StatusCode::SERVICE_UNAVAILABLE, &message), RETRY_AFTER, RETRY_AFTER_SECONDS)
            }
            Refused::Failed(_) => self.error(StatusCode::INTERNAL_SERVER_ERROR, &message),
        }
    }

    fn unknown_run(&self) -> Response<Bytes> {
        self.error(StatusCode::NOT_FOUND, "no such run; GET /runs lists them")
    }

    fn not_allowed(&self, methods: &str) -> Response<Bytes> {
        let message = format!("expected {methods}");
        with(self.error(StatusCode::METHOD_NOT_ALLOWED, &message), ALLOW, methods)
    }

    fn error(&self, status: StatusCode, message: &str) -> Response<Bytes> {
        self.json(status, json!({ "error": message }))
    }

    pub(super) fn json(&self, status: StatusCode, value: Value) -> Response<Bytes> {
        let text = masked(value, &self.console).to_string();
        page(status, "application/json", Bytes::from(text + "\n"))
    }
}

/// The value with all its texts masked; numbers stay, so that it stays JSON.
pub(super) fn masked(mut value: Value, console: &Console) -> Value {
    match &mut value {
        Value::String(text) => *text = console.masked(text),
        Value::Array(values) => values.iter_mut().for_each(|value| *value = masked(value.take(), console)),
        Value::Object(values) => values.values_mut().for_each(|value| *value = masked(value.take(), console)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    value
}

/// A page that is never kept by who reads it.
pub(super) fn page(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Bytes> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    answer
}

fn with(mut answer: Response<Bytes>, name: HeaderName, value: &str) -> Response<Bytes> {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
    answer
}

fn read_query(text: &str) -> Result<Query, String> {
    let mut query = Query { limit: DEFAULT_PAGE, before: None, status: None, text: None };
    for (key, value) in url::form_urlencoded::parse(text.as_bytes()) {
        match &*key {
            "limit" => {
                query.limit = value
                    .parse()
                    .ok()
                    .filter(|limit| (1..=MAX_PAGE).contains(limit))
                    .ok_or_else(|| format!("limit: `{value}`; expected a number from 1 to {MAX_PAGE}"))?;
            }
            "before" => query.before = Some(value.into_owned()),
            "q" => query.text = Some(value.into_owned()).filter(|text| !text.is_empty()),
            "status" => {
                let status = JobStatus::ALL.into_iter().find(|status| status.word() == value);
                let all = JobStatus::ALL.map(JobStatus::word).join(", ");
                query.status =
                    Some(status.ok_or_else(|| format!("status: `{value}`; expected one of {all}"))?);
            }
            _ => return Err(format!("`{key}`: unknown; expected limit, before, status or q")),
        }
    }
    Ok(query)
}
