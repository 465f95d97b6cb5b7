//! A few pages as a document of their own: the objects that they need, as they are, under new numbers.
//!
//! Streams are copied packed, decrypted where the document is encrypted. What leads out of the pages is left out: the
//! tree of pages above them, the structure tree, links to other pages. Holds the new document and which objects it has.

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::ops::Range;

use hayro_syntax::object::{Array, Dict, MaybeRef, Name, Number, ObjRef, Object, Stream};
use hayro_syntax::page::Page;
use hayro_syntax::{Filter, Pdf};

use crate::PdfError;

/// The numbers of the first objects.
const CATALOG: u32 = 1;
const PAGES: u32 = 2;
/// Values within values at most; the parser has a limit of its own below which it lies.
const MAX_DEPTH: usize = 256;

/// What a page has to lead out of it, or what stands there for other pages too.
const NOT_OF_A_PAGE: [&[u8]; 10] =
    [b"Parent", b"StructParents", b"StructParent", b"B", b"Dest", b"A", b"AA", b"P", b"Popup", b"IRT"];
/// What a page may take from those above it in the tree.
const INHERITED: [&[u8]; 4] = [b"Resources", b"MediaBox", b"CropBox", b"Rotate"];

/// Pages, counted from 0, that there are.
pub(crate) fn of_pages(pdf: &Pdf, pages: Range<usize>, max_bytes: usize) -> Result<Vec<u8>, PdfError> {
    let mut writer = Writer::new(pdf, max_bytes);
    let numbers: Vec<u32> = pages.clone().map(|_| writer.new_number()).collect();
    writer.top(&numbers)?;
    for (page, number) in pdf.pages()[pages].iter().zip(&numbers) {
        writer.page(page, *number)?;
        while let Some((object, number)) = writer.to_copy.pop_front() {
            writer.copy(object, number)?;
        }
    }
    writer.end()
}

/// Writes a document.
struct Writer<'a> {
    pdf: &'a Pdf,
    bytes: Vec<u8>,
    max_bytes: usize,
    /// Where objects begin, by their number less one.
    offsets: Vec<Option<usize>>,
    /// The new numbers of objects.
    numbers: HashMap<ObjRef, u32>,
    to_copy: VecDeque<(ObjRef, u32)>,
}

impl<'a> Writer<'a> {
    fn new(pdf: &'a Pdf, max_bytes: usize) -> Self {
        Self {
            pdf,
            // The second line tells programs that files are not text.
            bytes: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n".to_vec(),
            max_bytes,
            offsets: vec![None; PAGES as usize],
            numbers: HashMap::new(),
            to_copy: VecDeque::new(),
        }
    }

    fn new_number(&mut self) -> u32 {
        self.offsets.push(None);
        u32::try_from(self.offsets.len()).unwrap_or(u32::MAX)
    }

    /// The catalog and the only node of the tree of pages.
    fn top(&mut self, pages: &[u32]) -> Result<(), PdfError> {
        self.begin(CATALOG)?;
        self.text(format_args!("<</Type/Catalog/Pages {PAGES} 0 R>>\nendobj\n"))?;
        self.begin(PAGES)?;
        self.text(format_args!("<</Type/Pages/Count {}/Kids[", pages.len()))?;
        for page in pages {
            self.text(format_args!("{page} 0 R "))?;
        }
        self.put(b"]>>\nendobj\n")
    }

    fn page(&mut self, page: &Page<'a>, number: u32) -> Result<(), PdfError> {
        self.begin(number)?;
        self.text(format_args!("<</Type/Page/Parent {PAGES} 0 R"))?;
        self.entries(page.raw(), &[b"Type", b"Annots"], 0)?;
        for key in INHERITED.into_iter().filter(|key| !page.raw().contains_key(key)) {
            if let Some(value) = inherited(page.raw(), key) {
                self.entry(key, &value, 0)?;
            }
        }
        self.annotations(page)?;
        self.put(b">>\nendobj\n")
    }

    /// What stands upon the page: form fields, stamps, notes.
    fn annotations(&mut self, page: &Page<'a>) -> Result<(), PdfError> {
        let Some(annotations) = page.raw().get::<Array<'_>>(b"Annots") else { return Ok(()) };
        self.put(b"/Annots[")?;
        for annotation in annotations.raw_iter() {
            self.value(&annotation, 0)?;
            self.put(b" ")?;
        }
        self.put(b"]")
    }

    /// An object under its new number; one that is not there is null.
    fn copy(&mut self, object: ObjRef, number: u32) -> Result<(), PdfError> {
        self.begin(number)?;
        match self.pdf.xref().get::<Object<'_>>(object.into()) {
            Some(Object::Stream(stream)) => self.stream(&stream)?,
            Some(Object::Dict(dict)) if is_of_tree(&dict) => self.put(b"null")?,
            Some(other) => self.object(&other, 0)?,
            None => self.put(b"null")?,
        }
        self.put(b"\nendobj\n")
    }

    fn stream(&mut self, stream: &Stream<'a>) -> Result<(), PdfError> {
        let raw = stream.raw_data();
        self.text(format_args!("<</Length {}", raw.len()))?;
        match stream.filters().first() {
            Some(Filter::Crypt) => self.without_crypt(stream)?,
            _ => self.entries(stream.dict(), &[b"Length"], 0)?,
        }
        self.put(b">>\nstream\n")?;
        self.put(&raw)?;
        self.put(b"\nendstream")
    }

    /// The entries of a stream that is decrypted now, and whose first filter said how.
    fn without_crypt(&mut self, stream: &Stream<'a>) -> Result<(), PdfError> {
        let dict = stream.dict();
        self.entries(dict, &[b"Length", b"Filter", b"DecodeParms", b"F", b"DP"], 0)?;
        for key in [&b"Filter"[..], b"DecodeParms"] {
            let Some(all) = dict.get::<Array<'_>>(key) else { continue };
            self.put(b"/")?;
            self.put(key)?;
            self.put(b"[")?;
            for one in all.raw_iter().skip(1) {
                self.value(&one, 0)?;
                self.put(b" ")?;
            }
            self.put(b"]")?;
        }
        Ok(())
    }

    fn entries(&mut self, dict: &Dict<'a>, but: &[&[u8]], depth: usize) -> Result<(), PdfError> {
        let is_page = |name: &Name<'_>| matches!(name.as_ref(), b"Page" | b"Annot");
        let has_type = depth == 0 && dict.get::<Name<'_>>(b"Type").is_some_and(|name| is_page(&name));
        let is_of_page = has_type || (dict.contains_key(b"Subtype") && dict.contains_key(b"Rect"));
        for (key, value) in dict.entries() {
            let leads_out = is_of_page && NOT_OF_A_PAGE.contains(&key.as_ref());
            if !leads_out && !but.contains(&key.as_ref()) {
                self.entry(key.as_ref(), &value, depth)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, key: &[u8], value: &MaybeRef<Object<'a>>, depth: usize) -> Result<(), PdfError> {
        self.name(key)?;
        self.put(b" ")?;
        self.value(value, depth)
    }

    fn value(&mut self, value: &MaybeRef<Object<'a>>, depth: usize) -> Result<(), PdfError> {
        match value {
            MaybeRef::Ref(to) => {
                let number = self.number_of(*to);
                self.text(format_args!("{number} 0 R"))
            }
            MaybeRef::NotRef(object) => self.object(object, depth),
        }
    }

    /// The new number of an object, which is copied when its turn comes.
    fn number_of(&mut self, object: ObjRef) -> u32 {
        if let Some(number) = self.numbers.get(&object) {
            return *number;
        }
        let number = self.new_number();
        self.numbers.insert(object, number);
        self.to_copy.push_back((object, number));
        number
    }

    fn object(&mut self, object: &Object<'a>, depth: usize) -> Result<(), PdfError> {
        match object {
            _ if depth > MAX_DEPTH => self.put(b"null"),
            // A stream stands by itself, never within another object.
            Object::Null(_) | Object::Stream(_) => self.put(b"null"),
            Object::Boolean(value) => self.text(format_args!("{value}")),
            Object::Number(number) => self.number(*number),
            Object::String(string) => self.string(string.as_bytes()),
            Object::Name(name) => self.name(name.as_ref()),
            Object::Array(array) => {
                self.put(b"[")?;
                for value in array.raw_iter() {
                    self.value(&value, depth + 1)?;
                    self.put(b" ")?;
                }
                self.put(b"]")
            }
            Object::Dict(dict) => {
                self.put(b"<<")?;
                self.entries(dict, &[], depth + 1)?;
                self.put(b">>")
            }
        }
    }

    /// Without an exponent, which PDF does not know.
    fn number(&mut self, number: Number) -> Result<(), PdfError> {
        let value = number.as_f64();
        if value.fract() == 0.0 {
            self.text(format_args!("{value:.0}"))
        } else {
            self.text(format_args!("{value}"))
        }
    }

    fn string(&mut self, bytes: &[u8]) -> Result<(), PdfError> {
        self.put(b"<")?;
        for byte in bytes {
            self.text(format_args!("{byte:02x}"))?;
        }
        self.put(b">")
    }

    fn name(&mut self, name: &[u8]) -> Result<(), PdfError> {
        self.put(b"/")?;
        for byte in name {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'+' | b'*' => {
                    self.put(&[*byte])?
                }
                other => self.text(format_args!("#{other:02x}"))?,
            }
        }
        Ok(())
    }

    /// The object of this number begins here.
    fn begin(&mut self, number: u32) -> Result<(), PdfError> {
        if let Some(offset) = self.offsets.get_mut(number as usize - 1) {
            *offset = Some(self.bytes.len());
        }
        self.text(format_args!("{number} 0 obj\n"))
    }

    /// The table of objects.
    fn end(mut self) -> Result<Vec<u8>, PdfError> {
        let at = self.bytes.len();
        let offsets = std::mem::take(&mut self.offsets);
        self.text(format_args!("xref\n0 {}\n0000000000 65535 f \n", offsets.len() + 1))?;
        for offset in &offsets {
            match offset {
                Some(offset) => self.text(format_args!("{offset:010} 00000 n \n"))?,
                None => self.text(format_args!("0000000000 65535 f \n"))?,
            }
        }
        let size = offsets.len() + 1;
        self.text(format_args!("trailer\n<</Size {size}/Root {CATALOG} 0 R>>\nstartxref\n{at}\n%%EOF\n"))?;
        Ok(self.bytes)
    }

    fn text(&mut self, text: std::fmt::Arguments<'_>) -> Result<(), PdfError> {
        // Nothing fails but the limit, which is looked at below.
        let _ = self.bytes.write_fmt(text);
        self.put(b"")
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), PdfError> {
        if self.bytes.len() + bytes.len() > self.max_bytes {
            return Err(PdfError::TooLarge { what: "the section as a PDF", limit_bytes: self.max_bytes });
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

/// Whether this is a page, or a node above some: pages of the section are written by themselves, others are not of it.
fn is_of_tree(dict: &Dict<'_>) -> bool {
    dict.get::<Name<'_>>(b"Type").is_some_and(|name| matches!(name.as_ref(), b"Page" | b"Pages"))
}

/// What a page has from above it.
fn inherited<'a>(page: &Dict<'a>, key: &[u8]) -> Option<MaybeRef<Object<'a>>> {
    const MAX_LEVELS: usize = 64;
    let mut above = page.get::<Dict<'_>>(b"Parent");
    for _ in 0..MAX_LEVELS {
        let node = above?;
        if let Some(value) = node.get_raw::<Object<'_>>(key) {
            return Some(value);
        }
        above = node.get::<Dict<'_>>(b"Parent");
    }
    None
}

#[cfg(test)]
mod tests {
    use aqueduct_testkit::pdf;

    use crate::{Document, PdfError};

    fn texts(bytes: Vec<u8>) -> Vec<String> {
        let document = Document::open(bytes).unwrap();
        (0..document.n_pages()).map(|page| document.text(page..page + 1, 1000).unwrap()).collect()
    }

    #[test]
    fn a_section_is_a_document_with_what_its_pages_need() {
        let document = Document::open(pdf::pages(&["one", "two", "three"])).unwrap();
        let section = document.section(1..3, 10_000).unwrap();
        assert!(section.len() < pdf::pages(&["one", "two", "three"]).len());
        assert_eq!(texts(section), ["two\n", "three\n"]);
    }

    #[test]
    fn what_a_page_has_from_above_it_and_names_that_are_odd_come_with_it() {
        let mut objects = pdf::objects_of(&["seen"]);
        objects
            .set(3, "<</Type/Font/Subtype/Type1/BaseFont/Helvetica/A#20b[1.5 -2 (x\\)y) true null<ff00>]>>");
        let document = Document::open(objects.finish()).unwrap();
        let section = document.section(0..1, 10_000).unwrap();
        let written = String::from_utf8_lossy(&section);
        assert!(written.contains("/A#20b [1.5 -2 <782979> true null <ff00> ]"), "{written}");
        assert_eq!(texts(section), ["seen\n"]);
    }

    #[test]
    fn one_that_is_too_large_is_named_with_its_limit() {
        let document = Document::open(pdf::pages(&["one"])).unwrap();
        let error = document.section(0..1, 300).unwrap_err();
        assert_eq!(error, PdfError::TooLarge { what: "the section as a PDF", limit_bytes: 300 });
    }
}
