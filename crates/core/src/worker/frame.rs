//! Frames: four bytes that say how long the rest is, the least first, then the rest.

use std::io::{self, Read, Write};

/// A longer frame is an error on both sides. What is longer goes in several.
pub const MAX_FRAME_BYTES: usize = 256 << 10;

pub(super) fn write(to: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).ok().filter(|_| frame.len() <= MAX_FRAME_BYTES);
    let length = length.ok_or_else(|| too_long(frame.len()))?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(frame)
}

/// The next frame; nothing at the end.
pub(super) fn read(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read(&mut length)? {
        0 => return Ok(None),
        n_read => from.read_exact(&mut length[n_read..])?,
    }
    let n_bytes = u32::from_le_bytes(length) as usize;
    if n_bytes > MAX_FRAME_BYTES {
        return Err(too_long(n_bytes));
    }
    let mut frame = vec![0; n_bytes];
    from.read_exact(&mut frame)?;
    Ok(Some(frame))
}

fn too_long(n_bytes: usize) -> io::Error {
    let message = format!("a frame of {n_bytes} bytes, and {MAX_FRAME_BYTES} are the most");
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_as_they_were_sent_and_no_longer_than_they_may() {
        let mut sent = Vec::new();
        write(&mut sent, b"one").unwrap();
        write(&mut sent, b"").unwrap();
        write(&mut sent, &vec![7; MAX_FRAME_BYTES]).unwrap();
        let whole = sent.clone();
        let mut from = &sent[..];
        assert_eq!(read(&mut from).unwrap().unwrap(), b"one");
        assert_eq!(read(&mut from).unwrap().unwrap(), b"");
        assert_eq!(read(&mut from).unwrap().unwrap().len(), MAX_FRAME_BYTES);
        assert!(read(&mut from).unwrap().is_none());
        assert!(write(&mut sent, &vec![7; MAX_FRAME_BYTES + 1]).is_err());
        // T8: what a child says is not believed.
        assert!(read(&mut &[0xff; 8][..]).is_err());
        for cut in 1..7 {
            assert!(read(&mut &whole[..cut]).is_err(), "cut at {cut}");
        }
    }
}
