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
            (sheet.x0 - reach..=sheet.x1 + reach).contains(&x)
                && (sheet.y0 - reach..=sheet.y1 + reach).contains(&y)
        });
    }
    glyphs
}

#[cfg(test)]
mod tests {
    use aqueduct_testkit::pdf;

    use crate::Document;

    fn text(content: &str) -> String {
        let mut objects = pdf::objects_of(&[""]);
        objects.set(4, format!("<</Length {}>>\nstream\n{content}\nendstream", content.len()));
        Document::open(objects.finish()).unwrap().text(0..1, 10_000).unwrap()
    }

    #[test]
    fn words_are_told_apart_by_spaces_and_by_gaps() {
        let spaced = "BT /F 10 Tf 10 300 Td [(Hel) -20 (lo) -400 (wor) 30 (ld)] TJ 0 -12 Td (a b) Tj ET";
        assert_eq!(text(spaced), "Hello world\na b\n");
        let placed = "BT /F 10 Tf 1 0 0 1 10 300 Tm (left) Tj 1 0 0 1 200 300 Tm (right) Tj ET";
        assert_eq!(text(placed), "left\nright\n");
    }

    #[test]
    fn what_is_drawn_apart_on_one_line_is_one_line_and_twice_is_once() {
        let apart =
            "BT /F 10 Tf 1 0 0 1 29 300 Tm (lo) Tj 1 0 0 1 60 200 Tm (far) Tj 1 0 0 1 10 300 Tm (Hel) Tj ET";
        assert!(text(apart).contains("Hel"), "{}", text(apart));
        let bold = "BT /F 10 Tf 1 0 0 1 10 300 Tm (bold) Tj 1 0 0 1 10.3 300 Tm (bold) Tj ET";
        assert_eq!(text(bold), "bold\n");
    }

    #[test]
    fn a_broken_word_is_one_and_text_in_the_place_of_glyphs_is_read() {
        let broken = "BT /F 10 Tf 12 TL 10 300 Td (exam-) Tj (ple) ' ET";
        assert_eq!(text(broken), "example\n");
        let actual = "BT /F 10 Tf 10 300 Td /Span <</ActualText (meant)>> BDC (drawn) Tj EMC ET";
        assert_eq!(text(actual), "meant\n");
    }

    #[test]
    fn what_stands_beside_the_sheet_is_not_read() {
        assert_eq!(text("BT /F 10 Tf 10 300 Td (in) Tj 1000 0 Td (out) Tj ET"), "in\n");
    }
}
