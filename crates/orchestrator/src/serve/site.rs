//! What a server shows of its runs, and where: the page, the lists, the metrics, the events.

use std::sync::Arc;

use aqueduct_core::Result;
use aqueduct_net::Secret;
use aqueduct_net::server::{
    Mounted, Mounts, Pages, Refusal, RequestHead, Server, ServerMeter, ServerStats, StreamStats,
};
use aqueduct_primitives::Budget;
use async_trait::async_trait;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::api::{Api, page};
use super::events::{RunEvents, RunStreams};
use super::metrics::{self, Family};
use super::{Runs, files};
use crate::logging::Console;

/// Who may ask for what.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    pub(crate) token: Option<Secret>,
    /// Whether others than this machine's own processes can ask.
    pub(crate) is_public: bool,
}

/// What is served, until this is closed.
pub(crate) struct Site {
    mounted: Vec<Mounted>,
    events: Arc<RunEvents>,
}

impl Site {
    /// Serves runs. To be called on the runtime that they are on.
    ///
    /// # Errors
    /// Something is there already.
    pub(crate) fn mount(
        server: &Server,
        runs: Runs,
        console: Console,
        access: Access,
        budget: Budget,
    ) -> Result<Self> {
        // Who may read may watch.
        let token = access.token.clone().filter(|_| access.is_public);
        let events = Arc::new(RunEvents::new(runs.clone(), console.clone(), budget, token));
        let api = Api { runs, console };
        let mounts = server.mounts();
        let shown = Arc::new(Shown { api, access, mounts: mounts.clone(), meter: server.meter() });
        let mut mounted = vec![mounts.streams("/runs/*/events", Arc::new(RunStreams(Arc::clone(&events))))?];
        for path in ["/flows", "/server", "/runs", "/runs/*", "/metrics"] {
            mounted.push(mounts.pages(path, Arc::clone(&shown) as _)?);
        }
        for path in ["/", "/page/*"] {
            mounted.push(mounts.pages(path, Arc::new(Files))?);
        }
        Ok(Self { mounted, events })
    }

    /// Takes it away, when those who watch were told the end.
    pub(crate) async fn close(self) {
        self.events.close().await;
        drop(self.mounted);
    }
}

struct Shown {
    api: Api,
    access: Access,
    mounts: Mounts,
    meter: ServerMeter,
}

#[async_trait]
impl Pages for Shown {
    fn admit(&self, head: &RequestHead) -> Result<(), Refusal> {
        if self.access.allows(&head.method, &head.headers) { Ok(()) } else { Err(wants_token()) }
    }

    async fn answer(&self, request: Request<Bytes>) -> Response<Bytes> {
        match (request.uri().path(), request.method()) {
            ("/metrics", &Method::GET) => {
                let streams = self.mounts.stream_stats();
                let more = of_streams(&streams).into_iter().chain(of_server(&self.meter.stats()));
                let text = metrics::text(&self.api.runs, more);
                page(StatusCode::OK, metrics::CONTENT_TYPE, Bytes::from(text))
            }
            ("/server", &Method::GET) => {
                let mut about = self.api.runs.about();
                about["streams"] = self.mounts.stream_stats().iter().map(stream_value).collect();
                self.api.json(StatusCode::OK, about)
            }
            _ => self.api.answer(request).await,
        }
    }
}

/// The page itself, which holds nothing of any run.
struct Files;

#[async_trait]
impl Pages for Files {
    async fn answer(&self, request: Request<Bytes>) -> Response<Bytes> {
        files::answer(&request)
    }
}

impl Access {
    /// Whether this may be asked. What changes something needs the token wherever there is one; to look needs it where others
    /// than this machine can come.
    fn allows(&self, method: &Method, headers: &HeaderMap) -> bool {
        let is_look = matches!(*method, Method::GET | Method::HEAD);
        let Some(token) = self.token.as_ref().filter(|_| self.is_public || !is_look) else { return true };
        let given = headers.get(AUTHORIZATION).and_then(|given| given.to_str().ok()).unwrap_or_default();
        let (scheme, given) = given.split_once(' ').unwrap_or_default();
        // Hashes are compared in the same time whatever they are, so that how long it takes says nothing.
        let is_right = blake3::hash(given.trim().as_bytes()) == blake3::hash(token.expose().as_bytes());
        scheme.eq_ignore_ascii_case("bearer") && is_right
    }
}

fn wants_token() -> Refusal {
    let text = json!({ "error": "this needs the server's token: Authorization: Bearer TOKEN" }).to_string();
    Refusal { text, ..Refusal::unauthorized() }.json()
}

fn stream_value((name, stats): &(String, StreamStats)) -> Value {
    let evicted: u64 = stats.evicted.iter().map(|(_, n)| n).sum();
    json!({
        "name": name, "clients": stats.n_clients, "events": stats.n_events,
        "max_lag_events": stats.ring.max_lag_events, "max_lag_bytes": stats.ring.max_lag_bytes,
        "lag": stats.ring.readers_by_lag, "evicted": evicted,
    })
}

/// The upper bounds of what [`StreamStats`] counts clients by.
const LAG_BOUNDS: [&str; 6] = ["0", "1", "10", "100", "1000", "+Inf"];

fn of_streams(streams: &[(String, StreamStats)]) -> Vec<Family> {
    let label = |name: &str| ("stream", name.to_owned());
    let each = |of: fn(&StreamStats) -> u64| {
        streams.iter().map(|(name, stats)| (vec![label(name)], of(stats))).collect::<Vec<_>>()
    };
    let by = |key: &'static str, of: fn(&StreamStats) -> Vec<(&'static str, u64)>| {
        let one = |(name, stats): &(String, StreamStats)| {
            of(stats)
                .into_iter()
                .map(|(value, n)| (vec![label(name), (key, value.to_owned())], n))
                .collect::<Vec<_>>()
        };
        streams.iter().flat_map(one).collect::<Vec<_>>()
    };
    vec![
        Family::gauge("aqueduct_stream_clients", "Clients of a stream", each(|s| s.n_clients as u64)),
        Family::counter("aqueduct_stream_connects", "Clients that came", each(|s| s.n_clients_in_all)),
        Family::counter("aqueduct_stream_events", "Events of a stream", each(|s| s.n_events)),
        Family::counter("aqueduct_stream_bytes", "Bytes of the events of a stream", each(|s| s.ring.n_bytes)),
        Family::counter("aqueduct_stream_sent_bytes", "Bytes sent to clients", each(|s| s.bytes_sent)),
        Family::gauge(
            "aqueduct_stream_held_bytes",
            "Bytes of past events that are held",
            each(|s| s.ring.held.get()),
        ),
        Family::gauge(
            "aqueduct_stream_queue_max_events",
            "The most events that wait for one client",
            each(|s| s.ring.max_lag_events),
        ),
        Family::gauge(
            "aqueduct_stream_queue_max_bytes",
            "The most bytes that wait for one client",
            each(|s| s.ring.max_lag_bytes),
        ),
        Family::gauge(
            "aqueduct_stream_queue_depth",
            "Clients for which no more events wait than so many",
            by("le", clients_up_to),
        ),
        Family::counter(
            "aqueduct_stream_queue_crossings",
            "Times that a client's queue went over a mark",
            by("level", |s| vec![("warn", s.ring.n_warned), ("critical", s.ring.n_critical)]),
        ),
        Family::counter("aqueduct_stream_evictions", "Clients cut off", by("reason", |s| s.evicted.to_vec())),
        Family::counter(
            "aqueduct_stream_refusals",
            "Clients sent away at once",
            by("reason", |s| s.refused.to_vec()),
        ),
        Family::counter(
            "aqueduct_stream_skipped",
            "Events that slow clients were moved past",
            each(|s| s.ring.n_skipped),
        ),
    ]
}

fn of_server(stats: &ServerStats) -> Vec<Family> {
    let by = |key: &'static str, values: &[(&str, u64)]| {
        values.iter().map(|(value, n)| (vec![(key, (*value).to_owned())], *n)).collect()
    };
    let others = stats.n_connections.saturating_sub(stats.n_unread + stats.n_streams);
    let now = [("unread", stats.n_unread), ("stream", stats.n_streams), ("other", others)];
    let refused = [("full", stats.n_full), ("refused", stats.n_refused), ("timeout", stats.n_timed_out)];
    vec![
        Family::gauge(
            "aqueduct_server_connections",
            "Connections now",
            by("kind", &now.map(|(k, n)| (k, n as u64))),
        ),
        Family::counter(
            "aqueduct_server_accepted",
            "Connections in all",
            vec![(Vec::new(), stats.n_accepted)],
        ),
        Family::counter("aqueduct_server_refusals", "Connections turned away", by("reason", &refused)),
    ]
}

/// Clients by how many events wait for them at most.
fn clients_up_to(stats: &StreamStats) -> Vec<(&'static str, u64)> {
    let mut sum = 0;
    let up_to = |n: usize| {
        sum += n as u64;
        sum
    };
    LAG_BOUNDS.into_iter().zip(stats.ring.readers_by_lag.map(up_to)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::json_in;
    use crate::serve::tests::shown_only;
    use std::collections::BTreeSet;
    use std::path::Path;

    use http::HeaderValue;

    const DASHBOARD: &str = include_str!("../../../../examples/monitoring/dashboard.json");
    const ALERTS: &str = include_str!("../../../../examples/monitoring/alerts.yaml");

    fn text() -> String {
        let streams = [("feed".to_owned(), StreamStats::default())];
        let more = of_streams(&streams).into_iter().chain(of_server(&ServerStats::default()));
        metrics::text(&shown_only(), more)
    }

    /// Each word that begins like a metric.
    fn named(text: &str) -> BTreeSet<&str> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|word| word.starts_with("aqueduct_") || word.starts_with("process_")).collect()
    }

    #[tokio::test]
    async fn every_metric_that_the_dashboard_and_the_alerts_name_is_there() {
        let text = text();
        let families: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let names: BTreeSet<String> = families
            .iter()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.to_owned() })
            .collect();
        let used: BTreeSet<&str> = named(DASHBOARD).union(&named(ALERTS)).copied().collect();
        assert!(used.len() > 20);
        let missing: Vec<_> = used.iter().filter(|name| !names.contains(**name)).collect();
        assert!(missing.is_empty(), "{missing:?} are not among {names:?}");
        let unused: Vec<_> = names.iter().filter(|name| !DASHBOARD.contains(name.as_str())).collect();
        assert!(unused.len() < 8, "not on the dashboard: {unused:?}");
    }

    #[test]
    fn the_dashboard_and_the_alerts_can_be_read() {
        assert!(serde_json::from_str::<Value>(DASHBOARD).unwrap()["panels"].as_array().unwrap().len() > 8);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/monitoring/alerts.yaml");
        let alerts = json_in(&path).unwrap();
        assert!(alerts.pointer("/groups/0/rules").unwrap().as_array().unwrap().len() > 5);
    }

    // T13: no URL, path or name of a run
    #[tokio::test]
    async fn labels_are_few_and_fixed() {
        let keys: BTreeSet<String> = text()
            .lines()
            .filter_map(|line| line.split_once('{')?.1.split_once('}'))
            .flat_map(|(labels, _)| {
                labels
                    .split("\",")
                    .filter_map(|label| label.split_once('='))
                    .map(|(key, _)| key.to_owned())
                    .collect::<Vec<_>>()
            })
            .collect();
        let expected = ["kind", "le", "level", "reason", "status", "stream"];
        assert_eq!(keys, expected.map(str::to_owned).into());
    }

    // T11, T12
    #[test]
    fn changes_need_the_token_and_so_does_looking_from_afar() {
        let access = |is_public| Access { token: Some(Secret::new("tok")), is_public };
        let may = |access: &Access, method: Method, given: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(given) = given {
                headers.insert(AUTHORIZATION, HeaderValue::from_str(given).unwrap());
            }
            access.allows(&method, &headers)
        };
        for (is_public, method, given, expected) in [
            (false, Method::GET, None, true),
            (false, Method::POST, None, false),
            (false, Method::DELETE, Some("Bearer wrong"), false),
            (false, Method::POST, Some("Bearer tok"), true),
            (true, Method::GET, None, false),
            (true, Method::GET, Some("bearer tok"), true),
            (true, Method::GET, Some("Basic tok"), false),
        ] {
            assert_eq!(
                may(&access(is_public), method.clone(), given),
                expected,
                "{is_public} {method} {given:?}"
            );
        }
        assert!(may(&Access::default(), Method::POST, None));
    }
}
