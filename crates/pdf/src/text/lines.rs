//! Glyphs to lines of words.
//!
//! What is drawn one after the other on one line is a run. Runs that touch are one line, whatever was drawn between them;
//! lines come in the order in which their first run was drawn. Of what is drawn twice in one place, to look bold say, one
//! is left.

use std::cmp::Ordering;

use super::glyphs::{Glyph, Glyphs, Point};

// In parts of the size of the font:

/// A wider gap is a space.
const WORD_GAP: f32 = 0.1;
/// A wider gap is the end of a run: another column, or a cell of a table.
const RUN_GAP: f32 = 1.5;
/// What begins farther back than this is no next glyph.
const OVERLAP: f32 = 0.35;
/// A line may go up and down by so much, for indices say.
const SHIFT: f32 = 0.5;
/// Of runs, which are drawn apart, the lines are the same if they differ by no more.
const SAME_LINE: f32 = 0.2;
/// The same text is the same if it is no farther away.
const SAME_PLACE: f32 = 0.15;

/// Directions are the same if their cosine is no less.
const SAME_DIRECTION: f32 = 0.99;

/// Adds the lines of a page to a text.
pub(super) fn write(glyphs: &Glyphs, text: &mut String) {
    let runs = joined(runs(glyphs));
    for run in runs {
        push_line(&run.text, text);
    }
}

/// Glyphs that were drawn one after the other on one line.
struct Run {
    /// Its place among all as they were drawn.
    number: usize,
    text: String,
    start: Point,
    end: Point,
    along: Point,
    size: f32,
    /// Whether a space was drawn before it.
    after_space: bool,
}

impl Run {
    fn begin(number: usize, glyph: &Glyph, text: &str) -> Self {
        let Glyph { start, end, along, size, after_space, .. } = *glyph;
        Self { number, text: text.to_owned(), start, end, along, size, after_space }
    }

    /// The gap before what begins there, along the line, and how far off the line that is; in sizes.
    fn gap(&self, start: Point, size: f32) -> (f32, f32) {
        let unit = self.size.max(size).max(f32::MIN_POSITIVE);
        let (way, from_start) = (self.end.to(start), self.start.to(start));
        (way.dot(self.along) / unit, from_start.dot(self.along.turned()) / unit)
    }

    fn extend(&mut self, text: &str, with_space: bool, end: Point, size: f32) {
        if with_space && !self.text.ends_with(' ') {
            self.text.push(' ');
        }
        self.text.push_str(text);
        self.end = end;
        self.size = self.size.max(size);
    }

    /// Along its direction and across it: where it stands among runs of the same direction.
    fn place(&self) -> (f32, f32) {
        (self.start.dot(self.along), self.start.dot(self.along.turned()))
    }
}

fn runs(glyphs: &Glyphs) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for glyph in glyphs.all() {
        let text = glyphs.text_of(glyph);
        let number = runs.len();
        match runs.last_mut().and_then(|run| Some((space_before(run, glyph)?, run))) {
            Some((with_space, run)) => run.extend(text, with_space, glyph.end, glyph.size),
            None => runs.push(Run::begin(number, glyph, text)),
        }
    }
    runs
}

/// Whether a space stands between a run and the glyph that follows it; nothing, if that begins another run.
fn space_before(run: &Run, glyph: &Glyph) -> Option<bool> {
    let (gap, shift) = run.gap(glyph.start, glyph.size);
    let follows = run.along.dot(glyph.along) >= SAME_DIRECTION
        && (-OVERLAP..=RUN_GAP).contains(&gap)
        && shift.abs() <= SHIFT;
    follows.then_some(glyph.after_space || gap > WORD_GAP)
}

/// Runs that touch become one.
fn joined(mut runs: Vec<Run>) -> Vec<Run> {
    runs.sort_by(by_place);
    let mut lines: Vec<Run> = Vec::new();
    for run in runs {
        let Some(line) = lines.last_mut() else {
            lines.push(run);
            continue;
        };
        let (gap, shift) = line.gap(run.start, run.size);
        let is_same_line = line.along.dot(run.along) >= SAME_DIRECTION && shift.abs() <= SAME_LINE;
        if is_same_line && is_twice(line, &run) {
            line.number = line.number.min(run.number);
        } else if is_same_line && (-OVERLAP..=RUN_GAP).contains(&gap) {
            line.number = line.number.min(run.number);
            line.extend(&run.text, run.after_space || gap > WORD_GAP, run.end, run.size);
        } else {
            lines.push(run);
        }
    }
    lines.sort_by_key(|line| line.number);
    lines
}

fn is_twice(line: &Run, run: &Run) -> bool {
    let unit = run.size.max(f32::MIN_POSITIVE);
    line.text == run.text && line.start.to(run.start).length() / unit <= SAME_PLACE
}

/// By direction, then line, then along it. Lines are told apart by steps of a quarter of a size, so that the order is one.
fn by_place(one: &Run, other: &Run) -> Ordering {
    let key = |run: &Run| {
        let (along, across) = run.place();
        ((run.along.y.atan2(run.along.x) * 100.0).round(), -across, along)
    };
    let (one, other) = (key(one), key(other));
    let first = one.0.total_cmp(&other.0);
    first.then_with(|| (one.1).round().total_cmp(&other.1.round())).then_with(|| one.2.total_cmp(&other.2))
}

/// Adds a line; a word that was broken at the end of the line before is one again.
fn push_line(line: &str, text: &mut String) {
    let line = read_onward(line);
    let is_broken = text.strip_suffix("-\n").is_some_and(|before| before.ends_with(char::is_alphabetic))
        && line.starts_with(char::is_lowercase);
    if is_broken {
        text.truncate(text.len() - 2);
    }
    text.push_str(line.trim());
    text.push('\n');
}

/// Scripts that go from right to left stand as they are seen; they are read the other way.
fn read_onward(line: &str) -> String {
    if !line.chars().any(is_leftward) {
        return line.to_owned();
    }
    let mut words: Vec<String> = line.split(' ').map(turned_word).collect();
    let n_leftward = words.iter().filter(|word| word.chars().any(is_leftward)).count();
    if n_leftward * 2 > words.len() {
        words.reverse();
    }
    words.join(" ")
}

fn turned_word(word: &str) -> String {
    let has_latin = word.chars().any(|c| c.is_alphabetic() && !is_leftward(c));
    if !word.chars().any(is_leftward) || has_latin {
        return word.to_owned();
    }
    word.chars().rev().collect()
}

/// Hebrew, Arabic and their presentation forms.
fn is_leftward(c: char) -> bool {
    matches!(c, '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{feff}')
}
