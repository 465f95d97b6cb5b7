//! What `${NAME}` stands for: `--set`, then the matrix, then `vars`, then `secrets`, then the environment.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::flow::masks::is_secret_name;
use crate::flow::node::Node;
use crate::flow::secrets::Secrets;
use crate::flow::settings::{RunIdentity, Settings};
use crate::flow::substitute::fill_text;

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// From the command line or the matrix: it tells runs of one flow apart.
    Given,
    Environment,
    Vars,
    Secret,
    BuiltIn,
}

/// A variable's value and where it came from, or why there is none.
type Found = Result<(String, Origin), String>;

/// The variables of a flow, for one entry of its matrix.
pub(crate) struct Values<'f> {
    settings: &'f Settings,
    run: &'f RunIdentity,
    entry: &'f [(String, String)],
    vars: Option<&'f Node>,
    secrets: &'f Secrets<'f>,
    /// What was looked up so far: each variable is made once, so that variables of variables cost no more.
    found: RefCell<HashMap<String, Found>>,
    /// The variables that are being made now: one that needs itself never ends.
    making: RefCell<Vec<String>>,
    /// Bytes of text filled in so far.
    n_bytes: Cell<usize>,
}

/// Text filled in for `${NAME}` in one flow. Variables of variables could double it at every step.
const MAX_FILLED_BYTES: usize = 8 << 20;

impl<'f> Values<'f> {
    pub(crate) fn new(
        settings: &'f Settings,
        secrets: &'f Secrets<'f>,
        entry: &'f [(String, String)],
        file: &'f Node,
    ) -> Self {
        Self {
            settings,
            run: &settings.run,
            entry,
            vars: file.get("vars"),
            secrets,
            found: RefCell::default(),
            making: RefCell::default(),
            n_bytes: Cell::new(0),
        }
    }

    /// The same, with what the built-in variables say of another run.
    pub(crate) fn of_run(self, run: &'f RunIdentity) -> Self {
        Self { run, ..self }
    }

    /// The value of a variable; `None` if nobody gives one.
    ///
    /// # Errors
    /// It stands for itself, or its secret cannot be read.
    pub(crate) fn get(&self, name: &str) -> Result<Option<String>, String> {
        if let Some(found) = self.found.borrow().get(name) {
            return found.clone().map(|(value, _)| Some(value));
        }
        if self.making.borrow().iter().any(|one| one == name) {
            return Err(format!("`${{{name}}}` stands for itself"));
        }
        self.making.borrow_mut().push(name.into());
        let made = self.make(name);
        self.making.borrow_mut().pop();
        let kept = match made {
            Ok(None) => return Ok(None),
            Ok(Some(found)) => Ok(found),
            Err(message) => Err(message),
        };
        self.found.borrow_mut().insert(name.into(), kept.clone());
        kept.map(|(value, _)| Some(value))
    }

    fn make(&self, name: &str) -> Result<Option<(String, Origin)>, String> {
        let set = self.settings.set.iter().rev().chain(self.entry).find(|(key, _)| key == name);
        if let Some((_, value)) = set {
            return Ok(Some((value.clone(), Origin::Given)));
        }
        if let Some(var) = self.vars.and_then(|vars| vars.get(name)) {
            let Some(text) = var.scalar_text() else {
                return Err(format!("`vars.{name}` is {}; expected one value", var.describe()));
            };
            return fill_text(&text, self).map(|text| Some((text, Origin::Vars)));
        }
        if let Some(value) = self.secrets.get(name)? {
            return Ok(Some((value, Origin::Secret)));
        }
        if let Some(value) = self.built_in(name) {
            return Ok(Some((value, Origin::BuiltIn)));
        }
        Ok(self.settings.env.get(name).map(|value| (value.clone(), Origin::Environment)))
    }

    fn built_in(&self, name: &str) -> Option<String> {
        let run = self.run;
        let day = |n_back| Some((run.started.date_naive() - chrono::Days::new(n_back)).to_string());
        match name {
            "run.id" => Some(run.id.clone()),
            "run.started" => Some(run.started.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)),
            "today" => day(0),
            "yesterday" => day(1),
            _ => None,
        }
    }

    /// Counts text that was filled in.
    ///
    /// # Errors
    /// It is too much.
    pub(crate) fn count(&self, n_bytes: usize) -> Result<(), String> {
        self.n_bytes.set(self.n_bytes.get().saturating_add(n_bytes));
        if self.n_bytes.get() <= MAX_FILLED_BYTES {
            return Ok(());
        }
        Err(format!(
            "more than {MAX_FILLED_BYTES} bytes filled in for `${{…}}`; the limit is {MAX_FILLED_BYTES}"
        ))
    }

    /// All names that could be meant, for the nearest to a missing one.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        let given = self.settings.set.iter().chain(self.entry).map(|(key, _)| key.as_str());
        let vars = self.vars.into_iter().flat_map(Node::entries).map(|entry| entry.key.as_str());
        given
            .chain(vars)
            .chain(self.secrets.names())
            .chain(["run.id", "run.started", "today", "yesterday"])
            .collect()
    }

    /// Whether a variable was looked up.
    pub(crate) fn is_used(&self, name: &str) -> bool {
        self.found.borrow().contains_key(name)
    }

    /// The values of the command line and the matrix that were used, by name.
    pub(crate) fn given(&self) -> BTreeMap<String, String> {
        let found = self.found.borrow();
        let given = found.iter().filter_map(|(name, value)| match value {
            Ok((value, Origin::Given)) => Some((name.clone(), value.clone())),
            _ => None,
        });
        given.collect()
    }

    /// The values that are secret, with whether they were declared so or are only called so.
    pub(crate) fn secrets(&self) -> Vec<(String, bool)> {
        let found = self.found.borrow();
        let secret = found.iter().filter_map(|(name, value)| match value {
            Ok((value, Origin::Secret)) => Some((value.clone(), true)),
            Ok((value, _)) if is_secret_name(name) => Some((value.clone(), false)),
            _ => None,
        });
        secret.collect()
    }
}
