//! Values as folder names that lead nowhere else: `column=value`, percent-encoded, of bounded length.

use crate::file_names::{encode, shorten};

/// How Hive and all that read its layout write a missing value.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";
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
    let mut name = shorten(name);
    name.push('/');
    name
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
            assert!(name.len() <= 200, "{name}");
            assert!(!name.contains('/') || name.ends_with('/'));
        }
    }
}
