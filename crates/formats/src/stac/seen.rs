//! What was seen of items, from which the columns follow.

use arrow::datatypes::{DataType, Field, Schema};

use super::columns::{PROJ_GEOMETRY, TIMES, TOP_LEVEL, bbox_type, links_type, nullable};
use crate::text::shape::{MAX_FIELDS, Shape, each_member, merge, merge_fields, shape_of};
use crate::text::{BadValue, Json, Kind};
use crate::timestamp;

/// What was seen of items; of one, before it is merged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Items {
    /// Whether a box had heights.
    has_z: bool,
    links: Shape,
    assets: Shape,
    /// Properties and foreign members, in the order of their first appearance.
    others: Vec<(String, Shape)>,
}

impl Items {
    /// Adds what can be seen of a record. One that is no item tells nothing: it is rejected when rows are read.
    pub(crate) fn look_at(&mut self, record: &[u8]) {
        let is_text = std::str::from_utf8(record).is_ok();
        if let Some(item) = is_text.then(|| item(record).ok()).flatten().flatten() {
            self.merge(item);
        }
    }

    pub(crate) fn merge(&mut self, later: Self) {
        self.has_z |= later.has_z;
        merge(&mut self.links, later.links);
        merge(&mut self.assets, later.assets);
        merge_fields(&mut self.others, later.others);
    }

    /// Whether there are more fields than any data has.
    pub(crate) fn has_too_many(&self) -> bool {
        let n_assets = if let Shape::Object(assets) = &self.assets { assets.len() } else { 0 };
        self.others.len().max(n_assets) > MAX_FIELDS
    }

    /// The columns.
    pub(crate) fn schema(&self) -> Schema {
        let top = TOP_LEVEL.iter().filter_map(|name| Some(nullable(name, self.top_level(name)?)));
        let others = self.others.iter();
        let others = others.filter_map(|(name, shape)| Some(nullable(name, type_of(name, shape)?)));
        Schema::new(top.chain(others).collect::<Vec<Field>>())
    }

    fn top_level(&self, name: &str) -> Option<DataType> {
        match name {
            "stac_extensions" => Some(DataType::new_list(DataType::Utf8, true)),
            "geometry" => Some(DataType::Binary),
            "bbox" => Some(bbox_type(self.has_z)),
            "links" => match &self.links {
                Shape::List(link) if matches!(**link, Shape::Object(_)) => {
                    Some(link.type_if_any().map_or_else(links_type, |link| DataType::new_list(link, true)))
                }
                _ => Some(links_type()),
            },
            "assets" => Some(&self.assets).filter(|assets| **assets != Shape::Unknown)?.type_if_any(),
            _ => Some(DataType::Utf8),
        }
    }
}

/// The type of a property's column, if it has one.
fn type_of(name: &str, shape: &Shape) -> Option<DataType> {
    match shape {
        Shape::Unknown | Shape::Text if TIMES.contains(&name) => Some(timestamp()),
        Shape::Unknown if name == PROJ_GEOMETRY => Some(DataType::Binary),
        Shape::Object(members) if name == PROJ_GEOMETRY && is_geometry(members) => Some(DataType::Binary),
        _ => shape.type_if_any(),
    }
}

fn is_geometry(members: &[(String, Shape)]) -> bool {
    let has = |wanted: &str| members.iter().any(|(name, _)| name == wanted);
    has("type") && (has("coordinates") || has("geometries"))
}

/// What is seen of an item; nothing where the record is none.
fn item(record: &[u8]) -> Result<Option<Items>, BadValue> {
    let mut json = Json::new(record);
    let (mut item, mut is_feature, mut has_id) = (Items::default(), false, false);
    if json.kind()? != Kind::Object {
        return Ok(None);
    }
    each_member(&mut json, 1, |name, json| {
        match name {
            "type" => is_feature = json.skip_value(1)? == b"\"Feature\"",
            "id" => {
                has_id = json.kind()? == Kind::String;
                json.skip_value(1)?;
            }
            "bbox" => item.has_z = n_elements(json)? == 6,
            "links" | "assets" => item.part(name, shape_of(json, 1)?),
            "properties" if json.kind()? == Kind::Object => {
                each_member(json, 2, |name, json| match TOP_LEVEL.contains(&name) || name == "properties" {
                    true => json.skip_value(2).map(drop),
                    false => item.other(name, shape_of(json, 2)?),
                })?
            }
            _ if TOP_LEVEL.contains(&name) || name == "properties" => drop(json.skip_value(1)?),
            _ => item.other(name, shape_of(json, 1)?)?,
        }
        Ok(())
    })?;
    json.end()?;
    Ok(Some(item).filter(|_| is_feature && has_id))
}

impl Items {
    /// Keeps what is of the kind that the layout has for it.
    fn part(&mut self, name: &str, shape: Shape) {
        match (name, &shape) {
            ("assets", Shape::Object(_)) => self.assets = shape,
            ("links", Shape::List(link)) if matches!(**link, Shape::Object(_)) => self.links = shape,
            _ => {}
        }
    }

    fn other(&mut self, name: &str, shape: Shape) -> Result<(), BadValue> {
        self.others.push((name.to_owned(), shape));
        Ok(())
    }
}

/// How many values the list that comes next has; none, if it is no list.
fn n_elements(json: &mut Json<'_>) -> Result<usize, BadValue> {
    let mut n = 0;
    if json.kind()? != Kind::List {
        json.skip_value(1)?;
        return Ok(n);
    }
    json.enter(2)?;
    if json.eat(b']') {
        return Ok(n);
    }
    loop {
        json.skip_value(2)?;
        n += 1;
        if !json.another(b']')? {
            return Ok(n);
        }
    }
}
