//! Types as they are written in `schema:` and `cast:`.

use std::sync::Arc;

use aqueduct_core::{Problem, nearest};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

/// A column's type, and how its text is to be read where the type alone does not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnType {
    /// The Arrow type. Fields of structs and lists carry their own time formats in their metadata.
    pub data_type: DataType,
    /// How times are written, if not as RFC 3339 says.
    pub time: Option<TimeFormat>,
}

/// How times are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeFormat {
    /// The pattern, in the letters of `strftime`.
    pub pattern: String,
    /// The zone of times that name none; UTC if not given.
    pub zone: Option<chrono_tz::Tz>,
}

/// Metadata keys under which a field of a schema that is to be read carries its [`TimeFormat`].
const PATTERN: &str = "aqueduct.time_pattern";
const ZONE: &str = "aqueduct.time_zone";

/// Metadata key under which a field of a schema that is to be read says what its values are made of.
const READ_AS: &str = "aqueduct.read_as";

/// What a value is made of, where its type alone does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadAs {
    /// Bytes: WKB, out of an object of GeoJSON.
    Geometry,
    /// A struct: of the numbers of a list.
    Bbox,
}

impl ReadAs {
    fn name(self) -> &'static str {
        match self {
            Self::Geometry => "geometry",
            Self::Bbox => "bbox",
        }
    }

    /// The field, to be read so.
    pub(crate) fn hinted(self, field: &Field) -> Field {
        let mut metadata = field.metadata().clone();
        metadata.insert(READ_AS.to_owned(), self.name().to_owned());
        field.clone().with_metadata(metadata)
    }

    /// What a field made by [`ReadAs::hinted`] says.
    pub(crate) fn of(field: &Field) -> Option<Self> {
        let name = field.metadata().get(READ_AS)?;
        [Self::Geometry, Self::Bbox].into_iter().find(|one| one.name() == name)
    }
}

const SCALARS: [(&str, DataType); 14] = [
    ("int8", DataType::Int8),
    ("int16", DataType::Int16),
    ("int32", DataType::Int32),
    ("int64", DataType::Int64),
    ("uint8", DataType::UInt8),
    ("uint16", DataType::UInt16),
    ("uint32", DataType::UInt32),
    ("uint64", DataType::UInt64),
    ("float32", DataType::Float32),
    ("float64", DataType::Float64),
    ("string", DataType::Utf8),
    ("bool", DataType::Boolean),
    ("date", DataType::Date32),
    ("binary", DataType::Binary),
];

/// Names of types with arguments, for hints.
const GENERICS: [&str; 4] = ["timestamp", "decimal", "list", "struct"];

/// Deeper types are refused: parsers and writers recurse over them.
const MAX_TYPE_DEPTH: usize = 32;

/// The type of an instant: microseconds in UTC.
pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// A type as it is written in `schema:`; nothing, if it cannot be written there.
///
/// ```
/// # use arrow::datatypes::DataType;
/// let text = aqueduct_formats::type_text(&DataType::Decimal128(10, 2));
/// assert_eq!(text.as_deref(), Some("decimal(10,2)"));
/// ```
pub fn type_text(data_type: &DataType) -> Option<String> {
    match data_type {
        DataType::Timestamp(..) if *data_type == timestamp() => Some("timestamp".to_owned()),
        DataType::Decimal128(precision, scale) => Some(format!("decimal({precision},{scale})")),
        DataType::List(item) => Some(format!("list<{}>", type_text(item.data_type())?)),
        DataType::Struct(fields) => {
            let field = |field: &Arc<Field>| {
                let name = field.name().replace('\'', "''");
                Some(format!("'{name}': {}", type_text(field.data_type())?))
            };
            Some(format!("struct<{}>", fields.iter().map(field).collect::<Option<Vec<_>>>()?.join(", ")))
        }
        scalar => SCALARS.iter().find(|(_, one)| one == scalar).map(|(name, _)| (*name).to_owned()),
    }
}

impl ColumnType {
    /// A type whose text needs no hint.
    pub fn plain(data_type: DataType) -> Self {
        Self { data_type, time: None }
    }

    /// A nullable field of this type; its metadata tell a decoder how times are written.
    pub fn field(&self, name: impl Into<String>) -> Field {
        let field = Field::new(name, self.data_type.clone(), true);
        let Some(time) = &self.time else { return field };
        let mut metadata = vec![(PATTERN.to_owned(), time.pattern.clone())];
        metadata.extend(time.zone.map(|zone| (ZONE.to_owned(), zone.name().to_owned())));
        field.with_metadata(metadata.into_iter().collect())
    }
}

impl TimeFormat {
    /// The format that a field made by [`ColumnType::field`] carries.
    pub fn of(field: &Field) -> Option<Self> {
        let pattern = field.metadata().get(PATTERN)?.clone();
        let zone = field.metadata().get(ZONE).and_then(|name| name.parse().ok());
        Some(Self { pattern, zone })
    }
}

/// The schema without what only a decoder needs to know.
pub fn without_hints(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(plain_fields(schema.fields())))
}

fn plain_fields(fields: &Fields) -> Fields {
    fields.iter().map(|field| Arc::new(plain_field(field))).collect()
}

/// The field without hints, at any depth.
pub(crate) fn plain_field(field: &Field) -> Field {
    let data_type = match field.data_type() {
        DataType::List(item) => DataType::List(Arc::new(plain_field(item))),
        DataType::Struct(fields) => DataType::Struct(plain_fields(fields)),
        other => other.clone(),
    };
    Field::new(field.name(), data_type, field.is_nullable())
}

/// Reads a type: `int64`, `timestamp('%d/%m/%Y %H:%M', 'Europe/Paris')`, `decimal(10,2)`,
/// `list<struct<a: int64, b: string>>`.
///
/// # Errors
/// The text is no type; the message says where, and which name is nearest.
pub fn parse_type(text: &str) -> Result<ColumnType, Problem> {
    let mut parser = Parser { text, rest: text };
    let column = parser.column_type(0)?;
    parser.skip_space();
    if parser.rest.is_empty() { Ok(column) } else { Err(parser.wrong("the end")) }
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn column_type(&mut self, depth: usize) -> Result<ColumnType, Problem> {
        if depth > MAX_TYPE_DEPTH {
            return Err(Problem::at("", format!("types within types may go {MAX_TYPE_DEPTH} deep at most")));
        }
        let word = self.word();
        match word.to_ascii_lowercase().as_str() {
            "timestamp" => self.timestamp(),
            "decimal" => self.decimal(),
            "list" => self.list(depth),
            "struct" => self.fields(depth),
            name => self.scalar(word, name),
        }
    }

    fn scalar(&self, word: &str, name: &str) -> Result<ColumnType, Problem> {
        if let Some((_, data_type)) = SCALARS.iter().find(|(scalar, _)| *scalar == name) {
            return Ok(ColumnType::plain(data_type.clone()));
        }
        let names = SCALARS.iter().map(|(name, _)| *name).chain(GENERICS);
        let hint = match nearest(name, names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "expected a type such as int64, float64, string, bool, date, timestamp".to_owned(),
        };
        let found = if word.is_empty() { self.text } else { word };
        Err(Problem::at("", format!("`{}` is no type; {hint}", cut(found))))
    }

    fn timestamp(&mut self) -> Result<ColumnType, Problem> {
        if !self.eat('(') {
            return Ok(ColumnType::plain(timestamp()));
        }
        let pattern = self.quoted()?;
        check_pattern(&pattern)?;
        let zone = if self.eat(',') { Some(self.zone()?) } else { None };
        self.expect(')')?;
        Ok(ColumnType { data_type: timestamp(), time: Some(TimeFormat { pattern, zone }) })
    }

    fn zone(&mut self) -> Result<chrono_tz::Tz, Problem> {
        let name = self.quoted()?;
        name.parse().map_err(|_| {
            let names = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
            let hint = nearest(&name, names).map(|near| format!("; did you mean `{near}`?"));
            Problem::at("", format!("`{}` is no time zone{}", cut(&name), hint.unwrap_or_default()))
        })
    }

    fn decimal(&mut self) -> Result<ColumnType, Problem> {
        self.expect('(')?;
        let precision = self.number()?;
        self.expect(',')?;
        let scale = self.number()?;
        self.expect(')')?;
        let (Ok(p), Ok(s)) = (u8::try_from(precision), i8::try_from(scale)) else {
            return Err(decimal_range(precision, scale));
        };
        let data_type = match precision {
            1..=38 => DataType::Decimal128(p, s),
            39..=76 => DataType::Decimal256(p, s),
            _ => return Err(decimal_range(precision, scale)),
        };
        if scale > precision {
            Err(decimal_range(precision, scale))
        } else {
            Ok(ColumnType::plain(data_type))
        }
    }

    fn list(&mut self, depth: usize) -> Result<ColumnType, Problem> {
        self.expect('<')?;
        let item = self.column_type(depth + 1)?;
        self.expect('>')?;
        Ok(ColumnType::plain(DataType::List(Arc::new(item.field("item")))))
    }

    fn fields(&mut self, depth: usize) -> Result<ColumnType, Problem> {
        self.expect('<')?;
        let mut fields: Vec<Field> = Vec::new();
        loop {
            let name = self.field_name()?;
            if fields.iter().any(|field| *field.name() == name) {
                return Err(Problem::at("", format!("`{}` is there twice", cut(&name))));
            }
            self.expect(':')?;
            fields.push(self.column_type(depth + 1)?.field(name));
            if !self.eat(',') {
                break;
            }
        }
        self.expect('>')?;
        Ok(ColumnType::plain(DataType::Struct(fields.into())))
    }

    fn field_name(&mut self) -> Result<String, Problem> {
        self.skip_space();
        if self.rest.starts_with(['\'', '"']) {
            return self.quoted();
        }
        let end = self.rest.find([':', ',', '<', '>']).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        if name.trim().is_empty() {
            return Err(self.wrong("a field's name"));
        }
        self.rest = rest;
        Ok(name.trim().to_owned())
    }

    fn word(&mut self) -> &'a str {
        self.skip_space();
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn number(&mut self) -> Result<u32, Problem> {
        let rest = self.rest;
        self.word().parse().map_err(|_| Self { text: self.text, rest }.wrong("a number"))
    }

    /// Text in quotes; a doubled quote stands for one.
    fn quoted(&mut self) -> Result<String, Problem> {
        self.skip_space();
        let Some(quote) = self.rest.chars().next().filter(|c| matches!(c, '\'' | '"')) else {
            return Err(self.wrong("text in quotes"));
        };
        let mut text = String::new();
        let mut rest = &self.rest[1..];
        loop {
            let Some(end) = rest.find(quote) else { return Err(self.wrong("a closing quote")) };
            text.push_str(&rest[..end]);
            rest = &rest[end + 1..];
            if !rest.starts_with(quote) {
                break;
            }
            text.push(quote);
            rest = &rest[1..];
        }
        self.rest = rest;
        Ok(text)
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, c: char) -> bool {
        self.skip_space();
        let rest = self.rest.strip_prefix(c);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, c: char) -> Result<(), Problem> {
        if self.eat(c) { Ok(()) } else { Err(self.wrong(&format!("`{c}`"))) }
    }

    fn wrong(&self, expected: &str) -> Problem {
        let at = if self.rest.is_empty() { "its end".to_owned() } else { format!("`{}`", cut(self.rest)) };
        Problem::at("", format!("`{}` is no type: expected {expected} at {at}", cut(self.text)))
    }
}

fn check_pattern(pattern: &str) -> Result<(), Problem> {
    use chrono::format::{Item, StrftimeItems};
    if StrftimeItems::new(pattern).any(|item| matches!(item, Item::Error)) {
        return Err(Problem::at(
            "",
            format!("`{}` is no time pattern; see strftime: %Y-%m-%d %H:%M", cut(pattern)),
        ));
    }
    Ok(())
}

fn decimal_range(precision: u32, scale: u32) -> Problem {
    Problem::at(
        "",
        format!(
            "`decimal({precision},{scale})` has no room; expected 1 to 76 digits, at most all after the point"
        ),
    )
}

fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn type_of(text: &str) -> DataType {
        parse_type(text).unwrap().data_type
    }

    #[test]
    fn every_type_of_the_contract_is_read() {
        for (name, data_type) in SCALARS {
            assert_eq!(type_of(name), data_type);
        }
        assert_eq!(type_of(" Timestamp "), timestamp());
        assert_eq!(type_of("decimal(10, 2)"), DataType::Decimal128(10, 2));
        assert_eq!(type_of("decimal(50,2)"), DataType::Decimal256(50, 2));
        let point = Fields::from(vec![
            Field::new("x", DataType::Float64, true),
            Field::new("the name", DataType::new_list(DataType::Utf8, true), true),
        ]);
        assert_eq!(type_of("struct<x: float64, the name: list<string>>"), DataType::Struct(point));
    }

    #[test]
    fn times_keep_their_pattern_and_zone_at_any_depth() {
        let column = parse_type("timestamp('%d/%m/%Y %H:%M','Europe/Paris')").unwrap();
        let time = column.time.clone().unwrap();
        assert_eq!((time.pattern.as_str(), time.zone), ("%d/%m/%Y %H:%M", Some(chrono_tz::Europe::Paris)));
        assert_eq!(TimeFormat::of(&column.field("at")), Some(time));
        let DataType::List(item) = type_of("list<timestamp('%Y')>") else { unreachable!() };
        assert_eq!(TimeFormat::of(&item).unwrap().pattern, "%Y");
        assert!(plain_field(&item).metadata().is_empty());
    }

    #[test]
    fn what_is_no_type_is_told_with_the_nearest_name() {
        for (text, hint) in [
            ("int65", "int64"),
            ("strnig", "string"),
            ("", "expected a type"),
            ("decimal(10)", "`,`"),
            ("decimal(99,1)", "76"),
            ("decimal(2,3)", "after the point"),
            ("timestamp('%Q')", "strftime"),
            ("timestamp('%Y','Europe/Pariss')", "Europe/Paris"),
            ("list<int64", "`>`"),
            ("struct<a int64>", "`:`"),
            ("struct<a: int64, a: string>", "twice"),
            ("int64 x", "the end"),
            ("timestamp('%Y", "closing quote"),
        ] {
            let message = parse_type(text).unwrap_err().message;
            assert!(message.contains(hint), "{text}: {message}");
        }
        assert!(parse_type(&"list<".repeat(100_000)).is_err());
    }
}
