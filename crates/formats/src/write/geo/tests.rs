use std::sync::Arc;

use arrow::array::{BinaryArray, StructArray};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use proptest::{collection, option};

use super::super::{ParquetOptions, WriteFormat};
use super::*;
use aqueduct_primitives::ByteCount;

/// A point, line or polygon of one ring: 1, 2, 3.
#[derive(Clone, Debug)]
struct Shape {
    code: u32,
    has_z: bool,
    positions: Vec<[f64; 3]>,
}

impl Shape {
    fn wkb(&self) -> Vec<u8> {
        let mut wkb = vec![1];
        let mut number = |number: u32| wkb.extend(number.to_le_bytes());
        number(self.code + if self.has_z { 1000 } else { 0 });
        if self.code == 3 {
            number(1);
        }
        if self.code > 1 {
            number(u32::try_from(self.positions.len()).unwrap());
        }
        for position in &self.positions {
            let ordinates = if self.has_z { &position[..] } else { &position[..2] };
            wkb.extend(ordinates.iter().flat_map(|ordinate| ordinate.to_le_bytes()));
        }
        wkb
    }

    fn geometry_type(&self) -> String {
        let name = ["Point", "LineString", "Polygon"][self.code as usize - 1];
        format!("{name}{}", if self.has_z { " Z" } else { "" })
    }
}

fn shapes() -> impl Strategy<Value = Shape> {
    // Numbers that are the same, however exactly a reader of JSON takes them.
    let ordinate = |most: i32| (-64 * most..64 * most).prop_map(|n| f64::from(n) / 64.0);
    let position = || [ordinate(180), ordinate(90), ordinate(9000)];
    (1..=3_u32, any::<bool>(), position(), collection::vec(position(), 0..4)).prop_map(
        |(code, has_z, first, more)| {
            let positions = if code == 1 { vec![first] } else { more };
            Shape { code, has_z, positions }
        },
    )
}

/// What is expected of a file.
fn oracle(shapes: &[Option<Shape>]) -> Value {
    let shapes = || shapes.iter().flatten();
    let mut types: Vec<_> = shapes().map(Shape::geometry_type).collect();
    types.sort();
    types.dedup();
    let mut told = json!({"encoding": "WKB", "geometry_types": types});
    let all: Vec<_> = shapes().flat_map(|shape| &shape.positions).collect();
    let with_z: Vec<_> = shapes().filter(|shape| shape.has_z).flat_map(|shape| &shape.positions).collect();
    let least = |of: &[&[f64; 3]], axis: usize| of.iter().map(|at| at[axis]).reduce(f64::min);
    let greatest = |of: &[&[f64; 3]], axis: usize| of.iter().map(|at| at[axis]).reduce(f64::max);
    let bbox = [
        [least(&all, 0), least(&all, 1), least(&with_z, 2)],
        [greatest(&all, 0), greatest(&all, 1), greatest(&with_z, 2)],
    ];
    let bbox: Vec<_> = bbox.concat().into_iter().flatten().collect();
    if !bbox.is_empty() {
        told["bbox"] = json!(bbox);
    }
    told
}

fn columns(covering: Option<&str>) -> GeoColumns {
    GeoColumns {
        primary: "geometry".into(),
        covering: covering.map(str::to_owned),
        of_unknown_crs: Vec::new(),
    }
}

fn geometries(wkbs: &[Option<Vec<u8>>]) -> RecordBatch {
    let geometries: BinaryArray = wkbs.iter().map(|wkb| wkb.as_deref()).collect();
    RecordBatch::try_from_iter_with_nullable([("geometry", Arc::new(geometries) as ArrayRef, true)]).unwrap()
}

/// Geometries, each with its bounds.
fn with_boxes(wkbs: &[Option<Vec<u8>>], boxes: &[Option<[f64; 4]>]) -> RecordBatch {
    let ordinate = |at: usize| {
        let ordinates: Float64Array = boxes.iter().map(|four| four.map(|four| four[at])).collect();
        Arc::new(ordinates) as ArrayRef
    };
    let field = |name| Field::new(name, DataType::Float64, true);
    let fields = ["xmin", "ymin", "xmax", "ymax"].map(field).to_vec();
    let nulls = boxes.iter().map(Option::is_some).collect::<Vec<_>>().into();
    let boxes = StructArray::new(fields.into(), (0..4).map(ordinate).collect(), Some(nulls));
    let geometry = Arc::clone(geometries(wkbs).column(0));
    RecordBatch::try_from_iter_with_nullable([
        ("geometry", Arc::clone(&geometry), geometry.null_count() > 0),
        ("bbox", Arc::new(boxes), true),
    ])
    .unwrap()
}

/// What a file tells of its first column.
fn told(geo: GeoColumns, batches: &[RecordBatch]) -> Value {
    let options = ParquetOptions { geo: Some(geo), ..ParquetOptions::default() };
    let schema = batches[0].schema();
    let mut encoder = WriteFormat::Parquet(options).encoder(schema, Vec::new(), ByteCount::mib(4)).unwrap();
    batches.iter().for_each(|batch| encoder.write(batch).unwrap());
    let file = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(encoder.finish().unwrap())).unwrap();
    let metadata = file.metadata().file_metadata().key_value_metadata().unwrap();
    let geo = metadata.iter().find(|pair| pair.key == "geo").unwrap().value.as_ref().unwrap();
    serde_json::from_str(geo).unwrap()
}

fn told_of_primary(covering: Option<&str>, batches: &[RecordBatch]) -> Value {
    told(columns(covering), batches)["columns"]["geometry"].take()
}

proptest! {
    #[test]
    fn types_and_bounds_are_those_of_the_rows(
        shapes in collection::vec(option::of(shapes()), 0..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let wkbs: Vec<_> = shapes.iter().map(|shape| shape.as_ref().map(Shape::wkb)).collect();
        let (first, second) = wkbs.split_at(cut.index(wkbs.len() + 1));
        let found = told_of_primary(None, &[geometries(first), geometries(second)]);
        prop_assert_eq!(found, oracle(&shapes));
    }
}

fn line(positions: &[[f64; 2]]) -> Option<Vec<u8>> {
    let positions = positions.iter().map(|[x, y]| [*x, *y, 0.0]).collect();
    Some(Shape { code: 2, has_z: false, positions }.wkb())
}

#[test]
fn bounds_beside_geometries_cover_them() {
    let covering = json!({"bbox": {
        "xmin": ["bbox", "xmin"], "ymin": ["bbox", "ymin"], "xmax": ["bbox", "xmax"], "ymax": ["bbox", "ymax"],
    }});
    let wkbs = [line(&[[1.0, 2.0], [3.0, 4.0]]), None];
    let rows = with_boxes(&wkbs, &[Some([1.0, 2.0, 3.0, 4.0]), None]);
    assert_eq!(told_of_primary(Some("bbox"), &[rows])["covering"], covering);
    // A row with bounds and no geometry, one with a geometry and no bounds.
    for boxes in [[Some([1.0, 2.0, 3.0, 4.0]), Some([0.0; 4])], [None, None]] {
        let found = told_of_primary(Some("bbox"), &[with_boxes(&wkbs, &boxes)]);
        assert_eq!((found.get("covering"), &found["bbox"]), (None, &json!([1.0, 2.0, 3.0, 4.0])));
    }
}

// Cut in two, as RFC 7946 wants it, beyond 180, and neither
#[test]
fn whoever_compares_finds_a_geometry_across_the_antimeridian() {
    for x in [[179.0, -179.0], [179.0, 181.0], [-181.0, -179.0]] {
        let wkbs = [line(&[[x[0], 1.0], [x[1], 2.0]]), line(&[[0.0, 0.0], [1.0, 1.0]])];
        let rows = with_boxes(&wkbs, &[Some([179.0, 1.0, -179.0, 2.0]), Some([0.0, 0.0, 1.0, 1.0])]);
        let found = told_of_primary(Some("bbox"), &[rows]);
        let expected = [x[0].min(x[1]).min(-180.0), 0.0, x[0].max(x[1]).max(180.0), 2.0];
        assert_eq!(found["bbox"], json!(expected));
        // "Such geometries are unsupported by this method" (GeoParquet 1.1, bbox covering encoding).
        assert_eq!(found.get("covering"), None);
    }
}

#[test]
fn another_column_of_geometries_is_of_no_known_system() {
    let geo = GeoColumns { of_unknown_crs: vec!["proj:geometry".into()], ..columns(None) };
    let found = told(geo, &[geometries(&[None])]);
    assert_eq!(
        found,
        json!({"version": "1.1.0", "primary_column": "geometry", "columns": {
            "geometry": {"encoding": "WKB", "geometry_types": []},
            "proj:geometry": {"encoding": "WKB", "geometry_types": [], "crs": null},
        }})
    );
}

#[test]
fn the_columns_of_bounds_and_of_geometries_are_both_optional() {
    let rows = with_boxes(&[line(&[])], &[Some([0.0; 4])]);
    assert!(!rows.schema().field(0).is_nullable());
    let of_another_file = [("geo".to_owned(), "{}".to_owned())].into();
    let schema = columns(Some("bbox"))
        .optional(&Arc::new(rows.schema().as_ref().clone().with_metadata(of_another_file)));
    assert!(schema.metadata().is_empty());
    assert!(schema.fields().iter().all(|field| field.is_nullable()));
}

#[test]
fn what_is_no_geometry_is_named_by_its_row() {
    let error = |wkb: Vec<u8>| {
        let rows = geometries(&[None, Some(wkb)]);
        let mut seen = Seen::new(&columns(None), &rows.schema()).unwrap();
        seen.see(&rows.slice(0, 1)).unwrap();
        seen.see(&rows.slice(1, 1)).unwrap_err()
    };
    let bad = error(b"POINT(1 2)".to_vec());
    assert_eq!(
        (bad.kind(), bad.context("row"), bad.context("column")),
        (ErrorKind::Data, Some("2"), Some("geometry"))
    );
    assert!(bad.chain().contains("no WKB: the byte order"), "{}", bad.chain());
    let with_measure = [vec![1], 2001_u32.to_le_bytes().to_vec(), vec![0; 24]].concat();
    assert!(error(with_measure).message().contains("measures (M)"));
}

#[test]
fn what_json_has_no_numbers_for_is_not_told() {
    let found = told_of_primary(None, &[geometries(&[line(&[[0.0, 0.0], [f64::INFINITY, 1.0]])])]);
    assert_eq!(found, json!({"encoding": "WKB", "geometry_types": ["LineString"]}));
}
