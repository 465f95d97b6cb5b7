//! Small PDFs, good ones and such as crash, hold up or flood their readers.

use std::io::Write;

/// Objects that become a document.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    bodies: Vec<Vec<u8>>,
    trailer: String,
}

impl Objects {
    /// Adds an object; its number, from 1.
    pub fn add(&mut self, body: impl Into<Vec<u8>>) -> usize {
        self.bodies.push(body.into());
        self.bodies.len()
    }

    /// Adds a stream.
    pub fn stream(&mut self, entries: &str, bytes: &[u8]) -> usize {
        let head = format!("<</Length {}{entries}>>\nstream\n", bytes.len());
        self.add([head.as_bytes(), bytes, b"\nendstream"].concat())
    }

    /// Puts another in the place of an object.
    pub fn set(&mut self, number: usize, body: impl Into<Vec<u8>>) {
        self.bodies[number - 1] = body.into();
    }

    /// Adds entries to the trailer.
    #[must_use]
    pub fn with_trailer(mut self, entries: &str) -> Self {
        self.trailer.push_str(entries);
        self
    }

    /// The document, whose catalog is object 1.
    pub fn finish(&self) -> Vec<u8> {
        let mut file = b"%PDF-1.7\n".to_vec();
        let mut table = format!("xref\n0 {}\n0000000000 65535 f \n", self.bodies.len() + 1);
        for (number, body) in (1..).zip(&self.bodies) {
            table.push_str(&format!("{:010} 00000 n \n", file.len()));
            file.extend_from_slice(format!("{number} 0 obj\n").as_bytes());
            file.extend_from_slice(body);
            file.extend_from_slice(b"\nendobj\n");
        }
        let (size, at) = (self.bodies.len() + 1, file.len());
        let trailer =
            format!("trailer\n<</Size {size}/Root 1 0 R{}>>\nstartxref\n{at}\n%%EOF\n", self.trailer);
        [file, table.into_bytes(), trailer.into_bytes()].concat()
    }
}

/// A catalog, a node of pages and a font: objects 1 to 3. The kids are set by [`with_pages`].
fn begun() -> Objects {
    let mut objects = Objects::default();
    objects.add("<</Type/Catalog/Pages 2 0 R>>");
    objects.add("<</Type/Pages/Kids[]/Count 0>>");
    objects.add("<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>");
    objects
}

fn with_pages(objects: &mut Objects, pages: &[usize]) {
    let kids: Vec<_> = pages.iter().map(|page| format!("{page} 0 R")).collect();
    let node = "/MediaBox[0 0 400 400]/Resources<</Font<</F 3 0 R>>>>";
    objects.set(2, format!("<</Type/Pages/Kids[{}]/Count {}{node}>>", kids.join(" "), pages.len()));
}

fn page(objects: &mut Objects, entries: &str, content: &[u8]) -> usize {
    let content = objects.stream(entries, content);
    objects.add(format!("<</Type/Page/Parent 2 0 R/Contents {content} 0 R>>"))
}

fn content(text: &str) -> String {
    format!("BT /F 12 Tf 40 300 Td ({text}) Tj ET")
}

/// The objects of a document with a page for each text; 2 is the node of its pages.
pub fn objects_of(texts: &[&str]) -> Objects {
    let mut objects = begun();
    let pages: Vec<_> = texts.iter().map(|text| page(&mut objects, "", content(text).as_bytes())).collect();
    with_pages(&mut objects, &pages);
    objects
}

/// A page for each text.
pub fn pages(texts: &[&str]) -> Vec<u8> {
    objects_of(texts).finish()
}

/// A page for each text, which may be long: it is what the one glyph on the page stands for, and quickly read.
pub fn long_pages(texts: &[&str]) -> Vec<u8> {
    let mut objects = begun();
    let mut pages = Vec::new();
    for text in texts {
        let content = format!("BT /F 12 Tf 40 300 Td /Span <</ActualText ({text})>> BDC (x) Tj EMC ET");
        pages.push(page(&mut objects, "", content.as_bytes()));
    }
    with_pages(&mut objects, &pages);
    objects.finish()
}

/// A page for each text, with bookmarks: titles, and pages from 0.
pub fn with_bookmarks(texts: &[&str], bookmarks: &[(&str, usize)]) -> Vec<u8> {
    let mut objects = begun();
    let pages: Vec<_> = texts.iter().map(|text| page(&mut objects, "", content(text).as_bytes())).collect();
    with_pages(&mut objects, &pages);
    let outlines = objects.add("");
    let first = outlines + 1;
    for (place, (title, page)) in bookmarks.iter().enumerate() {
        let number = first + place;
        let next =
            if place + 1 < bookmarks.len() { format!("/Next {} 0 R", number + 1) } else { String::new() };
        objects
            .add(format!("<</Title({title})/Parent {outlines} 0 R/Dest[{} 0 R/Fit]{next}>>", pages[*page]));
    }
    objects.set(outlines, format!("<</Type/Outlines/First {first} 0 R/Count {}>>", bookmarks.len()));
    objects.set(1, format!("<</Type/Catalog/Pages 2 0 R/Outlines {outlines} 0 R>>"));
    objects.finish()
}

/// Cannot be opened with the empty password.
pub fn locked() -> Vec<u8> {
    let mut objects = objects_of(&["never seen"]);
    let wrong = "0".repeat(64);
    let encrypt = objects.add(format!("<</Filter/Standard/V 1/R 2/P -4/O<{wrong}>/U<{wrong}>>>"));
    objects.with_trailer(&format!("/Encrypt {encrypt} 0 R/ID[<00><00>]")).finish()
}

/// Arrays in arrays, 21 KB of them, where a page has its resources: readers that call themselves for each run out of stack.
pub fn nested() -> Vec<u8> {
    let mut objects = objects_of(&["nested"]);
    let deep = ["[".repeat(10_500), "]".repeat(10_500)].concat();
    objects.set(3, format!("<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Deep {deep}>>"));
    objects.finish()
}

/// A node of pages that is a kid of its own.
pub fn cyclic_pages() -> Vec<u8> {
    let mut objects = begun();
    with_pages(&mut objects, &[2, 2, 4]);
    objects.add("<</Type/Pages/Parent 2 0 R/Kids[2 0 R 4 0 R]/Count 2>>");
    objects.finish()
}

/// A table of objects that goes on with itself.
pub fn cyclic_table() -> Vec<u8> {
    let good = objects_of(&["turns in circles"]).finish();
    let at = find_last(&good, b"xref\n0 ");
    objects_of(&["turns in circles"]).with_trailer(&format!("/Prev {at}")).finish()
}

/// Its stream says to be longer than the file.
pub fn lying_length() -> Vec<u8> {
    let text = String::from_utf8_lossy(&pages(&["longer than it is"])).into_owned();
    text.replace("<</Length ", "<</Length 99999999").into_bytes()
}

/// So many pages, all of them one.
pub fn of_n_pages(n_pages: usize) -> Vec<u8> {
    let mut objects = begun();
    let content = objects.stream("", content("one of many").as_bytes());
    let pages: Vec<_> = (0..n_pages)
        .map(|_| objects.add(format!("<</Type/Page/Parent 2 0 R/Contents {content} 0 R>>")))
        .collect();
    with_pages(&mut objects, &pages);
    objects.finish()
}

/// A page that is drawn by 640 MB, packed into a few KB.
pub fn bomb() -> Vec<u8> {
    // A byte, and 2,500,000 times "258 more of it", in the code that needs no table (RFC 1951, 3.2.6).
    let begin = [true, true, false, false, false, true, true, false, false, false, false];
    let run = [true, true, false, false, false, true, false, true, false, false, false, false, false];
    let all = begin.into_iter().chain(std::iter::repeat_n(run, 2_500_000).flatten());
    let mut packed = vec![0x78, 0x01];
    let (mut byte, mut n_bits) = (0_u8, 0);
    for bit in all {
        byte |= u8::from(bit) << n_bits;
        n_bits += 1;
        if n_bits == 8 {
            packed.push(byte);
            (byte, n_bits) = (0, 0);
        }
    }
    packed.push(byte);
    let mut outer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    let _ = outer.write_all(&packed);
    let packed = outer.finish().unwrap_or_default();
    let mut objects = begun();
    let page = page(&mut objects, "/Filter[/FlateDecode/FlateDecode]", &packed);
    with_pages(&mut objects, &[page]);
    objects.finish()
}

fn find_last(bytes: &[u8], mark: &[u8]) -> usize {
    bytes.windows(mark.len()).rposition(|window| window == mark).unwrap_or_default()
}
