//! A look over what Parquet says of itself (Thrift compact protocol) before it is decoded. No list, map or text of a
//! footer may claim more than there is, or a few bytes would make the decoder ask for gigabytes; a page's header tells
//! what the page takes.

/// Structs within structs at most.
const MAX_DEPTH: usize = 32;

/// Whether all that the footer claims is there.
pub(super) fn is_plausible(footer: &[u8]) -> bool {
    Walk { rest: footer }.fields(0).is_some()
}

/// So many bytes have what is wanted of a page's header.
pub(super) const PAGE_HEAD_BYTES: u64 = 64;

/// `PageHeader` of the Parquet format, its first three fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageHead {
    pub(super) is_dictionary: bool,
    pub(super) unpacked: u64,
    pub(super) packed: u64,
}

/// What the header that begins here says; nothing, when it is none.
pub(super) fn page_head(bytes: &[u8]) -> Option<PageHead> {
    const I32: u8 = 5;
    const DICTIONARY_PAGE: i64 = 2;
    let mut walk = Walk { rest: bytes };
    let mut fields = [None; 3];
    let mut id = 0i64;
    while fields.contains(&None) {
        let head = walk.byte()?;
        let step = i64::from(head >> 4);
        id = if step == 0 { unzigzag(walk.varint()?) } else { id + step };
        if head & 15 != I32 {
            return None;
        }
        let value = unzigzag(walk.varint()?);
        let place = usize::try_from(id).ok()?.checked_sub(1)?;
        *fields.get_mut(place)? = Some(value);
    }
    let [kind, unpacked, packed] = fields.map(Option::unwrap_or_default);
    let (unpacked, packed) = (u64::try_from(unpacked).ok()?, u64::try_from(packed).ok()?);
    Some(PageHead { is_dictionary: kind == DICTIONARY_PAGE, unpacked, packed })
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

struct Walk<'a> {
    rest: &'a [u8],
}

impl Walk<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn skip(&mut self, n: u64) -> Option<()> {
        self.rest = self.rest.get(usize::try_from(n).ok()?..)?;
        Some(())
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn fields(&mut self, depth: usize) -> Option<()> {
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Some(());
            }
            if head >> 4 == 0 {
                self.varint()?;
            }
            // A bool's value is in its type.
            if !matches!(head & 15, 1 | 2) {
                self.value(head & 15, depth)?;
            }
        }
    }

    fn value(&mut self, kind: u8, depth: usize) -> Option<()> {
        match kind {
            1..=3 => self.skip(1),
            4..=6 => self.varint().map(|_| ()),
            7 => self.skip(8),
            8 => {
                let n = self.varint()?;
                self.skip(n)
            }
            9 | 10 => {
                let head = self.byte()?;
                let n = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
                self.elements(n, &[head & 15], depth)
            }
            11 => {
                let n = self.varint()?;
                let kinds = if n == 0 { 0 } else { self.byte()? };
                self.elements(n, &[kinds >> 4, kinds & 15], depth)
            }
            12 if depth < MAX_DEPTH => self.fields(depth + 1),
            _ => None,
        }
    }

    fn elements(&mut self, n: u64, kinds: &[u8], depth: usize) -> Option<()> {
        // Each takes a byte at least.
        if n > self.rest.len() as u64 || depth >= MAX_DEPTH {
            return None;
        }
        for _ in 0..n {
            for kind in kinds {
                self.value(*kind, depth + 1)?;
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_claims_more_than_there_is_is_not_plausible() {
        // Field 4, a list of 2^31 structs.
        let list = [0x49, 0xfc, 0x80, 0x80, 0x80, 0x80, 0x08, 0x00];
        assert!(!is_plausible(&list));
        // Field 1: the number 7; the end.
        assert!(is_plausible(&[0x15, 0x0e, 0x00]));
        assert!(!is_plausible(&[0x15, 0x0e]));
        assert!(!is_plausible(&[0x1c; 100]));
    }

    #[test]
    fn a_page_says_what_it_takes() {
        // Fields 1 to 3: 2, 300, 150; each number doubled, in groups of seven bits.
        let head = Some(PageHead { is_dictionary: true, unpacked: 300, packed: 150 });
        assert_eq!(page_head(&[0x15, 4, 0x15, 0xd8, 0x04, 0x15, 0xac, 0x02, 0x2c]), head);
        // The same with the fields' numbers spelled out.
        assert_eq!(page_head(&[0x05, 2, 4, 0x05, 4, 0xd8, 0x04, 0x05, 6, 0xac, 0x02]), head);
        assert_eq!(page_head(&[0x15, 4, 0x15, 0xd8]), None);
        assert_eq!(page_head(&[0x15, 4, 0x15, 0x03, 0x15, 0x02]), None, "a size below 0");
        assert_eq!(page_head(&[0xff; 64]), None);
    }
}
