//! Items of STAC as NDJSON, of the shape that catalogues of satellite scenes have: the same bytes for the same seed, made
//! in constant memory but for eight bytes a scene.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::events::{DAY_MILLIS, Fixed, Random, Timestamp, pick};
use super::input::made;

/// Changes when the items do, so that older files are not taken for them.
const VERSION: u32 = 1;

/// Of so many items one is a newer version of an earlier one.
const ONE_UPDATED_OF: u64 = 20;

/// Of so many scenes one has a title, or a span of time in the place of an instant.
const ONE_TITLED_OF: u64 = 7;
const ONE_SPAN_OF: u64 = 11;

/// Scenes are taken within so many days, in no order.
const N_DAYS: u64 = 88;

/// A cover of 100 %, in the unit that covers are counted in.
const FULL_COVER: u64 = 1_000_000;

/// Latitudes of the north, eight degrees each, and the letters that squares have.
const LATITUDE_BANDS: &[&str] = &["N", "P", "Q", "R", "S", "T", "U", "V", "W", "X"];
const SQUARE_LETTERS: &[&str] = &["A", "B", "C", "D", "E", "F", "G", "H", "J", "K"];

/// The assets: key, name, wavelength in micrometres and metres a pixel.
const BANDS: &[(&str, &str, &str, u64)] = &[
    ("B02", "blue", "0.49", 10),
    ("B03", "green", "0.56", 10),
    ("B04", "red", "0.665", 10),
    ("B08", "nir", "0.842", 10),
    ("B11", "swir16", "1.61", 20),
    ("B12", "swir22", "2.19", 20),
];

/// The edge of a scene in metres.
const EDGE_METRES: u64 = 109_800;

const HEAD: &str = concat!(
    r#"{"type":"Feature","stac_version":"1.0.0","stac_extensions":["#,
    r#""https://stac-extensions.github.io/eo/v1.1.0/schema.json","#,
    r#""https://stac-extensions.github.io/projection/v1.1.0/schema.json","#,
    r#""https://stac-extensions.github.io/view/v1.0.0/schema.json"]"#
);
const GEOTIFF: &str = "image/tiff; application=geotiff; profile=cloud-optimized";
const COLLECTION: &str = "https://stac.example/collections/scenes";

/// A file of items.
#[derive(Clone, Debug)]
pub(super) struct Items {
    /// Where it lies.
    pub(super) path: PathBuf,
    /// What all of its items amount to.
    pub(super) all: Sums,
    /// What the newest version of each scene does.
    pub(super) newest: Sums,
}

/// What items amount to, whoever has read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sums {
    /// How many there are.
    pub(super) n_rows: u64,
    /// The sum of their `eo:cloud_cover`, in ten-thousandths of a percent.
    pub(super) cover: u64,
}

impl Sums {
    fn add(&mut self, cover: u64) {
        self.n_rows += 1;
        self.cover += cover;
    }
}

impl Items {
    /// The file of so many items, made if it is not there.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn of_number(folder: &Path, n_items: u64) -> Result<Self> {
        let path = folder.join(format!("stac-v{VERSION}-{n_items}.ndjson"));
        let (all, newest) = made(&path, &format!("{n_items} items"), |out| write_items(out, n_items))?;
        Ok(Self { path, all, newest })
    }
}

/// What all items amount to, and what the newest of each scene do.
fn write_items(mut out: impl Write, n_items: u64) -> Result<(Sums, Sums)> {
    let mut random = Random(0x57ac);
    let mut line = Vec::with_capacity(8 * 1024);
    let mut all = Sums::default();
    let mut covers: Vec<u64> = Vec::new();
    for seq in 0..n_items {
        let n_scenes = covers.len() as u64;
        let is_update = n_scenes > 0 && random.below(ONE_UPDATED_OF) == 0;
        let number = if is_update { random.below(n_scenes) } else { n_scenes };
        let cover = random.below(FULL_COVER + 1);
        line.clear();
        write_item(&mut line, &Scene::new(number), seq, cover)?;
        out.write_all(&line)?;
        all.add(cover);
        match covers.get_mut(usize::try_from(number)?) {
            Some(older) => *older = cover,
            None => covers.push(cover),
        }
    }
    out.flush()?;
    let mut newest = Sums::default();
    covers.iter().for_each(|cover| newest.add(*cover));
    Ok((all, newest))
}

/// What all versions of an item have in common.
struct Scene {
    number: u64,
    /// For what needs to be different, no more.
    any: u64,
    taken_millis: u64,
    zone: u64,
    latitude_band: &'static str,
    square: String,
    /// The south-west corner in thousandths of a degree.
    west: u64,
    south: u64,
    id: String,
    /// Where its assets are.
    folder: String,
}

impl Scene {
    fn new(number: u64) -> Self {
        let mut random = Random(number);
        let any = random.next();
        let taken_millis = random.below(N_DAYS * DAY_MILLIS);
        let (column, row) = (random.below(30), random.below(LATITUDE_BANDS.len() as u64));
        let (zone, latitude_band) = (31 + column, pick(LATITUDE_BANDS, row));
        let square = [0; 2].map(|_| pick(SQUARE_LETTERS, random.next())).concat();
        let day = taken_millis / DAY_MILLIS;
        let id = format!("S2{}_{zone}{latitude_band}{square}_2026{day:04}_{number:09}_L2A", satellite(any));
        Self {
            number,
            any,
            taken_millis,
            zone,
            latitude_band,
            west: 6000 * column + random.below(4900),
            south: 8000 * row + random.below(7000),
            folder: format!(
                "https://data.example/sentinel-2-l2a/{zone}/{latitude_band}/{square}/2026/{day}/{id}"
            ),
            square,
            id,
        }
    }
}

fn satellite(any: u64) -> &'static str {
    pick(&["A", "B"], any)
}

fn write_item(out: &mut Vec<u8>, scene: &Scene, seq: u64, cover: u64) -> io::Result<()> {
    write!(out, r#"{HEAD},"id":"{}","collection":"scenes""#, scene.id)?;
    write_place(out, scene)?;
    write_times(out, scene, seq)?;
    write_properties(out, scene, cover)?;
    write_assets(out, scene)?;
    write_links(out, scene)
}

fn write_place(out: &mut Vec<u8>, scene: &Scene) -> io::Result<()> {
    let degrees = |thousandths| Fixed(thousandths / 1000, thousandths % 1000, 3);
    let (west, south) = (degrees(scene.west), degrees(scene.south));
    let (east, north) = (degrees(scene.west + 1100), degrees(scene.south + 980));
    write!(out, r#","bbox":[{west},{south},{east},{north}],"geometry":{{"type":"Polygon","coordinates":[["#)?;
    write!(out, "[{west},{south}],[{east},{south}],[{east},{north}],[{west},{north}],[{west},{south}]]]}}")
}

/// Begins the properties.
fn write_times(out: &mut Vec<u8>, scene: &Scene, seq: u64) -> io::Result<()> {
    let taken = Timestamp(scene.taken_millis);
    let updated = Timestamp(scene.taken_millis + DAY_MILLIS + seq);
    match scene.any % ONE_SPAN_OF {
        0 => {
            let end = Timestamp(scene.taken_millis + 30_000);
            write!(
                out,
                r#","properties":{{"datetime":null,"start_datetime":"{taken}","end_datetime":"{end}""#
            )?;
        }
        _ => write!(out, r#","properties":{{"datetime":"{taken}""#)?,
    }
    write!(out, r#","created":"{taken}","updated":"{updated}""#)
}

fn write_properties(out: &mut Vec<u8>, scene: &Scene, cover: u64) -> io::Result<()> {
    let Scene { number, any, zone, latitude_band, square, .. } = scene;
    let platform = satellite(*any).to_lowercase();
    write!(out, r#","platform":"sentinel-2{platform}","constellation":"sentinel-2","instruments":["msi"]"#)?;
    write!(out, r#","gsd":10,"eo:cloud_cover":{}"#, Fixed(cover / 10_000, cover % 10_000, 4))?;
    write!(out, r#","view:sun_azimuth":{}"#, Fixed(any % 360, any % 100, 2))?;
    write!(out, r#","view:sun_elevation":{}"#, Fixed(any % 90, any % 100, 2))?;
    write!(out, r#","mgrs:utm_zone":{zone},"mgrs:latitude_band":"{latitude_band}""#)?;
    write!(out, r#","mgrs:grid_square":"{square}","proj:epsg":{}"#, 32_600 + zone)?;
    write!(out, r#","s2:nodata_pixel_percentage":{}"#, Fixed(any % 97, any % 100, 2))?;
    write!(out, r#","s2:processing_baseline":"05.{:02}""#, any % 10)?;
    write!(out, r#","grid:code":"MGRS-{zone}{latitude_band}{square}""#)?;
    if any % ONE_TITLED_OF == 0 {
        write!(out, r#","title":"Scène №{} – Ørsta / 東京""#, number % 1000)?;
    }
    write!(out, "}}")
}

fn write_assets(out: &mut Vec<u8>, scene: &Scene) -> io::Result<()> {
    let Scene { folder, any, .. } = scene;
    let west = 300_000 + any % 80 * 100;
    write!(out, r#","assets":{{"#)?;
    for (key, name, wavelength, metres) in BANDS {
        let n_pixels = EDGE_METRES / metres;
        write!(out, r#""{key}":{{"href":"{folder}/{key}.tif","type":"{GEOTIFF}","title":"{name} ({key})""#)?;
        write!(out, r#","roles":["data","reflectance"],"gsd":{metres},"eo:bands":[{{"name":"{key}""#)?;
        write!(out, r#","common_name":"{name}","center_wavelength":{wavelength}}}]"#)?;
        write!(out, r#","proj:shape":[{n_pixels},{n_pixels}]"#)?;
        write!(out, r#","proj:transform":[{metres},0,{west},0,-{metres},4900020]}},"#)?;
    }
    write!(
        out,
        r#""thumbnail":{{"href":"{folder}/preview.jpg","type":"image/jpeg","roles":["thumbnail"]}}}}"#
    )
}

fn write_links(out: &mut Vec<u8>, scene: &Scene) -> io::Result<()> {
    write!(out, r#","links":[{{"rel":"self","type":"application/geo+json""#)?;
    write!(out, r#","href":"{COLLECTION}/items/{}"}}"#, scene.id)?;
    write!(out, r#",{{"rel":"collection","type":"application/json","href":"{COLLECTION}"}}"#)?;
    writeln!(out, r#",{{"rel":"root","type":"application/json","href":"https://stac.example/"}}]}}"#)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::Value;

    use super::*;

    fn sums<'a>(items: impl Iterator<Item = &'a Value>) -> Sums {
        let mut sums = Sums::default();
        items.for_each(|item| {
            let cover = item["properties"]["eo:cloud_cover"].as_f64().unwrap() * 10_000.0;
            sums.add(format!("{cover:.0}").parse().unwrap());
        });
        sums
    }

    #[test]
    fn items_amount_to_what_is_told_and_an_update_is_newer() {
        let mut text = Vec::new();
        let told = write_items(&mut text, 300).unwrap();
        let text = String::from_utf8(text).unwrap();
        let items: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let mut newest = HashMap::new();
        for item in &items {
            let updated = |item: &Value| item["properties"]["updated"].as_str().unwrap().to_owned();
            let older: Option<&Value> = newest.insert(item["id"].as_str().unwrap(), item);
            assert!(older.is_none_or(|older| updated(older) < updated(item)), "{item}");
        }
        assert_eq!(told, (sums(items.iter()), sums(newest.values().copied())));
        assert!((270..300).contains(&told.1.n_rows), "{told:?}");
    }

    #[test]
    fn some_items_have_a_title_and_some_a_span_of_time() {
        let mut text = Vec::new();
        write_items(&mut text, 300).unwrap();
        let text = String::from_utf8(text).unwrap();
        let count = |what: &str| text.lines().filter(|line| line.contains(what)).count();
        let (n_titled, n_spans) = (count(r#""title":"Scène"#), count("start_datetime"));
        assert!((20..80).contains(&n_titled) && (10..60).contains(&n_spans), "{n_titled} {n_spans}");
        assert_eq!(count(r#""datetime":null"#), n_spans);
        assert!((3500..4200).contains(&(text.len() / 300)), "{} bytes", text.len());
    }
}
