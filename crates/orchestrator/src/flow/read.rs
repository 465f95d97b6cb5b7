//! A flow file from disk to a [`Node`]: its size and encoding are checked first.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::flow::error::Mistake;
use crate::flow::node::{Kind, Node};
use crate::flow::{Masks, Span, toml, yaml};

/// Flow files are written by people. Parsing takes many times a file's size, so more than this is a mistake
/// or an attack.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 20;

/// Reads a flow file: TOML if its name ends so, else YAML or JSON.
pub(crate) fn read(path: &Path) -> Result<Node, Mistake> {
    let bytes = bounded(path, MAX_FILE_BYTES).map_err(|error| Mistake::new(Span::START, "", error))?;
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return Err(not_utf8(error.as_bytes(), error.utf8_error().valid_up_to())),
    };
    let node = parse(&text, path.extension().and_then(|suffix| suffix.to_str()))?;
    if matches!(node.kind, Kind::Map(_)) {
        return Ok(node);
    }
    let message =
        format!("{} instead of a flow; expected keys such as `name`, `source` and `sink`", node.describe());
    Err(Mistake::new(node.at, "", message))
}

/// What a flow file says of itself, as it stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) name: String,
    /// When it runs again, if it does: `every 5m`.
    pub(crate) schedule: Option<String>,
}

/// What a flow file says of itself, nothing of it filled in or checked.
///
/// # Errors
/// It cannot be read, or has no name; names the place.
pub(crate) fn head_of(path: &Path) -> Result<Head, String> {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let told = |mistake: Mistake| mistake.in_file(&file, &Masks::default()).to_string();
    let root = read(path).map_err(told)?;
    let text = |key: &str| root.get(key).and_then(Node::text).map(str::to_owned);
    let zone = text("timezone").map(|zone| format!(" ({zone})")).unwrap_or_default();
    let schedule = text("every").map(|every| format!("every {every}"));
    let schedule = schedule.or_else(|| text("cron").map(|cron| format!("cron {cron}{zone}")));
    let name = text("name").ok_or_else(|| told(Mistake::new(root.at, "name", "a flow needs a name")))?;
    Ok(Head { name, schedule })
}

fn parse(text: &str, suffix: Option<&str>) -> Result<Node, Mistake> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match suffix {
        Some("toml") => toml::parse(text),
        // JSON may be indented by tabs and YAML may not; within a JSON text a bare tab cannot stand.
        Some("json") => yaml::parse(&text.replace('\t', " ")),
        _ => yaml::parse(text),
    }
}

/// A whole file of at most so many bytes, or why not.
pub(crate) fn bounded(path: &Path, max_bytes: u64) -> Result<Vec<u8>, String> {
    let told = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "no such file".into(),
        io::ErrorKind::IsADirectory => "a folder; expected a file".into(),
        _ => format!("cannot be read: {error}"),
    };
    let file = File::open(path).map_err(told)?;
    let mut bytes = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(told)?;
    if bytes.len() as u64 > max_bytes {
        return Err(format!("more than {max_bytes} bytes; the limit is {max_bytes}"));
    }
    Ok(bytes)
}

fn not_utf8(bytes: &[u8], offset: usize) -> Mistake {
    let before = String::from_utf8_lossy(&bytes[..offset]);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let at = Span::new(before.matches('\n').count() + 1, before[line_start..].chars().count() + 1);
    let found = bytes.get(offset).copied().unwrap_or_default();
    Mistake::new(at, "", format!("the byte 0x{found:02x} is no UTF-8; save the file as UTF-8"))
}
