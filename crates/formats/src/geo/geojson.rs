//! Geometry written as GeoJSON (RFC 7946, section 3.1) becomes WKB (ISO 13249-3, little-endian), straight from the text.
//!
//! Units are those of the text: degrees of longitude and latitude, and metres of height. All positions of a geometry have
//! two numbers, or all have three; then the type is one of those with Z, 1001 to 1007. More numbers are refused, as
//! section 3.1.1 has no meaning for them. What has no coordinates is EMPTY: a list or a collection of nothing, a point
//! of NaN. Rings are kept as they are, closed or not. Only collections within collections take a call each, up to [`MAX_DEPTH`].

use super::wkb::MAX_DEPTH;
use crate::text::{BadValue, Json, Kind, float, shown, unescaped};

type Result<T> = std::result::Result<T, BadValue>;

/// What to do with a member that WKB has no place for; the parser stands before its value, in so many lists and objects.
type Other<'a> = dyn FnMut(&[u8], &mut Json<'_>, usize) -> Result<()> + 'a;

/// Added to the code of a type for positions of three numbers.
const Z: u32 = 1000;

/// Types of geometry, with their codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Point = 1,
    LineString = 2,
    Polygon = 3,
    MultiPoint = 4,
    MultiLineString = 5,
    MultiPolygon = 6,
    Collection = 7,
}

const TYPES: [(&[u8], Type); 7] = [
    (b"Point", Type::Point),
    (b"LineString", Type::LineString),
    (b"Polygon", Type::Polygon),
    (b"MultiPoint", Type::MultiPoint),
    (b"MultiLineString", Type::MultiLineString),
    (b"MultiPolygon", Type::MultiPolygon),
    (b"GeometryCollection", Type::Collection),
];

/// Where the bytes go, and how many they may be.
pub(crate) struct Wkb<'a> {
    pub(crate) out: &'a mut Vec<u8>,
    pub(crate) max_bytes: usize,
}

/// Adds the geometry that comes next, in `depth` lists and objects, itself among them. What was added before an error is to
/// be cut off.
pub(crate) fn to_wkb(json: &mut Json<'_>, depth: usize, wkb: Wkb<'_>, other: &mut Other<'_>) -> Result<()> {
    let end = wkb.out.len().saturating_add(wkb.max_bytes);
    Encoder { wkb, end, other, n_open: 0 }.geometry(json, depth).map(drop)
}

struct Encoder<'a, 'b> {
    wkb: Wkb<'a>,
    /// The output may grow so long.
    end: usize,
    other: &'a mut Other<'b>,
    /// Collections within each other that are open.
    n_open: usize,
}

impl Encoder<'_, '_> {
    /// Returns whether it has heights.
    fn geometry(&mut self, json: &mut Json<'_>, depth: usize) -> Result<bool> {
        expect(json, Kind::Object, "a geometry of GeoJSON")?;
        let of = type_ahead(json.clone(), depth)?;
        let holder: &[u8] = if of == Type::Collection { b"geometries" } else { b"coordinates" };
        let (mut n_types, mut has_z) = (0, None);
        json.enter(depth)?;
        loop {
            let raw = json.key()?;
            let meant = unescaped(raw);
            match meant.as_deref().unwrap_or(raw) {
                b"type" if n_types == 0 => {
                    json.skip_value(depth)?;
                    n_types += 1;
                }
                name if name == holder && has_z.is_none() => {
                    has_z = Some(match of {
                        Type::Collection => self.collection(json, depth + 1)?,
                        _ => self.coordinates(of, json, depth + 1)?,
                    });
                }
                name if name == holder || name == b"type" => return Err(twice(name)),
                _ => (self.other)(raw, json, depth)?,
            }
            if !json.another(b'}')? {
                break;
            }
        }
        has_z.ok_or_else(|| lacks(holder))
    }

    fn collection(&mut self, json: &mut Json<'_>, depth: usize) -> Result<bool> {
        // Whoever reads WKB refuses deeper ones, and so does what writes it.
        if self.n_open + 1 >= MAX_DEPTH {
            let message = format!("collections of geometries go deeper than {MAX_DEPTH}, which is the limit");
            return Err(BadValue::new("depth", message));
        }
        self.n_open += 1;
        let start = self.wkb.out.len();
        self.header(Type::Collection, false)?;
        let mut has_z = false;
        self.list(json, depth, |encoder, json| {
            has_z |= encoder.geometry(json, depth + 1)?;
            Ok(())
        })?;
        if has_z {
            self.patch(start + 1, Type::Collection as u32 + Z);
        }
        self.n_open -= 1;
        Ok(has_z)
    }

    fn coordinates(&mut self, of: Type, json: &mut Json<'_>, depth: usize) -> Result<bool> {
        let has_z = n_dimensions(json.clone()) == Some(3);
        self.header(of, has_z)?;
        self.body(of, has_z, json, depth)?;
        Ok(has_z)
    }

    fn body(&mut self, of: Type, has_z: bool, json: &mut Json<'_>, depth: usize) -> Result<()> {
        let part = match of {
            Type::Point => return self.point(has_z, json, depth),
            Type::LineString => return self.line(has_z, json, depth),
            Type::Polygon => {
                return self.list(json, depth, |encoder, json| encoder.line(has_z, json, depth + 1));
            }
            Type::MultiPoint => Type::Point,
            Type::MultiLineString => Type::LineString,
            Type::MultiPolygon | Type::Collection => Type::Polygon,
        };
        self.list(json, depth, |encoder, json| {
            encoder.header(part, has_z)?;
            encoder.body(part, has_z, json, depth + 1)
        })
    }

    fn line(&mut self, has_z: bool, json: &mut Json<'_>, depth: usize) -> Result<()> {
        self.list(json, depth, |encoder, json| encoder.position(has_z, json, depth + 1))
    }

    fn point(&mut self, has_z: bool, json: &mut Json<'_>, depth: usize) -> Result<()> {
        let mut ahead = json.clone();
        if ahead.eat(b'[') && ahead.eat(b']') {
            *json = ahead;
            return (0..2 + usize::from(has_z)).try_for_each(|_| self.put(&f64::NAN.to_le_bytes()));
        }
        self.position(has_z, json, depth)
    }

    fn position(&mut self, has_z: bool, json: &mut Json<'_>, depth: usize) -> Result<()> {
        expect(json, Kind::List, "a position")?;
        json.enter(depth)?;
        let mut n = 0_usize;
        if !json.eat(b']') {
            loop {
                expect(json, Kind::Number, "a number of a position")?;
                let text = json.number()?;
                let Some(value) = float(text) else { return Err(no_float(text)) };
                self.put(&value.to_le_bytes())?;
                n += 1;
                if !json.another(b']')? {
                    break;
                }
            }
        }
        if n == 2 + usize::from(has_z) { Ok(()) } else { Err(wrong_position(n)) }
    }

    /// How many there are, and each of them.
    fn list(
        &mut self,
        json: &mut Json<'_>,
        depth: usize,
        mut each: impl FnMut(&mut Self, &mut Json<'_>) -> Result<()>,
    ) -> Result<()> {
        expect(json, Kind::List, "a list of coordinates")?;
        json.enter(depth)?;
        let at = self.wkb.out.len();
        self.put(&[0; 4])?;
        let mut n = 0_u32;
        if !json.eat(b']') {
            loop {
                each(self, json)?;
                n = n.checked_add(1).ok_or_else(|| too_large(self.wkb.max_bytes))?;
                if !json.another(b']')? {
                    break;
                }
            }
        }
        self.patch(at, n);
        Ok(())
    }

    fn header(&mut self, of: Type, has_z: bool) -> Result<()> {
        let code = of as u32 + if has_z { Z } else { 0 };
        self.put(&[1])?;
        self.put(&code.to_le_bytes())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        if self.wkb.out.len() + bytes.len() > self.end {
            return Err(too_large(self.wkb.max_bytes));
        }
        self.wkb.out.extend_from_slice(bytes);
        Ok(())
    }

    fn patch(&mut self, at: usize, value: u32) {
        if let Some(place) = self.wkb.out.get_mut(at..at + 4) {
            place.copy_from_slice(&value.to_le_bytes());
        }
    }
}

/// The type of a geometry that has yet to be read: `coordinates` may stand before it.
fn type_ahead(mut json: Json<'_>, depth: usize) -> Result<Type> {
    json.enter(depth)?;
    if !json.eat(b'}') {
        loop {
            let raw = json.key()?;
            if unescaped(raw).as_deref().unwrap_or(raw) == b"type" {
                return type_of(&mut json, depth);
            }
            json.skip_value(depth)?;
            if !json.another(b'}')? {
                break;
            }
        }
    }
    Err(lacks(b"type"))
}

fn type_of(json: &mut Json<'_>, depth: usize) -> Result<Type> {
    let value = json.skip_value(depth)?;
    let name = value.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or_default();
    let name = unescaped(name).unwrap_or_else(|| name.to_vec());
    TYPES.into_iter().find(|(known, _)| *known == name).map(|(_, of)| of).ok_or_else(|| {
        let found = if value.starts_with(b"\"") { &name } else { value };
        let message = format!("found the type {}, expected one of GeoJSON, such as Polygon", shown(found));
        BadValue::new("geometry", message).within("type")
    })
}

/// How many numbers the first position has; nothing where there is none. What is wrong is found when it is read.
fn n_dimensions(mut json: Json<'_>) -> Option<usize> {
    let mut n_open = 0_usize;
    loop {
        if json.eat(b'[') {
            n_open += 1;
        } else if json.eat(b']') {
            n_open = n_open.checked_sub(1).filter(|n| *n > 0)?;
            json.eat(b',');
        } else {
            break;
        }
    }
    let mut n = 0;
    while json.kind().ok()? == Kind::Number {
        json.number().ok()?;
        n += 1;
        if !json.eat(b',') {
            break;
        }
    }
    Some(n)
}

/// Fails unless a value of this kind comes next.
fn expect(json: &mut Json<'_>, kind: Kind, what: &str) -> Result<()> {
    let found = json.kind()?;
    if found == kind {
        return Ok(());
    }
    let message = format!("found {}, expected {what}, {}", found.name(), kind.name());
    Err(BadValue::new("geometry", message))
}

#[cold]
fn wrong_position(n: usize) -> BadValue {
    let message = match n {
        0 | 1 => format!("a position of {n} numbers, expected longitude and latitude"),
        2 | 3 => format!("a position of {n} numbers; all of a geometry must have two, or all three"),
        _ => {
            format!("a position of {n} numbers; GeoJSON has no meaning for more than three (RFC 7946, 3.1.1)")
        }
    };
    BadValue::new("geometry", message)
}

#[cold]
fn no_float(text: &[u8]) -> BadValue {
    BadValue::new("geometry", format!("the number {} is no float64 without loss", shown(text)))
}

#[cold]
fn too_large(limit: usize) -> BadValue {
    let message = format!("the geometry takes more than {limit} bytes as WKB; raise `max_record_bytes`");
    BadValue::new("too long", message)
}

#[cold]
fn lacks(member: &[u8]) -> BadValue {
    let message = format!("a geometry without `{}`", String::from_utf8_lossy(member));
    BadValue::new("geometry", message)
}

#[cold]
fn twice(member: &[u8]) -> BadValue {
    BadValue::new("json", "the field is there twice").within(&String::from_utf8_lossy(member))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    fn encode(text: &str) -> std::result::Result<Vec<u8>, String> {
        encode_within(text, usize::MAX)
    }

    fn encode_within(text: &str, max_bytes: usize) -> std::result::Result<Vec<u8>, String> {
        let mut out = b"before".to_vec();
        let mut json = Json::new(text.as_bytes());
        let mut other = |key: &[u8], _: &mut Json<'_>, _: usize| {
            Err(BadValue::new("new field", String::from_utf8_lossy(key)))
        };
        let wkb = Wkb { out: &mut out, max_bytes };
        to_wkb(&mut json, 1, wkb, &mut other).and_then(|()| json.end()).map_err(|error| {
            let (column, _, message) = error.into_parts();
            format!("{}: {message}", column.unwrap_or_default())
        })?;
        Ok(out.split_off(6))
    }

    /// WKB out of a tree, the slow way.
    pub(crate) fn oracle(geometry: &Value) -> Vec<u8> {
        let name = geometry["type"].as_str().unwrap();
        let code = 1 + TYPES.iter().position(|(known, _)| *known == name.as_bytes()).unwrap();
        let code = u32::try_from(code).unwrap();
        if code == 7 {
            let parts = geometry["geometries"].as_array().unwrap();
            let has_z = parts.iter().any(|part| {
                let bytes = oracle(part);
                u32::from_le_bytes(bytes[1..5].try_into().unwrap()) > Z
            });
            let head = head(code, has_z);
            return [head, counted(parts.iter().map(oracle).collect())].concat();
        }
        let coordinates = &geometry["coordinates"];
        slow_body(code, coordinates, first_position(coordinates).is_some_and(|n| n == 3))
    }

    fn head(code: u32, has_z: bool) -> Vec<u8> {
        let code = code + if has_z { Z } else { 0 };
        [vec![1], code.to_le_bytes().to_vec()].concat()
    }

    fn counted(parts: Vec<Vec<u8>>) -> Vec<u8> {
        let n = u32::try_from(parts.len()).unwrap();
        [n.to_le_bytes().to_vec(), parts.concat()].concat()
    }

    fn first_position(coordinates: &Value) -> Option<usize> {
        let list = coordinates.as_array()?;
        match list.first()?.is_number() {
            true => Some(list.len()),
            false => list.iter().find_map(first_position),
        }
    }

    fn slow_body(code: u32, value: &Value, has_z: bool) -> Vec<u8> {
        let parts =
            |of: &dyn Fn(&Value) -> Vec<u8>| counted(value.as_array().unwrap().iter().map(of).collect());
        let position = |value: &Value| -> Vec<u8> {
            let numbers: Vec<f64> = value.as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect();
            let numbers = if numbers.is_empty() { vec![f64::NAN; 2 + usize::from(has_z)] } else { numbers };
            numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
        };
        let line = |value: &Value| counted(value.as_array().unwrap().iter().map(position).collect());
        let body = match code {
            1 => position(value),
            2 => line(value),
            3 => parts(&line),
            _ => parts(&|part| slow_body(code - 3, part, has_z)),
        };
        [head(code, has_z), body].concat()
    }

    fn number() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<i16>().prop_map(|n| json!(n)),
            (-180.0..180.0f64).prop_map(|n| json!(n)),
            Just(json!(-0.0)),
            Just(json!(1e-7)),
        ]
    }

    fn coordinates(depth: usize, n: usize) -> BoxedStrategy<Value> {
        match depth {
            0 => proptest::collection::vec(number(), n).prop_map(Value::Array).boxed(),
            _ => proptest::collection::vec(coordinates(depth - 1, n), 0..4).prop_map(Value::Array).boxed(),
        }
    }

    fn simple() -> impl Strategy<Value = Value> {
        let depths = [
            ("Point", 0),
            ("LineString", 1),
            ("Polygon", 2),
            ("MultiPoint", 1),
            ("MultiLineString", 2),
            ("MultiPolygon", 3),
        ];
        (proptest::sample::select(depths.to_vec()), 2..4usize, any::<bool>(), 0..10u8).prop_flat_map(
            |((name, depth), n, type_first, empty)| {
                let coordinates = match (name, empty) {
                    ("Point", 0) => Just(json!([])).boxed(),
                    _ => coordinates(depth, n),
                };
                coordinates.prop_map(move |coordinates| object(name, "coordinates", coordinates, type_first))
            },
        )
    }

    fn object(name: &str, key: &str, value: Value, type_first: bool) -> Value {
        let mut members = vec![("type".to_owned(), json!(name)), (key.to_owned(), value)];
        if !type_first {
            members.reverse();
        }
        Value::Object(members.into_iter().collect::<Map<_, _>>())
    }

    /// Any geometry, its members in any order.
    pub(crate) fn geometry() -> impl Strategy<Value = Value> {
        simple().prop_recursive(3, 12, 4, |inner| {
            (proptest::collection::vec(inner, 0..4), any::<bool>()).prop_map(|(parts, type_first)| {
                object("GeometryCollection", "geometries", Value::Array(parts), type_first)
            })
        })
    }

    proptest! {
        #[test]
        fn text_becomes_what_a_tree_becomes(value in geometry(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            prop_assert_eq!(encode(&text.unwrap()), Ok(oracle(&value)), "{}", value);
        }
    }

    #[test]
    fn a_point_is_as_the_standard_writes_it() {
        let flat = encode(r#"{"type": "Point", "coordinates": [1, 2]}"#).unwrap();
        assert_eq!(flat, [&[1, 1, 0, 0, 0][..], &1f64.to_le_bytes(), &2f64.to_le_bytes()].concat());
        let high = encode(r#"{"coordinates": [1, 2, 3], "\u0074ype": "P\u006fint"}"#).unwrap();
        assert_eq!(high[..5], [1, 0xe9, 3, 0, 0], "1001");
        let empty = encode(r#"{"type": "Point", "coordinates": []}"#).unwrap();
        assert_eq!(empty.len(), 21);
        assert!(f64::from_le_bytes(empty[5..13].try_into().unwrap()).is_nan());
    }

    #[test]
    fn what_is_no_geometry_is_told() {
        for (text, expected) in [
            (r#"[1,2]"#, "found a list, expected a geometry"),
            (r#"{}"#, "without `type`"),
            (r#"{"coordinates": [1,2]}"#, "without `type`"),
            (r#"{"type": "Point"}"#, "without `coordinates`"),
            (r#"{"type": "GeometryCollection", "coordinates": []}"#, "coordinates"),
            (r#"{"type": "GeometryCollection", "geometries": [null]}"#, "found null"),
            (r#"{"type": "Circle", "coordinates": [1,2]}"#, "type: found the type \"Circle\""),
            (r#"{"type": 5, "coordinates": [1,2]}"#, "found the type \"5\""),
            (r#"{"type": "Point", "type": "Point", "coordinates": [1,2]}"#, "twice"),
            (r#"{"type": "Point", "coordinates": [1,2], "coordinates": [1,2]}"#, "twice"),
            (r#"{"type": "Point", "coordinates": null}"#, "found null"),
            (r#"{"type": "Point", "coordinates": [1]}"#, "of 1 numbers"),
            (r#"{"type": "Point", "coordinates": [1,2,3,4]}"#, "no meaning for more than three"),
            (r#"{"type": "LineString", "coordinates": [[1,2],[1,2,3]]}"#, "all of a geometry"),
            (r#"{"type": "LineString", "coordinates": [[]]}"#, "of 0 numbers"),
            (r#"{"type": "LineString", "coordinates": [1,2]}"#, "found a number, expected a position"),
            (r#"{"type": "Point", "coordinates": [1,"2"]}"#, "found a string"),
            (r#"{"type": "Point", "coordinates": [1,NaN]}"#, "found `N`"),
            (r#"{"type": "Point", "coordinates": [1,-Infinity]}"#, "found `I`"),
            (r#"{"type": "Point", "coordinates": [1,1e400]}"#, "no float64"),
            (r#"{"type": "Point", "coordinates": [1,2"#, "end of the record"),
            (r#"{"type": "Point", "coordinates": []], "x": 1}"#, "found `]`"),
            (r#"{"type": "Point", "coordinates": [1,2], "crs": {}}"#, ": crs"),
        ] {
            let message = encode(text).unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    // reliability 26, 30
    #[test]
    fn neither_depth_nor_length_costs_more_than_it_may() {
        let nest = |n: usize| {
            let point = r#"{"type":"Point","coordinates":[1,2]}"#;
            let open = r#"{"geometries":["#.repeat(n);
            format!("{open}{point}{}", r#"],"type":"GeometryCollection"}"#.repeat(n))
        };
        let deepest = encode(&nest(31)).unwrap();
        assert!(super::super::wkb::summary(&deepest).is_ok());
        assert!(encode(&nest(32)).unwrap_err().contains("deeper than 32"));
        assert!(encode(&nest(100_000)).is_err());
        assert!(encode(&format!(r#"{{"type":"Polygon","coordinates":{}"#, "[".repeat(200_000))).is_err());
        let n = 100_000;
        let line = format!(r#"{{"type":"LineString","coordinates":[{}[0,0]]}}"#, "[1,2],".repeat(n));
        let n_bytes = 9 + 16 * (n + 1);
        assert_eq!(encode_within(&line, n_bytes).unwrap().len(), n_bytes);
        assert!(encode_within(&line, n_bytes - 1).unwrap_err().contains("max_record_bytes"));
    }
}
