//! Follows what a page draws, as far as it bears on text (ISO 32000-2, 8.4 to 9.4).

use std::collections::HashMap;
use std::sync::Arc;

use hayro_font::kurbo::{Affine, Rect as Bounds};
use hayro_font::{CMapResolverFn, FontCache, FontQuery, FontResolverFn, StandardFont};
use hayro_syntax::content::TypedIter;
use hayro_syntax::content::ops::TypedInstruction as Op;
use hayro_syntax::object::{
    Array, Dict, Name, Number, Object, ObjectIdentifier, Rect, Stream, String as PdfString,
};
use hayro_syntax::page::{Page, Resources};

use super::glyphs::{Glyph, Glyphs};
use super::state::{Pen, State};
use super::typeface::{Text, Typeface};
use crate::strings::text_of;

/// Operators of a page at most, those within its forms with it: forms that draw forms grow without end.
const MAX_OPERATORS: u64 = 20_000_000;
/// Forms within forms at most.
const MAX_FORM_DEPTH: usize = 24;
/// States kept at once at most; others are not kept.
const MAX_STATES: usize = 1024;
/// Bytes of what draws a page at most.
const MAX_CONTENT_BYTES: usize = 256 << 20;

const MANY_OPERATORS: &str = "draws with more than 20,000,000 operators";
const MANY_GLYPHS: &str = "draws more than 2,000,000 glyphs";
const MANY_BYTES: &str = "is drawn by more than 256 MiB";

/// Says, in words, what a page has too much of.
type Result<T> = std::result::Result<T, &'static str>;

/// Reads pages of one document; fonts are read once.
pub(super) struct Interpreter<'a> {
    fonts: FontCache<'a>,
    typefaces: HashMap<ObjectIdentifier, Option<Typeface<'a>>>,
    font_files: FontResolverFn,
    cmap_files: CMapResolverFn,
    glyphs: Glyphs,
    n_operators: u64,
}

impl<'a> Interpreter<'a> {
    pub(super) fn new() -> Self {
        Self {
            fonts: FontCache::new(),
            typefaces: HashMap::new(),
            font_files: Arc::new(|query| match query {
                FontQuery::Standard(standard) => Some(standard.get_font_data()),
                FontQuery::Fallback(wanted) => Some(wanted.pick_standard_font().get_font_data()),
            }),
            cmap_files: Arc::new(hayro_cmap::load_embedded),
            glyphs: Glyphs::default(),
            n_operators: 0,
        }
    }

    /// What a page draws, what stands upon it after that.
    ///
    /// # Errors
    /// Says what there is too much of.
    pub(super) fn page(&mut self, page: &Page<'a>) -> Result<Glyphs> {
        self.n_operators = 0;
        self.glyphs = Glyphs::default();
        let content = content_of(page)?;
        self.draw(&content, page.resources(), State::new(Affine::IDENTITY), 0)?;
        if let Some(annotations) = page.raw().get::<Array<'_>>(b"Annots") {
            for annotation in annotations.iter::<Dict<'_>>() {
                self.annotation(&annotation, page.resources())?;
            }
        }
        Ok(std::mem::take(&mut self.glyphs))
    }

    /// What an annotation looks like, moved and sized to where it stands (12.5.5); in want of a look, what it says.
    fn annotation(&mut self, annotation: &Dict<'a>, of_page: &Resources<'a>) -> Result<()> {
        const HIDDEN_OR_NOT_SHOWN: u32 = 1 << 1 | 1 << 5;
        let is_shown = annotation.get::<u32>(b"F").unwrap_or(0) & HIDDEN_OR_NOT_SHOWN == 0;
        let kind = annotation.get::<Name<'_>>(b"Subtype");
        let (Some(kind), Some(place), true) = (kind, annotation.get::<Rect>(b"Rect"), is_shown) else {
            return Ok(());
        };
        let place = rect(place);
        match (kind.as_ref(), appearance(annotation)) {
            (b"Popup", _) => Ok(()),
            (_, Some(form)) => self.appearance(&form, place, of_page),
            (b"FreeText", None) => self.say(annotation.get::<PdfString<'_>>(b"Contents"), place),
            (b"Widget", None) => self.say(value_of_field(annotation), place),
            _ => Ok(()),
        }
    }

    fn appearance(&mut self, form: &Stream<'a>, place: Bounds, of_page: &Resources<'a>) -> Result<()> {
        let Some(bounds) = form.dict().get::<Rect>(b"BBox") else { return Ok(()) };
        let bounds = matrix_of(form.dict()).transform_rect_bbox(rect(bounds));
        let ratio = |to: f64, of: f64| if of.abs() > f64::EPSILON { to / of } else { 1.0 };
        let (x, y) = (ratio(place.width(), bounds.width()), ratio(place.height(), bounds.height()));
        let to_page = Affine::translate((place.x0, place.y0))
            * Affine::scale_non_uniform(x, y)
            * Affine::translate((-bounds.x0, -bounds.y0));
        self.form(form, of_page, State::new(to_page), 0)
    }

    /// Text that a reader of PDF would set by itself.
    fn say(&mut self, text: Option<PdfString<'_>>, place: Bounds) -> Result<()> {
        let Some(text) = text.map(|text| text_of(text.as_bytes())) else { return Ok(()) };
        let n_lines = text.lines().count().max(1);
        for (line, at) in text.lines().zip(1..) {
            let below = place.height() * f64::from(at) / n_lines as f64;
            if !self.glyphs.push(line, Glyph::line(place.x0, place.x1, place.y1 - below)) {
                return Err(MANY_GLYPHS);
            }
        }
        Ok(())
    }

    /// A form draws as a page does, with resources of its own (8.10).
    fn form(
        &mut self,
        form: &Stream<'a>,
        outer: &Resources<'a>,
        mut state: State<'a>,
        depth: usize,
    ) -> Result<()> {
        let Some(content) = form.decoded_data().ok().filter(|_| depth < MAX_FORM_DEPTH) else {
            return Ok(());
        };
        state.to_page *= matrix_of(form.dict());
        match form.dict().get::<Dict<'_>>(b"Resources").map(Resources::new) {
            Some(own) => self.draw(&content, &own, state, depth + 1),
            None => self.draw(&content, outer, state, depth + 1),
        }
    }

    fn draw(
        &mut self,
        content: &[u8],
        resources: &Resources<'a>,
        state: State<'a>,
        depth: usize,
    ) -> Result<()> {
        let drawing =
            Drawing { resources, state, kept: Vec::new(), pen: Pen::new(), marks: Vec::new(), depth };
        drawing.run(self, content)
    }

    fn typeface(&mut self, dict: &Dict<'a>) -> Option<Typeface<'a>> {
        let known = dict.obj_id().and_then(|id| self.typefaces.get(&id));
        if let Some(known) = known {
            return known.clone();
        }
        let font = self.fonts.font(dict, &self.font_files, &self.cmap_files);
        let typeface = font.map(|font| Typeface::new(font, Some(dict)));
        if let Some(id) = dict.obj_id() {
            self.typefaces.insert(id, typeface.clone());
        }
        typeface
    }

    /// For text without a font, as other readers do.
    fn usual_typeface(&self) -> Option<Typeface<'a>> {
        let font = self.fonts.standard_font(StandardFont::Helvetica, &self.font_files);
        font.map(|font| Typeface::new(font, None))
    }
}

/// What draws a page, unpacked; several streams are one (7.8.2).
fn content_of(page: &Page<'_>) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    let mut add = |stream: Stream<'_>| {
        let Ok(part) = stream.decoded_data() else { return Ok(()) };
        content.extend_from_slice(&part);
        content.push(b'\n');
        if content.len() > MAX_CONTENT_BYTES { Err(MANY_BYTES) } else { Ok(()) }
    };
    if let Some(one) = page.raw().get::<Stream<'_>>(b"Contents") {
        add(one)?;
    } else if let Some(parts) = page.raw().get::<Array<'_>>(b"Contents") {
        for part in parts.iter::<Object<'_>>() {
            part.into_stream().map_or(Ok(()), &mut add)?;
        }
    }
    Ok(content)
}

/// The usual look of an annotation, in its state if there are several.
fn appearance<'a>(annotation: &Dict<'a>) -> Option<Stream<'a>> {
    match annotation.get::<Dict<'_>>(b"AP")?.get::<Object<'_>>(b"N")? {
        Object::Stream(one) => Some(one),
        Object::Dict(by_state) => by_state.get::<Stream<'_>>(annotation.get::<Name<'_>>(b"AS")?.as_ref()),
        _ => None,
    }
}

/// The value of a text field or a choice, which a field above may have.
fn value_of_field<'a>(widget: &Dict<'a>) -> Option<PdfString<'a>> {
    let above = widget.get::<Dict<'_>>(b"Parent").unwrap_or_default();
    let kind = widget.get::<Name<'_>>(b"FT").or_else(|| above.get::<Name<'_>>(b"FT"))?;
    let is_text = matches!(kind.as_ref(), b"Tx" | b"Ch");
    is_text.then(|| widget.get::<PdfString<'_>>(b"V").or_else(|| above.get::<PdfString<'_>>(b"V")))?
}

fn matrix_of(form: &Dict<'_>) -> Affine {
    let Some(array) = form.get::<Array<'_>>(b"Matrix") else { return Affine::IDENTITY };
    let numbers: Vec<f64> = array.iter::<Number>().map(|number| number.as_f64()).take(6).collect();
    <[f64; 6]>::try_from(numbers).map_or(Affine::IDENTITY, Affine::new)
}

fn rect(rect: Rect) -> Bounds {
    Bounds::new(rect.x0, rect.y0, rect.x1, rect.y1)
}

/// What stands between a `BDC` and its `EMC`.
enum Mark {
    Plain,
    /// This text is to be read in the place of what is drawn (14.9.4).
    Text {
        text: String,
        is_placed: bool,
    },
}

/// One stream of operators on its way.
struct Drawing<'a, 'r> {
    resources: &'r Resources<'a>,
    state: State<'a>,
    kept: Vec<State<'a>>,
    pen: Pen,
    marks: Vec<Mark>,
    depth: usize,
}

impl<'a> Drawing<'a, '_> {
    fn run(mut self, to: &mut Interpreter<'a>, content: &[u8]) -> Result<()> {
        let mut operators = TypedIter::new(content);
        while let Some(operator) = operators.next() {
            to.n_operators += 1;
            if to.n_operators > MAX_OPERATORS {
                return Err(MANY_OPERATORS);
            }
            self.follow(operator, to)?;
        }
        Ok(())
    }

    fn follow(&mut self, operator: Op<'_, '_>, to: &mut Interpreter<'a>) -> Result<()> {
        match operator {
            Op::SaveState(_) if self.kept.len() < MAX_STATES => self.kept.push(self.state.clone()),
            Op::RestoreState(_) => self.state = self.kept.pop().unwrap_or_else(|| self.state.clone()),
            Op::Transform(m) => self.state.to_page *= matrix([m.0, m.1, m.2, m.3, m.4, m.5]),
            Op::SetGraphicsState(name) => self.set_state(name.0, to),
            Op::XObject(name) => return self.object(name.0, to),
            Op::BeginMarkedContent(_) => self.marks.push(Mark::Plain),
            Op::BeginMarkedContentWithProperties(mark) => self.mark(mark.1),
            Op::EndMarkedContent(_) => drop(self.marks.pop()),
            text => return self.follow_text(text, to),
        }
        Ok(())
    }

    fn follow_text(&mut self, operator: Op<'_, '_>, to: &mut Interpreter<'a>) -> Result<()> {
        let leading = self.state.leading;
        match operator {
            Op::BeginText(_) => self.pen = Pen::new(),
            Op::SetTextMatrix(m) => self.pen.set(matrix([m.0, m.1, m.2, m.3, m.4, m.5])),
            Op::NextLine(by) => self.pen.next_line(by.0.as_f64(), by.1.as_f64()),
            Op::NextLineAndSetLeading(by) => {
                self.state.leading = -by.1.as_f64();
                self.pen.next_line(by.0.as_f64(), by.1.as_f64());
            }
            Op::NextLineUsingLeading(_) => self.pen.next_line(0.0, -leading),
            Op::ShowText(text) => return self.show(text.0.as_bytes(), to),
            Op::ShowTexts(texts) => return self.show_all(texts.0, to),
            Op::NextLineAndShowText(text) => {
                self.pen.next_line(0.0, -leading);
                return self.show(text.0.as_bytes(), to);
            }
            Op::ShowTextWithParameters(text) => {
                (self.state.word_space, self.state.char_space) = (text.0.as_f64(), text.1.as_f64());
                self.pen.next_line(0.0, -leading);
                return self.show(text.2.as_bytes(), to);
            }
            set => self.set(set, to),
        }
        Ok(())
    }

    fn set(&mut self, operator: Op<'_, '_>, to: &mut Interpreter<'a>) {
        let state = &mut self.state;
        match operator {
            Op::TextFont(font) => {
                state.size = font.1.as_f64();
                state.typeface = match self.resources.get_font(font.0) {
                    Some(dict) => to.typeface(&dict),
                    None => to.usual_typeface(),
                };
            }
            Op::CharacterSpacing(space) => state.char_space = space.0.as_f64(),
            Op::WordSpacing(space) => state.word_space = space.0.as_f64(),
            Op::HorizontalScaling(percent) => state.scale = percent.0.as_f64() / 100.0,
            Op::TextLeading(leading) => state.leading = leading.0.as_f64(),
            Op::TextRise(rise) => state.rise = rise.0.as_f64(),
            _ => {}
        }
    }

    /// A state may name a font, too.
    fn set_state(&mut self, name: &Name<'_>, to: &mut Interpreter<'a>) {
        let Some(font) =
            self.resources.get_ext_g_state(name).and_then(|state| state.get::<Array<'_>>(b"Font"))
        else {
            return;
        };
        let mut parts = font.iter::<Object<'_>>();
        if let (Some(Object::Dict(font)), Some(Object::Number(size))) = (parts.next(), parts.next()) {
            self.state.typeface = to.typeface(&font);
            self.state.size = size.as_f64();
        }
    }

    /// Pictures are passed over.
    fn object(&mut self, name: &Name<'_>, to: &mut Interpreter<'a>) -> Result<()> {
        let Some(object) = self.resources.get_x_object(name) else { return Ok(()) };
        let is_form = object.dict().get::<Name<'_>>(b"Subtype").is_some_and(|kind| kind.as_ref() == b"Form");
        if is_form { to.form(&object, self.resources, self.state.clone(), self.depth) } else { Ok(()) }
    }

    fn mark(&mut self, properties: &Object<'_>) {
        let actual =
            |dict: &Dict<'_>| dict.get::<PdfString<'_>>(b"ActualText").map(|text| text_of(text.as_bytes()));
        let text = match properties {
            Object::Dict(own) => actual(own),
            Object::Name(name) => {
                self.resources.properties.get::<Dict<'_>>(name.as_ref()).and_then(|named| actual(&named))
            }
            _ => None,
        };
        self.marks.push(text.map_or(Mark::Plain, |text| Mark::Text { text, is_placed: false }));
    }

    fn show_all(&mut self, texts: &Array<'_>, to: &mut Interpreter<'a>) -> Result<()> {
        for text in texts.iter::<Object<'_>>() {
            match text {
                Object::String(text) => self.show(text.as_bytes(), to)?,
                Object::Number(by) => self.pen.adjust(by.as_f64(), &self.state),
                _ => {}
            }
        }
        Ok(())
    }

    fn show(&mut self, bytes: &[u8], to: &mut Interpreter<'a>) -> Result<()> {
        let Some(typeface) = self.state.typeface.clone().or_else(|| to.usual_typeface()) else {
            return Ok(());
        };
        let mut at = 0;
        while at < bytes.len() {
            let (code, n_bytes) = typeface.font.read_code(bytes, at);
            at += n_bytes.max(1);
            if !self.show_one(code, n_bytes, &typeface, &mut to.glyphs) {
                return Err(MANY_GLYPHS);
            }
        }
        Ok(())
    }

    /// Says whether there was room for it.
    fn show_one(&mut self, code: u32, n_bytes: usize, typeface: &Typeface<'a>, glyphs: &mut Glyphs) -> bool {
        let mut glyph = self.pen.pass(code, n_bytes, &typeface.font, &self.state);
        if !glyph.is_finite() {
            return true;
        }
        let (text, is_drawn) = typeface.text_of(code, n_bytes);
        if is_drawn {
            glyph.size_by_width();
        }
        let marked = self.marks.iter_mut().find(|mark| matches!(mark, Mark::Text { .. }));
        if let Some(Mark::Text { text, is_placed }) = marked {
            if std::mem::replace(is_placed, true) {
                glyphs.stretch(glyph.end);
                return true;
            }
            return glyphs.push(text, glyph);
        }
        match text {
            Text::One(c) => glyphs.push(c.encode_utf8(&mut [0; 4]), glyph),
            Text::Many(text) => glyphs.push(&text, glyph),
            Text::Nothing => true,
        }
    }
}

fn matrix(numbers: [Number; 6]) -> Affine {
    Affine::new(numbers.map(|number| number.as_f64()))
}
