//! Single values out of text: numbers, instants, days, and what to say when they are none.

use std::borrow::Cow;

use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use arrow::datatypes::{DataType, Date32Type};
use chrono::{NaiveDateTime, TimeZone, Utc};

use crate::TimeFormat;

/// A value that does not fit its column, or is no value at all. Boxed: the good path pays for a pointer.
#[derive(Debug)]
pub(crate) struct BadValue(Box<BadInner>);

#[derive(Debug)]
struct BadInner {
    column: String,
    reason: &'static str,
    message: String,
}

impl BadValue {
    #[cold]
    pub(crate) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(BadInner { column: String::new(), reason, message: message.into() }))
    }

    /// `found` is the value or its kind, `expected` the column's type.
    #[cold]
    pub(crate) fn type_clash(found: impl std::fmt::Display, expected: &DataType) -> Self {
        Self::new("type", format!("found {found}, expected {}", type_name(expected)))
    }

    /// Says in which column; called from the inside out for nested ones.
    #[cold]
    pub(crate) fn within(mut self, name: &str) -> Self {
        let inner = &mut self.0.column;
        *inner = match inner.as_str() {
            "" => name.to_owned(),
            path if path.starts_with('[') => format!("{name}{path}"),
            path => format!("{name}.{path}"),
        };
        self
    }

    /// Column, reason and message.
    pub(crate) fn into_parts(self) -> (Option<String>, &'static str, String) {
        let inner = *self.0;
        ((!inner.column.is_empty()).then_some(inner.column), inner.reason, inner.message)
    }
}

/// A type's name as `schema:` has it.
pub(crate) fn type_name(data_type: &DataType) -> Cow<'static, str> {
    match data_type {
        DataType::Int8 => "int8".into(),
        DataType::Int16 => "int16".into(),
        DataType::Int32 => "int32".into(),
        DataType::Int64 => "int64".into(),
        DataType::UInt8 => "uint8".into(),
        DataType::UInt16 => "uint16".into(),
        DataType::UInt32 => "uint32".into(),
        DataType::UInt64 => "uint64".into(),
        DataType::Float32 => "float32".into(),
        DataType::Float64 => "float64".into(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string".into(),
        DataType::Boolean => "bool".into(),
        DataType::Date32 => "date".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "binary".into(),
        DataType::Timestamp(..) => "timestamp".into(),
        DataType::Decimal128(p, s) | DataType::Decimal256(p, s) => format!("decimal({p},{s})").into(),
        DataType::List(item) => format!("list<{}>", type_name(item.data_type())).into(),
        DataType::Struct(_) => "struct".into(),
        other => other.to_string().into(),
    }
}

/// A value as it stands in a message: in quotes, cut, without control characters.
pub(crate) fn shown(text: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(text.get(..200).unwrap_or(text)).chars().take(60).collect();
    format!("{:?}", text)
}

/// A whole number, also one that is written with a fraction of zero or an exponent.
pub(crate) fn integer(text: &[u8]) -> Option<i128> {
    let (is_negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() {
        return None;
    }
    if digits.len() <= 18 && digits.iter().all(u8::is_ascii_digit) {
        let value = digits.iter().fold(0i64, |sum, digit| sum * 10 + i64::from(digit - b'0'));
        return Some(i128::from(if is_negative { -value } else { value }));
    }
    let text = std::str::from_utf8(text).ok()?;
    text.parse().ok().or_else(|| whole_float(text))
}

fn whole_float(text: &str) -> Option<i128> {
    let value: f64 = text.parse().ok()?;
    let is_exact = value.is_finite() && value.fract() == 0.0 && value.abs() < EXACT_FLOAT;
    #[expect(clippy::cast_possible_truncation, reason = "whole and small, as just checked")]
    is_exact.then_some(value as i128)
}

/// Whole numbers below this are floats without loss.
const EXACT_FLOAT: f64 = 9_007_199_254_740_992.0;

/// Powers of ten that are floats without loss.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// A number as a float. A whole number that no float is equal to, and a finite text that is infinite as a
/// float, are none.
pub(crate) fn float(text: &[u8]) -> Option<f64> {
    short_float(text).or_else(|| long_float(std::str::from_utf8(text).ok()?))
}

/// Up to 15 digits and a point: exact by one division (Clinger's fast path).
fn short_float(text: &[u8]) -> Option<f64> {
    let (sign, digits) = match text.split_first()? {
        (b'-', rest) => (-1.0, rest),
        _ => (1.0, text),
    };
    if digits.len() > 16 || !digits.first()?.is_ascii_digit() {
        return None;
    }
    let (mut mantissa, mut n_digits, mut point) = (0u64, 0, None);
    for byte in digits {
        match byte {
            b'0'..=b'9' => (mantissa, n_digits) = (mantissa * 10 + u64::from(byte - b'0'), n_digits + 1),
            b'.' if point.is_none() => point = Some(n_digits),
            _ => return None,
        }
    }
    if n_digits > 15 || point == Some(n_digits) {
        return None;
    }
    let scale = POWERS.get(n_digits - point.unwrap_or(n_digits))?;
    #[expect(clippy::cast_precision_loss, reason = "15 digits are exact")]
    Some(sign * (mantissa as f64 / scale))
}

fn long_float(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    let has_digits = text.bytes().any(|byte| byte.is_ascii_digit());
    if has_digits && value.is_infinite() {
        return None;
    }
    if let Ok(whole) = text.parse::<i128>() {
        #[expect(clippy::cast_possible_truncation, reason = "saturates, and is then unequal")]
        return (value as i128 == whole).then_some(value);
    }
    Some(value)
}

/// The first eight or so letters decide: `true`, `false`, `1`, `0`, `t`, `f`, in any case.
pub(crate) fn boolean(text: &[u8]) -> Option<bool> {
    let is = |word: &[u8]| text.eq_ignore_ascii_case(word);
    if is(b"true") || is(b"t") || is(b"1") {
        return Some(true);
    }
    (is(b"false") || is(b"f") || is(b"0")).then_some(false)
}

/// Days since 1970-01-01.
pub(crate) fn date(text: &str) -> Option<i32> {
    Date32Type::parse(text.trim())
}

/// Microseconds since 1970-01-01 UTC: RFC 3339, a space for the `T` allowed; without a zone it is UTC,
/// without a time midnight.
pub(crate) fn instant(text: &str) -> Option<i64> {
    rfc3339(text.as_bytes()).or_else(|| Some(string_to_datetime(&Utc, text.trim()).ok()?.timestamp_micros()))
}

/// `2026-01-31T12:34:56.789Z`, digit by digit: by far the most common way to write one.
fn rfc3339(text: &[u8]) -> Option<i64> {
    let (head, tail) = text.split_at_checked(19)?;
    let number = |range: std::ops::Range<usize>| {
        let digits = &head[range];
        let is_number = digits.iter().all(u8::is_ascii_digit);
        is_number.then(|| digits.iter().fold(0u32, |sum, digit| sum * 10 + u32::from(digit - b'0')))
    };
    if [head[4], head[7], head[13], head[16]] != *b"--::" || !matches!(head[10], b'T' | b' ' | b't') {
        return None;
    }
    let year = i32::try_from(number(0..4)?).ok()?;
    let day = chrono::NaiveDate::from_ymd_opt(year, number(5..7)?, number(8..10)?)?;
    let second = day.and_hms_opt(number(11..13)?, number(14..16)?, number(17..19)?)?;
    let micros = match tail {
        b"Z" | b"z" | b"" => 0,
        [b'.', fraction @ .., b'Z'] if (1..=6).contains(&fraction.len()) => {
            let is_number = fraction.iter().all(u8::is_ascii_digit);
            let value =
                fraction.iter().fold(0i64, |sum, digit| sum * 10 + i64::from(digit.wrapping_sub(b'0')));
            is_number.then(|| value * 10i64.pow(6 - u32::try_from(fraction.len()).unwrap_or(6)))?
        }
        _ => return None,
    };
    Some(second.and_utc().timestamp() * 1_000_000 + micros)
}

/// An instant written in a pattern of the user's.
pub(crate) fn patterned(text: &str, format: &TimeFormat) -> Option<i64> {
    let text = text.trim();
    if let Ok(at) = chrono::DateTime::parse_from_str(text, &format.pattern) {
        return Some(at.timestamp_micros());
    }
    let local = NaiveDateTime::parse_from_str(text, &format.pattern).ok().or_else(|| {
        let day = chrono::NaiveDate::parse_from_str(text, &format.pattern).ok()?;
        day.and_hms_opt(0, 0, 0)
    })?;
    match format.zone {
        None => Some(local.and_utc().timestamp_micros()),
        // Of the two instants of an hour that clocks go through twice, the first; of none, none.
        Some(zone) => Some(zone.from_local_datetime(&local).earliest()?.timestamp_micros()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn whole_numbers_are_whole_however_written() {
        for (text, value) in [
            ("7", Some(7)),
            ("-7", Some(-7)),
            ("1.0", Some(1)),
            ("1e3", Some(1000)),
            ("1.5", None),
            ("", None),
            ("-", None),
            ("x", None),
            ("99999999999999999999", Some(99_999_999_999_999_999_999)),
        ] {
            assert_eq!(integer(text.as_bytes()), value, "{text}");
        }
    }

    #[test]
    fn floats_that_lose_are_none() {
        assert_eq!(float(b"9007199254740993"), None);
        assert_eq!(float(b"9007199254740992"), Some(9_007_199_254_740_992.0));
        assert_eq!(float(b"1e400"), None);
        assert_eq!(float(b"."), None);
        assert_eq!(float(b"1e3"), Some(1000.0));
    }

    #[test]
    fn instants_and_patterns() {
        assert_eq!(instant("1970-01-01T00:00:01.5Z"), Some(1_500_000));
        assert_eq!(instant("1970-01-01 00:00:01"), Some(1_000_000));
        assert_eq!(instant("1970-01-01T01:00:00+01:00"), Some(0));
        assert_eq!(instant("1970-01-02"), Some(86_400_000_000));
        assert_eq!(instant("1970-13-02T00:00:00Z"), None);
        let format = TimeFormat { pattern: "%d/%m/%Y %H:%M".into(), zone: Some(chrono_tz::Europe::Paris) };
        assert_eq!(patterned("01/07/1970 02:00", &format), Some(181 * 86_400_000_000 + 3_600_000_000));
        assert_eq!(patterned("1970-07-01", &format), None);
        assert_eq!(date("1970-01-03"), Some(2));
    }

    proptest! {
        #[test]
        fn short_floats_are_what_the_library_reads(text in r"-?[0-9]{1,9}(\.[0-9]{1,9})?") {
            prop_assert_eq!(float(text.as_bytes()), text.parse().ok());
        }

        #[test]
        fn the_quick_reading_of_instants_is_the_librarys(micros in -62_000_000_000_000_000i64..250_000_000_000_000_000) {
            let at = chrono::DateTime::from_timestamp_micros(micros).unwrap();
            let text = at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
            prop_assert_eq!(rfc3339(text.as_bytes()), Some(micros));
        }
    }
}
