//! The times of entries, in the ways that feeds write them.
//!
//! RFC 822 with the years of RFC 2822 (RSS), RFC 3339 (Atom, JSON Feed), the W3C's profile of ISO 8601 (Dublin Core), and what
//! comes close to them: names of months in full, words in another order, no weekday, no seconds, no zone. A time without a zone
//! is meant in UTC.

use chrono::{DateTime, Duration, FixedOffset, NaiveDate, NaiveDateTime, Utc};

/// A longer text is no time.
const MAX_DATE_BYTES: usize = 100;

/// Zones that have names in RFC 822 and in feeds, with hours from UTC.
const ZONES: [(&str, i32); 20] = [
    ("ut", 0),
    ("utc", 0),
    ("gmt", 0),
    ("z", 0),
    ("wet", 0),
    ("bst", 1),
    ("cet", 1),
    ("cest", 2),
    ("eet", 2),
    ("eest", 3),
    ("msk", 3),
    ("jst", 9),
    ("ast", -4),
    ("edt", -4),
    ("est", -5),
    ("cdt", -5),
    ("cst", -6),
    ("mdt", -6),
    ("mst", -7),
    ("pdt", -7),
];

/// The instant that a text tells; nothing, if it tells none between the years 1 and 9999.
pub(super) fn instant(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    if text.is_empty() || text.len() > MAX_DATE_BYTES || !text.is_ascii() {
        return None;
    }
    iso(text).or_else(|| words(text))
}

/// `2003-12-31T10:14:55.123+01:00`, and less of it: at least the year.
fn iso(text: &str) -> Option<DateTime<Utc>> {
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (&text[..at], text[at + 1..].trim()),
        None => (text, ""),
    };
    let date = iso_date(date)?;
    if time.is_empty() {
        return in_zone(date.and_hms_opt(0, 0, 0)?, 0);
    }
    let zone_at = time.find(|c: char| matches!(c, '+' | '-' | ' ') || c.is_ascii_alphabetic());
    let (time, zone) = time.split_at(zone_at.unwrap_or(time.len()));
    in_zone(at_time(date, time)?, zone_seconds(zone.trim())?)
}

fn iso_date(text: &str) -> Option<NaiveDate> {
    let digits =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u32>().ok())?;
    let parts: Vec<&str> = text.split('-').collect();
    let (year, month, day) = match parts[..] {
        [year] if year.len() == 8 => (&year[..4], digits(&year[4..6])?, digits(&year[6..])?),
        [year] if year.len() == 4 => (year, 1, 1),
        [year, month] if month.len() <= 2 => (year, digits(month)?, 1),
        [year, month, day] => (year, digits(month)?, digits(day)?),
        _ => return None,
    };
    if year.len() != 4 {
        return None;
    }
    NaiveDate::from_ymd_opt(i32::try_from(digits(year)?).ok()?, month, day)
}

/// What was found of a time that is told in words.
#[derive(Default)]
struct Words<'t> {
    day: Option<u32>,
    month: Option<u32>,
    year: Option<i32>,
    time: Option<&'t str>,
    is_afternoon: Option<bool>,
    zone: Option<i32>,
}

/// `Thu, 01 Jan 2004 19:48:21 +0100`, `1 January 2004`, `Jan 1, 2004 7:48 PM EST`, `Thu Jan  1 19:48:21 PST 2004`.
fn words(text: &str) -> Option<DateTime<Utc>> {
    let mut found = Words::default();
    for word in text.split(|c: char| c.is_ascii_whitespace() || c == ',') {
        // `01-Jan-2004`
        let is_date = word.bytes().any(|byte| byte.is_ascii_alphabetic()) && word.matches('-').count() == 2;
        if is_date {
            word.split('-').try_for_each(|part| found.add(part))?;
        } else {
            found.add(word)?;
        }
    }
    let date = NaiveDate::from_ymd_opt(found.year?, found.month?, found.day?)?;
    let mut at = at_time(date, found.time.unwrap_or("0:0"))?;
    let hour = chrono::Timelike::hour(&at);
    match found.is_afternoon {
        Some(true) if hour < 12 => at += Duration::hours(12),
        Some(false) if hour == 12 => at -= Duration::hours(12),
        _ => {}
    }
    in_zone(at, found.zone.unwrap_or(0))
}

impl<'t> Words<'t> {
    /// Takes a word in. Nothing, if it has no place in a time.
    fn add(&mut self, word: &'t str) -> Option<()> {
        let first = word.bytes().next();
        match first {
            None => {}
            Some(b'+' | b'-') => self.zone = Some(zone_seconds(word)?),
            Some(byte) if byte.is_ascii_digit() => self.add_number(word)?,
            Some(byte) if byte.is_ascii_alphabetic() => self.add_name(word)?,
            Some(_) => return None,
        }
        Some(())
    }

    fn add_number(&mut self, word: &'t str) -> Option<()> {
        if word.contains(':') {
            let zone_at = word.find(['+', '-']).unwrap_or(word.len());
            let (time, zone) = word.split_at(zone_at);
            self.time = Some(time);
            if !zone.is_empty() {
                self.zone = Some(zone_seconds(zone)?);
            }
            return Some(());
        }
        let number: u32 = word.trim_end_matches(['.', 't', 'h', 's', 'n', 'd', 'r']).parse().ok()?;
        match (word.len(), self.day, self.year) {
            (4, _, None) => self.year = Some(i32::try_from(number).ok()?),
            (_, None, _) => self.day = Some(number),
            // RFC 2822, section 4.3.
            (1..=3, Some(_), None) if number < 50 => self.year = Some(2000 + i32::try_from(number).ok()?),
            (1..=3, Some(_), None) => self.year = Some(1900 + i32::try_from(number).ok()?),
            _ => return None,
        }
        Some(())
    }

    fn add_name(&mut self, word: &str) -> Option<()> {
        const MONTHS: [&str; 12] =
            ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
        let word = word.trim_end_matches('.').to_ascii_lowercase();
        let month = (1..).zip(MONTHS).find(|(_, month)| word.starts_with(month));
        match (month, &word[..]) {
            (Some((number, _)), _) => self.month = Some(number),
            (None, "am") => self.is_afternoon = Some(false),
            (None, "pm") => self.is_afternoon = Some(true),
            (None, "pst") => self.zone = Some(-8 * 3600),
            // Weekdays and zones that nobody knows: the time is meant in UTC then.
            (None, word) => {
                if let Some(seconds) = zone_seconds(word) {
                    self.zone = Some(seconds);
                }
            }
        }
        Some(())
    }
}

/// `10:14`, `10:14:55`, `10:14:55.1234`, `101455` on a day. Midnight may be its end; a leap second is the one before.
fn at_time(date: NaiveDate, text: &str) -> Option<NaiveDateTime> {
    let text = text.replace(',', ".");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let parts: Vec<&str> = match whole.split(':').collect::<Vec<_>>()[..] {
        [all] if all.len() == 6 => vec![&all[..2], &all[2..4], &all[4..]],
        [all] if all.len() == 4 => vec![&all[..2], &all[2..]],
        [all] if all.len() <= 2 => vec![all],
        [hour, minute] => vec![hour, minute],
        [hour, minute, second] => vec![hour, minute, second],
        _ => return None,
    };
    let part = |n: usize| parts.get(n).map_or(Some(0), |part: &&str| part.trim().parse::<u32>().ok());
    let (hour, minute, second) = (part(0)?, part(1)?, part(2)?);
    let micros: u32 = format!("{:0<6.6}", fraction.trim()).parse().ok()?;
    let (date, hour) =
        if (hour, minute, second) == (24, 0, 0) { (date.succ_opt()?, 0) } else { (date, hour) };
    date.and_hms_micro_opt(hour, minute, second.min(59), micros)
}

/// Seconds east of UTC of `Z`, `GMT`, `+0100`, `-05:30`, `+01`, nothing at all.
fn zone_seconds(text: &str) -> Option<i32> {
    let text = text.to_ascii_lowercase();
    if text.is_empty() {
        return Some(0);
    }
    if let Some((_, hours)) = ZONES.iter().find(|(name, _)| *name == text) {
        return Some(hours * 3600);
    }
    let (sign, digits) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let digits = digits.replace(':', "");
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes): (i32, i32) = match digits.len() {
        4 => (digits[..2].parse().ok()?, digits[2..].parse().ok()?),
        1 | 2 => (digits.parse().ok()?, 0),
        _ => return None,
    };
    Some(sign * (hours * 3600 + minutes * 60))
}

fn in_zone(at: NaiveDateTime, seconds: i32) -> Option<DateTime<Utc>> {
    let zone = FixedOffset::east_opt(seconds)?;
    let at = at.and_local_timezone(zone).single()?.to_utc();
    (1..=9999).contains(&chrono::Datelike::year(&at)).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Option<String> {
        instant(text).map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true))
    }

    #[test]
    fn times_are_read_however_feeds_write_them() {
        let cases = [
            ("Thu, 01 Jan 2004 19:48:21 GMT", "2004-01-01T19:48:21Z"),
            ("01 Jan 2004 19:48:21 EST", "2004-01-02T00:48:21Z"),
            ("Thu, 1 Jan 04 19:48 +0130", "2004-01-01T18:18:00Z"),
            ("Thursday, 31 December 98 19:48:21 PST", "1999-01-01T03:48:21Z"),
            ("Thu Jan  1 19:48:21 PDT 2004", "2004-01-02T02:48:21Z"),
            ("Jan 1, 2004 7:48 PM", "2004-01-01T19:48:00Z"),
            ("01-Jan-2004", "2004-01-01T00:00:00Z"),
            ("2003-12-31T10:14:55Z", "2003-12-31T10:14:55Z"),
            ("2003-12-31T10:14:55.123-08:00", "2003-12-31T18:14:55.123Z"),
            ("2003-12-31 10:14:55 +0100", "2003-12-31T09:14:55Z"),
            ("2003-12-31T10:14", "2003-12-31T10:14:00Z"),
            ("20031231T101455Z", "2003-12-31T10:14:55Z"),
            ("2003-12", "2003-12-01T00:00:00Z"),
            ("2003", "2003-01-01T00:00:00Z"),
            ("2004-02-28T24:00:00Z", "2004-02-29T00:00:00Z"),
            ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
        ];
        for (text, expected) in cases {
            assert_eq!(told(text).as_deref(), Some(expected), "{text}");
        }
    }

    // reliability 27: dates invalid or year 9999
    #[test]
    fn what_is_no_time_is_none_and_the_last_year_is_one() {
        assert_eq!(told("9999-12-31T23:59:59Z").unwrap(), "9999-12-31T23:59:59Z");
        assert_eq!(told("Fri, 31 Dec 9999 23:59:59 GMT").unwrap(), "9999-12-31T23:59:59Z");
        for text in [
            "",
            "yesterday",
            "2004-02-30",
            "Thu, 32 Jan 2004 00:00:00 GMT",
            "10000-01-01",
            "2004-13-01T00:00:00Z",
            "9999-12-31T23:59:59-01:00",
            "2004-01-01T25:00:00Z",
            "-1",
            "0000-00-00",
            "12:30",
            "\u{660}\u{661}",
        ] {
            assert_eq!(told(text), None, "{text}");
        }
    }
}
