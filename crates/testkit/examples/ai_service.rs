//! A stand-in for AI services as a process of its own, to try flows with `extract` against.
//!
//! `ai_service ADDRESS [--seconds S] [--fails PART] [--stalls PART] [--drops PART] [--seed N]` listens at ADDRESS, `127.0.0.1:0`
//! for a free port, and says its URL in one line. `--seconds` is how long an answer takes; of all calls, the parts that fail,
//! are never answered, or break off, are numbers from 0 to 1. `GET /counts` tells what was done so far, as JSON.

use std::error::Error;
use std::time::Duration;

use aqueduct_testkit::ai_service::{AiService, Behaviour};

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let address = words.next().ok_or("ADDRESS is missing; expected 127.0.0.1:0 or another")?.parse()?;
    let mut behaviour = Behaviour::default();
    while let Some(option) = words.next() {
        let value = words.next().ok_or_else(|| format!("{option} has no value"))?;
        match option.as_str() {
            "--seconds" => behaviour.answers_after = Duration::try_from_secs_f64(value.parse()?)?,
            "--fails" => behaviour.fails = value.parse()?,
            "--stalls" => behaviour.stalls = value.parse()?,
            "--drops" => behaviour.drops = value.parse()?,
            "--seed" => behaviour.seed = value.parse()?,
            _ => return Err(format!("unknown option {option}").into()),
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let service = AiService::bind(address, behaviour).await?;
        say(&service.url());
        std::future::pending::<()>().await;
        Ok(())
    })
}

#[expect(clippy::print_stdout, reason = "whoever started it reads this")]
fn say(line: &str) {
    println!("{line}");
}
