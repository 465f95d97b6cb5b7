//! An item becomes a row.

use super::columns::TOP_LEVEL;
use crate::text::shape::each_member;
use crate::text::{BadValue, Fields, Filling, Json, Kind, Path, fill_field, shown, unescaped};
use arrow::datatypes::Schema;

type Result<T> = std::result::Result<T, BadValue>;

/// What a member of an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    Type,
    Id,
    Properties,
    /// Of the [others](TOP_LEVEL) that the specification knows.
    TopLevel,
    /// A property, or foreign.
    Other,
}

impl Member {
    fn named(name: &[u8]) -> Self {
        match name {
            b"type" => Self::Type,
            b"id" => Self::Id,
            b"properties" => Self::Properties,
            _ if TOP_LEVEL.iter().any(|known| known.as_bytes() == name) => Self::TopLevel,
            _ => Self::Other,
        }
    }
}

/// What is known of the columns before the first item.
pub(crate) struct ItemPlan {
    /// What each column is as a member of an item.
    members: Vec<Member>,
    /// The first column of a property.
    first_property: usize,
}

impl ItemPlan {
    pub(crate) fn new(columns: &Schema) -> Self {
        let members: Vec<_> =
            columns.fields().iter().map(|field| Member::named(field.name().as_bytes())).collect();
        let first_property = members.iter().position(|member| *member == Member::Other);
        Self { first_property: first_property.unwrap_or(members.len()), members }
    }
}

/// Adds an item to the columns.
pub(crate) fn fill_item(
    plan: &ItemPlan,
    fields: &mut Fields,
    record: &[u8],
    filling: &mut Filling,
) -> Result<()> {
    let mut json = Json::new(record);
    let kind = json.kind()?;
    if kind != Kind::Object {
        json.skip_value(0)?;
        return Err(BadValue::new("stac", format!("found {}, expected an item, an object", kind.name())));
    }
    let n = fields.n_values();
    filling.box_of_geometry = None;
    let (foreign, found) = (Vec::new(), Found::default());
    let mut row = Row { plan, record, fields, filling, n, n_filled: 0, foreign, found };
    row.top_level(&mut json).map_err(|error| why_no_feature(record).unwrap_or(error))?;
    json.end()?;
    row.finish()
}

/// Why a record is no item, whatever else was found first: other objects of STAC have other members.
#[cold]
fn why_no_feature(record: &[u8]) -> Option<BadValue> {
    let (mut feature, mut has_id) = (None, false);
    let looked = each_member(&mut Json::new(record), 1, |name, json| {
        if name == "type" && feature.is_none() {
            feature = Some(expect_feature(json));
        }
        has_id |= name == "id";
        json.skip_value(1).map(drop)
    });
    looked.ok()?;
    let what_it_is = feature.unwrap_or_else(|| Err(lacks("type"))).err();
    what_it_is.or_else(|| (!has_id).then(|| lacks("id")))
}

fn expect_feature(json: &Json<'_>) -> Result<()> {
    let value = json.clone().skip_value(1)?;
    if value == b"\"Feature\"" {
        return Ok(());
    }
    let message = format!("found {}, expected \"Feature\", the type of an item", in_quotes_once(value));
    Err(BadValue::new("stac", message).within("type"))
}

/// A row that is being filled.
struct Row<'a> {
    plan: &'a ItemPlan,
    /// The item.
    record: &'a [u8],
    fields: &'a mut Fields,
    filling: &'a mut Filling,
    /// How many values each column had before.
    n: usize,
    n_filled: usize,
    /// Columns that a foreign member has filled.
    foreign: Vec<usize>,
    found: Found,
}

/// What an item must have, once each.
#[derive(Default)]
struct Found {
    feature: bool,
    id: bool,
    properties: bool,
}

/// The key of a member.
struct Key<'a> {
    /// Its column.
    at: Option<usize>,
    member: Member,
    /// As it is written; empty where the column was expected.
    raw: &'a [u8],
}

impl<'a> Key<'a> {
    /// As it is written. That of an expected column has no escapes: else it would not have been found so.
    fn written<'b>(&self, name: &'b str) -> &'b [u8]
    where
        'a: 'b,
    {
        if self.raw.is_empty() { name.as_bytes() } else { self.raw }
    }
}

impl Row<'_> {
    fn top_level(&mut self, json: &mut Json<'_>) -> Result<()> {
        let mut next = 0;
        json.enter(1)?;
        if json.eat(b'}') {
            return Ok(());
        }
        loop {
            let key = self.key(next, json)?;
            match key.member {
                Member::Properties => self.properties(json)?,
                Member::Type => self.feature(json)?,
                Member::Id => self.id(json)?,
                Member::TopLevel | Member::Other => {}
            }
            match key.at {
                _ if key.member == Member::Properties => {}
                Some(at) => {
                    self.fill_from_top(at, &key, json)?;
                    next = at + 1;
                }
                None => self.filling.new_field(None, key.raw, json, 1)?,
            }
            if !json.another(b'}')? {
                return Ok(());
            }
        }
    }

    fn fill_from_top(&mut self, at: usize, key: &Key<'_>, json: &mut Json<'_>) -> Result<()> {
        if key.member == Member::Other {
            if self.is_filled(at) && !self.foreign.contains(&at) {
                let name = self.fields.columns[at].field.name().clone();
                if says_it_again(json, 1, twin(self.record, &["properties", &name]))? {
                    return Ok(());
                }
                let raw = key.written(&name);
                return self.filling.field_without_column(None, raw, json, 1, || two_for_one(&name));
            }
            self.foreign.push(at);
        }
        fill_field(&mut self.fields.columns[at], self.n, json, self.filling, 1, None)?;
        self.n_filled += 1;
        Ok(())
    }

    fn properties(&mut self, json: &mut Json<'_>) -> Result<()> {
        once(&mut self.found.properties, "properties")?;
        match json.kind()? {
            Kind::Null => return json.null(),
            Kind::Object => json.enter(2)?,
            kind => {
                let message = format!("found {}, expected an object", kind.name());
                return Err(BadValue::new("type", message).within("properties"));
            }
        }
        let mut next = self.plan.first_property;
        if json.eat(b'}') {
            return Ok(());
        }
        loop {
            let key = self.key(next, json)?;
            match key.at.filter(|at| key.member == Member::Other && !self.foreign.contains(at)) {
                Some(at) => {
                    let path = Path { outer: None, name: "properties" };
                    let column = &mut self.fields.columns[at];
                    fill_field(column, self.n, json, self.filling, 2, Some(&path))?;
                    self.n_filled += 1;
                    next = at + 1;
                }
                None => self.property_without_column(&key, json)?,
            }
            if !json.another(b'}')? {
                return Ok(());
            }
        }
    }

    #[inline(never)]
    fn property_without_column(&mut self, key: &Key<'_>, json: &mut Json<'_>) -> Result<()> {
        let path = Path { outer: None, name: "properties" };
        let column = key.at.and_then(|at| self.fields.columns.get(at));
        let name = column.map_or_else(|| shown_key(key.raw), |column| column.field.name().clone());
        let raw = key.written(&name);
        let is_taken = key.at.is_some() || key.member != Member::Other;
        if is_taken && says_it_again(json, 2, twin(self.record, &[&name]))? {
            return Ok(());
        }
        let kept = match is_taken {
            true => self.filling.field_without_column(Some(&path), raw, json, 2, || two_for_one(&name)),
            false => self.filling.new_field(Some(&path), raw, json, 2),
        };
        kept.map_err(|error| error.within("properties"))
    }

    /// The key that comes next: that of the column `next`, most of the time.
    fn key<'j>(&self, next: usize, json: &mut Json<'j>) -> Result<Key<'j>> {
        json.skip_space();
        let is_expected = self.fields.keys.get(next).is_some_and(|key| json.eat_bytes(key));
        match self.plan.members.get(next).filter(|_| is_expected) {
            Some(member) => Ok(Key { at: Some(next), member: *member, raw: b"" }),
            None => self.other_key(json),
        }
    }

    #[inline(never)]
    fn other_key<'j>(&self, json: &mut Json<'j>) -> Result<Key<'j>> {
        let raw = json.key()?;
        let meant = unescaped(raw);
        let name = meant.as_deref().unwrap_or(raw);
        Ok(Key { at: self.fields.named(name), member: Member::named(name), raw })
    }

    fn is_filled(&self, at: usize) -> bool {
        self.fields.columns.get(at).is_some_and(|column| column.len() > self.n)
    }

    fn feature(&mut self, json: &Json<'_>) -> Result<()> {
        once(&mut self.found.feature, "type")?;
        expect_feature(json)
    }

    fn id(&mut self, json: &Json<'_>) -> Result<()> {
        once(&mut self.found.id, "id")?;
        let mut ahead = json.clone();
        if ahead.kind()? == Kind::String {
            return Ok(());
        }
        let found = in_quotes_once(ahead.skip_value(1)?);
        Err(BadValue::new("stac", format!("found {found}, expected a string")).within("id"))
    }

    /// A geometry may have a box of its own (RFC 7946, section 5), and no column for it. That of the item says the same.
    #[inline(never)]
    fn box_of_geometry(&mut self, found: &[u8]) -> Result<()> {
        let mut json = Json::new(found);
        if says_it_again(&mut json, 1, twin(self.record, &["bbox"]))? {
            return Ok(());
        }
        let path = Path { outer: None, name: "geometry" };
        let kept = self.filling.field_without_column(Some(&path), b"bbox", &mut json, 1, || {
            "the box of the geometry is another than `bbox` of the item, and has no column; `new_fields: extra` keeps it in \
             `_extra`, `ignore` drops it"
                .to_owned()
        });
        kept.map_err(|error| error.within("geometry"))
    }

    /// Ends the row: what it must have is there, what else it lacks is null.
    fn finish(mut self) -> Result<()> {
        for (is_there, name) in [(self.found.feature, "type"), (self.found.id, "id")] {
            if !is_there {
                return Err(lacks(name));
            }
        }
        if let Some(found) = self.filling.box_of_geometry.take() {
            self.box_of_geometry(&found)?;
        }
        if self.n_filled < self.fields.columns.len() {
            self.fields.push_null_where_shorter(self.n);
        }
        Ok(())
    }
}

#[cold]
fn lacks(name: &str) -> BadValue {
    BadValue::new("stac", format!("an item without `{name}`; expected an object with `type` and `id`"))
}

fn once(found: &mut bool, name: &str) -> Result<()> {
    match std::mem::replace(found, true) {
        false => Ok(()),
        true => Err(BadValue::new("json", "the field is there twice").within(name)),
    }
}

/// The value of an item at a path of members: of two that would be one column, the one that has it.
#[cold]
fn twin<'r>(record: &'r [u8], path: &[&str]) -> Option<&'r [u8]> {
    path.iter().try_fold(record, |object, wanted| {
        let mut found = None;
        let looked = each_member(&mut Json::new(object), 1, |name, json| {
            let value = json.skip_value(1)?;
            found = found.or((name == *wanted).then_some(value));
            Ok(())
        });
        looked.ok().and(found)
    })
}

/// Whether the value that comes next is the same as another, but for space between its parts. Then it is passed.
#[cold]
fn says_it_again(json: &mut Json<'_>, depth: usize, other: Option<&[u8]>) -> Result<bool> {
    let mut ahead = json.clone();
    let value = ahead.skip_value(depth)?;
    let is_same = other.is_some_and(|other| without_space(value).eq(without_space(other)));
    if is_same {
        *json = ahead;
    }
    Ok(is_same)
}

fn without_space(json: &[u8]) -> impl Iterator<Item = u8> {
    let (mut in_string, mut is_escaped) = (false, false);
    json.iter().copied().filter(move |byte| {
        match byte {
            _ if std::mem::take(&mut is_escaped) => {}
            b'\\' => is_escaped = in_string,
            b'"' => in_string = !in_string,
            _ => {}
        }
        in_string || !byte.is_ascii_whitespace()
    })
}

#[cold]
fn two_for_one(name: &str) -> String {
    format!(
        "`{name}` of the item and `properties.{name}` would be one column, and do not say the same; `new_fields: extra` keeps the one that has none in \
         `_extra`, `ignore` drops it"
    )
}

#[cold]
fn shown_key(raw: &[u8]) -> String {
    String::from_utf8_lossy(unescaped(raw).as_deref().unwrap_or(raw)).into_owned()
}

/// A value in a message; strings are in quotes already.
#[cold]
fn in_quotes_once(value: &[u8]) -> String {
    let text = value.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\""));
    text.map_or_else(|| String::from_utf8_lossy(value.get(..60).unwrap_or(value)).into_owned(), shown)
}
