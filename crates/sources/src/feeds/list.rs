//! Which feeds there are, fixed on the disk before any is asked: a run that goes on asks the same by the same numbers.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use aqueduct_core::{Context, Error, ErrorKind, Origin, Reject, RejectedItem, Result};
use aqueduct_formats::feed::{self, OutlineLimits};
use aqueduct_net::{Fetcher, Location, Trust};
use aqueduct_primitives::ByteCount;
use futures::StreamExt;

use super::Config;
use crate::file_set::frozen::Record;
use crate::file_set::input::{Found, Input, ListSpec, of_list};
use crate::paged::planned;

/// Feeds of one run, at most: their names and versions are held.
const MAX_FEEDS: usize = 20_000;
/// Bytes of their names, at most.
const MAX_NAMES_BYTES: usize = 8 << 20;
/// An OPML list with more bytes is no list of feeds that anybody reads.
const MAX_OPML_BYTES: usize = 16 << 20;
/// What is held of a feed beside its name: how it is asked, and its version.
const BYTES_A_FEED: u64 = 768;

/// A feed to ask.
pub(super) struct Feed {
    pub(super) location: Location,
    /// Without secrets; a file below the flow's folder is named from there, as the flow names it.
    pub(super) name: Arc<str>,
    pub(super) trust: Trust,
}

impl Feed {
    pub(super) fn new(location: Location, trust: Trust, base_dir: &Path) -> Self {
        let name = match &location {
            Location::Local(path) => path.strip_prefix(base_dir).unwrap_or(path).display().to_string(),
            other => other.to_string(),
        };
        Self { location, name: name.into(), trust }
    }

    fn of(input: Input, base_dir: &Path) -> Self {
        Self::new(input.location, input.trust, base_dir)
    }

    /// What its version is kept under: whoever reads what is kept learns no secrets of its URL.
    pub(super) fn key(&self) -> String {
        let text = match &self.location {
            Location::Http(url) => url.to_string(),
            other => other.to_string(),
        };
        blake3::hash(text.as_bytes()).to_hex()[..32].to_owned()
    }
}

/// What a list takes in memory.
pub(super) fn bytes(feeds: &[Feed]) -> ByteCount {
    feeds.iter().map(|feed| ByteCount::new(feed.name.len() as u64 * 2 + BYTES_A_FEED)).sum()
}

/// The feeds of a run, each once, in the order in which they are named.
///
/// # Errors
/// A list cannot be read; there are more than can be held.
pub(super) async fn feeds(config: &Config, fetcher: &Fetcher, cx: &Context) -> Result<Vec<Feed>> {
    let records = planned(cx, async {
        let mut found = Names::default();
        for name in config.named() {
            found.add(Input::new(Location::parse(name, cx.base_dir())?, Trust::Flow))?;
        }
        if let Some(list) = config.list() {
            let spec = ListSpec::plain(Location::parse(list, cx.base_dir())?);
            let mut inputs = of_list(spec, fetcher.clone(), cx);
            while let Some(input) = inputs.next().await {
                if let Found::Input(input) = input? {
                    found.add(*input)?;
                }
            }
        }
        if let Some(opml) = &config.opml {
            let at = Location::parse(opml, cx.base_dir())?;
            add_outlines(&mut found, &at, fetcher, cx).await.map_err(|error| error.with("list", &at))?;
        }
        Ok(found.records)
    });
    let records: Vec<Record> = records.await?;
    let feed = |record: Record| Ok(Feed::of(record.into_input()?, cx.base_dir()));
    records.into_iter().map(feed).collect()
}

/// Names as they are found.
#[derive(Default)]
struct Names {
    records: Vec<Record>,
    known: HashSet<u128>,
    n_bytes: usize,
}

impl Names {
    fn add(&mut self, input: Input) -> Result<()> {
        let record = Record::of(&input);
        let feed = Feed::of(input, Path::new(""));
        if !self.known.insert(u128::from_str_radix(&feed.key(), 16).unwrap_or_default()) {
            return Ok(());
        }
        self.n_bytes += feed.name.len();
        self.records.push(record);
        if self.records.len() > MAX_FEEDS || self.n_bytes > MAX_NAMES_BYTES {
            let message = format!(
                "more than {MAX_FEEDS} feeds, or than {MAX_NAMES_BYTES} bytes of their names; read them in several flows"
            );
            return Err(Error::new(ErrorKind::Limit, "list feeds", message));
        }
        Ok(())
    }
}

/// The feeds of an OPML list. A local one is the operator's own; a remote one is data, of the place that the flow names: where a
/// redirect has led counts for nothing but where its links start. A name in it that is none is handed to the policy.
async fn add_outlines(found: &mut Names, at: &Location, fetcher: &Fetcher, cx: &Context) -> Result<()> {
    let (text, base) = opml(at, fetcher, cx).await?;
    let base = match &base {
        Location::Http(url) => Some(url.clone()),
        _ => None,
    };
    let trust = match at {
        Location::Local(_) => Trust::Flow,
        Location::Http(url) => Trust::Data { origin: Some(url.clone()) },
        Location::Store { .. } => Trust::Data { origin: None },
    };
    let limits = OutlineLimits { urls: MAX_FEEDS, bytes: MAX_NAMES_BYTES };
    let urls = cx.tasks().compute(move || feed::outlines(&text, base.as_ref(), limits)).await??;
    for url in urls {
        // As readers of feeds write the scheme.
        let url = url.strip_prefix("feed://").map_or(url.clone(), |rest| format!("http://{rest}"));
        let folder = if matches!(at, Location::Local(_)) { cx.base_dir() } else { Path::new("") };
        match Location::parse(&url, folder) {
            Ok(location) => found.add(Input::new(location, trust.clone()))?,
            Err(error) => cx.reject(Reject {
                item: RejectedItem::File,
                reason: "data",
                message: error.chain(),
                origin: Origin { file: at.to_string(), ..Origin::default() },
                raw: Vec::new(),
            })?,
        }
    }
    Ok(())
}

/// The text of a list, and where it was found.
async fn opml(at: &Location, fetcher: &Fetcher, cx: &Context) -> Result<(String, Location)> {
    let fetched = fetcher.get(at, Trust::Flow, cx.metrics()).await?;
    let compression = super::poll::packed_in(&fetched.meta);
    let (content_type, found_at) = (fetched.meta.content_type, fetched.meta.location);
    let mut pieces = feed::document_bytes(fetched.body, at.to_string().into(), compression, cx.tasks());
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        cx.metrics().bytes.add_len(piece.len());
        if bytes.len() + piece.len() > MAX_OPML_BYTES {
            let message = format!("the list is larger than {MAX_OPML_BYTES} bytes");
            return Err(Error::new(ErrorKind::Limit, "list feeds", message));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok((feed::document_text(bytes, content_type.as_deref(), MAX_OPML_BYTES)?, found_at))
}
