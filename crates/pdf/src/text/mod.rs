//! The text of pages: what they draw, put into lines.
//!
//! Memory: the glyphs of one page and the text so far.

mod glyphs;
mod interpret;
mod lines;
mod state;
mod to_unicode;
mod typeface;

use std::ops::Range;

use hayro_syntax::Pdf;
use hayro_syntax::page::Page;

use self::glyphs::Glyphs;
use self::interpret::Interpreter;
use crate::PdfError;

/// Between pages, as in plain text.
const PAGE_END: char = '\u{c}';

/// The text of some pages that there are.
pub(crate) fn of_pages(pdf: &Pdf, pages: Range<usize>, max_bytes: usize) -> Result<String, PdfError> {
    let mut text = String::new();
    let mut interpreter = Interpreter::new();
    let first = pages.start;
    for (place, page) in pdf.pages()[pages].iter().enumerate() {
        if place > 0 {
            text.push(PAGE_END);
        }
        let endless = |what| PdfError::Endless { page: first + place + 1, what };
        let glyphs = interpreter.page(page).map_err(endless)?;
        lines::write(&within(page, glyphs), &mut text);
        if text.len() > max_bytes {
            return Err(PdfError::TooLarge { what: "the text", limit_bytes: max_bytes });
        }
    }
    Ok(text)
}

/// The glyphs that stand on the page: what is drawn beside it nobody sees.
fn within(page: &Page<'_>, mut glyphs: Glyphs) -> Glyphs {
    let sheet = page.media_box();
    if sheet.width() > 0.0 && sheet.height() > 0.0 {
        glyphs.retain(|glyph| {
            let (x, y) = (f64::from(glyph.start.x), f64::from(glyph.start.y));
            let reach = f64::from(glyph.size);
            (sheet.x0 - reach..=sheet.x1 + reach).contains(&x) && (sheet.y0 - reach..=sheet.y1 + reach).contains(&y)
        });
    }
    glyphs
}
