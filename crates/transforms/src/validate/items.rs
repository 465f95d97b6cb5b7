//! STAC items against the schemas of their version and their extensions.

use std::collections::{BTreeMap, HashMap};

use aqueduct_core::{Context, Result};
use jsonschema::Validator;
use serde_json::Value;

use super::UnknownExtensions;
use super::fault::{Detail, Fault, Faults};
use super::shipped::{self, Shipped};

/// Extensions without a schema that are told one by one; all are counted.
const MAX_TOLD: usize = 100;

/// The schemas that items asked for so far, compiled: as many as there are in this binary at most.
pub(super) struct ItemSchemas {
    compiled: HashMap<&'static str, Validator>,
    unknown: UnknownExtensions,
    /// How many items name each extension whose schema is not there.
    n_items: BTreeMap<String, u64>,
    /// The same of those beyond [`MAX_TOLD`].
    n_items_of_others: u64,
}

impl ItemSchemas {
    pub(super) fn new(unknown: UnknownExtensions) -> Self {
        Self { compiled: HashMap::new(), unknown, n_items: BTreeMap::new(), n_items_of_others: 0 }
    }

    /// What is wrong with an item.
    ///
    /// # Errors
    /// A schema of this binary is none, which is a bug.
    pub(super) fn fault(&mut self, item: &Value, detail: Detail, cx: &Context) -> Result<Option<Fault>> {
        let mut faults = Faults::default();
        let Some(schema) = item["stac_version"].as_str().and_then(shipped::item_schema) else {
            faults.add(version_fault(&item["stac_version"]));
            return Ok(faults.told());
        };
        faults.look(self.compiled(schema)?, schema.url, item, detail);
        for url in item["stac_extensions"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            match shipped::extension_schema(url) {
                Some(schema) => faults.look(self.compiled(schema)?, schema.url, item, detail),
                None if self.unknown == UnknownExtensions::Fail => faults.add(extension_fault(url)),
                None => self.note(url, cx),
            }
        }
        Ok(faults.told())
    }

    fn compiled(&mut self, schema: &'static Shipped) -> Result<&Validator> {
        use std::collections::hash_map::Entry;
        match self.compiled.entry(schema.url) {
            Entry::Occupied(there) => Ok(there.into_mut()),
            Entry::Vacant(free) => Ok(free.insert(schema.compile()?)),
        }
    }

    fn note(&mut self, url: &str, cx: &Context) {
        if let Some(n_items) = self.n_items.get_mut(url) {
            *n_items += 1;
        } else if self.n_items.len() < MAX_TOLD {
            self.n_items.insert(url.to_owned(), 1);
            if self.unknown == UnknownExtensions::Warn {
                cx.warn(format!(
                    "items are not checked against `{url}`: its schema is not part of this program; \
                     `unknown_extensions: fail` rejects them"
                ));
            }
        } else {
            self.n_items_of_others += 1;
        }
    }

    /// Says how many items were not checked against all of their extensions.
    pub(super) fn finish(&self, cx: &Context) {
        for (url, n_items) in &self.n_items {
            tracing::info!(step = cx.step(), url, n_items, "no schema for this extension");
        }
        if self.n_items_of_others > 0 && self.unknown == UnknownExtensions::Warn {
            cx.warn(format!(
                "{} times, items named still other extensions whose schemas are not part of this program",
                self.n_items_of_others
            ));
        }
    }
}

fn version_fault(found: &Value) -> Fault {
    let there = shipped::versions().collect::<Vec<_>>().join(", ");
    let message = match found {
        Value::Null => format!("the version is missing; there are schemas of {there}"),
        found => format!("{found} is no version with a schema in this program; there are {there}"),
    };
    Fault { pointer: "/stac_version".into(), message }
}

fn extension_fault(url: &str) -> Fault {
    let message = format!("the schema of `{url}` is not part of this program");
    Fault { pointer: "/stac_extensions".into(), message }
}
