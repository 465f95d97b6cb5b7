//! What a plain scalar is: the core schema of YAML 1.2 (§10.3.2), in which `on`, `yes` and `1_000` are words.

use crate::flow::node::Kind;

/// The value of a text that stands without quotes.
pub(crate) fn typed(text: &str) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" => Kind::Bool(true),
        "false" | "False" | "FALSE" => Kind::Bool(false),
        _ => number(text).unwrap_or_else(|| Kind::Text(text.into())),
    }
}

fn number(text: &str) -> Option<Kind> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    match unsigned {
        ".inf" | ".Inf" | ".INF" => {
            return Some(Kind::Float(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY }));
        }
        ".nan" | ".NaN" | ".NAN" if unsigned.len() == text.len() => return Some(Kind::Float(f64::NAN)),
        _ => {}
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return with_radix(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return with_radix(digits, 8);
    }
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') || !is_decimal(unsigned) {
        return None;
    }
    match text.parse::<i64>() {
        Ok(whole) => Some(Kind::Int(whole)),
        Err(_) => text.parse().ok().filter(|value: &f64| value.is_finite()).map(Kind::Float),
    }
}

fn with_radix(digits: &str, radix: u32) -> Option<Kind> {
    let is_number = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    is_number.then(|| i64::from_str_radix(digits, radix).ok().map(Kind::Int)).flatten()
}

/// Digits with at most one point and one exponent; Rust's own parser also takes `inf` and `nan`.
fn is_decimal(unsigned: &str) -> bool {
    unsigned.chars().any(|c| c.is_ascii_digit())
        && unsigned.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_words() {
        for word in [
            "on",
            "yes",
            "no",
            "off",
            "y",
            "1_000",
            "0b1",
            "1:30",
            "2024-01-01",
            "inf",
            "nan",
            "-",
            "1e",
            "0x",
            ".",
            "+.nan",
            "1.2.3",
            "١",
        ] {
            assert_eq!(typed(word), Kind::Text(word.into()), "{word}");
        }
    }

    #[test]
    fn numbers_are_numbers() {
        for (text, kind) in [
            ("17", Kind::Int(17)),
            ("-3", Kind::Int(-3)),
            ("+3", Kind::Int(3)),
            ("007", Kind::Int(7)),
            ("0x1F", Kind::Int(31)),
            ("0o17", Kind::Int(15)),
            ("1.5", Kind::Float(1.5)),
            ("1e3", Kind::Float(1000.0)),
            (".5", Kind::Float(0.5)),
            ("-.inf", Kind::Float(f64::NEG_INFINITY)),
            ("99999999999999999999", Kind::Float(1e20)),
            ("true", Kind::Bool(true)),
            ("~", Kind::Null),
            ("", Kind::Null),
        ] {
            assert_eq!(typed(text), kind, "{text}");
        }
    }
}
