//! Well-known binary: OGC 06-103r4 §8.2, with the types of ISO 13249-3 for Z and M, and the flags of EWKB, its reference
//! system passed over. Either byte order, which may change from part to part.
//!
//! What is read may come from anywhere: every count is held against the bytes that are left before anything is made of
//! it, and nesting has an end, [`MAX_DEPTH`].

use std::fmt;

use serde_json::{Value, json};

/// More geometries than this inside each other are none that anybody drew; each takes a frame of the stack.
pub const MAX_DEPTH: usize = 32;

/// A geometry without parts or points: byte order, type, count.
const LEAST_GEOMETRY_BYTES: usize = 9;
/// A ring without points: its count.
const LEAST_RING_BYTES: usize = 4;
const ORDINATE_BYTES: usize = 8;

/// What EWKB says above the type.
const EWKB_Z: u32 = 0x8000_0000;
const EWKB_M: u32 = 0x4000_0000;
const EWKB_REFERENCE_SYSTEM: u32 = 0x2000_0000;

/// What a geometry is and where it lies.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Its type, as `geometry_types` of GeoParquet has it: `Polygon`, `Point Z`.
    pub geometry_type: &'static str,
    /// Whether it, or a part of it, has a third ordinate.
    pub has_z: bool,
    /// Whether it, or a part of it, has a measure.
    pub has_m: bool,
    /// Where it lies. None for a geometry without points.
    pub bounds: Option<Bounds>,
}

/// The least and the greatest of each ordinate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Of the first: easting, longitude.
    pub x: (f64, f64),
    /// Of the second: northing, latitude.
    pub y: (f64, f64),
    /// Of the third, if there is one.
    pub z: Option<(f64, f64)>,
}

impl Bounds {
    /// With all that others hold.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        let z = match (self.z, other.z) {
            (Some(a), Some(b)) => Some(both(a, b)),
            (a, b) => a.or(b),
        };
        Self { x: both(self.x, other.x), y: both(self.y, other.y), z }
    }

    /// As a `bbox` of RFC 7946 §5: all the least, then all the greatest.
    pub fn bbox(self) -> Vec<f64> {
        let ordinates = || [Some(self.x), Some(self.y), self.z].into_iter().flatten();
        ordinates().map(|(least, _)| least).chain(ordinates().map(|(_, greatest)| greatest)).collect()
    }

    /// Of one point. An empty one has NaN for its ordinates.
    fn of_point(x: f64, y: f64, z: Option<f64>) -> Option<Self> {
        let z = z.filter(|z| !z.is_nan()).map(|z| (z, z));
        (!x.is_nan() && !y.is_nan()).then_some(Self { x: (x, x), y: (y, y), z })
    }
}

fn both(a: (f64, f64), b: (f64, f64)) -> (f64, f64) {
    (a.0.min(b.0), a.1.max(b.1))
}

/// Bytes that are no geometry, and where they cease to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadWkb {
    /// What is wrong.
    pub reason: &'static str,
    /// Behind so many bytes.
    pub at_byte: usize,
}

impl fmt::Display for BadWkb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no WKB: {} at byte {}", self.reason, self.at_byte)
    }
}

impl std::error::Error for BadWkb {}

/// What a geometry is and where it lies. Allocates nothing.
///
/// # Errors
/// The bytes are no geometry, or go on behind it.
pub fn summary(wkb: &[u8]) -> Result<Summary, BadWkb> {
    let mut extent = Extent::default();
    let mut reader = Reader::new(wkb);
    let (kind, ()) = reader.whole(&mut extent)?;
    let geometry_type = kind.name(reader.has_z);
    Ok(Summary { geometry_type, has_z: reader.has_z, has_m: reader.has_m, bounds: extent.0 })
}

/// The geometry as an object of RFC 7946, for who checks one. Measures are left out.
///
/// Takes memory in proportion to the bytes: some twenty times as much.
///
/// # Errors
/// As of [`summary`], or a number is not finite, which JSON cannot say.
pub fn to_geojson(wkb: &[u8]) -> Result<Value, BadWkb> {
    let (kind, coordinates) = Reader::new(wkb).whole(&mut GeoJson)?;
    Ok(GeoJson.geometry(kind, coordinates))
}

/// What is made of a geometry while it is read.
trait Make {
    /// Of a position, a list of them, a geometry.
    type Part;

    /// None, if nothing can be made of it.
    fn position(&mut self, x: f64, y: f64, z: Option<f64>) -> Option<Self::Part>;

    fn list(&mut self, parts: Vec<Self::Part>) -> Self::Part;

    fn geometry(&mut self, kind: Kind, coordinates: Self::Part) -> Self::Part;
}

/// The bounds of what was read. A list of nothings takes no memory.
#[derive(Default)]
struct Extent(Option<Bounds>);

impl Make for Extent {
    type Part = ();

    fn position(&mut self, x: f64, y: f64, z: Option<f64>) -> Option<()> {
        if let Some(point) = Bounds::of_point(x, y, z) {
            self.0 = Some(self.0.map_or(point, |bounds| bounds.union(point)));
        }
        Some(())
    }

    fn list(&mut self, _: Vec<()>) {}

    fn geometry(&mut self, _: Kind, (): ()) {}
}

struct GeoJson;

impl Make for GeoJson {
    type Part = Value;

    fn position(&mut self, x: f64, y: f64, z: Option<f64>) -> Option<Value> {
        let is_finite = [Some(x), Some(y), z].into_iter().flatten().all(f64::is_finite);
        is_finite.then(|| z.map_or_else(|| json!([x, y]), |z| json!([x, y, z])))
    }

    fn list(&mut self, parts: Vec<Value>) -> Value {
        Value::Array(parts)
    }

    fn geometry(&mut self, kind: Kind, coordinates: Value) -> Value {
        let member = if kind == Kind::GeometryCollection { "geometries" } else { "coordinates" };
        json!({"type": kind.name(false), member: coordinates})
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Point,
    LineString,
    Polygon,
    MultiPoint,
    MultiLineString,
    MultiPolygon,
    GeometryCollection,
}

impl Kind {
    fn of_code(code: u32) -> Option<Self> {
        Some(match code {
            1 => Self::Point,
            2 => Self::LineString,
            3 => Self::Polygon,
            4 => Self::MultiPoint,
            5 => Self::MultiLineString,
            6 => Self::MultiPolygon,
            7 => Self::GeometryCollection,
            _ => return None,
        })
    }

    fn name(self, has_z: bool) -> &'static str {
        let [flat, with_z] = match self {
            Self::Point => ["Point", "Point Z"],
            Self::LineString => ["LineString", "LineString Z"],
            Self::Polygon => ["Polygon", "Polygon Z"],
            Self::MultiPoint => ["MultiPoint", "MultiPoint Z"],
            Self::MultiLineString => ["MultiLineString", "MultiLineString Z"],
            Self::MultiPolygon => ["MultiPolygon", "MultiPolygon Z"],
            Self::GeometryCollection => ["GeometryCollection", "GeometryCollection Z"],
        };
        if has_z { with_z } else { flat }
    }
}

/// What stands before a geometry.
#[derive(Clone, Copy)]
struct Head {
    kind: Kind,
    has_z: bool,
    has_m: bool,
}

impl Head {
    /// Of the type's code and what EWKB says above it. None, if there is no such type.
    fn of_code(code: u32) -> Option<Self> {
        let code_of_iso = code & !(EWKB_Z | EWKB_M | EWKB_REFERENCE_SYSTEM);
        let (z, m) = match code_of_iso / 1000 {
            0 => (false, false),
            1 => (true, false),
            2 => (false, true),
            3 => (true, true),
            _ => return None,
        };
        let (has_z, has_m) = (z || code & EWKB_Z != 0, m || code & EWKB_M != 0);
        Some(Self { kind: Kind::of_code(code_of_iso % 1000)?, has_z, has_m })
    }

    fn position_bytes(self) -> usize {
        ORDINATE_BYTES * (2 + usize::from(self.has_z) + usize::from(self.has_m))
    }
}

struct Reader<'a> {
    wkb: &'a [u8],
    rest: &'a [u8],
    is_little: bool,
    /// Of all that was read.
    has_z: bool,
    has_m: bool,
}

impl<'a> Reader<'a> {
    fn new(wkb: &'a [u8]) -> Self {
        Self { wkb, rest: wkb, is_little: true, has_z: false, has_m: false }
    }

    /// The geometry that all the bytes are.
    fn whole<M: Make>(&mut self, make: &mut M) -> Result<(Kind, M::Part), BadWkb> {
        let geometry = self.geometry(make, 1)?;
        if self.rest.is_empty() { Ok(geometry) } else { Err(self.bad("the geometry ends")) }
    }

    /// A geometry, so deep inside others: its kind, and what is made of its coordinates or geometries.
    fn geometry<M: Make>(&mut self, make: &mut M, depth: usize) -> Result<(Kind, M::Part), BadWkb> {
        if depth > MAX_DEPTH {
            return Err(self.bad("more than 32 geometries are inside each other"));
        }
        let head = self.head()?;
        let part = match head.kind {
            Kind::Point => self.point(head, make)?,
            Kind::LineString => self.line(head, make)?,
            Kind::Polygon => {
                let rings = self.list(LEAST_RING_BYTES, |reader| reader.line(head, make))?;
                make.list(rings)
            }
            Kind::MultiPoint => self.members(Kind::Point, make, depth)?,
            Kind::MultiLineString => self.members(Kind::LineString, make, depth)?,
            Kind::MultiPolygon => self.members(Kind::Polygon, make, depth)?,
            Kind::GeometryCollection => {
                let geometries = self.list(LEAST_GEOMETRY_BYTES, |reader| {
                    let (kind, part) = reader.geometry(make, depth + 1)?;
                    Ok(make.geometry(kind, part))
                })?;
                make.list(geometries)
            }
        };
        Ok((head.kind, part))
    }

    fn head(&mut self) -> Result<Head, BadWkb> {
        self.is_little = match self.bytes()? {
            [0] => false,
            [1] => true,
            _ => return Err(self.bad("the byte order is neither 0 nor 1")),
        };
        let code = self.number()?;
        let head = Head::of_code(code).ok_or_else(|| self.bad("the type is none of the seven"))?;
        if code & EWKB_REFERENCE_SYSTEM != 0 {
            self.number()?;
        }
        (self.has_z, self.has_m) = (self.has_z || head.has_z, self.has_m || head.has_m);
        Ok(head)
    }

    /// The coordinates of the members of a geometry that has only such.
    fn members<M: Make>(&mut self, all: Kind, make: &mut M, depth: usize) -> Result<M::Part, BadWkb> {
        let members =
            self.list(LEAST_GEOMETRY_BYTES, |reader| match reader.geometry(make, depth + 1)? {
                (kind, part) if kind == all => Ok(part),
                _ => Err(reader.bad("a part is of another type than the whole")),
            })?;
        Ok(make.list(members))
    }

    /// A position, or an empty list where its ordinates are all NaN: that is how a point says that it is empty.
    fn point<M: Make>(&mut self, head: Head, make: &mut M) -> Result<M::Part, BadWkb> {
        let (x, y, z) = self.ordinates(head)?;
        if x.is_nan() && y.is_nan() && z.is_none_or(f64::is_nan) {
            return Ok(make.list(Vec::new()));
        }
        self.position(make, (x, y, z))
    }

    fn line<M: Make>(&mut self, head: Head, make: &mut M) -> Result<M::Part, BadWkb> {
        let positions = self.list(head.position_bytes(), |reader| {
            let ordinates = reader.ordinates(head)?;
            reader.position(make, ordinates)
        })?;
        Ok(make.list(positions))
    }

    fn position<M: Make>(&self, make: &mut M, (x, y, z): (f64, f64, Option<f64>)) -> Result<M::Part, BadWkb> {
        make.position(x, y, z).ok_or_else(|| self.bad("an ordinate is not finite"))
    }

    /// As many as are said to come, each of so many bytes at least.
    fn list<P>(
        &mut self,
        least_bytes: usize,
        mut one: impl FnMut(&mut Self) -> Result<P, BadWkb>,
    ) -> Result<Vec<P>, BadWkb> {
        let n_parts = self.number()?;
        if self.rest.len() / least_bytes < n_parts as usize {
            return Err(self.bad("more parts or points are counted than there are bytes for"));
        }
        (0..n_parts).map(|_| one(self)).collect()
    }

    fn ordinates(&mut self, head: Head) -> Result<(f64, f64, Option<f64>), BadWkb> {
        let (x, y) = (self.ordinate()?, self.ordinate()?);
        let z = if head.has_z { Some(self.ordinate()?) } else { None };
        if head.has_m {
            self.ordinate()?;
        }
        Ok((x, y, z))
    }

    fn ordinate(&mut self) -> Result<f64, BadWkb> {
        let bytes = self.bytes()?;
        Ok(if self.is_little { f64::from_le_bytes(bytes) } else { f64::from_be_bytes(bytes) })
    }

    fn number(&mut self) -> Result<u32, BadWkb> {
        let bytes = self.bytes()?;
        Ok(if self.is_little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], BadWkb> {
        let Some((bytes, rest)) = self.rest.split_first_chunk() else {
            return Err(self.bad("the bytes end too soon"));
        };
        self.rest = rest;
        Ok(*bytes)
    }

    fn bad(&self, reason: &'static str) -> BadWkb {
        BadWkb { reason, at_byte: self.wkb.len() - self.rest.len() }
    }
}

#[cfg(test)]
mod tests;
