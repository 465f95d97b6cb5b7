//! The script of a faulty server.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aqueduct_core::Problem;
use aqueduct_core::units::{Period, Size, optional_byte_count, optional_duration};
use aqueduct_primitives::ByteCount;
use schemars::JsonSchema;
use serde::Deserialize;

/// Headers of one answer, with those that `n_headers` adds; more than any client takes.
const MAX_HEADERS: u32 = 100_000;
/// Of one header that `header_bytes` makes; it is made in memory.
const MAX_HEADER_BYTES: ByteCount = ByteCount::mib(16);

/// What is served, and what goes wrong.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Script {
    /// Where to listen; port 0 stands for a free one.
    #[serde(default = "loopback")]
    pub(crate) listen: SocketAddrText,
    /// Connections at once; who comes when there are so many waits.
    #[serde(default = "default_connections")]
    #[schemars(range(min = 1, max = 10_000))]
    pub(crate) max_connections: usize,
    /// What is served. The first that fits a path answers; other paths are 404.
    pub(crate) routes: Vec<Route>,
}

/// An address, `127.0.0.1:0`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct SocketAddrText(String);

impl SocketAddrText {
    /// What it says; not, when it is no address.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.0.parse().ok()
    }
}

fn loopback() -> SocketAddrText {
    SocketAddrText("127.0.0.1:0".into())
}

fn default_connections() -> usize {
    256
}

/// What is served at a path: one of `file`, `folder`, `body`, or its faults alone.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Route {
    /// The path, `/a.csv`; with `*` at its end, all that begin so.
    pub(crate) path: String,
    /// The file, beside the script.
    pub(crate) file: Option<PathBuf>,
    /// The folder whose files stand in the place of the `*`, beside the script.
    pub(crate) folder: Option<PathBuf>,
    /// The text.
    pub(crate) body: Option<String>,
    /// More headers.
    pub(crate) headers: BTreeMap<String, String>,
    /// What goes wrong, one after the other; then all is well.
    pub(crate) faults: Vec<Fault>,
}

/// One thing that goes wrong, or several at once. Places are counted in the whole file, whatever range was asked for.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Fault {
    /// For so many requests; without this, `for` and `always`, for one.
    #[schemars(range(min = 1))]
    pub(crate) times: Option<u64>,
    /// For so long, from the first request on.
    #[serde(rename = "for", deserialize_with = "optional_duration")]
    #[schemars(with = "Option<Period>")]
    pub(crate) lasts: Option<Duration>,
    /// For ever.
    pub(crate) always: bool,
    /// Wait before the answer.
    #[serde(deserialize_with = "optional_duration")]
    #[schemars(with = "Option<Period>")]
    pub(crate) delay: Option<Duration>,
    /// Take the request and never answer.
    pub(crate) hang: bool,
    /// Answer with this status and `text` in the place of the file.
    #[schemars(range(min = 200, max = 999))]
    pub(crate) status: Option<u16>,
    /// `Retry-After`: a duration becomes seconds; all else is sent as it is: a date, junk.
    pub(crate) retry_after: Option<String>,
    /// What is sent in the place of the file: a login page, say.
    pub(crate) text: Option<String>,
    /// More headers, in the place of those of the same name.
    pub(crate) headers: BTreeMap<String, String>,
    /// Lead to another URL or path: to the route's own for a loop, `http://10.0.0.1/` for a private address.
    pub(crate) redirect: Option<String>,
    /// Lead to the same path so many times, each with another query, before the answer.
    #[schemars(range(min = 1, max = 10_000))]
    pub(crate) hops: Option<u32>,
    /// End the connection before this byte.
    #[serde(deserialize_with = "optional_byte_count")]
    #[schemars(with = "Option<Size>")]
    pub(crate) cut_at: Option<ByteCount>,
    /// End the connection before byte 1, with the next request before byte 2, and so on through the whole file.
    pub(crate) cut_everywhere: bool,
    /// Reset the connection before this byte.
    #[serde(deserialize_with = "optional_byte_count")]
    #[schemars(with = "Option<Size>")]
    pub(crate) reset_at: Option<ByteCount>,
    /// Send nothing more from this byte on, and keep the connection.
    #[serde(deserialize_with = "optional_byte_count")]
    #[schemars(with = "Option<Size>")]
    pub(crate) stall_at: Option<ByteCount>,
    /// Send so many bytes a second.
    #[serde(deserialize_with = "optional_byte_count")]
    #[schemars(with = "Option<Size>")]
    pub(crate) rate: Option<ByteCount>,
    /// Another validator: `changing` with each request, `weak`, `none`; or one of your own, with its quotes.
    pub(crate) etag: Option<String>,
    /// Send the whole file with 200 where a range was asked for.
    pub(crate) ignore_range: bool,
    /// Send a range that begins so many bytes later than the one that was asked for.
    pub(crate) shift_range: Option<u32>,
    /// Say in `Content-Range` that another range comes than the one that does.
    pub(crate) wrong_range: bool,
    /// Send so many bytes more than the range that was asked for.
    pub(crate) long_range: Option<u32>,
    /// Say a `Content-Length` so many bytes too long, or too short.
    pub(crate) length_off_by: Option<i64>,
    /// Say another `Content-Length`: below zero, twice, or none.
    pub(crate) length: Option<WrongLength>,
    /// Send in chunks; `cut` leaves out the last, empty one.
    pub(crate) chunked: Option<Chunked>,
    /// After the file, send zeros without end.
    pub(crate) endless: bool,
    /// Flip a bit of this byte.
    #[serde(deserialize_with = "optional_byte_count")]
    #[schemars(with = "Option<Size>")]
    pub(crate) flip_at: Option<ByteCount>,
    /// Send a header of so many bytes.
    #[serde(deserialize_with = "optional_byte_count")]
    #[schemars(with = "Option<Size>")]
    pub(crate) header_bytes: Option<ByteCount>,
    /// Send so many more headers.
    #[schemars(range(min = 1, max = MAX_HEADERS))]
    pub(crate) n_headers: Option<u32>,
    /// Send this text in the place of an answer, and end the connection: an invalid status line, HTTP/0.9.
    pub(crate) raw: Option<String>,
}

/// A `Content-Length` that no client should believe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WrongLength {
    /// Minus one.
    Negative,
    /// Two headers that do not agree.
    Twice,
    /// No header; the end of the connection is the end of the file.
    None,
}

/// How a body is sent in chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Chunked {
    /// All of them.
    Whole,
    /// Without the last, empty one.
    Cut,
}

impl Script {
    /// What its schema cannot say. Looks for the files that it names, beside the script.
    pub(crate) fn problems(&self, base_dir: &Path) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.listen.address().is_none() {
            let found = &self.listen.0;
            problems.push(Problem::at(
                "/listen",
                format!("found `{found}`; expected an address such as 127.0.0.1:0"),
            ));
        }
        if self.routes.is_empty() {
            problems.push(Problem::at(
                "/routes",
                "there is no route; expected one such as {path: /a.csv, file: a.csv}",
            ));
        }
        for (n, route) in self.routes.iter().enumerate() {
            let below =
                |problem: Problem| Problem::at(format!("/routes/{n}{}", problem.pointer), problem.message);
            problems.extend(route.problems(base_dir).into_iter().map(below));
        }
        problems
    }
}

impl Route {
    fn problems(&self, base_dir: &Path) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !self.path.starts_with('/') {
            problems.push(Problem::at(
                "/path",
                format!("found `{}`; expected a path that begins with /", self.path),
            ));
        }
        let what = [self.file.is_some(), self.folder.is_some(), self.body.is_some()];
        let n_what = what.iter().filter(|one| **one).count();
        if n_what > 1 {
            problems.push(Problem::at("", "expected one of `file`, `folder` and `body`"));
        }
        if n_what == 0 && self.faults.is_empty() {
            problems
                .push(Problem::at("", "nothing is served; expected `file`, `folder`, `body` or `faults`"));
        }
        let is_there = |path: &PathBuf, is_dir: bool| {
            std::fs::metadata(base_dir.join(path)).is_ok_and(|found| found.is_dir() == is_dir)
        };
        if let Some(file) = self.file.as_ref().filter(|file| !is_there(file, false)) {
            problems.push(Problem::at(
                "/file",
                format!("there is no file `{}` beside the script", file.display()),
            ));
        }
        if let Some(folder) = &self.folder {
            if !is_there(folder, true) {
                let message = format!("there is no folder `{}` beside the script", folder.display());
                problems.push(Problem::at("/folder", message));
            }
            if !self.path.ends_with("/*") {
                problems.push(Problem::at("/path", "the path of a folder ends with /*"));
            }
        }
        problems.extend(wrong_headers(&self.headers, "/headers"));
        for (n, fault) in self.faults.iter().enumerate() {
            let below =
                |problem: Problem| Problem::at(format!("/faults/{n}{}", problem.pointer), problem.message);
            problems.extend(fault.problems().into_iter().map(below));
            if fault.always && n + 1 < self.faults.len() {
                let message = "no request ever comes to the faults behind this one; let it be the last";
                problems.push(Problem::at(format!("/faults/{n}/always"), message));
            }
        }
        problems
    }
}

impl Fault {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = wrong_headers(&self.headers, "/headers");
        let n_how_long =
            usize::from(self.times.is_some()) + usize::from(self.lasts.is_some()) + usize::from(self.always);
        if n_how_long > 1 {
            problems.push(Problem::at("", "expected one of `times`, `for` and `always`"));
        }
        if self.rate.is_some_and(|rate| rate.get() == 0) {
            problems.push(Problem::at("/rate", "expected at least 1 byte a second; `stall_at` sends none"));
        }
        if self.header_bytes.is_some_and(|bytes| bytes > MAX_HEADER_BYTES) {
            problems.push(Problem::at("/header_bytes", format!("expected at most {MAX_HEADER_BYTES}")));
        }
        for (key, text) in
            [("etag", &self.etag), ("retry_after", &self.retry_after), ("redirect", &self.redirect)]
        {
            if text.as_ref().is_some_and(|text| !is_of_a_header(text)) {
                problems
                    .push(Problem::at(format!("/{key}"), "a line end cannot stand in a header; use `raw`"));
            }
        }
        problems
    }
}

fn wrong_headers(headers: &BTreeMap<String, String>, pointer: &str) -> Vec<Problem> {
    let wrong = headers.iter().filter(|(name, value)| !is_of_a_header(name) || !is_of_a_header(value));
    let told = |(name, _): (&String, &String)| {
        let pointer = format!("{pointer}{}", aqueduct_core::pointer_to(name));
        Problem::at(pointer, "a line end cannot stand in a header; use `raw`")
    };
    wrong.map(told).collect()
}

fn is_of_a_header(text: &str) -> bool {
    !text.contains(['\r', '\n'])
}
