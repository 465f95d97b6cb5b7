//! Values as folder names that lead nowhere else: `column=value`, percent-encoded, of bounded length.

use std::fmt::Write;

/// How Hive and all that read its layout write a missing value.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";
/// File systems take names of 255 bytes.
const MAX_NAME_BYTES: usize = 200;
/// How much of a longer name is kept before its hash.
const KEPT_BYTES: usize = 160;

/// The folder of one column's value, with a slash at its end. `None` is a missing value.
pub(super) fn folder(column: &str, value: Option<&str>) -> String {
    let mut name = encode(column);
    name.push('=');
    match value {
        None => name.push_str(NULL),
        // A value that looks like a missing one must not become one.
        Some(value) if value == NULL => name.push_str(&NULL.replacen('_', "%5F", 1)),
        Some(value) => name.push_str(&encode(value)),
    }
    if name.len() > MAX_NAME_BYTES {
        let hash = blake3::hash(name.as_bytes()).to_hex();
        let kept: String = name.chars().take(KEPT_BYTES).collect();
        name = format!("{}~{}", kept.trim_end_matches(is_cut_escape), &hash[..16]);
    }
    name.push('/');
    name
}

/// A name cut within an escape would end in `%` or `%5`.
fn is_cut_escape(last: char) -> bool {
    last == '%'
}

fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => encoded.push(char::from(byte)),
            _ => {
                // Writing to a string cannot fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    // 38: values that are paths stay inside the output
    #[test]
    fn values_lead_nowhere_else() {
        assert_eq!(folder("c", Some("../../x")), "c=..%2F..%2Fx/");
        assert_eq!(folder("c", Some("/etc/x")), "c=%2Fetc%2Fx/");
        assert_eq!(folder("c", Some("a\0b")), "c=a%00b/");
        assert_eq!(folder("a b/c", Some("São")), "a%20b%2Fc=S%C3%A3o/");
        assert_eq!(folder("c", Some("")), "c=/");
        assert_eq!(folder("c", None), "c=__HIVE_DEFAULT_PARTITION__/");
        assert_ne!(folder("c", None), folder("c", Some(NULL)));
        assert_ne!(folder("c", Some("a/b")), folder("c", Some("a%2Fb")));
    }

    #[test]
    fn long_values_are_cut_and_stay_apart() {
        let one = folder("c", Some(&"ä".repeat(300)));
        let other = folder("c", Some(&format!("{}x", "ä".repeat(299))));
        assert_ne!(one, other);
        for name in [one, other] {
            assert!(name.len() <= MAX_NAME_BYTES, "{name}");
            assert!(!name.contains('/') || name.ends_with('/'));
        }
    }
}
