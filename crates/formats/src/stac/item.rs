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
    let mut row = Row { plan, fields, filling, n, n_filled: 0, foreign: Vec::new(), found: Found::default() };
    row.top_level(&mut json).map_err(|error| why_no_feature(record).unwrap_or(error))?;
    json.end()?;
    row.finish()
}

/// Why a record is no item, whatever else was found first: other objects of STAC have other members.
#[cold]
fn why_no_feature(record: &[u8]) -> Option<BadValue> {
    let mut feature = None;
    let looked = each_member(&mut Json::new(record), 1, |name, json| {
        if name == "type" && feature.is_none() {
            feature = Some(expect_feature(json));
        }
        json.skip_value(1).map(drop)
    });
    looked.ok()?;
    feature.unwrap_or_else(|| Err(lacks("type"))).err()
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

    /// Ends the row: what it must have is there, what else it lacks is null.
    fn finish(self) -> Result<()> {
        for (is_there, name) in [(self.found.feature, "type"), (self.found.id, "id")] {
            if !is_there {
                return Err(lacks(name));
            }
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

#[cold]
fn two_for_one(name: &str) -> String {
    format!(
        "`{name}` of the item and `properties.{name}` would be one column; `new_fields: extra` keeps the one that has none in \
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
