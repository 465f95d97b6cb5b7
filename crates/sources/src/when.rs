//! Points in time as flow files write them: instants, days, `now`, `today`, `yesterday`, `-7d`.
//!
//! A day means the whole day in UTC: it begins a range at its first instant and ends one after its last.
//! Ranges are half open.

use std::ops::Range;
use std::str::FromStr;

use chrono::{DateTime, Days, NaiveDate, NaiveDateTime, TimeDelta, Utc};

/// A point in time, before the time now is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Instant(DateTime<Utc>),
    Day(NaiveDate),
    /// So long before now.
    Ago(TimeDelta),
    /// So many whole days before today.
    DaysAgo(u64),
}

/// The half-open range of two points in time, the later one open to mean `now`.
pub(crate) fn range(from: When, to: Option<When>, now: DateTime<Utc>) -> Range<DateTime<Utc>> {
    from.start(now)..to.map_or(now, |to| to.end(now))
}

impl When {
    /// The first instant of what is meant.
    pub(crate) fn start(self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::Instant(instant) => instant,
            Self::Ago(time) => now - time,
            Self::Day(day) => midnight(day),
            Self::DaysAgo(n) => midnight(days_before(now, n)),
        }
    }

    /// The first instant after what is meant.
    pub(crate) fn end(self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::Instant(_) | Self::Ago(_) => self.start(now),
            Self::Day(day) => midnight(after(day)),
            Self::DaysAgo(n) => midnight(after(days_before(now, n))),
        }
    }
}

fn midnight(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(chrono::NaiveTime::MIN).and_utc()
}

fn after(day: NaiveDate) -> NaiveDate {
    day.succ_opt().unwrap_or(NaiveDate::MAX)
}

fn days_before(now: DateTime<Utc>, n: u64) -> NaiveDate {
    now.date_naive().checked_sub_days(Days::new(n)).unwrap_or(NaiveDate::MIN)
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "now" => return Ok(Self::Ago(TimeDelta::zero())),
            "today" => return Ok(Self::DaysAgo(0)),
            "yesterday" => return Ok(Self::DaysAgo(1)),
            _ => {}
        }
        ago(text).or_else(|| day(text)).or_else(|| instant(text)).ok_or_else(|| {
            format!(
                "`{}` is no point in time; expected a day (2026-01-31), an instant (2026-01-31T12:00:00Z), \
                 `now`, `today`, `yesterday` or a time ago (`-7d`, `-12h`)",
                text.chars().take(40).collect::<String>()
            )
        })
    }
}

fn ago(text: &str) -> Option<When> {
    let text = text.strip_prefix('-')?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number = i64::from(number.parse::<u32>().ok()?);
    let time = match unit {
        "m" => TimeDelta::try_minutes(number),
        "h" => TimeDelta::try_hours(number),
        "d" => TimeDelta::try_days(number),
        "w" => TimeDelta::try_weeks(number),
        _ => None,
    }?;
    // More than a thousand years would leave the calendar.
    (time <= TimeDelta::try_days(365_000)?).then_some(When::Ago(time))
}

fn day(text: &str) -> Option<When> {
    ["%Y-%m-%d", "%Y%m%d"].iter().find_map(|form| NaiveDate::parse_from_str(text, form).ok()).map(When::Day)
}

/// An instant; without a zone it is UTC.
fn instant(text: &str) -> Option<When> {
    if let Ok(instant) = DateTime::parse_from_rfc3339(text) {
        return Some(When::Instant(instant.to_utc()));
    }
    ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y%m%d%H%M%S"]
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
        .map(|instant| When::Instant(instant.and_utc()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).unwrap().to_utc()
    }

    fn of(from: &str, to: Option<&str>) -> Range<DateTime<Utc>> {
        let to = to.map(|to| to.parse().unwrap());
        range(from.parse().unwrap(), to, utc("2026-03-02T10:20:30Z"))
    }

    #[test]
    fn days_are_whole_and_ranges_half_open() {
        for (from, to, start, end) in [
            ("2026-01-01", Some("2026-01-01"), "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            (
                "2026-01-01T00:00:00Z",
                Some("2026-01-01T00:45:01Z"),
                "2026-01-01T00:00:00Z",
                "2026-01-01T00:45:01Z",
            ),
            ("2026-01-01T01:00:00+01:00", Some("now"), "2026-01-01T00:00:00Z", "2026-03-02T10:20:30Z"),
            ("20260101", Some("20260101001500"), "2026-01-01T00:00:00Z", "2026-01-01T00:15:00Z"),
            ("yesterday", Some("today"), "2026-03-01T00:00:00Z", "2026-03-03T00:00:00Z"),
            ("-7d", None, "2026-02-23T10:20:30Z", "2026-03-02T10:20:30Z"),
        ] {
            assert_eq!(of(from, to), utc(start)..utc(end), "{from} {to:?}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in
            ["", "-", "-7", "-7y", "tomorrow", "2026-13-01", "2026-02-30T00:00:00Z", "-4294967295w", "-é"]
        {
            assert!(text.parse::<When>().is_err(), "{text}");
        }
    }
}
