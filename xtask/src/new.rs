//! `cargo xtask new source|stage|sink NAME`: a component that compiles, and the two lines that make it known.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::text::{self, say};
use crate::workspace::Workspace;

/// What `new` is asked to do.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What it is
    #[arg(value_enum)]
    kind: Kind,
    /// What it is called in flow files: lower case, digits, underscores
    name: String,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Kind {
    /// Brings data in
    Source,
    /// Changes data on its way
    Stage,
    /// Takes data out
    Sink,
}

/// What stands for the name in a template.
const PLACEHOLDER: &str = "new_component";

/// Words that Rust keeps for itself and that a component might be called.
const RESERVED: &[&str] = &[
    "as", "async", "await", "box", "break", "const", "continue", "crate", "do", "dyn", "else", "enum",
    "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match",
    "mod", "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super",
    "trait", "true", "try", "type", "typeof", "union", "unsafe", "unsized", "use", "virtual", "where",
    "while", "yield",
];

impl Kind {
    fn folder(self) -> &'static str {
        match self {
            Self::Source => "crates/sources/src",
            Self::Stage => "crates/transforms/src",
            Self::Sink => "crates/sinks/src",
        }
    }

    fn template(self) -> &'static str {
        match self {
            Self::Source => include_str!("../templates/source.rs.txt"),
            Self::Stage => include_str!("../templates/stage.rs.txt"),
            Self::Sink => include_str!("../templates/sink.rs.txt"),
        }
    }

    /// Where the conformance suite of its room has the table of fixtures.
    fn fixtures(self) -> &'static str {
        match self {
            Self::Source => "crates/sources/tests/it/conformance.rs",
            Self::Stage => "crates/transforms/tests/it/conformance.rs",
            Self::Sink => "crates/sinks/tests/it/conformance.rs",
        }
    }

    /// The row of that table with which the template passes the suite: `tests/it/template.rs` of its room tries both.
    fn fixture(self) -> &'static str {
        match self {
            Self::Source => include_str!("../templates/source.fixture.txt"),
            Self::Stage => include_str!("../templates/stage.fixture.txt"),
            Self::Sink => include_str!("../templates/sink.fixture.txt"),
        }
    }

    /// How the modules of its room are declared.
    fn module(self) -> &'static str {
        match self {
            Self::Source | Self::Sink => "pub mod ",
            Self::Stage => "mod ",
        }
    }
}

/// Writes the component.
///
/// # Errors
/// The name cannot be used, is taken, or `lib.rs` is not as expected. Nothing is written then.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let name = check_name(&args.name)?;
    let folder = workspace.root().join(args.kind.folder());
    let (file, lib) = (folder.join(format!("{name}.rs")), folder.join("lib.rs"));
    check_free(&folder, name)?;
    let listed = insert(&text::read(&lib)?, args.kind.module(), name)
        .with_context(|| format!("{}: cannot be added to", lib.display()))?;
    text::write(&file, &args.kind.template().replace(PLACEHOLDER, name))?;
    text::write(&lib, &listed)?;
    say(format_args!("{} is written, with two lines in lib.rs; it compiles as it is", file.display()));
    say(format_args!(
        "next: this row in the table `fixtures` of {}; the suite fails without it:",
        args.kind.fixtures()
    ));
    say(row(args.kind, name));
    say("then: its options, its rows, its tests, and `cargo xtask docs`");
    Ok(())
}

/// The row as it stands in the table.
fn row(kind: Kind, name: &str) -> String {
    let lines = kind.fixture().replace(PLACEHOLDER, name);
    let indented: Vec<_> = lines.lines().map(|line| format!("        {line}")).collect();
    indented.join("\n") + ","
}

fn check_name(name: &str) -> Result<&str> {
    let is_start = name.starts_with(|letter: char| letter.is_ascii_lowercase());
    let is_word = name.chars().all(|letter| matches!(letter, 'a'..='z' | '0'..='9' | '_'));
    ensure!(is_start && is_word, "`{name}`: expected a lower-case letter, then such letters, digits and `_`");
    ensure!(!RESERVED.contains(&name), "`{name}` is a word of Rust; choose another name");
    Ok(name)
}

fn check_free(folder: &Path, name: &str) -> Result<()> {
    for taken in [folder.join(format!("{name}.rs")), folder.join(name)] {
        if taken.exists() {
            bail!("{} exists; choose another name", taken.display());
        }
    }
    Ok(())
}

/// A `lib.rs` with a module more: its `mod` in the order of the alphabet, its factory at the end of `ALL`.
fn insert(lib: &str, module: &str, name: &str) -> Result<String> {
    let mut lines: Vec<String> = lib.lines().map(str::to_owned).collect();
    let list =
        lines.iter().position(|line| line.starts_with("pub const ALL:")).context("no `pub const ALL:`")?;
    let end = lines.iter().skip(list).position(|line| line == "];").context("`ALL` has no end `];`")?;
    lines.insert(list + end, format!("    &{name}::FACTORY,"));
    lines.insert(place(&lines, name)?, format!("{module}{name};"));
    Ok(lines.join("\n") + "\n")
}

/// Before the first module of a later name, and before what is said of that module; else after the last.
fn place(lines: &[String], name: &str) -> Result<usize> {
    let modules: Vec<(usize, &str)> =
        lines.iter().enumerate().filter_map(|(at, line)| Some((at, module_name(line)?))).collect();
    let last = modules.last().context("no module there")?.0;
    let Some((mut at, _)) = modules.into_iter().find(|(_, other)| *other > name) else { return Ok(last + 1) };
    while at > 0 && lines.get(at - 1).is_some_and(|line| line.starts_with("#[") || line.starts_with("///")) {
        at -= 1;
    }
    Ok(at)
}

fn module_name(line: &str) -> Option<&str> {
    line.strip_prefix("pub mod ").or_else(|| line.strip_prefix("mod "))?.strip_suffix(';')
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIB: &str = "//! Stages.\n\nmod drop;\n#[cfg(feature = \"expr\")]\nmod filter;\nmod limit;\n\n\
                       pub const ALL: &[&dyn StageFactory] = &[\n    &drop::FACTORY,\n];\n";

    #[test]
    fn two_lines_make_a_component_known() {
        let lib = insert(LIB, "mod ", "explode").unwrap();
        let added = lib.lines().filter(|line| !LIB.contains(line)).collect::<Vec<_>>();
        assert_eq!(added, ["mod explode;", "    &explode::FACTORY,"]);
        assert!(lib.contains("mod drop;\nmod explode;\n#[cfg(feature = \"expr\")]\nmod filter;"), "{lib}");
        assert!(lib.contains("&drop::FACTORY,\n    &explode::FACTORY,\n];"), "{lib}");
    }

    #[test]
    fn the_last_name_goes_last() {
        let lib = insert(LIB, "pub mod ", "zip").unwrap();
        assert!(lib.contains("mod limit;\npub mod zip;\n\n"), "{lib}");
    }

    #[test]
    fn a_list_that_is_not_there_is_told() {
        assert_eq!(insert("mod a;\n", "mod ", "b").unwrap_err().to_string(), "no `pub const ALL:`");
    }

    #[test]
    fn the_rooms_of_this_house_can_be_added_to() {
        let root = Workspace::find().unwrap().root().to_path_buf();
        for kind in [Kind::Source, Kind::Stage, Kind::Sink] {
            let lib = text::read(&root.join(kind.folder()).join("lib.rs")).unwrap();
            let more = insert(&lib, kind.module(), "quite_new").unwrap();
            assert_eq!(more.lines().count(), lib.lines().count() + 2);
            assert!(kind.template().contains(&format!("name: \"{PLACEHOLDER}\"")));
        }
    }

    #[test]
    fn the_suites_have_the_tables_that_are_spoken_of() {
        let root = Workspace::find().unwrap().root().to_path_buf();
        for kind in [Kind::Source, Kind::Stage, Kind::Sink] {
            let suite = text::read(&root.join(kind.fixtures())).unwrap();
            assert!(suite.contains("fn fixtures() -> Vec<Fixture> {"), "{}", kind.fixtures());
            let row = row(kind, "feed");
            assert!(row.contains("\"feed\"") && row.starts_with("        ") && row.ends_with(','), "{row}");
        }
    }

    #[test]
    fn names_that_rust_or_the_flow_could_not_use_are_refused() {
        assert!(check_name("feed_2").is_ok());
        for name in ["", "Feed", "2feed", "a-b", "_a", "type"] {
            assert!(check_name(name).is_err(), "{name}");
        }
        let folder = Workspace::find().unwrap().root().join(Kind::Sink.folder());
        assert!(check_free(&folder, "lib").is_err());
    }
}
