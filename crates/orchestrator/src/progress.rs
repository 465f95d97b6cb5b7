//! How far a run is: bars on a terminal, plain lines, or JSON for programs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aqueduct_primitives::{Budget, ByteCount};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::logging::Console;
use crate::process_memory;
use crate::run::{Live, LiveStep, Role};
use crate::stderr::Screen;

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ProgressKind {
    /// Bars on a terminal, nothing elsewhere.
    #[default]
    Auto,
    /// A bar for each step; on a terminal only.
    Bar,
    /// A line now and then.
    Plain,
    /// One JSON object a second.
    Json,
    /// Nothing.
    None,
}

const BARS_EVERY: Duration = Duration::from_millis(125);
const PLAIN_EVERY: Duration = Duration::from_secs(5);
const JSON_EVERY: Duration = Duration::from_secs(1);

/// Shows how far the run is until told to stop.
pub(crate) async fn show(kind: ProgressKind, live: Arc<Live>, console: Console, stop: CancellationToken) {
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    match kind {
        ProgressKind::Auto | ProgressKind::Bar if is_terminal => show_bars(live, &console, stop).await,
        ProgressKind::Plain => {
            let started = Instant::now();
            every(PLAIN_EVERY, stop, || console.line(&plain_line(&live, started.elapsed()))).await;
        }
        ProgressKind::Json => {
            let started = Instant::now();
            every(JSON_EVERY, stop, || console.line(&json_line(&live, started.elapsed()))).await;
            console.line(&json_line(&live, started.elapsed()));
        }
        _ => stop.cancelled().await,
    }
}

async fn every(period: Duration, stop: CancellationToken, mut show: impl FnMut()) {
    let mut tick = tokio::time::interval(period);
    tick.tick().await;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => show(),
        }
    }
}

fn plain_line(live: &Live, elapsed: Duration) -> String {
    let steps: Vec<String> =
        live.steps.iter().map(|step| format!("{} {}", step.name, counts(step))).collect();
    format!(
        "{:>4}s  {}  memory {} of {}",
        elapsed.as_secs(),
        steps.join("  "),
        live.reserved().human(),
        live.limit
    )
}

fn counts(step: &LiveStep) -> String {
    let metrics = &step.metrics;
    let rows = if step.role == Role::Sink { metrics.rows_in.get() } else { metrics.rows_out.get() };
    let mut text = format!("{} rows", grouped(rows));
    if metrics.bytes.get() > 0 {
        text.push_str(&format!(" {}", ByteCount::new(metrics.bytes.get()).human()));
    }
    if metrics.files_done.get() > 1 {
        text.push_str(&format!(" {} files", grouped(metrics.files_done.get())));
    }
    text
}

fn json_line(live: &Live, elapsed: Duration) -> String {
    let mut line = json!({ "event": "progress" });
    let mut rest = value(live, elapsed);
    for (told, step) in rest["steps"].as_array_mut().into_iter().flatten().zip(&live.steps) {
        told["files_done"] = step.metrics.files_done.get().into();
        told["files_total"] = step.metrics.files_total.get().into();
    }
    if let (Some(line), Value::Object(rest)) = (line.as_object_mut(), rest) {
        line.extend(rest);
    }
    line.to_string()
}

/// How far a run is, as JSON: what each step has counted, and who holds how much memory.
pub(crate) fn value(live: &Live, elapsed: Duration) -> Value {
    let steps: Vec<_> = live.steps.iter().map(|step| step_value(live, step)).collect();
    let memory = json!({
        "limit_bytes": live.limit.get(), "reserved_bytes": live.reserved().get(),
        "in_flight_bytes": used(&live.flow), "in_flight_share_bytes": live.flow.total().get(),
        "rss_bytes": process_memory::rss_bytes(),
    });
    let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    json!({
        "elapsed_ms": elapsed_ms, "steps": steps, "memory": memory,
        "rejected_by_reason": live.rejected_by_reason(),
    })
}

fn step_value(live: &Live, step: &LiveStep) -> Value {
    let metrics = &step.metrics;
    json!({
        "name": step.name, "kind": step.component,
        "rows_in": metrics.rows_in.get(), "rows_out": metrics.rows_out.get(), "rows_waiting": live.rows_waiting(step),
        "rows_rejected": metrics.rows_rejected.get(), "bytes": metrics.bytes.get(),
        "files_read": metrics.files_done.get(), "files_in_flight": metrics.n_in_flight(),
        "memory_bytes": used(&step.share), "memory_share_bytes": step.share.total().get(),
    })
}

fn used(budget: &Budget) -> u64 {
    budget.total().saturating_sub(budget.free()).get()
}

async fn show_bars(live: Arc<Live>, console: &Console, stop: CancellationToken) {
    let Some(bars) = Bars::of(live) else { return stop.cancelled().await };
    console.show(Box::new(bars));
    let shown = Shown(console);
    every(BARS_EVERY, stop, || shown.0.draw()).await;
}

/// Takes the bars away when nobody shows them any more: who waits for a run that has ended waits for no bars.
struct Shown<'a>(&'a Console);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.0.hide();
    }
}

/// A bar for each step and one for memory. Everything that draws happens where standard error is written.
struct Bars {
    live: Arc<Live>,
    bars: MultiProgress,
    steps: Vec<ProgressBar>,
    gauge: ProgressBar,
    started: Instant,
}

impl Bars {
    /// Nothing if they cannot be drawn.
    fn of(live: Arc<Live>) -> Option<Self> {
        let bars = MultiProgress::new();
        let step_style = ProgressStyle::with_template("{prefix:>14} {spinner} {msg}").ok()?;
        let gauge_style = ProgressStyle::with_template("{prefix:>14} [{bar:30}] {msg}").ok()?;
        let bar = |step: &LiveStep| {
            bars.add(ProgressBar::new_spinner().with_style(step_style.clone()).with_prefix(step.name.clone()))
        };
        let steps: Vec<ProgressBar> = live.steps.iter().map(bar).collect();
        let gauge = bars.add(
            ProgressBar::new(live.limit.get())
                .with_style(gauge_style.progress_chars("=> "))
                .with_prefix("memory"),
        );
        Some(Self { live, bars, steps, gauge, started: Instant::now() })
    }
}

impl Screen for Bars {
    fn draw(&mut self) {
        for (bar, step) in self.steps.iter().zip(&self.live.steps) {
            bar.set_message(format!("{}{}", counts(step), rate(step, self.started.elapsed())));
            bar.tick();
        }
        let reserved = self.live.reserved();
        self.gauge.set_position(reserved.get());
        self.gauge.set_message(format!("{} of {}", reserved.human(), self.live.limit));
    }

    fn above(&self, write: &mut dyn FnMut()) {
        self.bars.suspend(write);
    }

    fn clear(&mut self) {
        // Bars are gone with the run; a terminal that cannot be cleared changes nothing.
        let _ = self.bars.clear();
    }
}

fn rate(step: &LiveStep, elapsed: Duration) -> String {
    let (seconds, bytes) = (elapsed.as_secs(), step.metrics.bytes.get());
    if seconds == 0 || bytes == 0 {
        String::new()
    } else {
        format!(" {}/s", ByteCount::new(bytes / seconds).human())
    }
}

/// A count with thin groups of three: `1,234,567`.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap_or("")).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    #[test]
    fn counts_are_grouped_by_three() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567")] {
            assert_eq!(super::grouped(n), text);
        }
    }
}
