//! A page of items without its items.

use aqueduct_core::{Error, ErrorKind, Result};
use aqueduct_primitives::ByteCount;
use serde_json::{Map, Value};

use crate::text::unescaped;

/// What a page holds beside its items is links and a few numbers; more than this is refused.
pub const MAX_ENVELOPE: ByteCount = ByteCount::mib(1);

/// What a FeatureCollection holds beside its features, taken from its text as it passes: links to the next page, and how many
/// items match.
///
/// ```
/// # fn main() -> aqueduct_core::Result<()> {
/// let mut envelope = aqueduct_formats::stac::Envelope::default();
/// for piece in [r#"{"features": [{"type": "Feat"#, r#"ure"}], "numberMatched": 1}"#] {
///     envelope.feed(piece.as_bytes())?;
/// }
/// assert_eq!(envelope.finish()?["numberMatched"], 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Envelope {
    /// The text without the elements of `features`.
    kept: Vec<u8>,
    /// Lists and objects that are open.
    depth: usize,
    in_string: bool,
    is_escaped: bool,
    /// Where in `kept` the key of a member begins or began, behind its quote.
    key: usize,
    awaits_key: bool,
    /// Within the value of `features`; or before it.
    is_features: bool,
}

impl Envelope {
    /// Takes the next bytes of the page.
    ///
    /// # Errors
    /// There is more than [`MAX_ENVELOPE`] beside the items.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        for byte in bytes {
            let was_passed_over = self.passes_over();
            self.step(*byte);
            if !(was_passed_over && self.passes_over()) {
                self.kept.push(*byte);
            }
            if self.kept.len() > MAX_ENVELOPE.as_usize() {
                let message = "a page holds too much beside its items";
                return Err(Error::new(ErrorKind::Limit, "read page", message).with("limit", MAX_ENVELOPE));
            }
        }
        Ok(())
    }

    /// Whether the byte at hand stands within the list of features.
    fn passes_over(&self) -> bool {
        self.is_features && self.depth > 1
    }

    fn step(&mut self, byte: u8) {
        match byte {
            _ if std::mem::take(&mut self.is_escaped) => {}
            b'\\' if self.in_string => self.is_escaped = true,
            b'"' if self.in_string => {
                self.in_string = false;
                if self.awaits_key {
                    self.is_features = self.has_key(b"features");
                    self.awaits_key = false;
                }
            }
            _ if self.in_string => {}
            b'"' => {
                self.in_string = true;
                self.key = self.kept.len() + 1;
            }
            b'{' | b'[' => {
                self.depth += 1;
                self.awaits_key = self.depth == 1;
            }
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b',' if self.depth == 1 => self.awaits_key = true,
            _ => {}
        }
    }

    fn has_key(&self, wanted: &[u8]) -> bool {
        let raw = self.kept.get(self.key..).unwrap_or_default();
        unescaped(raw).as_deref().unwrap_or(raw) == wanted
    }

    /// The members of the page but `features`, in order.
    ///
    /// # Errors
    /// The page is no object of JSON, or ends before it is complete.
    pub fn finish(self) -> Result<Map<String, Value>> {
        let members: std::result::Result<Map<_, _>, _> = serde_json::from_slice(&self.kept);
        let mut members = members.map_err(|error| {
            let message = "a page of items is no whole object of JSON";
            Error::new(ErrorKind::Data, "read page", message).with_source(error)
        })?;
        members.shift_remove("features");
        Ok(members)
    }
}
