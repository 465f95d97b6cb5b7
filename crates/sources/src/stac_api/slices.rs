//! What time is asked for, and how it is cut into slices.

use std::str::FromStr;

use aqueduct_core::{Error, ErrorKind, Result};
use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use chrono::{DateTime, Datelike, Days, Months, NaiveDate, SecondsFormat, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::when::When;

/// More slices are not read in one run.
const MAX_SLICES: u64 = 100_000;

/// How long a slice is: a day, month or year of the calendar, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// From midnight to midnight.
    Day,
    /// From the first to the first.
    Month,
    /// From January to January.
    Year,
}

/// `datetime` as it stands in a flow file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// One instant.
    At(When),
    /// From the start of one to the end of the other; nothing is open.
    Range(Option<When>, Option<When>),
}

impl FromStr for Asked {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let end = |text: &str| match text.trim() {
            "" | ".." => Ok(None),
            text => text.parse::<When>().map(Some),
        };
        let Some((from, to)) = text.split_once('/') else {
            let when = text.trim().parse::<When>()?;
            let is_day = matches!(when, When::Day(_) | When::DaysAgo(_));
            return Ok(if is_day { Self::Range(Some(when), Some(when)) } else { Self::At(when) });
        };
        match (end(from)?, end(to)?) {
            (None, None) => Err(format!("`{text}` is open at both ends; leave `datetime` out")),
            (from, to) => Ok(Self::Range(from, to)),
        }
    }
}

/// A half-open time, or a single instant, or all time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Between {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) to: Option<DateTime<Utc>>,
}

impl Between {
    /// What is asked for at a time.
    pub(super) fn of(asked: Option<Asked>, now: DateTime<Utc>) -> Self {
        match asked {
            None => Self::default(),
            Some(Asked::At(when)) => {
                let at = Some(when.start(now));
                Self { from: at, to: at }
            }
            Some(Asked::Range(from, to)) => {
                Self { from: from.map(|when| when.start(now)), to: to.map(|when| when.end(now)) }
            }
        }
    }

    fn is_instant(self) -> bool {
        self.from.is_some() && self.from == self.to
    }

    /// As a search asks for it: both ends are within it, so that what is at the later one must be left out afterwards.
    pub(super) fn text(self) -> Option<String> {
        let end = |at: Option<DateTime<Utc>>| {
            at.map_or_else(|| "..".to_owned(), |at| at.to_rfc3339_opts(SecondsFormat::AutoSi, true))
        };
        match (self.from, self.to) {
            (None, None) => None,
            _ if self.is_instant() => Some(end(self.from)),
            (from, to) => Some(format!("{}/{}", end(from), end(to))),
        }
    }

    /// The slices of this time.
    ///
    /// # Errors
    /// It is open at an end, or there are more than [`MAX_SLICES`].
    pub(super) fn slices(self, split: Option<Split>) -> Result<Vec<Self>> {
        let Some(split) = split else { return Ok(vec![self]) };
        let (Some(from), Some(to)) = (self.from, self.to) else {
            let message = "`split` needs a `datetime` with both ends";
            return Err(Error::new(ErrorKind::Config, "split time", message));
        };
        let mut slices = Vec::new();
        let mut at = from;
        while at < to {
            let next = split.after(at).unwrap_or(to).min(to);
            slices.push(Self { from: Some(at), to: Some(next) });
            at = next;
            if slices.len() as u64 > MAX_SLICES {
                let message = format!("`split` makes more than {MAX_SLICES} slices; make them longer");
                return Err(Error::new(ErrorKind::Limit, "split time", message));
            }
        }
        Ok(if slices.is_empty() { vec![self] } else { slices })
    }

    /// Which rows are of this slice of `whole`: by `datetime`; where that is not within `whole`, by `start_datetime`, for a
    /// server gives all whose time touches what is asked for. Nothing, where all are.
    pub(super) fn owned(self, whole: Self, rows: &RecordBatch) -> Option<BooleanArray> {
        if self.is_instant() || (self.from.is_none() && self.to.is_none()) {
            return None;
        }
        let times = |name: &str| {
            let column = rows.column_by_name(name)?.as_primitive_opt::<TimestampMicrosecondType>()?.clone();
            Some(column)
        };
        let (datetimes, starts) = (times("datetime"), times("start_datetime"));
        if datetimes.is_none() && starts.is_none() {
            return None;
        }
        let is_owned = |row: usize| {
            let at = |column: &Option<arrow::array::TimestampMicrosecondArray>| {
                column.as_ref().filter(|column| column.is_valid(row)).map(|column| column.value(row))
            };
            self.owns(whole, at(&datetimes), at(&starts))
        };
        Some((0..rows.num_rows()).map(|row| Some(is_owned(row))).collect())
    }

    fn owns(self, whole: Self, datetime: Option<i64>, start: Option<i64>) -> bool {
        let micros = |at: Option<DateTime<Utc>>, open: i64| at.map_or(open, |at| at.timestamp_micros());
        let (first, end) = (micros(whole.from, i64::MIN), micros(whole.to, i64::MAX));
        let at = match (datetime, start) {
            (Some(at), _) if (first..end).contains(&at) => at,
            (_, Some(start)) if start < end => start.max(first),
            (Some(at), _) | (None, Some(at)) if at >= end => return false,
            _ => first,
        };
        (micros(self.from, i64::MIN)..micros(self.to, i64::MAX)).contains(&at)
    }
}

impl Split {
    /// The first instant of the next slice.
    fn after(self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let day = at.date_naive();
        let next = match self {
            Self::Day => day.checked_add_days(Days::new(1)),
            Self::Month => day.with_day(1)?.checked_add_months(Months::new(1)),
            Self::Year => NaiveDate::from_ymd_opt(day.year() + 1, 1, 1),
        };
        Some(next?.and_time(chrono::NaiveTime::MIN).and_utc())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        "2026-03-10T12:00:00Z".parse().unwrap()
    }

    fn between(text: &str) -> Between {
        Between::of(Some(text.parse().unwrap()), now())
    }

    #[test]
    fn days_are_whole_and_instants_half_open() {
        for (asked, sent) in [
            ("2026-01-31", "2026-01-31T00:00:00Z/2026-02-01T00:00:00Z"),
            ("2026-01-01/2026-01-31", "2026-01-01T00:00:00Z/2026-02-01T00:00:00Z"),
            ("2026-01-01T06:00:00Z/2026-01-02T00:00:00.5Z", "2026-01-01T06:00:00Z/2026-01-02T00:00:00.500Z"),
            ("2026-01-01/..", "2026-01-01T00:00:00Z/.."),
            ("../today", "../2026-03-11T00:00:00Z"),
            ("-7d/", "2026-03-03T12:00:00Z/.."),
            ("2026-01-01T06:00:00Z", "2026-01-01T06:00:00Z"),
        ] {
            assert_eq!(between(asked).text().as_deref(), Some(sent), "{asked}");
        }
        for wrong in ["../..", "soon", "2026-01-01/never"] {
            assert!(wrong.parse::<Asked>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn slices_follow_the_calendar_and_leave_no_gap() {
        let texts = |asked: &str, split| {
            let slices = between(asked).slices(Some(split)).unwrap();
            assert!(slices.windows(2).all(|pair| pair[0].to == pair[1].from));
            slices.iter().map(|slice| slice.text().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(
            texts("2026-01-30T12:00:00Z/2026-02-01T06:00:00Z", Split::Day),
            [
                "2026-01-30T12:00:00Z/2026-01-31T00:00:00Z",
                "2026-01-31T00:00:00Z/2026-02-01T00:00:00Z",
                "2026-02-01T00:00:00Z/2026-02-01T06:00:00Z",
            ]
        );
        assert_eq!(texts("2025-12-31/2026-02-01", Split::Month).len(), 3);
        assert_eq!(texts("2024-06-01/2026-01-01", Split::Year).len(), 3);
        assert!(between("2026-01-01/..").slices(Some(Split::Day)).is_err());
        assert!(between("0001-01-01/2026-01-01").slices(Some(Split::Day)).is_err());
    }

    #[test]
    fn each_item_is_of_one_slice() {
        let whole = between("2026-01-01/2026-01-03");
        let slices = whole.slices(Some(Split::Day)).unwrap();
        let at = |text: &str| Some(text.parse::<DateTime<Utc>>().unwrap().timestamp_micros());
        for (datetime, start, expected) in [
            (at("2026-01-01T00:00:00Z"), None, Some(0)),
            (at("2026-01-02T00:00:00Z"), None, Some(1)),
            (at("2026-01-03T23:59:59.999999Z"), None, Some(2)),
            // The server counts the end in.
            (at("2026-01-04T00:00:00Z"), None, None),
            // Its time begins before and reaches into what is asked for.
            (None, at("2025-12-01T00:00:00Z"), Some(0)),
            (at("2025-12-31T00:00:00Z"), at("2025-12-30T00:00:00Z"), Some(0)),
            (at("2026-01-05T00:00:00Z"), at("2026-01-02T07:00:00Z"), Some(1)),
            (None, at("2026-01-04T00:00:00Z"), None),
            (None, None, Some(0)),
        ] {
            let owners: Vec<_> =
                (0..slices.len()).filter(|n| slices[*n].owns(whole, datetime, start)).collect();
            assert_eq!(owners, expected.into_iter().collect::<Vec<_>>(), "{datetime:?} {start:?}");
        }
    }
}
