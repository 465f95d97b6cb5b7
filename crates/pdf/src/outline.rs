//! Bookmarks (ISO 32000-2, 12.3.3) and where they lead (12.3.2).

use std::collections::{HashMap, HashSet};

use hayro_syntax::Pdf;
use hayro_syntax::object::{Array, Dict, Name, Object, ObjectIdentifier, String as PdfString};

use crate::strings::text_of;

/// A document whose outermost level has more bookmarks is cut by page numbers.
const MAX_BOOKMARKS: usize = 10_000;
/// Nodes of a tree of names at most that a look-up passes.
const MAX_NAME_NODES: usize = 100_000;

/// A bookmark that leads to a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bookmark {
    /// Its title, as it stands there; may be empty.
    pub title: String,
    /// The page, from 0.
    pub page: usize,
}

/// The bookmarks of the outermost level that lead to a page.
pub(crate) fn bookmarks(pdf: &Pdf, pages: &HashMap<ObjectIdentifier, usize>) -> Vec<Bookmark> {
    let xref = pdf.xref();
    let Some(catalog) = xref.get::<Dict<'_>>(xref.root_id()) else { return Vec::new() };
    let Some(outlines) = catalog.get::<Dict<'_>>(b"Outlines") else { return Vec::new() };
    let places = Places { catalog, pages };
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut next = outlines.get_ref(b"First");
    while let Some(at) = next.filter(|at| seen.insert(*at) && seen.len() <= MAX_BOOKMARKS) {
        let Some(item) = xref.get::<Dict<'_>>(at.into()) else { break };
        if let Some(page) = places.page_of_item(&item) {
            let title = item.get::<PdfString<'_>>(b"Title").map(|title| text_of(title.as_bytes()));
            found.push(Bookmark { title: title.unwrap_or_default(), page });
        }
        next = item.get_ref(b"Next");
    }
    found
}

/// Finds the pages that destinations name.
struct Places<'a, 'p> {
    catalog: Dict<'a>,
    pages: &'p HashMap<ObjectIdentifier, usize>,
}

impl<'a> Places<'a, '_> {
    /// By its destination, else by its action.
    fn page_of_item(&self, item: &Dict<'a>) -> Option<usize> {
        let of_action = || {
            let action = item.get::<Dict<'_>>(b"A")?;
            (action.get::<Name<'_>>(b"S")?.as_ref() == b"GoTo").then(|| action.get::<Object<'_>>(b"D"))?
        };
        self.page_of(item.get::<Object<'_>>(b"Dest").or_else(of_action)?)
    }

    fn page_of(&self, destination: Object<'a>) -> Option<usize> {
        match destination {
            Object::Array(array) => self.page_of_array(&array),
            Object::Name(name) => self.named(name.as_ref()),
            Object::String(name) => self.named(name.as_bytes()),
            _ => None,
        }
    }

    fn page_of_array(&self, array: &Array<'a>) -> Option<usize> {
        let first = array.raw_iter().next()?;
        match first.as_obj_ref() {
            Some(page) => self.pages.get(&page.into()).copied(),
            // Some writers give the page's number, which is for other documents.
            None => usize::try_from(array.iter::<i32>().next()?).ok().filter(|page| *page < self.pages.len()),
        }
    }

    /// A destination with a name: in a dictionary, or in a tree.
    fn named(&self, name: &[u8]) -> Option<usize> {
        let in_dict = || self.catalog.get::<Dict<'_>>(b"Dests")?.get::<Object<'_>>(name);
        let in_tree = || in_tree(self.catalog.get::<Dict<'_>>(b"Names")?.get::<Dict<'_>>(b"Dests")?, name);
        match in_dict().or_else(in_tree)? {
            Object::Array(array) => self.page_of_array(&array),
            Object::Dict(dict) => self.page_of_array(&dict.get::<Array<'_>>(b"D")?),
            _ => None,
        }
    }
}

/// Looks a name up in a tree (7.9.6), whatever its limits say.
fn in_tree<'a>(root: Dict<'a>, name: &[u8]) -> Option<Object<'a>> {
    let mut nodes = vec![root];
    let mut n_nodes = 0;
    while let Some(node) = nodes.pop().filter(|_| n_nodes < MAX_NAME_NODES) {
        n_nodes += 1;
        if let Some(kids) = node.get::<Array<'_>>(b"Kids") {
            nodes.extend(kids.iter::<Dict<'_>>().take(MAX_NAME_NODES).filter(|kid| may_hold(kid, name)));
        }
        let Some(names) = node.get::<Array<'_>>(b"Names") else { continue };
        let mut entries = names.iter::<Object<'_>>();
        while let (Some(key), Some(value)) = (entries.next(), entries.next()) {
            if matches!(&key, Object::String(key) if key.as_bytes() == name) {
                return Some(value);
            }
        }
    }
    None
}

fn may_hold(node: &Dict<'_>, name: &[u8]) -> bool {
    let Some(limits) = node.get::<Array<'_>>(b"Limits") else { return true };
    let mut limits = limits.iter::<PdfString<'_>>();
    match (limits.next(), limits.next()) {
        (Some(least), Some(greatest)) => least.as_bytes() <= name && name <= greatest.as_bytes(),
        _ => true,
    }
}
