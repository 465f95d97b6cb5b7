//! The values of `secrets:`: read when a run needs them, never shown. Messages have a secret's name only.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::flow::node::Node;
use crate::flow::read::bounded;

/// A secret is a token, a key or a certificate; more than this is a wrong file.
const MAX_SECRET_BYTES: u64 = 64 << 10;

/// The value of one entry of `secrets:`, whose shape is checked already.
///
/// # Errors
/// It cannot be read, or is empty, or holds a line break, which no header can.
pub(crate) fn read(
    name: &str,
    from: &Node,
    base_dir: &Path,
    env: &HashMap<String, String>,
) -> Result<String, String> {
    let raw = raw(from, base_dir, env).map_err(|message| format!("the secret `{name}`: {message}"))?;
    let value = raw.strip_suffix('\n').map_or(raw.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if value.is_empty() {
        return Err(format!("the secret `{name}` is empty"));
    }
    if value.contains(['\n', '\r', '\0']) {
        return Err(format!("the secret `{name}` has more than one line; expected one"));
    }
    Ok(value.to_owned())
}

fn raw(from: &Node, base_dir: &Path, env: &HashMap<String, String>) -> Result<String, String> {
    if let Some(variable) = from.get("env").and_then(Node::text) {
        return env.get(variable).cloned().ok_or_else(|| format!("the environment has no `{variable}`"));
    }
    if let Some(path) = from.get("file").and_then(Node::text) {
        let bytes = bounded(&base_dir.join(path), MAX_SECRET_BYTES)
            .map_err(|message| format!("{path}: {message}"))?;
        return String::from_utf8(bytes).map_err(|_| format!("{path}: no UTF-8"));
    }
    let words: Vec<&str> =
        from.get("command").map(Node::items).unwrap_or_default().iter().filter_map(Node::text).collect();
    match words.split_first() {
        Some((program, arguments)) => run(program, arguments),
        None => Err("expected one of env, file, command".into()),
    }
}

/// What a program prints. Started without a shell; its complaints go where ours go.
fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("`{program}` cannot be started: {error}"))?;
    let mut bytes = Vec::new();
    let read = match child.stdout.take() {
        Some(output) => output.take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes),
        None => Ok(0),
    };
    if bytes.len() as u64 > MAX_SECRET_BYTES {
        // It may still be writing; what it has to say is too long anyway, so how it ends does not matter.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| format!("`{program}`: {error}"))?;
    read.map_err(|error| format!("`{program}`: {error}"))?;
    if bytes.len() as u64 > MAX_SECRET_BYTES {
        return Err(format!(
            "`{program}` printed more than {MAX_SECRET_BYTES} bytes; the limit is {MAX_SECRET_BYTES}"
        ));
    }
    if !status.success() {
        return Err(format!("`{program}` failed: {status}"));
    }
    String::from_utf8(bytes).map_err(|_| format!("`{program}` printed no UTF-8"))
}
