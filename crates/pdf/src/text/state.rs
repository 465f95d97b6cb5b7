//! Where text stands and how it is set (ISO 32000-2, 9.3 and 9.4).

use hayro_font::Font;
use hayro_font::kurbo::{Affine, Point as Place};

use super::glyphs::{Glyph, Point};
use super::typeface::Typeface;

/// In these units fonts tell widths.
const UNITS_PER_EM: f64 = 1000.0;

/// The parameters that `q` keeps and `Q` brings back.
#[derive(Clone)]
pub(super) struct State<'a> {
    pub(super) to_page: Affine,
    pub(super) typeface: Option<Typeface<'a>>,
    pub(super) size: f64,
    pub(super) char_space: f64,
    pub(super) word_space: f64,
    /// Of the width, 1 is all.
    pub(super) scale: f64,
    pub(super) leading: f64,
    pub(super) rise: f64,
}

impl State<'_> {
    pub(super) fn new(to_page: Affine) -> Self {
        Self {
            to_page,
            typeface: None,
            size: 0.0,
            char_space: 0.0,
            word_space: 0.0,
            scale: 1.0,
            leading: 0.0,
            rise: 0.0,
        }
    }
}

/// Where the next glyph and the next line begin.
#[derive(Clone, Copy)]
pub(super) struct Pen {
    glyph: Affine,
    line: Affine,
}

impl Pen {
    pub(super) fn new() -> Self {
        Self { glyph: Affine::IDENTITY, line: Affine::IDENTITY }
    }

    pub(super) fn set(&mut self, to: Affine) {
        (self.glyph, self.line) = (to, to);
    }

    pub(super) fn next_line(&mut self, x: f64, y: f64) {
        self.set(self.line * Affine::translate((x, y)));
    }

    /// Moves by a number of an array of strings: thousandths of the size, backwards.
    pub(super) fn adjust(&mut self, by: f64, state: &State<'_>) {
        let way = -by / UNITS_PER_EM * state.size;
        let is_level = state.typeface.as_ref().is_none_or(|typeface| typeface.font.is_horizontal());
        self.go(if is_level { (way * state.scale, 0.0) } else { (0.0, way) });
    }

    fn go(&mut self, by: (f64, f64)) {
        self.glyph *= Affine::translate(by);
    }

    /// Passes a character, and says where its glyph stands.
    pub(super) fn pass(&mut self, code: u32, n_bytes: usize, font: &Font<'_>, state: &State<'_>) -> Glyph {
        let advance = font.code_advance(code) / UNITS_PER_EM * state.size;
        let word_space = if code == 32 && n_bytes == 1 { state.word_space } else { 0.0 };
        let space = state.char_space + word_space;
        let is_level = font.is_horizontal();
        let of_glyph = if is_level { (advance.x * state.scale, 0.0) } else { (0.0, advance.y) };
        let onward =
            if is_level { ((advance.x + space) * state.scale, 0.0) } else { (0.0, advance.y + space) };
        let to_page = state.to_page * self.glyph * Affine::translate((0.0, state.rise));
        let at = |x: f64, y: f64| on_page(to_page * Place::new(x, y));
        let (start, end) = (at(0.0, 0.0), at(of_glyph.0, of_glyph.1));
        let unit = if is_level { at(state.size * state.scale.signum(), 0.0) } else { at(0.0, -state.size) };
        let height = start.to(at(0.0, state.size)).length();
        self.go(onward);
        Glyph::new(start, end, start.to(unit).direction(), height)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "places on a page need no more")]
fn on_page(place: Place) -> Point {
    Point::new(place.x as f32, place.y as f32)
}
