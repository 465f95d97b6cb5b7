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

/// The value of a column in the name of a folder, as [`folder`] has written it: none is a missing value. Nothing, if the
/// name does not tell, because it was too long.
pub(crate) fn value_in(path: &str, column: &str) -> Option<Option<String>> {
    let key = format!("{}=", encode(column));
    let step = path.split('/').find(|step| step.starts_with(&key))?;
    let value = match step.strip_prefix(&key)? {
        NULL => None,
        value => Some(decode(value)?),
    };
    (folder(column, value.as_deref()).strip_suffix('/')? == step).then_some(value)
}

fn decode(encoded: &str) -> Option<String> {
    percent_encoding::percent_decode_str(encoded).decode_utf8().ok().map(|text| text.into_owned())
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
    fn a_folder_tells_its_values_unless_they_were_cut() {
        let path = |value| format!("{}{}part-1.parquet", folder("a b", value), folder("c", Some("x")));
        for value in [None, Some(""), Some("São/=%"), Some(NULL), Some("..")] {
            assert_eq!(value_in(&path(value), "a b"), Some(value.map(str::to_owned)), "{value:?}");
        }
        assert_eq!(value_in(&path(None), "c"), Some(Some("x".into())));
        assert_eq!(value_in(&path(None), "d"), None);
        assert_eq!(value_in(&path(Some(&"ä".repeat(300))), "a b"), None);
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
