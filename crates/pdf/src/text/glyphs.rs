//! What a page draws of text, glyph by glyph.

/// A point on the page, or the way from one to another; in the page's own units.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Point {
    pub(super) x: f32,
    pub(super) y: f32,
}

impl Point {
    pub(super) fn new(x: f32, y: f32) -> Self {
        Self { x, y }
    }

    pub(super) fn to(self, other: Self) -> Self {
        Self::new(other.x - self.x, other.y - self.y)
    }

    pub(super) fn dot(self, other: Self) -> f32 {
        self.x * other.x + self.y * other.y
    }

    pub(super) fn length(self) -> f32 {
        self.x.hypot(self.y)
    }

    /// A quarter turn to the left.
    pub(super) fn turned(self) -> Self {
        Self::new(-self.y, self.x)
    }

    /// Of length 1; to the right, where it has none.
    pub(super) fn direction(self) -> Self {
        let length = self.length();
        if length > f32::EPSILON && length.is_finite() {
            Self::new(self.x / length, self.y / length)
        } else {
            Self::new(1.0, 0.0)
        }
    }
}

/// A glyph that stands for some text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Glyph {
    /// Where it begins on its line.
    pub(super) start: Point,
    /// Where the next one would begin.
    pub(super) end: Point,
    /// Where its line goes; of length 1.
    pub(super) along: Point,
    /// Of its font, on the page.
    pub(super) size: f32,
    /// Whether a space stands before it.
    pub(super) after_space: bool,
    /// Its text, within that of all.
    text: (u32, u32),
}

/// The glyphs of a page, in the order in which they are drawn.
#[derive(Debug, Default)]
pub(super) struct Glyphs {
    all: Vec<Glyph>,
    text: String,
    /// A space was drawn after the last.
    has_space: bool,
}

/// A page with more glyphs is none that anybody reads.
const MAX_GLYPHS: usize = 2_000_000;

impl Glyphs {
    pub(super) fn all(&self) -> &[Glyph] {
        &self.all
    }

    pub(super) fn text_of(&self, glyph: &Glyph) -> &str {
        self.text.get(glyph.text.0 as usize..glyph.text.1 as usize).unwrap_or_default()
    }

    /// Adds a glyph; white space is remembered with the next. Says whether there was room for it.
    pub(super) fn push(&mut self, text: &str, mut glyph: Glyph) -> bool {
        if text.chars().all(char::is_whitespace) {
            self.has_space |= !text.is_empty();
            return true;
        }
        let begin = self.text.len();
        self.text.extend(text.chars().filter(|c| !c.is_control()));
        let (Ok(from), Ok(to)) = (u32::try_from(begin), u32::try_from(self.text.len())) else { return false };
        if from < to {
            glyph.text = (from, to);
            glyph.after_space = std::mem::take(&mut self.has_space);
            self.all.push(glyph);
        }
        self.all.len() < MAX_GLYPHS
    }

    /// The last glyph goes on to `end`.
    pub(super) fn stretch(&mut self, end: Point) {
        if let Some(last) = self.all.last_mut() {
            last.end = end;
        }
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&Glyph) -> bool) {
        self.all.retain(keep);
    }
}

impl Glyph {
    /// A glyph between two points.
    pub(super) fn new(start: Point, end: Point, along: Point, size: f32) -> Self {
        Self { start, end, along, size, after_space: false, text: (0, 0) }
    }

    /// A line of small text.
    #[expect(clippy::cast_possible_truncation, reason = "places on a page need no more")]
    pub(super) fn line(from: f64, to: f64, at: f64) -> Self {
        let place = |x: f64| Point::new(x as f32, at as f32);
        Self::new(place(from), place(to), Point::new(1.0, 0.0), 1.0)
    }

    /// Whether it stands anywhere.
    pub(super) fn is_finite(&self) -> bool {
        [self.start.x, self.start.y, self.end.x, self.end.y, self.size].iter().all(|value| value.is_finite())
    }

    /// Takes the size from the width, where that of the font says nothing: the glyphs of some fonts are as large as they
    /// are drawn.
    pub(super) fn size_by_width(&mut self) {
        let width = self.start.to(self.end).length();
        if width > 0.0 && !(width * 0.5..=width * 8.0).contains(&self.size) {
            self.size = width * 1.5;
        }
    }
}
