//! Names of files and folders made of values: they lead nowhere else, and no file system finds them too long.

use std::fmt::Write;

/// File systems take names of 255 bytes; the rest is room for what is put around a name.
const MAX_NAME_BYTES: usize = 180;
/// How much of a longer name is kept before its hash.
const KEPT_BYTES: usize = 150;

/// Percent-encodes all but ASCII letters, digits, `-`, `_` and `.`.
pub(crate) fn encode(text: &str) -> String {
    encode_but(text, |_| false)
}

/// The file name for what a URL or path points to: its last segment, without query and fragment.
pub(crate) fn of_url(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let segment = path.rsplit(['/', '\\']).next().unwrap_or(path);
    let name = encode_but(segment, |byte| b"%+=@,~() ".contains(&byte));
    if name.is_empty() {
        return format!("file-{}", hash(url));
    }
    shorten(guarded(name))
}

/// A name that is not special anywhere: no hidden file, no `..`, not ours.
pub(crate) fn guarded(name: String) -> String {
    if let Some(rest) = name.strip_prefix('.') {
        return format!("%2E{rest}");
    }
    match name.as_str() {
        "_aqueduct" => "%5Faqueduct".into(),
        _ => name,
    }
}

/// A name of bounded length; longer ones end in a hash of the whole, so that they stay apart.
pub(crate) fn shorten(name: String) -> String {
    if name.len() <= MAX_NAME_BYTES {
        return name;
    }
    // Encoded names are ASCII; a cut within an escape leaves at most `%` or `%5`.
    let kept: String = name.chars().take(KEPT_BYTES).collect();
    let whole = match kept.rfind('%') {
        Some(at) if at + 3 > kept.len() => &kept[..at],
        _ => &kept,
    };
    format!("{whole}~{}", hash(&name))
}

fn hash(text: &str) -> String {
    let hash = blake3::hash(text.as_bytes()).to_hex();
    hash.chars().take(16).collect()
}

fn encode_but(text: &str, is_kept: impl Fn(u8) -> bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => encoded.push(char::from(byte)),
            _ if is_kept(byte) => encoded.push(char::from(byte)),
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

    #[test]
    fn a_file_is_called_as_the_url_ends() {
        assert_eq!(of_url("https://x.org/a/b%20c.csv.zip?token=1#f"), "b%20c.csv.zip");
        assert_eq!(of_url("data/São Paulo.csv"), "S%C3%A3o Paulo.csv");
        assert_eq!(of_url("https://x.org/a/.."), "%2E.");
        assert_eq!(of_url("https://x.org/a/_aqueduct"), "%5Faqueduct");
        assert!(of_url("https://x.org/a/").starts_with("file-"));
        assert_ne!(of_url("https://x.org/a/"), of_url("https://x.org/b/"));
        assert!(of_url(&format!("https://x.org/{}", "é".repeat(300))).len() < 200);
    }
}
