//! Everything that is said beside data: standard error, one line each, secrets masked, never through a bar.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::MultiProgress;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::flow::Masks;

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
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    masks: Masks,
    bars: Option<MultiProgress>,
}

impl Console {
    /// Values that must not be shown from now on.
    pub(crate) fn add_masks(&self, masks: &Masks) {
        let mut shared = self.lock();
        shared.masks = shared.masks.and(masks);
    }

    /// While there are bars, lines are written above them.
    pub(crate) fn set_bars(&self, bars: Option<MultiProgress>) {
        self.lock().bars = bars;
    }

    /// The text with every secret masked.
    pub(crate) fn masked(&self, text: &str) -> String {
        self.lock().masks.mask(text)
    }

    /// Writes one line. A standard error that is closed or full changes nothing.
    pub(crate) fn line(&self, text: &str) {
        self.write_text(&format!("{text}\n"));
    }

    fn write_text(&self, text: &str) {
        let shared = self.lock();
        let masked = shared.masks.mask(text);
        let write = || {
            // Nobody to tell when standard error is gone.
            let _ = io::stderr().lock().write_all(masked.as_bytes());
        };
        match &shared.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
