//! A browser without a window, driven as a user would: W3C WebDriver, <https://www.w3.org/TR/webdriver2/>, and of Chromium's
//! own commands those that change how large and how dark its window is.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::http;
use super::program::{LOOK_EVERY, Program};
use crate::process::{answers, check, command};
use crate::text::say;

/// What a Debian machine calls them, and the programs in them.
const PACKAGES: [(&str, &str); 2] = [("chromium", "chromium"), ("chromium-driver", "chromedriver")];

/// It goes nowhere but to the machine's own servers, and keeps to itself.
const FLAGS: [&str; 12] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-breakpad",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-port=0",
];

/// How long something may take to appear.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// How a page is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub(super) name: &'static str,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) is_dark: bool,
}

/// A browser with one window.
#[derive(Debug)]
pub(super) struct Browser {
    /// Of the driver.
    port: u16,
    session: String,
    screenshots: PathBuf,
    /// What the window asked the network for so far.
    requests: RefCell<Vec<String>>,
    // In this order they end.
    _driver: Program,
    _chromium: Program,
    _profile: tempfile::TempDir,
}

/// Installs the browser where it is missing.
///
/// # Errors
/// It cannot be installed.
pub(super) fn install() -> Result<()> {
    let is_there = |program: &str| answers(command(program, Path::new("/")).arg("--version"));
    let missing: Vec<_> =
        PACKAGES.iter().filter(|(_, program)| !is_there(program)).map(|(package, _)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    say(format_args!("installing {names}"));
    let mut install = command("apt-get", Path::new("/"));
    install.env("DEBIAN_FRONTEND", "noninteractive");
    install.args(["install", "--yes", "--no-install-recommends"]).args(&missing);
    let installed = check(command("apt-get", Path::new("/")).args(["update", "--quiet"]))
        .and_then(|()| check(&mut install));
    installed.with_context(|| {
        format!("the page is tried in a browser: install the Debian packages {names} (as root: apt-get install {names})")
    })
}

impl Browser {
    /// A browser with an empty window. Its log and pictures go into a folder.
    ///
    /// # Errors
    /// It does not start.
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let profile = tempfile::tempdir().context("no folder for the browser's profile")?;
        let mut chromium = Command::new("chromium");
        chromium.args(FLAGS).arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        let mut chromium = Program::start(&chromium, &folder.join("chromium.log"))?;
        let debugger = chromium.port_after("DevTools listening on ws://127.0.0.1:")?;
        let mut driver = Command::new("chromedriver");
        driver.arg("--port=0");
        let mut driver = Program::start(&driver, &folder.join("chromedriver.log"))?;
        let port = driver.port_after("started successfully on port ")?;
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "debuggerAddress": format!("127.0.0.1:{debugger}") },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        } } });
        let answer = http::ask(port, "POST", "/session", Some(&wanted))?;
        let session =
            answer["value"]["sessionId"].as_str().context("the driver names no session")?.to_owned();
        let screenshots = folder.to_path_buf();
        let requests = RefCell::default();
        Ok(Self {
            port,
            session,
            screenshots,
            requests,
            _driver: driver,
            _chromium: chromium,
            _profile: profile,
        })
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut answer = http::ask(self.port, method, &format!("/session/{}/{path}", self.session), body)?;
        Ok(answer["value"].take())
    }

    fn developer(&self, name: &str, parameters: &Value) -> Result<()> {
        let body = json!({ "cmd": name, "params": parameters });
        self.ask("POST", "goog/cdp/execute", Some(&body)).map(drop)
    }

    /// Goes to an address.
    ///
    /// # Errors
    /// The browser does not get there.
    pub(super) fn open(&self, url: &str) -> Result<()> {
        self.ask("POST", "url", Some(&json!({ "url": url }))).map(drop)
    }

    /// What a JavaScript expression is on the page.
    ///
    /// # Errors
    /// It throws.
    pub(super) fn value(&self, expression: &str) -> Result<Value> {
        let body = json!({ "script": format!("return ({expression});"), "args": [] });
        self.ask("POST", "execute/sync", Some(&body)).with_context(|| format!("`{expression}`"))
    }

    /// What the page shows of an element, empty where there is none.
    ///
    /// # Errors
    /// The browser fails.
    pub(super) fn text(&self, selector: &str) -> Result<String> {
        let shown = self.value(&format!("document.querySelector({})?.innerText ?? ''", json!(selector)))?;
        Ok(shown.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until an expression is true.
    ///
    /// # Errors
    /// It does not become so; the error has the page's text.
    pub(super) fn until(&self, what: &str, expression: &str) -> Result<()> {
        let started = Instant::now();
        while self.value(expression)? != Value::Bool(true) {
            if started.elapsed() > MAX_WAIT {
                self.picture("trouble")?;
                let console = self.log("browser")?;
                bail!(
                    "within {MAX_WAIT:?} not seen: {what} (`{expression}`); the console has {console:?}; the page shows: {}",
                    self.text("body")?
                );
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Waits until an element shows a text.
    ///
    /// # Errors
    /// It does not come to.
    pub(super) fn shows(&self, selector: &str, text: &str) -> Result<()> {
        let (selector, what) = (json!(selector), format!("`{text}` in `{selector}`"));
        let expression =
            format!("document.querySelector({selector})?.innerText.includes({}) ?? false", json!(text));
        self.until(&what, &expression)
    }

    /// Clicks on the middle of an element, as a mouse does: what is covered, hidden or disabled cannot be.
    ///
    /// # Errors
    /// It is not there, or cannot be clicked.
    pub(super) fn click(&self, selector: &str) -> Result<()> {
        let enabled = format!("document.querySelector({})?.disabled === false", json!(selector));
        self.until(&format!("something to click, `{selector}`"), &enabled)?;
        self.click_any(selector)
    }

    /// As [`click`](Self::click), what is no button.
    ///
    /// # Errors
    /// It is not there, or cannot be clicked.
    pub(super) fn click_any(&self, selector: &str) -> Result<()> {
        let element = self.element(selector)?;
        self.ask("POST", &format!("element/{element}/click"), Some(&json!({}))).map(drop)
    }

    /// Empties a field and types into it.
    ///
    /// # Errors
    /// It is not there, or takes no text.
    pub(super) fn fill(&self, selector: &str, text: &str) -> Result<()> {
        let element = self.element(selector)?;
        self.ask("POST", &format!("element/{element}/clear"), Some(&json!({})))?;
        // The driver empties without the event that a key is.
        let selector = json!(selector);
        self.value(&format!(
            "document.querySelector({selector}).dispatchEvent(new Event('input', {{ bubbles: true }}))"
        ))?;
        self.ask("POST", &format!("element/{element}/value"), Some(&json!({ "text": text }))).map(drop)
    }

    fn element(&self, selector: &str) -> Result<String> {
        let body = json!({ "using": "css selector", "value": selector });
        let found = self.ask("POST", "element", Some(&body))?;
        let id = found.as_object().and_then(|object| object.values().next()?.as_str());
        Ok(id.with_context(|| format!("`{selector}` is nothing that the driver knows"))?.to_owned())
    }

    /// Has the window another size and other colours.
    ///
    /// # Errors
    /// The browser refuses.
    pub(super) fn look(&self, view: View) -> Result<()> {
        let View { width, height, is_dark, .. } = view;
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.developer("Emulation.setDeviceMetricsOverride", &size)?;
        let scheme = if is_dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.developer("Emulation.setEmulatedMedia", &media)
    }

    /// Keeps a picture of the window.
    ///
    /// # Errors
    /// It cannot be taken or written.
    pub(super) fn picture(&self, name: &str) -> Result<()> {
        let taken = self.ask("GET", "screenshot", None)?;
        let bytes = BASE64_STANDARD
            .decode(taken.as_str().unwrap_or_default())
            .context("a picture that is no base64")?;
        let path = self.screenshots.join(format!("{name}.png"));
        std::fs::write(&path, bytes).with_context(|| format!("{}: cannot be written", path.display()))
    }

    /// That nothing was asked of others than the server at this address, and that the console has no error.
    ///
    /// # Errors
    /// There was, or it has.
    pub(super) fn was_quiet(&self, origin: &str) -> Result<()> {
        self.take_requests()?;
        let requests = self.requests.borrow();
        ensure!(!requests.is_empty(), "the browser tells of no request at all");
        let foreign: Vec<_> = requests.iter().filter(|url| is_foreign(url, origin)).collect();
        ensure!(foreign.is_empty(), "the page asked others than its server: {foreign:?}");
        let told = self.log("browser")?;
        let errors: Vec<_> = told.iter().filter(|entry| entry["level"] == "SEVERE").collect();
        ensure!(errors.is_empty(), "the console has errors: {errors:?}");
        Ok(())
    }

    /// The driver keeps what the window did until it is asked.
    fn take_requests(&self) -> Result<()> {
        for entry in self.log("performance")? {
            let event: Value = serde_json::from_str(entry["message"].as_str().unwrap_or_default())?;
            if event["message"]["method"] == "Network.requestWillBeSent" {
                let url = event["message"]["params"]["request"]["url"].as_str().unwrap_or_default();
                self.requests.borrow_mut().push(url.to_owned());
            }
        }
        Ok(())
    }

    fn log(&self, kind: &str) -> Result<Vec<Value>> {
        let entries = self.ask("POST", "se/log", Some(&json!({ "type": kind })))?;
        Ok(entries.as_array().cloned().unwrap_or_default())
    }
}

fn is_foreign(url: &str, origin: &str) -> bool {
    !url.strip_prefix(origin).is_some_and(|rest| rest.starts_with('/')) && !url.starts_with("data:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_host_or_port_is_foreign() {
        let origin = "http://127.0.0.1:87";
        assert!(!is_foreign("http://127.0.0.1:87/runs", origin));
        assert!(
            ["http://127.0.0.1:8787/", "https://example.org/x.js"].iter().all(|url| is_foreign(url, origin))
        );
    }
}
