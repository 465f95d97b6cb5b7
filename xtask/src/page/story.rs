//! What somebody does with the page, and sees there.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::browser::{Browser, View};
use super::house::{HOSTILE, House, N_BAD_ROWS, N_RUNS, N_SHORT_ROWS, NEEDLE};
use super::http;

/// As many runs as the page lists at once.
const PAGE: usize = 25;

const DESK: View = View { name: "desk", width: 1280, height: 900, is_dark: false };

/// Each way to look at it; in each of them nothing may stand beyond the edge.
const VIEWS: [View; 4] = [
    DESK,
    View { name: "desk-dark", is_dark: true, ..DESK },
    View { name: "phone", width: 360, height: 740, is_dark: false },
    View { name: "phone-dark", width: 360, height: 740, is_dark: true },
];

/// What is looked at in one go.
type Chapter = fn(&Browser, &House) -> Result<()>;

/// All of it.
///
/// # Errors
/// Something is not as it should be.
pub(super) fn tell(browser: &Browser, house: &House) -> Result<()> {
    browser.look(DESK)?;
    browser.open(&house.origin())?;
    let chapters: [(&str, Chapter); 9] = [
        ("flows are listed", flows_are_listed),
        ("all runs are listed, page by page", runs_are_paged),
        ("a run is found", runs_are_found),
        ("a flow is started", a_flow_is_started),
        ("rejected rows have reasons", rejects_are_shown),
        ("clients of a stream are counted", clients_are_counted),
        ("a run is watched", a_run_is_watched),
        ("it looks well", it_looks_well),
        ("a run is cancelled", a_run_is_cancelled),
    ];
    for (name, chapter) in chapters {
        chapter(browser, house).context(name)?;
        browser.until("no trouble told", "document.querySelector('#trouble').hidden").context(name)?;
    }
    browser.was_quiet(&house.origin())
}

/// The one that is broken with what is wrong, the one with an evil name as text.
fn flows_are_listed(browser: &Browser, _: &House) -> Result<()> {
    for text in ["short", "endless", "live", "bad", "nightly", "broken.yaml", HOSTILE] {
        browser.shows("#flows", text)?;
    }
    browser.shows("#summary", "0 running, 0 waiting")?;
    browser.until(
        "the error of the broken file",
        "[...document.querySelectorAll('#flows li')].some((flow) => flow.innerText.includes('broken.yaml') \
         && flow.querySelector('.error-text')?.innerText.length > 10 && !flow.querySelector('button'))",
    )?;
    browser.fill("#flow-search", "night")?;
    browser.until("one flow", "document.querySelectorAll('#flows li').length === 1")?;
    browser.shows("#flows", "15 6 1 1 *")?;
    browser.fill("#flow-search", "")?;
    browser.shows("#flows", "short")
}

fn runs_are_paged(browser: &Browser, _: &House) -> Result<()> {
    let mut seen = BTreeSet::new();
    for n in 0..N_RUNS / PAGE {
        browser.shows("#page-place", &format!("{} to {} of 1,000", n * PAGE + 1, (n + 1) * PAGE))?;
        let rows =
            browser.value("[...document.querySelectorAll('#run-rows tr')].map((row) => row.dataset.run)")?;
        seen.extend(
            rows.as_array().into_iter().flatten().map(|id| id.as_str().unwrap_or_default().to_owned()),
        );
        if n + 1 < N_RUNS / PAGE {
            browser.click("#older")?;
        }
    }
    ensure!(seen.len() == N_RUNS, "{} runs were listed, expected {N_RUNS}", seen.len());
    ensure!(
        browser.value("document.querySelector('#older').disabled")? == json!(true),
        "there are older ones still"
    );
    browser.click("#newer")?;
    browser.shows("#page-place", "951 to 975 of 1,000")
}

fn runs_are_found(browser: &Browser, _: &House) -> Result<()> {
    browser.fill("#search", NEEDLE)?;
    browser.shows("#page-place", "1 to 1 of 1")?;
    browser.shows("#run-rows", NEEDLE)?;
    browser.fill("#search", "nothing is called so")?;
    browser.shows("#page-place", "none")?;
    browser.fill("#search", "short")?;
    browser.shows("#page-place", "1 to 25 of 999")
}

/// Starts a flow by the dialog, and waits until its run is shown.
fn start(browser: &Browser, flow: &str) -> Result<()> {
    browser.click(&format!("button[aria-label='Start {flow}']"))?;
    browser.shows("#start-title", &format!("Start {flow}"))?;
    browser.click("#start-form button.main")?;
    browser.shows("#run-title", flow)
}

/// Waits until the run that is shown is at this state, in its own part and in the list.
fn stands_at(browser: &Browser, status: &str) -> Result<()> {
    browser.shows("#run-line .state", status)?;
    browser.fill("#search", "")?;
    browser.shows("#run-rows tr[aria-current] .state", status)
}

fn a_flow_is_started(browser: &Browser, _: &House) -> Result<()> {
    start(browser, "short")?;
    stands_at(browser, "done")?;
    ensure!(N_SHORT_ROWS == 20_000, "the number below is another");
    browser.shows("#run-rows tr[aria-current]", "20,000")?;
    browser.shows("#outputs", "20,000")?;
    browser.shows("#outputs", "short.ndjson")?;
    browser.shows("#steps tr:last-child", "20,000")?;
    browser.click_any("#report-part summary")?;
    browser.shows("#report", "\"rows_out\": 20000")?;
    browser.picture("done")
}

fn rejects_are_shown(browser: &Browser, _: &House) -> Result<()> {
    start(browser, "bad")?;
    stands_at(browser, "done")?;
    browser.shows("#rejected tr .number", &N_BAD_ROWS.to_string())?;
    let reason = browser.text("#rejected tr td")?;
    ensure!(reason.len() > 2, "the reason is `{reason}`");
    browser.picture("rejected")?;
    let hostile = browser.value("window.hostile === undefined && !document.querySelector('img')")?;
    ensure!(hostile == json!(true), "a name became a part of the page");
    Ok(())
}

fn clients_are_counted(browser: &Browser, house: &House) -> Result<()> {
    start(browser, "live")?;
    browser.shows("#run-line .state", "running")?;
    let client = http::listen(house.port, "/streams/live")?;
    let shown = "document.querySelector('#streams tr td:nth-child(2)')?.innerText";
    browser.until("one client", &format!("{shown} === '1'"))?;
    browser.picture("streams")?;
    drop(client);
    browser.until("no client", &format!("{shown} === '0'"))?;
    cancel(browser)
}

/// Each plot has a shape for each step with some points, within its frame.
fn a_run_is_watched(browser: &Browser, _: &House) -> Result<()> {
    start(browser, "endless")?;
    stands_at(browser, "running")?;
    for (plot, shape) in [("rate", "polyline"), ("memory", "polygon"), ("queue", "polyline")] {
        let shapes = format!("[...document.querySelectorAll('#{plot}-plot {shape}')]");
        browser.until(
            &format!("the plot of {plot}"),
            &format!("{shapes}.length >= 2 && {shapes}.every((one) => one.points.length >= 4)"),
        )?;
    }
    let drawn = "[...document.querySelectorAll('#rate-plot [points]')]\
                 .some((one) => one.getBBox().height > 3 && one.getBBox().width > 3)";
    browser.until("a rate that is more than a flat line", drawn)?;
    browser.until("rows a second", "/^[1-9].*\\/s$/.test(document.querySelector('#rate-now').innerText)")?;
    browser.shows("#memory-now", " of ")?;
    browser.until(
        "rows of the source",
        "parseInt(document.querySelector('#steps td.number + td').innerText) > 0",
    )
}

fn it_looks_well(browser: &Browser, _: &House) -> Result<()> {
    for view in VIEWS {
        let name = view.name;
        browser.look(view)?;
        browser.until(
            &format!("{name}: all within the width of the window"),
            &format!("innerWidth === {} && document.documentElement.scrollWidth <= innerWidth", view.width),
        )?;
        let (text, back) = (brightness(browser, "color")?, brightness(browser, "backgroundColor")?);
        ensure!((text > back) == view.is_dark, "{name}: text of brightness {text} on {back}");
        ensure!(text.abs_diff(back) > 120, "{name}: text of brightness {text} can hardly be read on {back}");
        browser.picture(name)?;
        browser.value("document.querySelector('#run').scrollIntoView()")?;
        browser.picture(&format!("{name}-run"))?;
        browser.value("scrollTo(0, 0)")?;
    }
    browser.look(DESK)
}

/// From 0, black, to 255.
fn brightness(browser: &Browser, property: &str) -> Result<u64> {
    let sum = "getComputedStyle(document.body).PROPERTY.match(/\\d+/g).slice(0, 3).reduce((sum, one) => sum + Number(one), 0)";
    let sum = browser.value(&sum.replace("PROPERTY", property))?;
    Ok(sum.as_u64().context("a colour without numbers")? / 3)
}

fn a_run_is_cancelled(browser: &Browser, _: &House) -> Result<()> {
    cancel(browser)?;
    browser.shows("#summary", "0 running, 0 waiting")?;
    browser.picture("cancelled")
}

fn cancel(browser: &Browser) -> Result<()> {
    browser.click("#cancel")?;
    stands_at(browser, "interrupted")?;
    browser.until("no button to cancel it", "document.querySelector('#cancel').hidden")
}
