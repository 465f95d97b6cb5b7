//! Tells whoever wants to know how a run ended.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::{Error, ErrorKind, Result};
use aqueduct_net::{Fetcher, HttpOptions, Location, Secret, StorageOptions, Trust, masked_url};
use aqueduct_primitives::Tasks;
use url::Url;

use crate::flow::{Event, Flow, Masks, Notify};
use crate::logging::Console;
use crate::report::{Report, Status};

/// A request is made again so often after a failure that may pass.
const RETRIES: u32 = 3;
/// One try takes no longer than this to connect, and no longer than this for the answer.
const ONE_TRY: Duration = Duration::from_secs(5);
/// All tries together: who waits for the run to end does not wait for this.
const ALL_TRIES: Duration = Duration::from_secs(30);

/// Who is told of one flow's runs, and how they are reached.
pub(super) struct Notifier {
    notify: Notify,
    http: HttpOptions,
}

impl Notifier {
    /// Of a flow that wants somebody told.
    pub(super) fn of(flow: &Flow) -> Option<Self> {
        let notify = flow.notify.clone()?;
        let all = &flow.http;
        // Credentials are for what the flow reads.
        let http = HttpOptions {
            connect_timeout: Some(ONE_TRY),
            read_timeout: Some(ONE_TRY),
            retries: Some(RETRIES),
            max_redirects: Some(0),
            user_agent: all.user_agent.clone(),
            proxy: all.proxy.clone(),
            ca_file: all.ca_file.clone(),
            insecure: all.insecure,
            ..HttpOptions::default()
        };
        Some(Self { notify, http })
    }

    /// What is told of a run, if anything is. `before`: how the run before it ended; it is asked for only if it matters.
    pub(super) fn event(&self, report: &Report, before: impl FnOnce() -> Option<Status>) -> Option<Event> {
        let wants = |event| self.notify.on.contains(&event);
        match report.status {
            Status::Failed => wants(Event::Failed).then_some(Event::Failed),
            Status::Done if wants(Event::Recovered) && before() == Some(Status::Failed) => {
                Some(Event::Recovered)
            }
            Status::Done if wants(Event::Partial) && is_partial(report) => Some(Event::Partial),
            Status::Done | Status::Interrupted => None,
        }
    }

    /// Posts a report, from which secrets are gone. That nobody takes it is a warning.
    pub(super) async fn tell(&self, event: Event, report: &Report, console: &Console) {
        let _hidden = console.hold_masks(&self.masks());
        let posted = tokio::time::timeout(ALL_TRIES, self.post(event, report)).await;
        let late = |_| {
            let error = Error::new(ErrorKind::Io, "notify", "nobody took it in time");
            Err(error.with("limit_s", ALL_TRIES.as_secs()))
        };
        if let Err(error) = posted.unwrap_or_else(late) {
            let (event, host, error) = (event.word(), self.host(), console.masked(&error.chain()));
            tracing::warn!(event, host, error, "nobody was told how the run ended");
        }
    }

    async fn post(&self, event: Event, report: &Report) -> Result<()> {
        let header = ("Aqueduct-Event".to_owned(), Secret::new(event.word()));
        let http = HttpOptions { headers: [header].into(), ..self.http.clone() };
        let tasks = Tasks::default();
        let fetcher = Fetcher::new(http, StorageOptions::default(), tasks.clone())?;
        let at = Location::parse(&self.notify.url, Path::new("."))?;
        let text = serde_json::to_vec(report)
            .map_err(|error| Error::bug("notify", "a report has no JSON").with_source(error))?;
        let answered = fetcher.ask(&at, Trust::Flow, text.into(), &Arc::default()).await;
        fetcher.close().await;
        tasks.join().await;
        answered.map(drop)
    }

    /// The path of such a URL is often its only secret: it is not shown.
    fn masks(&self) -> Masks {
        let parsed = Url::parse(&self.notify.url).map(|url| masked_url(&url));
        parsed.into_iter().chain([self.notify.url.clone()]).collect::<BTreeSet<_>>().into()
    }

    fn host(&self) -> String {
        Url::parse(&self.notify.url).ok().and_then(|url| Some(url.host_str()?.to_owned())).unwrap_or_default()
    }
}

/// Whether something that was to be there is not.
fn is_partial(report: &Report) -> bool {
    report.rows_rejected + report.files_rejected > 0 || !report.gaps.is_empty()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// What a flow tells of a run of its that ended so.
    fn notifier(url: &str, on: &[Event]) -> Notifier {
        Notifier { notify: Notify { url: url.to_owned(), on: on.to_vec() }, http: HttpOptions::default() }
    }

    fn report(status: Status) -> Report {
        let text = serde_json::json!({
            "run_id": "r1", "flow": "x", "aqueduct_version": "0", "status": status, "error": null, "started": "",
            "finished": "", "resumed_from": null, "mode": "replace", "rows_in": 1, "rows_out": 1, "rows_filtered": 0,
            "rows_duplicate": 0, "rows_rejected": 0, "files_rejected": 0, "rejected_by_reason": {}, "gaps": [],
            "warnings": [], "bytes_in": 0, "bytes_out": 0, "memory_limit_bytes": 0, "memory_peak_bytes": 0,
            "allocated_peak_bytes": 0, "rss_peak_bytes": 0, "spilled_bytes": 0, "retries": 0, "steps": [], "outputs": []
        });
        serde_json::from_value(text).unwrap()
    }

    // contract "Steps": `notify`
    #[test]
    fn each_end_is_told_as_what_it_is() {
        use Event::{Failed, Partial, Recovered};
        let all = [Failed, Partial, Recovered];
        let partial = || Report { gaps: vec!["a day".to_owned()], ..report(Status::Done) };
        for (on, report, before, told) in [
            (&all[..], report(Status::Failed), Some(Status::Failed), Some(Failed)),
            (&all, report(Status::Done), None, None),
            (&all, report(Status::Done), Some(Status::Done), None),
            (&all, report(Status::Done), Some(Status::Failed), Some(Recovered)),
            (&all, partial(), Some(Status::Done), Some(Partial)),
            (&all, partial(), Some(Status::Failed), Some(Recovered)),
            (&[Partial], partial(), Some(Status::Failed), Some(Partial)),
            (&[Failed], partial(), Some(Status::Failed), None),
            (&all, report(Status::Interrupted), Some(Status::Failed), None),
        ] {
            assert_eq!(
                notifier("http://h", on).event(&report, || before),
                told,
                "{on:?} {:?}",
                report.status
            );
        }
    }

    /// Answers one request with this status; what was asked.
    async fn answer(socket: &mut TcpStream, status: &str) -> String {
        let mut asked = Vec::new();
        while !is_whole(&asked) {
            socket.read_buf(&mut asked).await.unwrap();
        }
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        socket.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(asked).unwrap()
    }

    /// Whether a request is there with its body.
    fn is_whole(asked: &[u8]) -> bool {
        let text = String::from_utf8_lossy(asked).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        length.is_some_and(|length: usize| body.len() >= length)
    }

    #[tokio::test]
    async fn the_report_is_posted_and_tried_again_where_that_may_help() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let notifier = notifier(&format!("http://{}/hook", server.local_addr().unwrap()), &[Event::Failed]);
        let serve = async {
            for status in ["503 Service Unavailable\r\nretry-after: 0", "200 OK"] {
                let (mut socket, _) = server.accept().await.unwrap();
                let asked = answer(&mut socket, status).await;
                if status == "200 OK" {
                    return asked;
                }
            }
            unreachable!()
        };
        let (report, console) = (report(Status::Failed), Console::default());
        let (asked, ()) = tokio::join!(serve, notifier.tell(Event::Failed, &report, &console));
        let (head, body) = asked.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("POST /hook ") && head.to_lowercase().contains("\r\naqueduct-event: failed"),
            "{head}"
        );
        assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["status"], "failed");
    }

    // S5: what is refused for good is not asked again; the path of the URL may be its secret
    #[tokio::test]
    async fn what_nobody_takes_is_given_up_and_told_without_the_secret() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let notifier = notifier(&format!("http://{}/T0/hunter2", server.local_addr().unwrap()), &[]);
        let serve = async {
            let (mut socket, _) = server.accept().await.unwrap();
            answer(&mut socket, "404 Not Found").await
        };
        let report = report(Status::Failed);
        let (_, posted) = tokio::join!(serve, notifier.post(Event::Failed, &report));
        let console = Console::default();
        let hidden = console.hold_masks(&notifier.masks());
        let told = console.masked(&posted.unwrap_err().chain());
        drop(hidden);
        assert!(told.contains("404") && !told.contains("hunter2"), "{told}");
    }
}
