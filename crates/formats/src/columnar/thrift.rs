//! A look over a Parquet footer (Thrift compact protocol) before it is decoded: no list, map or text in it
//! may claim more than there is, or a few bytes would make the decoder ask for gigabytes.

/// Structs within structs at most.
const MAX_DEPTH: usize = 32;

/// Whether all that the footer claims is there.
pub(super) fn is_plausible(footer: &[u8]) -> bool {
    Walk { rest: footer }.fields(0).is_some()
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
}
