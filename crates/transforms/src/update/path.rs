//! Where an edit takes place: names from the outside to the inside.

/// Deeper than this nobody writes; every step costs a frame of the stack.
const MAX_STEPS: usize = 32;
/// In rows of STAC items, the members of this are columns.
const PROPERTIES: &str = "properties";

/// From one level to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PathStep {
    /// The column, or the member of a struct, of this name.
    Name(String),
    /// Each member of a struct that is there, or each element of a list.
    Every,
}

/// A path as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Path(Vec<PathStep>);

impl Path {
    /// Reads `a.b.*.c`, or a JSON pointer, `/a/b/*/c`.
    ///
    /// # Errors
    /// It is neither, or has no end.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let steps: Vec<PathStep> = match text.strip_prefix('/') {
            Some(pointer) => {
                pointer.split('/').map(|name| step(&name.replace("~1", "/").replace("~0", "~"))).collect()
            }
            None => text.split('.').map(step).collect(),
        };
        if steps.contains(&PathStep::Name(String::new())) {
            return Err(format!(
                "`{text}` is no path: a name in it is empty; write `assets.thumbnail.href`, or `/a.b/c` for a name with a dot"
            ));
        }
        if steps.len() > MAX_STEPS {
            return Err(format!("a path has at most {MAX_STEPS} names, and `{text}` has {}", steps.len()));
        }
        if steps.last() == Some(&PathStep::Every) {
            return Err(format!("`{text}` ends with `*`; say what of each of them, or name the whole"));
        }
        Ok(Self(steps))
    }

    /// The path of a member of what this leads to.
    pub(super) fn to(&self, name: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(PathStep::Name(name.to_owned()));
        Self(steps)
    }

    /// Whether it leads to all that an item has in `properties`.
    pub(super) fn is_properties(&self) -> bool {
        matches!(self.0.as_slice(), [PathStep::Name(name)] if name == PROPERTIES)
    }

    /// The steps over columns, which in rows of STAC items are the members of `properties` too.
    ///
    /// # Errors
    /// It leads to all of `properties`, or too deep.
    pub(super) fn steps(&self, is_item: bool) -> Result<Vec<PathStep>, String> {
        if self.0.len() > MAX_STEPS {
            return Err(format!("at most {MAX_STEPS} objects may be within each other"));
        }
        if is_item && self.is_properties() {
            return Err("the members of `properties` are columns here; name them one by one".into());
        }
        match self.0.split_first() {
            Some((PathStep::Name(first), rest)) if is_item && first == PROPERTIES => Ok(rest.to_vec()),
            _ => Ok(self.0.clone()),
        }
    }
}

fn step(name: &str) -> PathStep {
    if name == "*" { PathStep::Every } else { PathStep::Name(name.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> PathStep {
        PathStep::Name(name.into())
    }

    #[test]
    fn dots_and_pointers_lead_to_the_same() {
        let steps = [name("assets"), PathStep::Every, name("href")];
        assert_eq!(Path::parse("assets.*.href").unwrap().0, steps);
        assert_eq!(Path::parse("/assets/*/href").unwrap().0, steps);
        assert_eq!(Path::parse("/a.b/c~1d/e~0f").unwrap().0, [name("a.b"), name("c/d"), name("e~f")]);
        assert_eq!(Path::parse("eo:cloud_cover").unwrap().0, [name("eo:cloud_cover")]);
    }

    #[test]
    fn what_leads_nowhere_is_refused() {
        for wrong in ["", "a..b", ".a", "a.", "/", "a.*", &["a"; 33].join(".")] {
            assert!(Path::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn members_of_properties_are_columns_of_items() {
        let path = Path::parse("properties.platform").unwrap();
        assert_eq!(path.steps(true).unwrap(), [name("platform")]);
        assert_eq!(path.steps(false).unwrap().len(), 2);
        assert!(Path::parse("properties").unwrap().steps(true).is_err());
    }
}
