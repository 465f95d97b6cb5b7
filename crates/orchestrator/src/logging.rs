//! Everything that is said beside data: standard error, one line each, secrets masked, never through a bar.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::flow::Masks;
use crate::stderr::{Screen, Stderr};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How much is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Verbosity {
    /// Errors only.
    Quiet,
    /// What a user wants to know.
    #[default]
    Normal,
    /// Also how it is done.
    Verbose,
}

/// Standard error, shared by log lines, progress and messages. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Console {
    masks: Arc<Mutex<AllMasks>>,
    stderr: Stderr,
    heard: Option<Heard>,
}

/// What must not be shown: of the process itself, and of each run as long as it is under way.
#[derive(Default)]
struct AllMasks {
    all: Masks,
    lasting: Masks,
    held: BTreeMap<u64, Masks>,
    n_made: u64,
}

impl AllMasks {
    fn put_together(&mut self) {
        self.all = self.held.values().fold(self.lasting.clone(), |all, masks| all.and(masks));
    }
}

/// Values that are not shown as long as this is there.
#[derive(Default)]
pub(crate) struct HeldMasks {
    of: Option<(Arc<Mutex<AllMasks>>, u64)>,
}

impl fmt::Debug for HeldMasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldMasks").finish_non_exhaustive()
    }
}

impl Drop for HeldMasks {
    fn drop(&mut self) {
        let Some((masks, place)) = self.of.take() else { return };
        let mut masks = masks.lock().unwrap_or_else(PoisonError::into_inner);
        masks.held.remove(&place);
        masks.put_together();
    }
}

/// What was said for people through one console, secrets masked; the first of it.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<String>>);

/// With more, the mistakes of one flow file could fill the memory of a server.
const MAX_HEARD_BYTES: usize = 16 << 10;

impl Heard {
    /// All of it.
    pub(crate) fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).trim_end().to_owned()
    }

    fn add(&self, text: &str) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.len() + text.len() <= MAX_HEARD_BYTES {
            heard.push_str(text);
        }
    }
}

impl Console {
    /// Values that must not be shown from now on.
    pub(crate) fn add_masks(&self, masks: &Masks) {
        let mut all = self.lock();
        all.lasting = all.lasting.and(masks);
        all.put_together();
    }

    /// Values that must not be shown while something is under way that may tell them.
    pub(crate) fn hold_masks(&self, masks: &Masks) -> HeldMasks {
        let mut all = self.lock();
        let place = all.n_made;
        all.n_made += 1;
        all.held.insert(place, masks.clone());
        all.put_together();
        HeldMasks { of: Some((Arc::clone(&self.masks), place)) }
    }

    /// The same console, whose lines are also heard; log lines are not.
    pub(crate) fn overheard(&self) -> (Self, Heard) {
        let heard = Heard::default();
        (Self { heard: Some(heard.clone()), ..self.clone() }, heard)
    }

    /// From now on this is below the lines.
    pub(crate) fn show(&self, screen: Box<dyn Screen>) {
        self.stderr.show(screen);
    }

    /// Draws what is below the lines as things are now.
    pub(crate) fn draw(&self) {
        self.stderr.draw();
    }

    /// Takes away what is below the lines.
    pub(crate) fn hide(&self) {
        self.stderr.hide();
    }

    /// The text with every secret masked.
    pub(crate) fn masked(&self, text: &str) -> String {
        self.lock().all.mask(text)
    }

    /// Writes one line. A standard error that is closed, full or read by nobody changes nothing.
    pub(crate) fn line(&self, text: &str) {
        let line = self.masked(&format!("{text}\n"));
        self.heard.iter().for_each(|heard| heard.add(&line));
        self.stderr.write(line);
    }

    fn write_text(&self, text: &str) {
        self.stderr.write(self.masked(text));
    }

    /// Panics are told like all else: the usual way would wait for whoever reads standard error.
    pub(crate) fn tell_panics(&self) {
        let console = self.clone();
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| match console.masks.try_lock() {
            Ok(masks) => console.stderr.write(masks.all.mask(&format!("{panic}\n{}", backtrace()))),
            // It may be this thread that holds it.
            Err(_) => usual(panic),
        }));
    }

    /// Writes what waits, as long as somebody reads it. To be called at the end of the process.
    pub(crate) fn close(&self) {
        self.stderr.close();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, AllMasks> {
        self.masks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stack, if the environment asks for it.
fn backtrace() -> String {
    let stack = Backtrace::capture();
    if stack.status() == BacktraceStatus::Captured { format!("{stack}\n") } else { String::new() }
}

/// Collects what one log event writes, and writes it as one.
pub(crate) struct LineWriter {
    console: Console,
    text: Vec<u8>,
}

impl Write for LineWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        if !self.text.is_empty() {
            self.console.write_text(&String::from_utf8_lossy(&self.text));
        }
    }
}

impl<'a> MakeWriter<'a> for Console {
    type Writer = LineWriter;

    fn make_writer(&'a self) -> LineWriter {
        LineWriter { console: self.clone(), text: Vec::new() }
    }
}

/// Sends log lines to the console, for the rest of the process. Later calls change nothing.
pub(crate) fn start(console: &Console, format: LogFormat, verbosity: Verbosity) {
    let level = match verbosity {
        Verbosity::Quiet => "off",
        Verbosity::Normal => "warn,aqueduct=info",
        Verbosity::Verbose => "info,aqueduct=debug",
    };
    if format == LogFormat::Json {
        let json = |message: &str| serde_json::json!({ "level": "WARN", "message": message }).to_string();
        console.stderr.tell_lost(json);
    }
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(level))
        .with_writer(console.clone())
        .with_ansi(false)
        .with_target(false);
    // A second start in one process, as tests do, keeps the first.
    let _ = match format {
        LogFormat::Text => builder.without_time().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
