//! When a flow runs again: `every`, or `cron` in a `timezone`.

use std::time::Duration;

use aqueduct_core::Problem;
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

/// A turn that comes oftener would do little but begin and end.
const MIN_EVERY: Duration = Duration::from_secs(1);
/// Of turns that were missed no more are counted one by one: a machine may have slept for a year.
const MAX_COUNTED: u64 = 10_000;

const NO_CLOCK: &str = "it is the zone whose clock `cron` goes by, and there is no `cron`; leave it out. Times without a \
    zone are read as UTC; for others give the zone in a column's type: timestamp('%Y-%m-%d %H:%M', 'Europe/Paris')";

/// When the turns of a flow are due.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Schedule {
    /// At once, and so long after each time it was due.
    Every(Duration),
    /// By the clock of a zone. Where that goes back an hour, what is due in this hour is due once; where it goes forward, what
    /// would be due in the hour that is left out is due right after.
    Cron(Box<Cron>, Tz),
}

/// The next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) due: DateTime<Utc>,
    /// How many were due since the last one, and are left out.
    pub(crate) n_skipped: u64,
}

impl Schedule {
    /// The schedule of a flow that has one.
    ///
    /// # Errors
    /// What is wrong with the keys.
    pub(super) fn of(every: Option<Duration>, cron: Option<&str>, zone: Tz) -> Result<Option<Self>, Problem> {
        match (every, cron) {
            (_, None) if !matches!(zone, Tz::UTC | Tz::Etc__UTC) => Err(Problem::at("/timezone", NO_CLOCK)),
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(Problem::at("/cron", "`every` stands here, too; expected one of them")),
            (Some(every), None) if every < MIN_EVERY => {
                Err(Problem::at("/every", "expected a second or more: 5m, 1h"))
            }
            (Some(every), None) => Ok(Some(Self::Every(every))),
            (None, Some(text)) => {
                let parser =
                    CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
                let cron = parser.parse(text).map_err(|error| {
                    let message =
                        format!("`{text}`: {error}; expected minute, hour, day of month, month, day of week: 15 6 * * MON-FRI");
                    Problem::at("/cron", message)
                })?;
                let schedule = Self::Cron(Box::new(cron), zone);
                match schedule.first(Utc::now()) {
                    Some(_) => Ok(Some(schedule)),
                    None => Err(Problem::at("/cron", format!("`{text}` never comes"))),
                }
            }
        }
    }

    /// The first turn, asked for now; nothing if none ever comes.
    pub(crate) fn first(&self, now: DateTime<Utc>) -> Option<Turn> {
        let due = match self {
            Self::Every(_) => Some(now),
            Self::Cron(cron, zone) => following(cron, *zone, now),
        };
        due.map(|due| Turn { due, n_skipped: 0 })
    }

    /// The turn after one that was due then, asked for now: the next one to come.
    pub(crate) fn after(&self, due: DateTime<Utc>, now: DateTime<Utc>) -> Option<Turn> {
        match self {
            Self::Every(every) => {
                let every = TimeDelta::from_std(*every).ok()?;
                let late = (now - due).max(TimeDelta::zero());
                let n_skipped =
                    u64::try_from(late.num_milliseconds() / every.num_milliseconds()).unwrap_or(0);
                let next = due
                    + TimeDelta::milliseconds(
                        every.num_milliseconds().checked_mul(i64::try_from(n_skipped).ok()? + 1)?,
                    );
                Some(Turn { due: next, n_skipped })
            }
            Self::Cron(cron, zone) => {
                let mut turn = Turn { due: following(cron, *zone, due)?, n_skipped: 0 };
                while turn.due <= now && turn.n_skipped < MAX_COUNTED {
                    turn = Turn { due: following(cron, *zone, turn.due)?, n_skipped: turn.n_skipped + 1 };
                }
                if turn.due <= now {
                    turn.due = following(cron, *zone, now)?;
                }
                Some(turn)
            }
        }
    }

    /// In words.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Every(every) => format!("every {}", humantime::format_duration(*every)),
            Self::Cron(cron, zone) => format!("cron {} ({zone})", cron.pattern.as_str()),
        }
    }
}

fn following(cron: &Cron, zone: Tz, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
    Some(cron.find_next_occurrence(&after.with_timezone(&zone), false).ok()?.to_utc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::fake::load_yaml;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn cron(text: &str, zone: &str) -> Schedule {
        Schedule::of(None, Some(text), zone.parse().unwrap()).unwrap().unwrap()
    }

    #[test]
    fn turns_come_at_a_steady_pace_and_an_overrun_is_skipped() {
        let schedule = Schedule::of(Some(Duration::from_secs(300)), None, Tz::UTC).unwrap().unwrap();
        let first = schedule.first(at("2026-03-01T10:00:00Z")).unwrap();
        assert_eq!(first, Turn { due: at("2026-03-01T10:00:00Z"), n_skipped: 0 });
        let in_time = schedule.after(first.due, at("2026-03-01T10:01:00Z")).unwrap();
        assert_eq!(in_time, Turn { due: at("2026-03-01T10:05:00Z"), n_skipped: 0 });
        let late = schedule.after(first.due, at("2026-03-01T10:12:00Z")).unwrap();
        assert_eq!(late, Turn { due: at("2026-03-01T10:15:00Z"), n_skipped: 2 });
        // A clock that was set back: the next turn comes when it is there again.
        let back = schedule.after(first.due, at("2026-03-01T09:00:00Z")).unwrap();
        assert_eq!(back, Turn { due: at("2026-03-01T10:05:00Z"), n_skipped: 0 });
    }

    #[test]
    fn cron_goes_by_the_clock_of_its_zone_through_summer_and_winter() {
        let daily = cron("30 6 * * *", "Europe/Paris");
        let next = |after: &str| daily.first(at(after)).unwrap().due;
        assert_eq!(next("2026-03-28T06:00:00Z"), at("2026-03-29T04:30:00Z"));
        assert_eq!(next("2026-03-27T06:00:00Z"), at("2026-03-28T05:30:00Z"));
        // The hour that is left out, and the one that comes twice.
        let night = cron("30 2 * * *", "Europe/Paris");
        let days = |after: &str, until: &str| {
            let (mut now, mut n_due) = (at(after), 0);
            while let Some(turn) = night.first(now).filter(|turn| turn.due < at(until)) {
                (now, n_due) = (turn.due, n_due + 1);
            }
            n_due
        };
        assert_eq!(days("2026-03-27T12:00:00Z", "2026-03-30T12:00:00Z"), 3);
        assert_eq!(days("2026-10-23T12:00:00Z", "2026-10-26T12:00:00Z"), 3);
    }

    #[test]
    fn turns_that_were_missed_are_counted() {
        let hourly = cron("0 * * * *", "UTC");
        let turn = hourly.after(at("2026-03-01T10:00:00Z"), at("2026-03-01T13:20:00Z")).unwrap();
        assert_eq!(turn, Turn { due: at("2026-03-01T14:00:00Z"), n_skipped: 3 });
        let asleep = hourly.after(at("2020-01-01T00:00:00Z"), at("2026-03-01T13:20:00Z")).unwrap();
        assert_eq!(asleep, Turn { due: at("2026-03-01T14:00:00Z"), n_skipped: MAX_COUNTED });
    }

    #[test]
    fn what_is_no_schedule_is_named() {
        let told = |every, cron| Schedule::of(every, cron, Tz::UTC).unwrap_err().message;
        assert!(told(None, Some("every day")).contains("expected minute, hour"));
        assert!(told(None, Some("0 0 30 2 *")).contains("never comes"));
        assert!(told(None, Some("* * * * * *")).contains("expected minute, hour"));
        assert!(told(Some(Duration::ZERO), None).contains("a second or more"));
        assert!(told(Some(Duration::from_secs(9)), Some("* * * * *")).contains("one of them"));
    }

    const FLOW: &str = "name: x\nsource: { files: { paths: [a] } }\nsink: { discard: {} }\n";

    // contract "Steps": `timezone` says whose clock `cron` goes by
    #[test]
    fn a_flow_has_at_most_one_schedule() {
        let schedule =
            |lines: &str| load_yaml(&format!("{FLOW}{lines}\n")).map(|mut flows| flows.remove(0).schedule);
        assert_eq!(schedule("every: 5m").unwrap().unwrap().text(), "every 5m");
        let cron = schedule("cron: '30 6 * * *'\ntimezone: Europe/Paris").unwrap().unwrap();
        assert_eq!(cron.text(), "cron 30 6 * * * (Europe/Paris)");
        assert!(
            schedule("timezone: UTC").unwrap().is_none() && schedule("timezone: Etc/UTC").unwrap().is_none()
        );
        for (lines, told) in [
            ("every: 0s", "flow.yaml:4:8: every: expected a second or more"),
            ("cron: often", "flow.yaml:4:7: cron: `often`: "),
            ("every: 5m\ncron: '0 1 * * *'", "flow.yaml:5:7: cron: `every` stands here, too"),
            ("cron: '0 1 * * *'\ntimezone: Mars/Base", "flow.yaml:5:11: timezone: "),
            ("timezone: Europe/Paris", "flow.yaml:4:11: timezone: it is the zone whose clock `cron` goes by"),
            ("every: 5m\ntimezone: Europe/Paris", "flow.yaml:5:11: timezone: it is the zone"),
            ("cron: null\ntimezone: Europe/Paris", "flow.yaml:5:11: timezone: it is the zone"),
            ("timezone: [UTC]", "flow.yaml:4:11: timezone: found a list"),
        ] {
            let errors = schedule(lines).unwrap_err();
            assert!(errors.starts_with(told), "{errors}");
        }
    }
}
