//! Events to subscribers, by ours and by nginx with nchan: the same subscribers, in a process of their own, count what comes. How many
//! deliveries a second, and what a subscriber costs in memory.

mod nchan;
mod side;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{Bench, Promise, megabytes};
use crate::live::{Clients, program};
use crate::measure::median;
use crate::text::{self, say};
use crate::workspace::Workspace;
use nchan::Nchan;
use side::{Ours, Side, Watch};

/// How long subscribers wait for their last event.
const GIVE_UP: Duration = Duration::from_secs(120);

/// What is asked of a server.
#[derive(Clone, Copy, Debug)]
struct Case {
    n_reading: u64,
    /// Subscribers beside them that never read.
    n_stalled: u64,
    n_events: u64,
    event_bytes: usize,
}

const CASES: [Case; 4] = [
    Case { n_reading: 1000, n_stalled: 0, n_events: 2000, event_bytes: 200 },
    Case { n_reading: 5000, n_stalled: 0, n_events: 400, event_bytes: 200 },
    Case { n_reading: 1000, n_stalled: 10, n_events: 2000, event_bytes: 1000 },
    Case { n_reading: 5000, n_stalled: 10, n_events: 400, event_bytes: 1000 },
];

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Outcome {
    deliveries_per_second: f64,
    cpu: Duration,
    peak_bytes: u64,
}

/// What the subscribers say.
#[derive(Debug, Deserialize)]
struct Seen {
    n_complete: u64,
    n_events: u64,
    took_us: u64,
}

/// Runs it.
///
/// # Errors
/// A side cannot be started, or a subscriber of ours does not get all events.
pub(super) fn run(workspace: &Workspace, bench: &Bench) -> Result<Vec<Promise>> {
    let subscribers = program(workspace, "subscribers")?;
    let cases = CASES.map(|case| Case { n_events: case.n_events / bench.divisor.min(10), ..case });
    let mut table = vec![HEAD.map(str::to_owned).to_vec()];
    let mut pairs = Vec::new();
    for case in cases {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..bench.n_runs {
            ours.push(one(&mut Ours::start(bench, case)?, case, &subscribers)?);
            theirs.push(one(&mut Nchan::start(bench)?, case, &subscribers)?);
        }
        let pair = Pair { ours: middle(&ours)?, theirs: middle(&theirs)? };
        table.extend([row("aqueduct", case, pair.ours), row("nginx with nchan", case, pair.theirs)]);
        pairs.push(pair);
    }
    say(format_args!("\n{}\n", text::table(&table)));
    Ok(promises(&cases, &pairs))
}

const HEAD: [&str; 6] = ["", "subscribers", "events", "deliveries/s", "cpu s", "peak MB"];

fn row(name: &str, case: Case, outcome: Outcome) -> Vec<String> {
    let Case { n_reading, n_stalled, n_events, event_bytes } = case;
    let stalled = if n_stalled > 0 { format!(" and {n_stalled} stalled") } else { String::new() };
    vec![
        name.to_owned(),
        format!("{n_reading}{stalled}"),
        format!("{n_events} of {event_bytes} B"),
        format!("{:.0}", outcome.deliveries_per_second),
        format!("{:.1}", outcome.cpu.as_secs_f64()),
        megabytes(outcome.peak_bytes),
    ]
}

/// Connects the subscribers, gives the events, and waits until all have them.
fn one(side: &mut dyn Side, case: Case, subscribers: &Path) -> Result<Outcome> {
    let numbers = [case.n_reading, case.n_stalled, case.n_events, GIVE_UP.as_secs()];
    let words = [side.address().to_owned(), side.path().to_owned()];
    let args: Vec<_> = words.into_iter().chain(numbers.map(|number| number.to_string())).collect();
    let mut clients = Clients::start(subscribers, &args)?;
    clients.wait_until_ready().with_context(|| side.name())?;
    let cpu = side.cpu()?;
    let watch = Watch::start(side.pids()?);
    side.publish(case)?;
    let seen: Seen = clients.seen()?;
    let outcome = Outcome {
        deliveries_per_second: per_second(&seen),
        cpu: side.cpu()?.saturating_sub(cpu),
        peak_bytes: watch.peak_bytes(),
    };
    ensure!(
        seen.n_complete == case.n_reading,
        "{}: {} of {} subscribers had all {} events; {} of all deliveries",
        side.name(),
        seen.n_complete,
        case.n_reading,
        case.n_events,
        seen.n_events
    );
    say(format_args!("{}: {case:?} {:.0} deliveries a second", side.name(), outcome.deliveries_per_second));
    Ok(outcome)
}

#[expect(clippy::cast_precision_loss, reason = "for people; 53 bits are enough")]
fn per_second(seen: &Seen) -> f64 {
    seen.n_events as f64 * 1e6 / seen.took_us.max(1) as f64
}

/// The middle of the runs, each figure by itself.
fn middle(runs: &[Outcome]) -> Result<Outcome> {
    let none = "there was no run";
    Ok(Outcome {
        deliveries_per_second: median(runs.iter().map(|run| run.deliveries_per_second).collect())
            .context(none)?,
        cpu: median(runs.iter().map(|run| run.cpu).collect()).context(none)?,
        peak_bytes: median(runs.iter().map(|run| run.peak_bytes).collect()).context(none)?,
    })
}

/// Both sides of a case.
#[derive(Clone, Copy, Debug)]
struct Pair {
    ours: Outcome,
    theirs: Outcome,
}

/// The cases stand in pairs, fewer subscribers before more.
fn promises(cases: &[Case], pairs: &[Pair]) -> Vec<Promise> {
    let mut promises = Vec::new();
    for (case, pair) in cases.iter().zip(pairs) {
        let ratio = pair.ours.deliveries_per_second / pair.theirs.deliveries_per_second.max(f64::EPSILON);
        let says = format!("deliveries a second, {} subscribers, {} stalled", case.n_reading, case.n_stalled);
        promises.push(Promise::must(format!("{says}: {ratio:.2} of nchan's, at least 1"), ratio >= 1.0));
        promises.push(Promise::goal(format!("{says}: twice nchan's"), ratio >= 2.0));
    }
    for (cases, pairs) in cases.chunks_exact(2).zip(pairs.chunks_exact(2)) {
        let n_more = cases[1].n_reading - cases[0].n_reading;
        let each = |of: fn(&Pair) -> u64| of(&pairs[1]).saturating_sub(of(&pairs[0])) / n_more.max(1);
        let (ours, theirs) = (each(|pair| pair.ours.peak_bytes), each(|pair| pair.theirs.peak_bytes));
        let stalled = cases[0].n_stalled;
        let says = format!("bytes a subscriber, {stalled} stalled: {ours}, of nchan's {theirs}");
        promises.push(Promise::must(says, ours <= theirs));
    }
    promises
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscriber_that_costs_more_and_an_event_that_takes_longer_miss_what_must_hold() {
        let outcome = |deliveries_per_second, peak_bytes| Outcome {
            deliveries_per_second,
            cpu: Duration::ZERO,
            peak_bytes,
        };
        let theirs = [outcome(100.0, 1000), outcome(100.0, 5000)];
        let holds = |ours: [Outcome; 2]| -> Vec<bool> {
            let pairs: Vec<_> =
                ours.into_iter().zip(theirs).map(|(ours, theirs)| Pair { ours, theirs }).collect();
            promises(&CASES[..2], &pairs).iter().map(|promise| promise.holds).collect()
        };
        let dear = [outcome(250.0, 1000), outcome(100.0, 9000)];
        assert_eq!(holds(dear), [true, true, true, false, false]);
        assert_eq!(holds([outcome(99.0, 1000), outcome(300.0, 1000)]), [false, false, true, true, true]);
    }
}
