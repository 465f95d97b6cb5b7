//! `${NAME}`, `${NAME:-default}` and `$${` in the strings of a flow file, after parsing: no value can change the
//! file's shape.

use crate::flow::error::{Mistake, did_you_mean};
use crate::flow::node::{Kind, Node};
use crate::flow::scalar;
use crate::flow::values::Values;

/// Fills in every string below a node. A scalar that is only one `${…}` is typed as YAML types its text.
pub(crate) fn fill(node: &mut Node, path: &str, values: &Values<'_>, mistakes: &mut Vec<Mistake>) {
    match &mut node.kind {
        Kind::List(items) => {
            for (n, item) in items.iter_mut().enumerate() {
                fill(item, &join(path, &n.to_string()), values, mistakes);
            }
        }
        Kind::Map(entries) => {
            for entry in entries {
                fill(&mut entry.value, &join(path, &entry.key), values, mistakes);
            }
        }
        Kind::Text(text) if text.contains('$') => match fill_text(text, values) {
            Ok(filled) => {
                let is_whole = matches!(pieces(text).as_slice(), [Piece::Variable { .. }]);
                node.kind = if is_whole { scalar::typed(&filled) } else { Kind::Text(filled.clone()) };
                node.filled_from = Some(filled);
            }
            Err(message) => mistakes.push(Mistake::new(node.at, path, message)),
        },
        _ => {}
    }
}

/// A path with one more part.
pub(crate) fn join(path: &str, part: &str) -> String {
    if path.is_empty() { part.into() } else { format!("{path}.{part}") }
}

/// A text with its variables filled in.
///
/// # Errors
/// A variable is missing and has no default, or cannot be made, or the text grows too long.
pub(crate) fn fill_text(text: &str, values: &Values<'_>) -> Result<String, String> {
    let mut filled = String::new();
    for piece in pieces(text) {
        match piece {
            Piece::Literal(literal) => filled.push_str(literal),
            Piece::Variable { name, default } => {
                let value = match (values.get(name)?, default) {
                    (Some(value), _) => value,
                    (None, Some(default)) => default.into(),
                    (None, None) => return Err(missing(name, values)),
                };
                values.count(value.len())?;
                filled.push_str(&value);
            }
        }
    }
    Ok(filled)
}

fn missing(name: &str, values: &Values<'_>) -> String {
    format!(
        "nobody gives `{name}` a value; expected --set {name}=…, a matrix, `vars`, `secrets` or the environment, or a \
         default: ${{{name}:-…}}{}",
        did_you_mean(name, values.names())
    )
}

/// The variables that a text names.
pub(crate) fn variables(text: &str) -> impl Iterator<Item = &str> {
    pieces(text).into_iter().filter_map(|piece| match piece {
        Piece::Variable { name, .. } => Some(name),
        Piece::Literal(_) => None,
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Piece<'t> {
    Literal(&'t str),
    Variable { name: &'t str, default: Option<&'t str> },
}

/// Cuts a text into literals and variables. What only looks like a variable, `${}` or `${a b}`, is a literal.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut done, mut at) = (0, 0);
    while let Some(found) = text[at..].find("${").map(|n| at + n) {
        if text[..found].ends_with('$') && found > done {
            // `$${` is `${`: the literal goes on behind the first of the two dollars.
            pieces.push(Piece::Literal(&text[done..found - 1]));
            done = found;
            at = found + 2;
            continue;
        }
        match variable(&text[found + 2..]) {
            Some((piece, n_bytes)) => {
                pieces.push(Piece::Literal(&text[done..found]));
                pieces.push(piece);
                done = found + 2 + n_bytes;
                at = done;
            }
            None => at = found + 2,
        }
    }
    pieces.push(Piece::Literal(&text[done..]));
    pieces.retain(|piece| *piece != Piece::Literal(""));
    pieces
}

/// The variable behind a `${`, and the bytes up to and with its `}`.
fn variable(text: &str) -> Option<(Piece<'_>, usize)> {
    let end = text.find('}')?;
    let (name, default) = match text[..end].split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (&text[..end], None),
    };
    let is_name =
        !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
    is_name.then_some((Piece::Variable { name, default }, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::secrets::Secrets;
    use crate::flow::settings::Settings;
    use crate::flow::yaml;
    use proptest::prelude::*;
    use std::path::Path;

    fn filled(file: &str, set: &[(&str, &str)]) -> Result<Node, Vec<Mistake>> {
        let mut root = yaml::parse(file).unwrap();
        let settings = Settings {
            set: set.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            ..Settings::default()
        };
        let before = root.clone();
        let secrets = Secrets::of(&before, &settings, Path::new(""));
        let values = Values::new(&settings, &secrets, &[], &before);
        let mut mistakes = Vec::new();
        fill(&mut root, "", &values, &mut mistakes);
        if mistakes.is_empty() { Ok(root) } else { Err(mistakes) }
    }

    #[test]
    fn whole_scalars_are_typed_and_others_are_text() {
        let root =
            filled("{a: '${n}', b: 'x${n}', c: '${none:-yes}', d: '$${n}', e: '${n:-2}${n}'}", &[("n", "7")])
                .unwrap();
        assert_eq!(
            root.to_json(),
            serde_json::json!({"a": 7, "b": "x7", "c": "yes", "d": "${n}", "e": "77"})
        );
    }

    #[test]
    fn variables_of_variables_are_filled_in_and_circles_are_told() {
        let root = filled("{vars: {a: '${b}!', b: hi}, x: '${a}'}", &[]).unwrap();
        assert_eq!(root.get("x").unwrap().text(), Some("hi!"));
        let circle = filled("{vars: {a: '${b}', b: '${a}'}, x: '${a}'}", &[]).unwrap_err();
        assert!(circle[0].message.contains("stands for itself"), "{circle:?}");
    }

    #[test]
    fn doubling_variables_are_stopped() {
        let mut file = String::from("vars:\n  v0: xxxxxxxxxxxxxxxx\n");
        for n in 1..40 {
            file.push_str(&format!("  v{n}: '${{v{}}}${{v{}}}'\n", n - 1, n - 1));
        }
        let mistakes = filled(&format!("{file}x: '${{v39}}'\n"), &[]).unwrap_err();
        assert!(mistakes[0].message.contains("the limit is"), "{}", mistakes[0].message);
    }

    #[test]
    fn a_missing_one_is_told_with_key_and_line() {
        let mistakes = filled("a: 1\nb:\n  c: 'x ${landd}'\nvars: {land: FR}\n", &[]).unwrap_err();
        assert_eq!((mistakes[0].at.line, mistakes[0].path.as_str()), (3, "b.c"));
        assert!(
            mistakes[0].message.contains("landd") && mistakes[0].message.contains("did you mean `land`?")
        );
    }

    proptest! {
        #[test]
        fn escaped_text_stays_what_it_is(text in "[a$ {}:-]{0,40}") {
            let settings = Settings::default();
            let file = yaml::parse("{}").unwrap();
            let secrets = Secrets::of(&file, &settings, Path::new(""));
            let values = Values::new(&settings, &secrets, &[], &file);
            let escaped = text.replace("${", "$${");
            prop_assert_eq!(fill_text(&escaped, &values).unwrap(), text);
        }
    }
}
