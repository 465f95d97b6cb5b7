//! Nested events as NDJSON: the same bytes for the same seed, made in constant memory.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{input::made, megabytes};

/// Changes when the events do, so that older files are not taken for them.
const VERSION: u32 = 1;

/// Of so many rows one has the id of an earlier one.
const ONE_REPEATED_OF: u64 = 10;

/// The times of all events lie within so many milliseconds from [`FIRST_MILLIS`] on: 90 days.
const SPAN_MILLIS: u64 = 90 * DAY_MILLIS;
pub(super) const DAY_MILLIS: u64 = 86_400_000;

const SOURCES: &[&str] = &["web", "ios", "android", "api", "batch", "partner"];
const TYPES: &[&str] = &["view", "click", "purchase", "error", "login", "logout", "search"];
const COUNTRIES: &[&str] = &["NO", "SE", "DE", "FR", "US", "BR", "IN", "JP", "NG", "ZA", "AU", "MX"];

/// As they stand in JSON, escapes among them.
const WORDS: &[&str] = &[
    "alpha",
    "beta",
    "gamma",
    "delta",
    "river",
    "stone",
    "cloud",
    "Ångström",
    "naïve",
    "東京",
    "данные",
    "storm",
    "signal",
    "harbour",
    "lantern",
    "quartz",
    "meadow",
    "ridge",
    "copper",
    "violet",
    "'quoted'",
    r"back\\slash",
    r"tab\there",
    r#"\"dq\""#,
    "emoji😀",
];

/// A file of events.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// How many rows it has.
    pub(crate) n_rows: u64,
}

impl Events {
    /// The file of about so many bytes, made if it is not there.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn of_size(folder: &Path, n_bytes: u64) -> Result<Self> {
        let path = folder.join(format!("events-v{VERSION}-{n_bytes}.ndjson"));
        let what = format!("{} MB of events", megabytes(n_bytes));
        let n_rows = made(&path, &what, |out| write_events(out, n_bytes))?;
        Ok(Self { path, n_rows })
    }
}

fn write_events(mut out: impl Write, n_bytes: u64) -> Result<u64> {
    let mut random = Random(0x5eed);
    let mut line = Vec::with_capacity(1024);
    let (mut n_rows, mut n_written) = (0, 0);
    while n_written < n_bytes {
        line.clear();
        write_event(&mut line, n_rows, &mut random)?;
        out.write_all(&line)?;
        n_written += line.len() as u64;
        n_rows += 1;
    }
    out.flush()?;
    Ok(n_rows)
}

fn write_event(out: &mut Vec<u8>, seq: u64, random: &mut Random) -> Result<()> {
    let repeats = seq > 0 && random.below(ONE_REPEATED_OF) == 0;
    let id = mix(if repeats { random.below(seq) } else { seq });
    let k = random.below(1_000_000_000);
    write!(out, r#"{{"id":"{id:016x}","ts":"{}","seq":{seq}"#, Timestamp(random.below(SPAN_MILLIS)))?;
    write!(out, r#","source":"{}","type":"{}""#, pick(SOURCES, k), pick(TYPES, k))?;
    let user = k % 200_000;
    write!(
        out,
        r#","user":{{"id":{user},"name":"user {user}","geo":{{"lat":{}"#,
        Fixed(k % 180, k % 100_000, 5)
    )?;
    write!(out, r#","lon":-{},"country":"{}"}}}}"#, Fixed(k % 179, k % 90_001, 5), pick(COUNTRIES, k))?;
    let ok = k & 2 != 0;
    write!(out, r#","value":{},"count":{},"ok":{ok}"#, Fixed(k % 10_000, k % 9_973, 4), k % 17)?;
    write_list(out, r#","tags":["#, k % 5, |out, n| write!(out, r#""t{}""#, (k >> n) % 50), ",")?;
    write_list(
        out,
        r#"],"msg":""#,
        4 + k % 9,
        |out, n| out.write_all(pick(WORDS, k >> (3 * n)).as_bytes()),
        " ",
    )?;
    write!(out, r#"","props":{{"url":"https://www.example.com/p/{}?q={k:x}","ref":"#, k % 100_000)?;
    match k & 1 {
        1 => out.extend(b"null"),
        _ => write!(out, r#""https://ref.example/{}""#, k % 1000)?,
    }
    writeln!(out, r#","ms":{}}}}}"#, k % 30_000)?;
    Ok(())
}

fn write_list(
    out: &mut Vec<u8>,
    start: &str,
    n_items: u64,
    item: impl Fn(&mut Vec<u8>, u64) -> std::io::Result<()>,
    between: &str,
) -> Result<()> {
    out.extend(start.as_bytes());
    for n in 0..n_items {
        if n > 0 {
            out.extend(between.as_bytes());
        }
        item(out, n)?;
    }
    Ok(())
}

pub(super) fn pick<'a>(words: &[&'a str], k: u64) -> &'a str {
    let at = usize::try_from(k % words.len() as u64).unwrap_or(0);
    words.get(at).copied().unwrap_or("")
}

/// A number with so many digits behind the point.
pub(super) struct Fixed(pub(super) u64, pub(super) u64, pub(super) usize);

impl std::fmt::Display for Fixed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:0width$}", self.0, self.1, width = self.2)
    }
}

/// Milliseconds since 2026-01-01T00:00:00Z, at most [`SPAN_MILLIS`], as RFC 3339.
pub(super) struct Timestamp(pub(super) u64);

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (day, rest) = (self.0 / DAY_MILLIS, self.0 % DAY_MILLIS);
        let (month, day) = match day {
            0..31 => (1, day + 1),
            31..59 => (2, day - 30),
            _ => (3, day - 58),
        };
        let (seconds, millis) = (rest / 1000, rest % 1000);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "2026-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

/// SplitMix64: <https://prng.di.unimi.it/splitmix64.c>.
pub(crate) struct Random(pub(super) u64);

impl Random {
    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        finish(self.0)
    }

    /// One of the numbers below a bound.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn mix(value: u64) -> u64 {
    finish(value.wrapping_add(0x9e37_79b9_7f4a_7c15))
}

fn finish(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text;
    use serde_json::Value;
    use std::collections::HashSet;
    use std::fs;

    #[test]
    fn every_line_is_an_event_of_the_same_shape_and_one_id_in_ten_repeats() {
        let mut text = Vec::new();
        let n_rows = write_events(&mut text, 400_000).unwrap();
        let text = String::from_utf8(text).unwrap();
        let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(events.len() as u64, n_rows);
        for (n, event) in events.iter().enumerate() {
            assert_eq!(event["seq"], n);
            assert!(event["user"]["geo"]["lat"].is_f64() && event["tags"].is_array());
            assert!(event["props"]["ref"].is_null() || event["props"]["ref"].is_string());
        }
        let ids: HashSet<_> = events.iter().map(|event| event["id"].as_str().unwrap()).collect();
        let repeated = 1.0 - ids.len() as f64 / events.len() as f64;
        assert!((0.05..0.15).contains(&repeated), "{repeated}");
    }

    #[test]
    fn days_fall_into_their_months() {
        let at = |day: u64| Timestamp(day * DAY_MILLIS + 3_723_004).to_string();
        assert_eq!(at(0), "2026-01-01T01:02:03.004Z");
        assert_eq!(
            [at(30), at(31), at(58), at(59), at(89)].map(|text| text[5..10].to_owned()),
            ["01-31", "02-01", "02-28", "03-01", "03-31"]
        );
    }

    #[test]
    fn a_file_is_made_once_and_the_same_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = Events::of_size(folder.path(), 10_000).unwrap();
        let bytes = text::read(&first.path).unwrap();
        assert_eq!(bytes.lines().count() as u64, first.n_rows);
        fs::remove_file(&first.path).unwrap();
        let again = Events::of_size(folder.path(), 10_000).unwrap();
        assert_eq!(text::read(&again.path).unwrap(), bytes);
    }
}
