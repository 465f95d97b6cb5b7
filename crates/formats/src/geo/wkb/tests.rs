use super::*;
use proptest::prelude::*;
use proptest::{collection, option};

/// x, y, z, m.
type Ordinates = [f64; 4];

#[derive(Clone, Debug)]
enum Shape {
    Point(Option<Ordinates>),
    Line(Vec<Ordinates>),
    Polygon(Vec<Vec<Ordinates>>),
    /// Of shapes that are all of one kind: 1, 2 or 3.
    Multi(u32, Vec<Shape>),
    Collection(Vec<Shape>),
}

/// How a shape is written.
#[derive(Clone, Copy, Debug)]
struct Dialect {
    is_ewkb: bool,
    has_z: bool,
    has_m: bool,
    has_reference_system: bool,
    is_little: bool,
}

const ISO: Dialect =
    Dialect { is_ewkb: false, has_z: false, has_m: false, has_reference_system: false, is_little: true };

impl Dialect {
    fn number(self, number: u32, out: &mut Vec<u8>) {
        out.extend(if self.is_little { number.to_le_bytes() } else { number.to_be_bytes() });
    }

    fn count<T>(self, items: &[T], out: &mut Vec<u8>) {
        self.number(u32::try_from(items.len()).unwrap(), out);
    }

    fn position(self, [x, y, z, m]: Ordinates, out: &mut Vec<u8>) {
        let more = [(self.has_z, z), (self.has_m, m)].into_iter().filter_map(|(has, at)| has.then_some(at));
        for ordinate in [x, y].into_iter().chain(more) {
            out.extend(if self.is_little { ordinate.to_le_bytes() } else { ordinate.to_be_bytes() });
        }
    }

    fn line(self, positions: &[Ordinates], out: &mut Vec<u8>) {
        self.count(positions, out);
        positions.iter().for_each(|at| self.position(*at, out));
    }

    fn head(self, code: u32, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_little));
        let (z, m) = (u32::from(self.has_z), u32::from(self.has_m));
        if !self.is_ewkb {
            return self.number(code + 1000 * z + 2000 * m, out);
        }
        let system = u32::from(self.has_reference_system) * EWKB_REFERENCE_SYSTEM;
        self.number(code + z * EWKB_Z + m * EWKB_M + system, out);
        if self.has_reference_system {
            self.number(4326, out);
        }
    }

    fn shape(self, shape: &Shape, out: &mut Vec<u8>) {
        self.head(shape.code(), out);
        match shape {
            Shape::Point(at) => self.position(at.unwrap_or([f64::NAN; 4]), out),
            Shape::Line(positions) => self.line(positions, out),
            Shape::Polygon(rings) => {
                self.count(rings, out);
                rings.iter().for_each(|ring| self.line(ring, out));
            }
            Shape::Multi(_, parts) | Shape::Collection(parts) => {
                self.count(parts, out);
                // The byte order turns from one level to the next; the reference system stands at the top alone.
                let inner = Self { is_little: !self.is_little, has_reference_system: false, ..self };
                parts.iter().for_each(|part| inner.shape(part, out));
            }
        }
    }

    fn wkb(self, shape: &Shape) -> Vec<u8> {
        let mut out = Vec::new();
        self.shape(shape, &mut out);
        out
    }
}

impl Shape {
    fn code(&self) -> u32 {
        match self {
            Self::Point(_) => 1,
            Self::Line(_) => 2,
            Self::Polygon(_) => 3,
            Self::Multi(of, _) => 3 + of,
            Self::Collection(_) => 7,
        }
    }

    fn name(&self) -> &'static str {
        let names = ["Point", "LineString", "Polygon", "MultiPoint", "MultiLineString", "MultiPolygon"];
        names.get(self.code() as usize - 1).copied().unwrap_or("GeometryCollection")
    }

    fn positions(&self) -> Vec<Ordinates> {
        match self {
            Self::Point(at) => at.iter().copied().collect(),
            Self::Line(positions) => positions.clone(),
            Self::Polygon(rings) => rings.concat(),
            Self::Multi(_, parts) | Self::Collection(parts) => {
                parts.iter().flat_map(Self::positions).collect()
            }
        }
    }

    fn bbox(&self, has_z: bool) -> Option<Vec<f64>> {
        let positions = self.positions();
        let axes = if has_z { 0..3 } else { 0..2 };
        let fold = |axis: usize, pick: fn(f64, f64) -> f64| positions.iter().map(|at| at[axis]).reduce(pick);
        let least: Option<Vec<f64>> = axes.clone().map(|axis| fold(axis, f64::min)).collect();
        let greatest: Option<Vec<f64>> = axes.map(|axis| fold(axis, f64::max)).collect();
        Some([least?, greatest?].concat())
    }

    fn coordinates(&self, has_z: bool) -> Value {
        let position = |at: &Ordinates| if has_z { json!(at[..3]) } else { json!(at[..2]) };
        let line = |positions: &Vec<Ordinates>| positions.iter().map(position).collect::<Value>();
        match self {
            Self::Point(at) => at.as_ref().map_or_else(|| json!([]), position),
            Self::Line(positions) => line(positions),
            Self::Polygon(rings) => rings.iter().map(line).collect(),
            Self::Multi(_, parts) => parts.iter().map(|part| part.coordinates(has_z)).collect(),
            Self::Collection(parts) => parts.iter().map(|part| part.geojson(has_z)).collect(),
        }
    }

    fn geojson(&self, has_z: bool) -> Value {
        let member = if matches!(self, Self::Collection(_)) { "geometries" } else { "coordinates" };
        json!({"type": self.name(), member: self.coordinates(has_z)})
    }
}

fn positions() -> impl Strategy<Value = Vec<Ordinates>> {
    collection::vec(prop::array::uniform4(-200.0..200.0), 0..5)
}

fn shapes() -> impl Strategy<Value = Shape> {
    let point = || option::of(prop::array::uniform4(-200.0..200.0)).prop_map(Shape::Point);
    let line = || positions().prop_map(Shape::Line);
    let polygon = || collection::vec(positions(), 0..3).prop_map(Shape::Polygon);
    let leaf = prop_oneof![
        point(),
        line(),
        polygon(),
        collection::vec(point(), 0..4).prop_map(|parts| Shape::Multi(1, parts)),
        collection::vec(line(), 0..4).prop_map(|parts| Shape::Multi(2, parts)),
        collection::vec(polygon(), 0..4).prop_map(|parts| Shape::Multi(3, parts)),
    ];
    leaf.prop_recursive(4, 20, 4, |inner| collection::vec(inner, 0..4).prop_map(Shape::Collection))
}

fn dialects() -> impl Strategy<Value = Dialect> {
    any::<[bool; 5]>().prop_map(|[is_ewkb, has_z, has_m, has_reference_system, is_little]| Dialect {
        is_ewkb,
        has_z,
        has_m,
        has_reference_system,
        is_little,
    })
}

proptest! {
    #[test]
    fn what_was_written_is_read(shape in shapes(), dialect in dialects()) {
        let wkb = dialect.wkb(&shape);
        let found = summary(&wkb).unwrap();
        let suffix = if dialect.has_z { " Z" } else { "" };
        prop_assert_eq!(found.geometry_type, format!("{}{suffix}", shape.name()));
        prop_assert_eq!((found.has_z, found.has_m), (dialect.has_z, dialect.has_m));
        prop_assert_eq!(found.bounds.map(Bounds::bbox), shape.bbox(dialect.has_z));
        prop_assert_eq!(to_geojson(&wkb).unwrap(), shape.geojson(dialect.has_z));
    }

    #[test]
    fn what_is_cut_or_goes_on_is_none(shape in shapes(), dialect in dialects(), more in any::<u8>()) {
        let mut wkb = dialect.wkb(&shape);
        for n_bytes in 0..wkb.len() {
            prop_assert!(summary(&wkb[..n_bytes]).is_err());
        }
        let n_bytes = wkb.len();
        wkb.push(more);
        prop_assert_eq!(summary(&wkb).unwrap_err().at_byte, n_bytes);
    }

    #[test]
    fn nothing_panics(
        shape in shapes(),
        dialect in dialects(),
        changes in collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut wkb = dialect.wkb(&shape);
        for (at, byte) in changes {
            let at = at.index(wkb.len());
            wkb[at] = byte;
        }
        if let Ok(found) = summary(&wkb) {
            // JSON says no less than the summary, except of numbers that it does not have.
            let geojson = to_geojson(&wkb);
            prop_assert!(geojson.is_err() || found.geometry_type.starts_with(geojson.unwrap()["type"].as_str().unwrap()));
        } else {
            prop_assert!(to_geojson(&wkb).is_err());
        }
    }
}

#[test]
fn what_is_no_wkb_says_why_and_where() {
    let told = |wkb: &[u8]| summary(wkb).unwrap_err().to_string();
    assert_eq!(told(b""), "no WKB: the bytes end too soon at byte 0");
    assert_eq!(told(b"POINT(1 2)"), "no WKB: the byte order is neither 0 nor 1 at byte 1");
    assert_eq!(told(&[1, 8, 0, 0, 0]), "no WKB: the type is none of the seven at byte 5");
    let mixed = Shape::Multi(1, vec![Shape::Line(Vec::new())]);
    assert_eq!(told(&ISO.wkb(&mixed)), "no WKB: a part is of another type than the whole at byte 18");
}

#[test]
fn counts_are_held_against_the_bytes_there_are() {
    for code in 2..8_u32 {
        let wkb =
            [vec![1], code.to_le_bytes().to_vec(), u32::MAX.to_le_bytes().to_vec(), vec![0; 64]].concat();
        let error = summary(&wkb).unwrap_err();
        assert_eq!(
            (error.reason, error.at_byte),
            ("more parts or points are counted than there are bytes for", 9)
        );
        assert_eq!(to_geojson(&wkb).unwrap_err(), error);
    }
}

#[test]
fn nesting_has_an_end() {
    let nested = |depth: usize| {
        let innermost = Shape::Collection(Vec::new());
        (1..depth).fold(innermost, |inner, _| Shape::Collection(vec![inner]))
    };
    assert!(summary(&ISO.wkb(&nested(MAX_DEPTH))).is_ok());
    let error = to_geojson(&ISO.wkb(&nested(MAX_DEPTH + 1))).unwrap_err();
    assert!(error.reason.contains(&MAX_DEPTH.to_string()), "{error}");
    assert!(summary(&ISO.wkb(&nested(1))[..5].repeat(100_000)).is_err());
}

#[test]
fn nan_is_nowhere_and_no_json() {
    let line = ISO.wkb(&Shape::Line(vec![[f64::NAN, 1.0, 0.0, 0.0], [3.0, 4.0, 0.0, 0.0]]));
    assert_eq!(summary(&line).unwrap().bounds.map(Bounds::bbox), Some(vec![3.0, 4.0, 3.0, 4.0]));
    assert_eq!(to_geojson(&line).unwrap_err().reason, "an ordinate is not finite");
    let with_z = Dialect { has_z: true, ..ISO };
    let flat = with_z.wkb(&Shape::Point(Some([1.0, 2.0, f64::NAN, 0.0])));
    assert_eq!(summary(&flat).unwrap().bounds.map(Bounds::bbox), Some(vec![1.0, 2.0, 1.0, 2.0]));
    assert_eq!(summary(&ISO.wkb(&Shape::Point(None))).unwrap().bounds, None);
}
