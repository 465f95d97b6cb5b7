//! Columns under construction, filled straight from text, and cut back when a row turns out to be bad.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::NullBufferBuilder;
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, ListArray, PrimitiveArray, StringArray,
    StructArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowNativeType, DataType, Decimal128Type, Decimal256Type, Field, FieldRef, i256};
use arrow::error::ArrowError;

use super::value::type_name;
use crate::TimeFormat;
use crate::types::{ReadAs, plain_field};

/// One column: its values so far.
pub(crate) struct Column {
    pub(crate) field: Field,
    pub(super) time: Option<TimeFormat>,
    pub(super) values: Values,
    nulls: NullBufferBuilder,
    /// The least that one more value takes.
    pub(super) width: usize,
}

/// The values of a column; each kind of text has one.
pub(super) enum Values {
    Bool(BooleanBufferBuilder),
    /// Of any width up to 64 bits: narrowed at the end, checked on the way.
    Int {
        values: Vec<i64>,
        min: i64,
        max: i64,
    },
    UInt64(Vec<u64>),
    Float(Vec<f64>),
    Date(Vec<i32>),
    Instant(Vec<i64>),
    Decimal {
        values: Vec<i128>,
        precision: u8,
        scale: i8,
    },
    BigDecimal {
        values: Vec<i256>,
        precision: u8,
        scale: i8,
    },
    String(Runs),
    Binary(Runs),
    List {
        offsets: Vec<i32>,
        items: Box<Column>,
    },
    Struct(Fields),
    /// Geometry of GeoJSON, as WKB.
    Geometry(Runs),
    /// The numbers of a list, by their places.
    Bbox(Fields),
}

/// Texts or bytes, end to end.
#[derive(Default)]
pub(super) struct Runs {
    pub(super) offsets: Vec<i32>,
    pub(super) bytes: Vec<u8>,
}

/// The columns of a struct, or of a row.
pub(crate) struct Fields {
    pub(crate) columns: Vec<Column>,
    /// `"name":` of each, as JSON writes it most of the time.
    pub(crate) keys: Vec<Box<[u8]>>,
}

impl Fields {
    pub(super) fn new<'a>(fields: impl Iterator<Item = &'a FieldRef>) -> Result<Self, ArrowError> {
        let columns = fields.map(|field| Column::new(field)).collect::<Result<Vec<_>, _>>()?;
        let keys = columns.iter().map(|column| format!("\"{}\":", column.field.name()).into_bytes().into());
        Ok(Self { keys: keys.collect(), columns })
    }

    /// The place of the column of this name.
    pub(crate) fn named(&self, name: &[u8]) -> Option<usize> {
        self.columns.iter().position(|column| column.field.name().as_bytes() == name)
    }

    /// How many values each column has between two rows.
    pub(crate) fn n_values(&self) -> usize {
        self.columns.first().map_or(0, Column::len)
    }

    /// Ends a row: columns that still have `n` values get a null.
    pub(crate) fn push_null_where_shorter(&mut self, n: usize) {
        self.columns.iter_mut().filter(|column| column.len() == n).for_each(Column::push_null);
    }

    fn width(&self) -> usize {
        self.columns.iter().map(|column| column.width).sum()
    }
}

impl Runs {
    fn new() -> Self {
        Self { offsets: vec![0], bytes: Vec::new() }
    }

    /// Ends a value: all bytes since the last one are its. False if there are more than an array can count.
    pub(super) fn close(&mut self) -> bool {
        let Ok(end) = i32::try_from(self.bytes.len()) else { return false };
        self.offsets.push(end);
        true
    }

    fn close_null(&mut self) {
        self.offsets.push(self.offsets.last().copied().unwrap_or(0));
    }

    fn truncate(&mut self, n: usize) {
        self.offsets.truncate(n + 1);
        self.bytes.truncate(self.offsets.last().map_or(0, |end| end.as_usize()));
    }

    fn finish(self) -> (OffsetBuffer<i32>, Buffer) {
        (OffsetBuffer::new(ScalarBuffer::from(self.offsets)), Buffer::from_vec(self.bytes))
    }
}

impl Column {
    /// An empty column of the field's type.
    ///
    /// # Errors
    /// Text is not read into this type.
    pub(crate) fn new(field: &Field) -> Result<Self, ArrowError> {
        let values = Values::of(field)?;
        let width = match &values {
            Values::Bool(_) => 1,
            Values::Decimal { .. } => 16,
            Values::BigDecimal { .. } => 32,
            Values::Struct(fields) | Values::Bbox(fields) => fields.width() + 1,
            _ => 8,
        };
        let time = TimeFormat::of(field);
        Ok(Self { field: plain_field(field), time, values, nulls: NullBufferBuilder::new(0), width })
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.nulls.len()
    }

    /// What its values are to be, for messages.
    pub(super) fn expected(&self) -> Cow<'static, str> {
        match &self.values {
            Values::Geometry(_) => "a geometry of GeoJSON".into(),
            Values::Bbox(_) => "a list of numbers".into(),
            _ => type_name(self.field.data_type()),
        }
    }

    /// Whether it holds text, in which an empty text is a value.
    pub(super) fn is_string(&self) -> bool {
        matches!(self.values, Values::String(_))
    }

    /// Counts a value that was just added to `values`.
    pub(super) fn added(&mut self) {
        self.nulls.append_non_null();
    }

    pub(crate) fn push_null(&mut self) {
        match &mut self.values {
            Values::Bool(values) => values.append(false),
            Values::Int { values, .. } | Values::Instant(values) => values.push(0),
            Values::UInt64(values) => values.push(0),
            Values::Float(values) => values.push(0.0),
            Values::Date(values) => values.push(0),
            Values::Decimal { values, .. } => values.push(0),
            Values::BigDecimal { values, .. } => values.push(i256::ZERO),
            Values::String(runs) | Values::Binary(runs) | Values::Geometry(runs) => runs.close_null(),
            Values::List { offsets, .. } => offsets.push(offsets.last().copied().unwrap_or(0)),
            Values::Struct(fields) | Values::Bbox(fields) => {
                fields.columns.iter_mut().for_each(Self::push_null);
            }
        }
        self.nulls.append_null();
    }

    /// Drops all but the first `n` values, and what was begun after them.
    pub(crate) fn truncate(&mut self, n: usize) {
        match &mut self.values {
            Values::Bool(values) => values.truncate(n),
            Values::Int { values, .. } | Values::Instant(values) => values.truncate(n),
            Values::UInt64(values) => values.truncate(n),
            Values::Float(values) => values.truncate(n),
            Values::Date(values) => values.truncate(n),
            Values::Decimal { values, .. } => values.truncate(n),
            Values::BigDecimal { values, .. } => values.truncate(n),
            Values::String(runs) | Values::Binary(runs) | Values::Geometry(runs) => runs.truncate(n),
            Values::List { offsets, items } => {
                offsets.truncate(n + 1);
                items.truncate(offsets.last().map_or(0, |end| end.as_usize()));
            }
            Values::Struct(fields) | Values::Bbox(fields) => {
                fields.columns.iter_mut().for_each(|column| column.truncate(n));
            }
        }
        self.nulls.truncate(n);
    }

    /// The array, of the field's type.
    ///
    /// # Errors
    /// A text is not UTF-8; callers have checked that.
    pub(crate) fn finish(mut self) -> Result<ArrayRef, ArrowError> {
        let nulls = self.nulls.finish();
        let data_type = self.field.data_type();
        Ok(match self.values {
            Values::Bool(mut values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::Int { values, .. } => narrow_int(values, nulls, data_type)?,
            Values::UInt64(values) => primitive::<arrow::datatypes::UInt64Type>(values, nulls)?,
            Values::Float(values) => {
                narrow(primitive::<arrow::datatypes::Float64Type>(values, nulls)?, data_type)?
            }
            Values::Date(values) => primitive::<arrow::datatypes::Date32Type>(values, nulls)?,
            Values::Instant(values) => {
                type Micros = arrow::datatypes::TimestampMicrosecondType;
                let array = PrimitiveArray::<Micros>::try_new(values.into(), nulls)?;
                Arc::new(array.with_data_type(data_type.clone()))
            }
            Values::Decimal { values, .. } => {
                let array = PrimitiveArray::<Decimal128Type>::try_new(values.into(), nulls)?;
                Arc::new(array.with_data_type(data_type.clone()))
            }
            Values::BigDecimal { values, .. } => {
                let array = PrimitiveArray::<Decimal256Type>::try_new(values.into(), nulls)?;
                Arc::new(array.with_data_type(data_type.clone()))
            }
            Values::String(runs) => {
                let (offsets, bytes) = runs.finish();
                Arc::new(StringArray::try_new(offsets, bytes, nulls)?)
            }
            Values::Binary(runs) | Values::Geometry(runs) => {
                let (offsets, bytes) = runs.finish();
                Arc::new(BinaryArray::try_new(offsets, bytes, nulls)?)
            }
            Values::List { offsets, items } => {
                let field = Arc::new(items.field.clone());
                let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
                Arc::new(ListArray::try_new(field, offsets, items.finish()?, nulls)?)
            }
            Values::Struct(fields) | Values::Bbox(fields) => struct_array(fields, nulls)?,
        })
    }
}

fn primitive<T: arrow::array::ArrowPrimitiveType>(
    values: Vec<T::Native>,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, ArrowError> {
    Ok(Arc::new(PrimitiveArray::<T>::try_new(values.into(), nulls)?))
}

fn narrow_int(values: Vec<i64>, nulls: Option<NullBuffer>, to: &DataType) -> Result<ArrayRef, ArrowError> {
    narrow(primitive::<arrow::datatypes::Int64Type>(values, nulls)?, to)
}

fn narrow(array: ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    if array.data_type() == to { Ok(array) } else { arrow::compute::cast(&array, to) }
}

fn struct_array(fields: Fields, nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError> {
    let names = fields.columns.iter().map(|column| Arc::new(column.field.clone())).collect();
    let arrays = fields.columns.into_iter().map(Column::finish).collect::<Result<_, _>>()?;
    Ok(Arc::new(StructArray::try_new(names, arrays, nulls)?))
}

impl Values {
    fn of(field: &Field) -> Result<Self, ArrowError> {
        match (ReadAs::of(field), field.data_type()) {
            (Some(ReadAs::Geometry), DataType::Binary) => Ok(Self::Geometry(Runs::new())),
            (Some(ReadAs::Bbox), DataType::Struct(fields)) => Ok(Self::Bbox(Fields::new(fields.iter())?)),
            (_, data_type) => Self::of_type(data_type),
        }
    }

    fn of_type(data_type: &DataType) -> Result<Self, ArrowError> {
        let int = |min: i64, max: i64| Self::Int { values: Vec::new(), min, max };
        Ok(match data_type {
            DataType::Boolean => Self::Bool(BooleanBufferBuilder::new(0)),
            DataType::Int8 => int(i8::MIN.into(), i8::MAX.into()),
            DataType::Int16 => int(i16::MIN.into(), i16::MAX.into()),
            DataType::Int32 => int(i32::MIN.into(), i32::MAX.into()),
            DataType::Int64 => int(i64::MIN, i64::MAX),
            DataType::UInt8 => int(0, u8::MAX.into()),
            DataType::UInt16 => int(0, u16::MAX.into()),
            DataType::UInt32 => int(0, u32::MAX.into()),
            DataType::UInt64 => Self::UInt64(Vec::new()),
            DataType::Float32 | DataType::Float64 => Self::Float(Vec::new()),
            DataType::Date32 => Self::Date(Vec::new()),
            DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, _) => Self::Instant(Vec::new()),
            DataType::Decimal128(precision, scale) => {
                Self::Decimal { values: Vec::new(), precision: *precision, scale: *scale }
            }
            DataType::Decimal256(precision, scale) => {
                Self::BigDecimal { values: Vec::new(), precision: *precision, scale: *scale }
            }
            DataType::Utf8 => Self::String(Runs::new()),
            DataType::Binary => Self::Binary(Runs::new()),
            DataType::List(item) => Self::List { offsets: vec![0], items: Box::new(Column::new(item)?) },
            DataType::Struct(fields) => Self::Struct(Fields::new(fields.iter())?),
            other => return Err(ArrowError::NotYetImplemented(format!("text is not read as {other}"))),
        })
    }
}
