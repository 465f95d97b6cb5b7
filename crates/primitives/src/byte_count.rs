//! A number of bytes, as a type: limits are bytes, counts are secondary.

use std::fmt;
use std::str::FromStr;

/// A number of bytes.
///
/// `KB`, `MB`, `GB`, `TB` are powers of 1000; `KiB`, `MiB`, `GiB`, `TiB` are powers of 1024. A number
/// without a unit is bytes. [`Display`](fmt::Display) is exact: it picks the largest unit that loses
/// nothing, so that what is printed can be typed back.
///
/// ```
/// use aqueduct_primitives::ByteCount;
/// let limit: ByteCount = "64MB".parse()?;
/// assert_eq!(limit.get(), 64_000_000);
/// assert_eq!(ByteCount::mib(4).to_string(), "4MiB");
/// # Ok::<(), aqueduct_primitives::ParseByteCountError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteCount(u64);

/// Longest first, so that printing finds the largest unit that divides.
const UNITS: [(&str, u64); 8] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1000),
];

impl ByteCount {
    /// No bytes.
    pub const ZERO: Self = Self(0);

    /// So many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many kibibytes (1024 bytes).
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// So many mebibytes (1024 × 1024 bytes).
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// So many megabytes (1,000,000 bytes).
    pub const fn mb(n: u64) -> Self {
        Self(n * 1_000_000)
    }

    /// The bytes of a length in memory.
    pub const fn of(len: usize) -> Self {
        Self(len as u64)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number as a length in memory; a count beyond the address space is the largest length.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// The sum, or the largest count.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, or zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// So many times as much, or the largest count.
    #[must_use]
    pub const fn saturating_mul(self, times: u64) -> Self {
        Self(self.0.saturating_mul(times))
    }

    /// The whole percentage of it, rounded down.
    #[must_use]
    pub const fn percent(self, percent: u64) -> Self {
        Self((self.0 / 100).saturating_mul(percent).saturating_add(self.0 % 100 * percent / 100))
    }

    /// The next whole megabyte (1,000,000 bytes), for figures that a person types.
    #[must_use]
    pub const fn round_up_to_mb(self) -> Self {
        Self(self.0.div_ceil(1_000_000) * 1_000_000)
    }

    /// Three digits and a decimal unit, for people: `1.23 GB`. Not exact; [`Display`](fmt::Display) is.
    pub fn human(self) -> String {
        let (name, unit) = match self.0 {
            n if n >= 1_000_000_000_000 => ("TB", 1e12),
            n if n >= 1_000_000_000 => ("GB", 1e9),
            n if n >= 1_000_000 => ("MB", 1e6),
            n if n >= 1000 => ("KB", 1e3),
            n => return format!("{n} B"),
        };
        #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
        let value = self.0 as f64 / unit;
        let decimals = if value >= 100.0 { 0 } else { usize::from(value < 10.0) + 1 };
        format!("{value:.decimals$} {name}")
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, unit) in UNITS {
            if self.0 >= unit && self.0.is_multiple_of(unit) {
                return write!(f, "{}{name}", self.0 / unit);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl From<ByteCount> for u64 {
    fn from(count: ByteCount) -> Self {
        count.0
    }
}

impl std::iter::Sum for ByteCount {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Self::saturating_add)
    }
}

/// The text is no number of bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a number of bytes; expected a number with a unit such as 64MB or 4MiB")]
pub struct ParseByteCountError {
    text: String,
}

impl FromStr for ByteCount {
    type Err = ParseByteCountError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text.trim()).ok_or_else(|| ParseByteCountError { text: text.chars().take(40).collect() })
    }
}

fn parse(text: &str) -> Option<ByteCount> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = scale_of(unit.trim())?;
    let number = number.replace('_', "");
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(scale).map(ByteCount);
    }
    let value: f64 = number.parse().ok()?;
    #[expect(clippy::cast_precision_loss, reason = "a fraction of a unit is not exact anyway")]
    let bytes = value * scale as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be within range")]
    (bytes.is_finite() && (0.0..1.8e19).contains(&bytes)).then_some(ByteCount(bytes as u64))
}

fn scale_of(unit: &str) -> Option<u64> {
    if unit.is_empty() || unit.eq_ignore_ascii_case("b") {
        return Some(1);
    }
    UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, scale)| *scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_decimal_without_an_i_and_binary_with_one() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("17B", 17),
            ("10KB", 10_000),
            ("1.5 MB", 1_500_000),
            ("4MiB", 4 << 20),
            ("2gib", 2 << 30),
            ("1_000", 1000),
        ] {
            assert_eq!(text.parse::<ByteCount>().unwrap().get(), bytes, "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "lots", "MB", "-1MB", "1XB", "1.2.3MB", "99999999999999999999", "20000000TB", "nan"]
        {
            assert!(text.parse::<ByteCount>().is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn display_is_exact(bytes in 0u64..=u64::MAX) {
            let count = ByteCount::new(bytes);
            proptest::prop_assert_eq!(count.to_string().parse::<ByteCount>().unwrap(), count);
        }
    }
}
