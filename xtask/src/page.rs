//! `cargo xtask page`: the page of `aqueduct serve` in a browser, as somebody uses it. Pictures of it lie in the target folder.

mod browser;
mod house;
mod http;
mod program;
mod story;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::text::{make_dir, say};
use crate::workspace::{PROFILE, Workspace};
use browser::Browser;
use house::House;
use program::Reaper;

/// What `page` is asked to do.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A binary that is built already; without it one is built
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// Tries the page.
///
/// # Errors
/// The binary or the browser does not start, or the page is not as it should be.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let binary = args.binary.clone().map_or_else(|| workspace.binary(PROFILE), Ok)?;
    check(workspace, &binary)
}

/// Tries the page of a binary.
///
/// # Errors
/// The browser is missing or does not start, or the page is not as it should be.
pub(crate) fn check(workspace: &Workspace, binary: &Path) -> Result<()> {
    let binary = binary.canonicalize().with_context(|| format!("{}: no such program", binary.display()))?;
    browser::install()?;
    let folder = workspace.target().join("page");
    make_dir(&folder)?;
    let reaper = Reaper::new()?;
    let house = House::open(&binary, &folder)?;
    let browser = Browser::start(&folder)?;
    let told = story::tell(&browser, &house);
    drop((browser, house, reaper));
    say(format_args!("pictures and logs: {}", folder.display()));
    told
}
