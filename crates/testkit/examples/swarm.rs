//! Clients of an event stream, as a process of their own: `cargo xtask soak swarm` starts two.
//!
//! `swarm ADDRESS PATH HEALTHY STALLED RESTLESS HALF_OPEN LAST_ID GIVE_UP_SECONDS` says `ready` when all are connected, and
//! what they have seen, in one line of JSON, when they have had the last event.

use std::error::Error;
use std::str::FromStr;
use std::time::Duration;

use aqueduct_primitives::Tasks;
use aqueduct_testkit::swarm::{Swarm, Tally};
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let swarm = Swarm {
        address: next(&mut words, "ADDRESS")?,
        path: next(&mut words, "PATH")?,
        n_healthy: next(&mut words, "HEALTHY")?,
        n_stalled: next(&mut words, "STALLED")?,
        n_restless: next(&mut words, "RESTLESS")?,
        n_half_open: next(&mut words, "HALF_OPEN")?,
        after: Some(0),
        give_up_after: Duration::ZERO,
    };
    let last_id = next(&mut words, "LAST_ID")?;
    let give_up_after = Duration::from_secs(next(&mut words, "GIVE_UP_SECONDS")?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let flying = Swarm { give_up_after, ..swarm }.start(last_id, &Tasks::default()).await?;
        say("ready");
        say(&told(&flying.tally().await).to_string());
        Ok(())
    })
}

fn next<T: FromStr<Err: Error + 'static>>(
    words: &mut impl Iterator<Item = String>,
    name: &str,
) -> Result<T, Box<dyn Error>> {
    Ok(words.next().ok_or_else(|| format!("{name} is missing"))?.parse()?)
}

fn told(tally: &Tally) -> serde_json::Value {
    json!({
        "n_complete": tally.n_complete,
        "n_events": tally.n_events,
        "n_missed": tally.n_missed,
        "n_errors": tally.n_errors,
        "p50_us": u64::try_from(tally.percentile(50).as_micros()).unwrap_or(u64::MAX),
        "p99_us": u64::try_from(tally.percentile(99).as_micros()).unwrap_or(u64::MAX),
    })
}

#[expect(clippy::print_stdout, reason = "whoever started it reads this")]
fn say(line: &str) {
    println!("{line}");
}
