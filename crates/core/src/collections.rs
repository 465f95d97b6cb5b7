//! What the files of an output tell of the STAC collections in them, and the documents that follow from it: of each
//! collection where and when its items are, and which files hold them (STAC 1.1.0, Collection specification).

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A file of items tells of so many collections, at most: few enough to be held for each of a thousand files that are open,
/// and for what lists a hundred thousand files to stay small.
pub const MAX_COLLECTIONS: usize = 16;
/// A collection with a longer id is not told of.
pub const MAX_ID_BYTES: usize = 256;
/// A document names so many files one by one, at most.
const MAX_ASSETS: usize = 1000;
/// Of a STAC document.
const STAC_VERSION: &str = "1.1.0";
const PARQUET: &str = "application/vnd.apache.parquet";
/// Where no item has a place.
const WORLD: [f64; 4] = [-180.0, -90.0, 180.0, 90.0];

/// The name of the document of the only collection.
pub const COLLECTION: &str = "collection.json";
/// The name of the document of several.
pub const COLLECTIONS: &str = "collections.json";

/// Where and when the items of some rows are, by collection. Items of none are not told of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extents {
    /// By the collection's id.
    pub collections: BTreeMap<String, Extent>,
    /// Whether there were more than [`MAX_COLLECTIONS`], or one whose id is not known or longer than [`MAX_ID_BYTES`]: then
    /// none is told of.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_more: bool,
}

/// Where and when items are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Extent {
    /// How many.
    pub items: u64,
    /// West, south, east, north, in degrees and finite; of items across the antimeridian the whole way round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bbox: Option<[f64; 4]>,
    /// The first instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<DateTime<Utc>>,
    /// The last instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<DateTime<Utc>>,
}

// Its numbers are finite.
impl Eq for Extent {}

impl Extent {
    /// Of both.
    pub fn merge(&mut self, other: &Self) {
        self.items += other.items;
        self.bbox = match (self.bbox, other.bbox) {
            (Some(a), Some(b)) => Some([a[0].min(b[0]), a[1].min(b[1]), a[2].max(b[2]), a[3].max(b[3])]),
            (a, b) => a.or(b),
        };
        self.from = [self.from, other.from].into_iter().flatten().min();
        self.to = self.to.max(other.to);
    }

    fn json(&self) -> Value {
        let instant =
            |at: Option<DateTime<Utc>>| at.map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true));
        json!({
            "spatial": {"bbox": [self.bbox.unwrap_or(WORLD)]},
            "temporal": {"interval": [[instant(self.from), instant(self.to)]]},
        })
    }
}

impl Extents {
    /// Adds items of a collection.
    pub fn add(&mut self, collection: &str, extent: &Extent) {
        if self.has_more {
            return;
        }
        if let Some(there) = self.collections.get_mut(collection) {
            there.merge(extent);
        } else if self.collections.len() < MAX_COLLECTIONS && collection.len() <= MAX_ID_BYTES {
            self.collections.insert(collection.to_owned(), extent.clone());
        } else {
            self.give_up();
        }
    }

    /// Tells of none: there is an item whose collection is not known.
    pub fn give_up(&mut self) {
        *self = Self { has_more: true, ..Self::default() };
    }

    /// About what it takes in memory.
    pub fn n_bytes(&self) -> usize {
        self.collections.keys().map(|id| id.len() + size_of::<(String, Extent)>()).sum()
    }
}

/// A file of an output, as far as documents of collections tell of it.
#[derive(Clone, Copy, Debug)]
pub struct FileOfItems<'a> {
    /// Its name, with `/` between folders.
    pub name: &'a str,
    /// How many rows.
    pub rows: u64,
    /// What it tells.
    pub extents: Option<&'a Extents>,
}

/// The documents of an output of these files, by name: [`COLLECTION`], or [`COLLECTIONS`] of several. None, if some of its
/// files do not tell what is in them. They are to stand in a folder beside the files, whose names are relative to the folder
/// above.
pub fn documents(files: &[FileOfItems<'_>]) -> Option<(&'static str, Vec<u8>)> {
    let mut of_all: BTreeMap<&str, (Extent, BTreeSet<&str>)> = BTreeMap::new();
    for file in files.iter().filter(|file| file.rows > 0) {
        let extents = file.extents.filter(|extents| !extents.has_more)?;
        for (id, extent) in &extents.collections {
            let (whole, names) = of_all.entry(id).or_default();
            whole.merge(extent);
            names.insert(file.name);
        }
    }
    let mut all: Vec<_> = of_all.iter().map(|(id, (extent, files))| document(id, extent, files)).collect();
    let (name, document) = match all.len() {
        0 => return None,
        1 => (COLLECTION, all.remove(0)),
        _ => (COLLECTIONS, json!({"collections": all, "links": []})),
    };
    Some((name, format!("{document:#}\n").into_bytes()))
}

fn document(id: &str, extent: &Extent, files: &BTreeSet<&str>) -> Value {
    let items = if extent.items == 1 { "item" } else { "items" };
    json!({
        "type": "Collection", "stac_version": STAC_VERSION, "stac_extensions": [], "id": id,
        "description": format!("{} {items} of the collection `{id}`, as GeoParquet", extent.items),
        "license": "other", "extent": extent.json(), "links": [], "assets": assets(files),
    })
}

fn assets(files: &BTreeSet<&str>) -> Value {
    let asset = |href: String| json!({"href": href, "type": PARQUET, "roles": ["data", "collection-mirror"]});
    match files.first() {
        Some(only) if files.len() == 1 => json!({"data": asset(href(only))}),
        _ if files.len() > MAX_ASSETS => json!({"data": asset("../".into())}),
        _ => files
            .iter()
            .map(|name| ((*name).to_owned(), asset(href(name))))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

/// A name as a reference from a folder beside it. Names of folders are percent-encoded already, and so is that.
fn href(name: &str) -> String {
    let codes = [('%', "%25"), ('?', "%3F"), ('#', "%23"), (' ', "%20")];
    let encoded =
        codes.iter().fold(name.to_owned(), |name, (character, code)| name.replace(*character, code));
    format!("../{encoded}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(n: u64, bbox: [f64; 4], days: [i64; 2]) -> Extent {
        let [from, to] = days.map(|day| DateTime::from_timestamp(day * 86_400, 0));
        Extent { items: n, bbox: Some(bbox), from, to }
    }

    fn of(all: &[(&str, Extent)]) -> Extents {
        let mut extents = Extents::default();
        all.iter().for_each(|(id, extent)| extents.add(id, extent));
        extents
    }

    #[test]
    fn one_collection_is_a_document_of_all_its_files() {
        let (a, b) = (
            of(&[("c", extent(2, [1.0, 2.0, 3.0, 4.0], [0, 1]))]),
            of(&[("c", extent(1, [-1.0, 3.0, 2.0, 9.0], [1, 2]))]),
        );
        let files = [
            FileOfItems { name: "d=100%25/a.parquet", rows: 2, extents: Some(&a) },
            FileOfItems { name: "b.parquet", rows: 1, extents: Some(&b) },
            FileOfItems { name: "empty.parquet", rows: 0, extents: None },
        ];
        let (name, text) = documents(&files).unwrap();
        let told: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!((name, &told["id"], &told["type"]), (COLLECTION, &json!("c"), &json!("Collection")));
        assert_eq!(told["extent"]["spatial"]["bbox"], json!([[-1.0, 2.0, 3.0, 9.0]]));
        assert_eq!(
            told["extent"]["temporal"]["interval"],
            json!([["1970-01-01T00:00:00Z", "1970-01-03T00:00:00Z"]])
        );
        assert_eq!(told["assets"]["d=100%25/a.parquet"]["href"], "../d=100%2525/a.parquet");
        assert_eq!(told["assets"].as_object().unwrap().len(), 2);
    }

    #[test]
    fn several_are_a_list_and_what_is_not_known_whole_is_not_told() {
        let both = of(&[("c", Extent { items: 1, ..Extent::default() }), ("d", Extent::default())]);
        let file = FileOfItems { name: "a.parquet", rows: 2, extents: Some(&both) };
        let (name, text) = documents(&[file]).unwrap();
        let told: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!((name, told["collections"].as_array().unwrap().len()), (COLLECTIONS, 2));
        assert_eq!(told["collections"][0]["extent"]["temporal"]["interval"], json!([[null, null]]));
        assert!(documents(&[file, FileOfItems { extents: None, ..file }]).is_none());
        let mut many = Extents::default();
        (0..=MAX_COLLECTIONS).for_each(|n| many.add(&n.to_string(), &Extent::default()));
        assert!(documents(&[FileOfItems { extents: Some(&many), ..file }]).is_none());
        assert!(documents(&[]).is_none());
    }

    // What lists the files of an output holds this of each: it must stay small, whatever the items say.
    #[test]
    fn what_a_file_tells_is_small_however_many_collections_there_are_and_however_long_their_ids() {
        let small = r#"{"collections":{},"has_more":true}"#;
        let (mut many, mut long) = (Extents::default(), of(&[("c", Extent::default())]));
        (0..1000).for_each(|n| many.add(&n.to_string(), &Extent::default()));
        long.add(&"l".repeat(MAX_ID_BYTES + 1), &Extent::default());
        long.add("d", &Extent::default());
        for extents in [many, long] {
            assert_eq!(serde_json::to_string(&extents).unwrap(), small);
            assert_eq!(extents.n_bytes(), 0);
        }
        let mut most = Extents::default();
        let id = |n: usize| format!("{n:0>MAX_ID_BYTES$}");
        (0..MAX_COLLECTIONS).for_each(|n| most.add(&id(n), &extent(1, [-179.123_456_789; 4], [0, 1])));
        assert!(!most.has_more && serde_json::to_vec(&most).unwrap().len() < 10_000);
    }
}
