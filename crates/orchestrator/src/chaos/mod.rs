//! The faulty server of `aqueduct chaos`: a script of routes, and of what goes wrong at each.
//!
//! Bounded by [`Script::max_connections`] and by what the server takes of a request; files are read while they are sent.

mod answer;
mod script;
#[cfg(test)]
mod tests;

use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use aqueduct_chaos::{Answer, Body, Limits, MAX_REQUEST_BYTES, Request, Server};
use percent_encoding::percent_decode_str;

use crate::flow::{FlowErrors, read_document};
use answer::Asked;
use script::{Fault, Route, Script};

/// The command's long help, which is the script's documentation.
pub(crate) const HELP: &str = include_str!("help.txt");

/// A script that was read, with how far each route is in it.
pub(crate) struct Chaos {
    base_dir: PathBuf,
    script: Script,
    progress: Vec<Mutex<Progress>>,
}

/// Where a route stands in its faults.
#[derive(Default)]
struct Progress {
    fault: usize,
    /// Requests that this fault had.
    n_requests: u64,
    /// Since the first of them.
    since: Option<Instant>,
}

impl Chaos {
    /// Reads a script. Blocks.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub(crate) fn read(path: &Path) -> Result<Self, FlowErrors> {
        let base_dir = path.parent().map(Path::to_path_buf).unwrap_or_default();
        let script: Script = read_document(path, |script: &Script| script.problems(&base_dir))?;
        let progress = script.routes.iter().map(|_| Mutex::default()).collect();
        Ok(Self { base_dir, script, progress })
    }

    /// Starts to serve; `log` gets a line for each request.
    ///
    /// # Errors
    /// It cannot listen there.
    pub(crate) async fn serve(self, log: impl Fn(&str) + Send + Sync + 'static) -> Result<Server, String> {
        let address = self.script.listen.address().ok_or("the address was not checked")?;
        let max_connections = self.script.max_connections;
        let limits = Limits { max_connections, max_request_bytes: MAX_REQUEST_BYTES, keeps_requests: false };
        let server = Server::bind(address, limits)
            .await
            .map_err(|error| format!("cannot listen on {address}: {error}; choose another `listen`"))?;
        // Files are opened here; the runtime moves its other work elsewhere meanwhile.
        server.route("*", move |request| {
            let (answer, line) = tokio::task::block_in_place(|| self.answer(request));
            log(&line);
            answer
        });
        Ok(server)
    }

    /// The answer to a request, and the line that tells of it.
    fn answer(&self, request: &Request) -> (Answer, String) {
        let routes = self.script.routes.iter().zip(&self.progress);
        let found = routes.into_iter().find(|(route, _)| route.fits(&request.path));
        let (answer, fault) = match found {
            None => (Answer::new(404).body("no such path\n"), None),
            Some((route, progress)) => self.at_route(route, progress, request),
        };
        let line = |fault: &str| {
            let range = request.header("range").map(|range| format!(" {range}")).unwrap_or_default();
            let status = match answer.status() {
                0 => "no answer".to_owned(),
                status => status.to_string(),
            };
            let asked = format!("{} {}{range}", request.method, request.path);
            let asked: String = asked.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
            format!("{asked}: {status}{fault}")
        };
        let line = match fault {
            Some((n, nth)) => line(&format!(", fault {n}, request {nth} of it")),
            None => line(""),
        };
        (answer, line)
    }

    fn at_route(
        &self,
        route: &Route,
        progress: &Mutex<Progress>,
        request: &Request,
    ) -> (Answer, Option<(usize, u64)>) {
        let body = route.body(&self.base_dir, &request.path);
        let is_head = request.method == "HEAD";
        let n_bytes = body.as_ref().map_or(0, Body::n_bytes);
        let now =
            (!is_head).then(|| progress.lock().unwrap_or_else(PoisonError::into_inner).next(route, n_bytes));
        let now = now.flatten();
        let fault = now.and_then(|(n, _)| route.faults.get(n));
        let nth = now.map_or(0, |(_, nth)| nth);
        let answer = Asked { route, request, fault, nth }.answer(body);
        (answer, now.map(|(n, nth)| (n + 1, nth)))
    }
}

impl Progress {
    /// The fault of the next request, and which of its requests that is; `None` when all are over.
    fn next(&mut self, route: &Route, n_bytes: u64) -> Option<(usize, u64)> {
        while let Some(fault) = route.faults.get(self.fault) {
            if !self.is_over(fault, n_bytes) {
                self.n_requests += 1;
                self.since.get_or_insert_with(Instant::now);
                return Some((self.fault, self.n_requests));
            }
            *self = Self { fault: self.fault + 1, ..Self::default() };
        }
        None
    }

    fn is_over(&self, fault: &Fault, n_bytes: u64) -> bool {
        if fault.always {
            return false;
        }
        if let Some(lasts) = fault.lasts {
            return self.since.is_some_and(|since| since.elapsed() >= lasts);
        }
        let by_itself = match fault.hops {
            Some(hops) => hops.into(),
            None if fault.cut_everywhere => n_bytes.saturating_sub(1),
            None => 1,
        };
        self.n_requests >= fault.times.unwrap_or(by_itself)
    }
}

impl Route {
    fn fits(&self, path: &str) -> bool {
        match self.path.strip_suffix('*') {
            Some(beginning) => path.starts_with(beginning),
            None => path == self.path,
        }
    }

    /// What is served; `None`: no such file. Blocks.
    fn body(&self, base_dir: &Path, path: &str) -> Option<Body> {
        if let Some(text) = &self.body {
            return Some(Body::Bytes(text.clone().into_bytes().into()));
        }
        if let Some(file) = &self.file {
            return Body::open(&base_dir.join(file)).ok();
        }
        let folder = self.folder.as_ref()?;
        let rest = path.strip_prefix(self.path.strip_suffix('*')?)?;
        let rest = percent_decode_str(rest).decode_utf8().ok()?;
        let below = Path::new(rest.as_ref());
        let stays_inside = below.components().all(|part| matches!(part, Component::Normal(_)));
        stays_inside.then(|| Body::open(&base_dir.join(folder).join(below)).ok()).flatten()
    }
}
