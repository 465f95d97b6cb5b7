//! GDELT's master list: which 15-minute files there are, and which are missing.
//!
//! A line is `size md5 url`. The list has more than a million lines, so it is read line by line; what is kept
//! of it is one bit for each interval that was asked for.

use std::ops::Range;

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, Utc};

/// A file covers so many seconds.
const INTERVAL_SECONDS: i64 = 15 * 60;

/// A line of the list, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed<'a> {
    pub(super) n_bytes: Option<u64>,
    pub(super) md5: Option<&'a str>,
    /// The last part of the URL, `20260101000000.export.CSV.zip`.
    pub(super) name: &'a str,
    /// The interval that the name speaks of.
    pub(super) at: DateTime<Utc>,
}

/// The line, if it names a file with this suffix. The list has a few broken lines; their intervals come out as
/// missing.
pub(super) fn parse<'a>(line: &'a str, suffix: &str) -> Option<Listed<'a>> {
    let mut fields = line.split_whitespace();
    let (n_bytes, md5, url) = (fields.next()?, fields.next()?, fields.next()?);
    let name = url.rsplit('/').next()?;
    let stamp = name.strip_suffix(suffix)?;
    let at = NaiveDateTime::parse_from_str(stamp, "%Y%m%d%H%M%S").ok()?.and_utc();
    Some(Listed { n_bytes: n_bytes.parse().ok(), md5: (md5.len() == 32).then_some(md5), name, at })
}

/// The intervals of a range, and which of them were seen.
#[derive(Debug)]
pub(super) struct Intervals {
    first: DateTime<Utc>,
    range: Range<DateTime<Utc>>,
    seen: Vec<bool>,
    /// As far as intervals may be expected, whatever a list says; with nothing here, what is expected is known.
    grows_to: Option<usize>,
    other: Vec<DateTime<Utc>>,
}

/// More files off the quarter hours than this in a range are not told apart when they are listed twice.
const MAX_OTHER: usize = 1000;

/// Clocks go wrong by less than so many days, or what is expected is wrong for one run.
const DAYS_AHEAD: i64 = 1;

impl Intervals {
    /// The intervals that begin in the range, those before GDELT 2.0 and after `now` not expected.
    pub(super) fn new(range: Range<DateTime<Utc>>, now: DateTime<Utc>) -> Self {
        let start = range.start.max(beginning());
        let first = rounded_up(start);
        let expected = range.end.min(now) - first;
        let n_expected =
            (expected.num_milliseconds().max(0) + INTERVAL_SECONDS * 1000 - 1) / (INTERVAL_SECONDS * 1000);
        let seen = vec![false; usize::try_from(n_expected).unwrap_or(0)];
        Self { first, range, seen, grows_to: None, other: Vec::new() }
    }

    /// The intervals from an instant to the newest that a list has. One that lies further ahead than clocks go wrong is a
    /// mistake of the list: what is before it is not expected for that.
    pub(super) fn without_end(first: DateTime<Utc>, now: DateTime<Utc>) -> Self {
        let start = first.max(beginning());
        let range = first..DateTime::<Utc>::MAX_UTC;
        let mut intervals =
            Self { first: rounded_up(start), range, seen: Vec::new(), grows_to: None, other: Vec::new() };
        let ahead = now.checked_add_signed(TimeDelta::days(DAYS_AHEAD)).unwrap_or(now);
        intervals.grows_to = Some(intervals.place(rounded_up(ahead)).unwrap_or(0));
        intervals
    }

    /// The instant from which on they are asked for.
    pub(super) fn start(&self) -> DateTime<Utc> {
        self.range.start
    }

    /// The newest interval of the range that was seen or is expected.
    pub(super) fn newest(&self) -> Option<DateTime<Utc>> {
        let n = i64::try_from(self.seen.len().checked_sub(1)?).ok()?;
        Some(self.first + TimeDelta::seconds(n * INTERVAL_SECONDS))
    }

    /// Whether a file is asked for and was not seen before.
    pub(super) fn take(&mut self, at: DateTime<Utc>) -> bool {
        if !self.range.contains(&at) {
            return false;
        }
        let place = self.place(at);
        if let Some(place) = place.filter(|place| self.grows_to.is_some_and(|most| *place < most)) {
            self.seen.resize(self.seen.len().max(place + 1), false);
        }
        match place.and_then(|place| self.seen.get_mut(place)) {
            Some(seen) => !std::mem::replace(seen, true),
            None if self.other.contains(&at) => false,
            None => {
                if self.other.len() < MAX_OTHER {
                    self.other.push(at);
                }
                true
            }
        }
    }

    /// The intervals of the range that were not seen, in order.
    pub(super) fn missing(&self) -> impl Iterator<Item = DateTime<Utc>> {
        let starts = (0..).map(|n| self.first + TimeDelta::seconds(n * INTERVAL_SECONDS));
        self.seen.iter().zip(starts).filter(|(seen, _)| !**seen).map(|(_, at)| at)
    }

    fn place(&self, at: DateTime<Utc>) -> Option<usize> {
        let seconds = (at - self.first).num_seconds();
        (seconds % INTERVAL_SECONDS == 0).then(|| usize::try_from(seconds / INTERVAL_SECONDS).ok())?
    }
}

/// The first 15-minute file of GDELT 2.0.
fn beginning() -> DateTime<Utc> {
    NaiveDate::from_ymd_opt(2015, 2, 18)
        .and_then(|day| day.and_hms_opt(23, 0, 0))
        .unwrap_or_default()
        .and_utc()
}

fn rounded_up(at: DateTime<Utc>) -> DateTime<Utc> {
    let past = at.timestamp().rem_euclid(INTERVAL_SECONDS);
    let whole = past == 0 && at.timestamp_subsec_nanos() == 0;
    let up = if whole { 0 } else { INTERVAL_SECONDS - past };
    DateTime::from_timestamp(at.timestamp().saturating_add(up), 0).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).unwrap().to_utc()
    }

    #[test]
    fn a_line_is_told_from_those_of_other_files_and_from_broken_ones() {
        let md5 = "0123456789abcdef0123456789abcdef";
        let line = format!("150383 {md5} http://data.gdeltproject.org/gdeltv2/20150218230000.export.CSV.zip");
        let listed = parse(&line, ".export.CSV.zip").unwrap();
        assert_eq!((listed.n_bytes, listed.md5), (Some(150_383), Some(md5)));
        assert_eq!((listed.name, listed.at), ("20150218230000.export.CSV.zip", utc("2015-02-18T23:00:00Z")));
        assert_eq!(parse(&line, ".mentions.CSV.zip"), None);
        for broken in ["", "1", "1 2", "1 2 http://h/x.export.CSV.zip", "1 2 20151399000000.export.CSV.zip"] {
            assert_eq!(parse(broken, ".export.CSV.zip"), None, "{broken}");
        }
    }

    #[test]
    fn missing_intervals_are_those_of_the_half_open_range() {
        let range = utc("2026-01-01T00:00:00Z")..utc("2026-01-01T00:45:01Z");
        let mut intervals = Intervals::new(range, utc("2026-02-01T00:00:00Z"));
        for (at, fresh) in [
            ("2026-01-01T00:00:00Z", true),
            ("2026-01-01T00:00:00Z", false),
            ("2026-01-01T00:45:00Z", true),
            ("2026-01-01T01:00:00Z", false),
            ("2025-12-31T23:45:00Z", false),
        ] {
            assert_eq!(intervals.take(utc(at)), fresh, "{at}");
        }
        let missing: Vec<_> = intervals.missing().collect();
        assert_eq!(missing, [utc("2026-01-01T00:15:00Z"), utc("2026-01-01T00:30:00Z")]);
    }

    #[test]
    fn without_an_end_what_is_expected_ends_with_the_list() {
        let (first, now) = (utc("2026-01-01T00:00:00Z"), utc("2026-01-01T02:00:00Z"));
        let mut intervals = Intervals::without_end(first, now);
        assert_eq!(intervals.newest(), None);
        for at in
            ["2026-01-01T00:15:00Z", "2026-01-01T00:45:00Z", "2026-01-01T03:00:00Z", "2099-01-01T00:00:00Z"]
        {
            assert!(intervals.take(utc(at)), "{at}");
            assert!(!intervals.take(utc(at)), "{at}");
        }
        assert_eq!(intervals.newest(), Some(utc("2026-01-01T03:00:00Z")), "the clock may be late");
        assert_eq!(intervals.missing().count(), 10);
        let mut late = Intervals::without_end(first, utc("2020-01-01T00:00:00Z"));
        assert!(late.take(first) && late.missing().next().is_none(), "it is read, whatever the clock says");
    }

    #[test]
    fn what_cannot_be_there_yet_or_never_was_is_not_missing() {
        let now = utc("2026-01-01T00:20:00Z");
        let future = Intervals::new(utc("2026-01-01T00:00:00Z")..utc("2027-01-01T00:00:00Z"), now);
        assert_eq!(future.missing().count(), 2);
        let past = Intervals::new(utc("1979-01-01T00:00:00Z")..utc("2015-02-19T00:00:00Z"), now);
        assert_eq!(past.missing().count(), 4);
        let none = Intervals::new(utc("2027-01-01T00:00:00Z")..utc("2026-01-01T00:00:00Z"), now);
        assert_eq!(none.missing().count(), 0);
    }
}
