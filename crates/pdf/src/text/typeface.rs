//! Which characters glyphs stand for, where their font does not say it the usual way.
//!
//! In turn: the map of the font and the names of its glyphs; the character collection of a composite font; the table by
//! which the embedded font file finds glyphs for characters, read backwards; the code itself.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::rc::Rc;

use hayro_cmap::{BfString, CMap, CMapName, CidFamily};
use hayro_font::{Font, FontGlyph, OutlineGlyph};
use hayro_syntax::object::{Array, Dict, Name, String as PdfString};
use skrifa::MetadataProvider;

use super::to_unicode::ToUnicode;

/// A font, and what else is known of its characters.
#[derive(Clone)]
pub(super) struct Typeface<'a> {
    pub(super) font: Font<'a>,
    /// For a composite font of a known collection.
    collection: Option<Rc<Collection>>,
    /// The map of a font that has one.
    map: Option<Rc<Map<'a>>>,
    by_glyph: Rc<OnceCell<HashMap<u32, char>>>,
}

struct Map<'a> {
    of: Dict<'a>,
    read: OnceCell<ToUnicode>,
}

impl<'a> Typeface<'a> {
    pub(super) fn new(font: Font<'a>, dict: Option<&Dict<'a>>) -> Self {
        let collection = dict.and_then(Collection::of).map(Rc::new);
        let map = dict.filter(|dict| dict.contains_key(b"ToUnicode"));
        let map = map.map(|dict| Rc::new(Map { of: dict.clone(), read: OnceCell::new() }));
        Self { font, collection, map, by_glyph: Rc::default() }
    }

    /// The characters of a code, and whether the font draws them by itself.
    pub(super) fn text_of(&self, code: u32, n_bytes: usize) -> (Text, bool) {
        let glyph = self.font.glyph(self.font.map_code(code), code);
        let (known, is_drawn) = match &glyph {
            FontGlyph::Outline(outline) => (outline.as_unicode(), false),
            FontGlyph::Type3(drawn) => (drawn.as_unicode(), true),
        };
        let known = known.filter(|text| !matches!(text, BfString::Char('\0'))).map(Text::from);
        let known = self.by_map(code).or(known);
        let known = known.or_else(|| self.collection.as_ref()?.text_of(code, n_bytes).map(Text::from));
        let text = known.or_else(|| match &glyph {
            FontGlyph::Outline(outline) => self.by_glyph(outline).map(Text::One),
            FontGlyph::Type3(_) => None,
        });
        (text.unwrap_or_else(|| self.code_itself(code)), is_drawn)
    }

    fn by_map(&self, code: u32) -> Option<Text> {
        let text = self.map()?.text_of(code).filter(|text| *text != "\0")?;
        Some(Text::Many(text.to_owned()))
    }

    fn map(&self) -> Option<&ToUnicode> {
        let map = self.map.as_ref()?;
        Some(map.read.get_or_init(|| ToUnicode::of(&map.of).unwrap_or_default()))
    }

    /// The last resort, which is right for fonts that take Unicode as codes; one with a map says all it means there.
    fn code_itself(&self, code: u32) -> Text {
        let is_mapped = self.map().is_some_and(|map| !map.is_empty());
        let c = char::from_u32(code).filter(|c| !c.is_control() && !is_mapped);
        c.map_or(Text::Nothing, Text::One)
    }

    fn by_glyph(&self, glyph: &OutlineGlyph) -> Option<char> {
        let by_glyph = self.by_glyph.get_or_init(|| characters_of(glyph).unwrap_or_default());
        by_glyph.get(&glyph.glyph_id().to_u32()).copied()
    }
}

/// What a glyph stands for.
pub(super) enum Text {
    One(char),
    Many(String),
    Nothing,
}

impl From<BfString> for Text {
    fn from(text: BfString) -> Self {
        match text {
            BfString::Char(c) => Self::One(c),
            BfString::String(text) => Self::Many(text),
        }
    }
}

/// The characters of the glyphs of a font file; of several for one glyph the least.
fn characters_of(glyph: &OutlineGlyph) -> Option<HashMap<u32, char>> {
    let file = glyph.font_data()?;
    let font = skrifa::FontRef::from_index((*file.data).as_ref(), 0).ok()?;
    let mut characters: HashMap<u32, char> = HashMap::new();
    for (code, glyph) in font.charmap().mappings() {
        let is_private = (0xe000..0xf900).contains(&code);
        if let Some(c) = char::from_u32(code).filter(|_| !is_private) {
            let known = characters.entry(glyph.to_u32()).or_insert(c);
            *known = (*known).min(c);
        }
    }
    Some(characters)
}

/// A collection of characters by number (ISO 32000-2, 9.7.3), and how codes become such numbers.
struct Collection {
    /// `None` where codes are numbers.
    numbers: Option<CMap>,
    characters: CMap,
}

impl Collection {
    fn of(dict: &Dict<'_>) -> Option<Self> {
        let descendant = dict.get::<Array<'_>>(b"DescendantFonts")?.iter::<Dict<'_>>().next()?;
        let info = descendant.get::<Dict<'_>>(b"CIDSystemInfo")?;
        let part = |key: &[u8]| info.get::<PdfString<'_>>(key);
        let (registry, ordering) = (part(b"Registry")?, part(b"Ordering")?);
        let family = CidFamily::from_registry_ordering(registry.as_bytes(), ordering.as_bytes());
        let characters = named_map(family.ucs2_cmap()?)?;
        let encoding = dict.get::<Name<'_>>(b"Encoding")?;
        let numbers = match encoding.as_ref() {
            b"Identity-H" | b"Identity-V" => None,
            other => Some(named_map(CMapName::from_bytes(other))?),
        };
        Some(Self { numbers, characters })
    }

    fn text_of(&self, code: u32, n_bytes: usize) -> Option<BfString> {
        let number = match &self.numbers {
            Some(numbers) => numbers.lookup_cid_code(code, u8::try_from(n_bytes).ok()?)?,
            None => code,
        };
        self.characters.lookup_bf_string(number)
    }
}

fn named_map(name: CMapName<'_>) -> Option<CMap> {
    CMap::parse(hayro_cmap::load_embedded(name)?, hayro_cmap::load_embedded)
}
