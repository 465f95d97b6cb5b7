//! Prints the text of a document, or writes some of its pages as a document of their own:
//! `pdf_text FILE`, `pdf_text FILE pages`, `pdf_text FILE FIRST LAST OUT.pdf`.

#![expect(clippy::print_stdout, reason = "an example")]

use std::io::Read;

use aqueduct_pdf::Document;

const MAX_BYTES: u64 = 256 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let file = words.first().ok_or("expected a file")?;
    let mut bytes = Vec::new();
    std::fs::File::open(file)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    let document = Document::open(bytes)?;
    match &words[1..] {
        [] => print!("{}", document.text(0..document.n_pages(), 256 << 20)?),
        [_] => println!("{} {:?}", document.n_pages(), document.bookmarks()),
        [first, last, out, ..] => {
            let pages = first.parse::<usize>()?.saturating_sub(1)..last.parse()?;
            std::fs::write(out, document.section(pages, 256 << 20)?)?;
        }
        _ => return Err("expected FILE FIRST LAST OUT".into()),
    }
    Ok(())
}
