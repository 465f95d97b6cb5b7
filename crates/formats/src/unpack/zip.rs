//! Zip archives (PKWARE APPNOTE 6.3), member by member: as they come, by their local headers, or on a disk,
//! by their central directory.
//!
//! Names never become paths. Directories and empty members are passed over; encrypted members, members that
//! overlap and more than [`MAX_MEMBERS`] are errors. Sizes and checksums are verified.

use std::sync::Arc;

use aqueduct_core::{Error, ErrorKind, RandomAccess, Result};
use aqueduct_primitives::Tasks;

use super::codec::Codec;
use super::input::{Input, byte_stream, cut_off};
use super::{Left, MAX_STEP, unpack};
use crate::{Format, NeedsSpool};

/// An archive with more members is refused: each costs time, and on a disk memory.
const MAX_MEMBERS: u64 = 100_000;

/// Names and comments make a directory larger than its members; beyond this it is no honest one.
const MAX_DIRECTORY_BYTES: u64 = 64 << 20;

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const DESCRIPTOR: u32 = 0x0807_4b50;
const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;
const LOCAL_BYTES: usize = 30;
const CENTRAL_BYTES: usize = 46;
const END_BYTES: usize = 22;
const LOCATOR_BYTES: usize = 20;
const END_64_BYTES: usize = 56;

const ENCRYPTED: u16 = 1;
const HAS_DESCRIPTOR: u16 = 1 << 3;

/// An archive being read.
#[derive(Default)]
pub(super) struct Zip {
    /// From the central directory, in the order of their places; none when it is read as it comes.
    directory: Option<Directory>,
    current: Option<Current>,
    n_seen: u64,
}

struct Directory {
    file: Arc<dyn RandomAccess>,
    members: std::vec::IntoIter<Member>,
}

/// What a header says.
#[derive(Clone, Debug)]
struct Member {
    method: u16,
    flags: u16,
    crc: u32,
    n_packed: u64,
    n_unpacked: u64,
    is_folder: bool,
    is_zip64: bool,
    /// By its name's suffix.
    format: Option<Format>,
    /// Where its local header is.
    offset: u64,
}

/// The member being unpacked.
struct Current {
    member: Member,
    /// None of a stored one.
    codec: Option<Option<Box<Codec>>>,
    /// Packed bytes that are left, if it is known.
    n_left: Option<u64>,
    /// Sizes and checksum stand behind the data.
    has_descriptor: bool,
    crc: flate2::Crc,
}

impl Zip {
    /// Reads it as it comes.
    pub(super) fn of_stream(_input: &Input) -> Self {
        Self::default()
    }

    /// Reads its central directory. Members before `from` are passed over.
    pub(super) async fn of_file(file: &Arc<dyn RandomAccess>, from: u64) -> Result<Self> {
        let mut members = read_directory(file).await?;
        members.sort_by_key(|member| member.offset);
        for pair in members.windows(2) {
            let end = pair[0].offset.saturating_add(pair[0].n_packed).saturating_add(LOCAL_BYTES as u64);
            if end > pair[1].offset {
                return Err(damaged("members overlap").with("byte", pair[1].offset));
            }
        }
        members.retain(|member| member.offset >= from && !member.is_folder && member.n_unpacked > 0);
        let directory = Directory { file: Arc::clone(file), members: members.into_iter() };
        Ok(Self { directory: Some(directory), ..Self::default() })
    }

    /// Goes to the next member that holds data; false when there is none.
    pub(super) async fn next_member(&mut self, input: &mut Input) -> Result<bool> {
        loop {
            let member = match &mut self.directory {
                Some(directory) => directory.next(input).await?,
                None => read_local(input).await?,
            };
            let Some(member) = member else { return Ok(false) };
            self.n_seen += 1;
            if self.n_seen > MAX_MEMBERS {
                let message = format!("the archive has more than {MAX_MEMBERS} members, which is the limit");
                return Err(Error::new(ErrorKind::Limit, "read zip", message));
            }
            let is_streamed = self.directory.is_none();
            if is_streamed && member.n_packed == 0 && member.flags & HAS_DESCRIPTOR == 0 {
                continue;
            }
            self.current = Some(Current::new(member, is_streamed)?);
            return Ok(true);
        }
    }

    /// The format that the name of the member at hand tells.
    pub(super) fn format(&self) -> Option<Format> {
        self.current.as_ref()?.member.format
    }

    /// Adds up to `room` more bytes of the member to `out`.
    pub(super) async fn fill(
        &mut self,
        input: &mut Input,
        out: Vec<u8>,
        room: usize,
        tasks: &Tasks,
    ) -> Result<(Vec<u8>, Left)> {
        let Some(current) = &mut self.current else { return Ok((out, Left::End)) };
        let before = out.len();
        let max = current.n_left.map_or(MAX_STEP, |left| usize::try_from(left).unwrap_or(MAX_STEP));
        let n_taken = input.n_taken();
        let (out, left) = match &mut current.codec {
            Some(codec) => unpack(codec, input, out, room, max.min(MAX_STEP), tasks).await?,
            None => stored(input, out, room.min(max)).await?,
        };
        if let Some(n_left) = &mut current.n_left {
            *n_left -= input.n_taken() - n_taken;
        }
        current.crc.update(&out[before..]);
        let is_end = match current.codec {
            Some(_) => left == Left::End,
            None => current.n_left == Some(0),
        };
        if !is_end {
            return Ok((out, Left::More));
        }
        if let Some(current) = self.current.take() {
            current.verify(input).await?;
        }
        Ok((out, Left::End))
    }
}

async fn stored(input: &mut Input, out: Vec<u8>, room: usize) -> Result<(Vec<u8>, Left)> {
    if room == 0 {
        return Ok((out, Left::More));
    }
    let (out, left) = input.copy(out, room).await?;
    if left == Left::End { Err(cut_off()) } else { Ok((out, left)) }
}

impl Directory {
    /// The next member, with the input set to its data.
    async fn next(&mut self, input: &mut Input) -> Result<Option<Member>> {
        let Some(member) = self.members.next() else { return Ok(None) };
        let len = self.file.len();
        let mut at_header = Input::new(byte_stream(Arc::clone(&self.file), member.offset.min(len)..len));
        let header = at_header.take_exactly(LOCAL_BYTES).await?;
        if u32_at(&header, 0) != LOCAL {
            return Err(
                damaged("the directory names a place where no member begins").with("byte", member.offset)
            );
        }
        let n_names = u64::from(u16_at(&header, 26)) + u64::from(u16_at(&header, 28));
        let start = member.offset + LOCAL_BYTES as u64 + n_names;
        let end = start.saturating_add(member.n_packed);
        if end > len {
            return Err(cut_off());
        }
        *input = Input::new(byte_stream(Arc::clone(&self.file), start..end));
        Ok(Some(member))
    }
}

impl Current {
    fn new(member: Member, is_streamed: bool) -> Result<Self> {
        if member.flags & ENCRYPTED != 0 {
            let message = "a member of the archive is encrypted; unpack it first";
            return Err(Error::new(ErrorKind::Data, "read zip", message).with("byte", member.offset));
        }
        let has_descriptor = is_streamed && member.flags & HAS_DESCRIPTOR != 0;
        if has_descriptor && member.method == 0 {
            return Err(NeedsSpool::error(member.offset, "a stored zip member does not say where it ends"));
        }
        let codec = Codec::of_zip(member.method)?.map(|codec| Some(Box::new(codec)));
        let n_left = (!has_descriptor).then_some(member.n_packed);
        Ok(Self { member, codec, n_left, has_descriptor, crc: flate2::Crc::new() })
    }

    /// Compares what came with what the headers say.
    async fn verify(self, input: &mut Input) -> Result<()> {
        let at = self.member.offset;
        if self.n_left.is_some_and(|left| left > 0) {
            return Err(damaged("a member ends before its packed size").with("byte", at));
        }
        let (crc, size) = if self.has_descriptor {
            read_descriptor(input, self.member.is_zip64).await?
        } else {
            (self.member.crc, self.member.n_unpacked)
        };
        // `amount` counts modulo 2^32.
        #[expect(clippy::cast_possible_truncation, reason = "compared modulo 2^32")]
        if u64::from(self.crc.amount()) != u64::from(size as u32) {
            return Err(damaged("a member is not as long as its header says").with("byte", at));
        }
        if self.crc.sum() != crc {
            return Err(damaged("a member's checksum is not what its header says").with("byte", at));
        }
        Ok(())
    }
}

/// The next local header; nothing where the directory begins, or at the end.
async fn read_local(input: &mut Input) -> Result<Option<Member>> {
    input.peek(4).await?;
    let offset = input.n_taken();
    match input.pending().get(..4).map(|bytes| u32_at(bytes, 0)) {
        Some(LOCAL) => {}
        Some(CENTRAL | END | END_64) => return Ok(None),
        None if input.pending().is_empty() && offset == 0 => return Ok(None),
        None => return Err(cut_off()),
        Some(_) => return Err(damaged("found neither a member nor the directory").with("byte", offset)),
    }
    let header = input.take_exactly(LOCAL_BYTES).await?;
    let name = input.take_exactly(u16_at(&header, 26).into()).await?;
    let extra = input.take_exactly(u16_at(&header, 28).into()).await?;
    let mut sizes = [u64::from(u32_at(&header, 22)), u64::from(u32_at(&header, 18))];
    let is_zip64 = read_zip64(&extra, &mut sizes);
    Ok(Some(Member {
        method: u16_at(&header, 8),
        flags: u16_at(&header, 6),
        crc: u32_at(&header, 14),
        n_packed: sizes[1],
        n_unpacked: sizes[0],
        is_folder: name.ends_with(b"/"),
        format: Format::of_name(&String::from_utf8_lossy(&name)),
        is_zip64,
        offset,
    }))
}

/// Checksum and size from behind a member's data.
async fn read_descriptor(input: &mut Input, is_zip64: bool) -> Result<(u32, u64)> {
    input.peek(4).await?;
    if input.pending().get(..4).is_some_and(|bytes| u32_at(bytes, 0) == DESCRIPTOR) {
        input.take_exactly(4).await?;
    }
    let descriptor = input.take_exactly(if is_zip64 { 20 } else { 12 }).await?;
    let size = if is_zip64 { u64_at(&descriptor, 12) } else { u32_at(&descriptor, 8).into() };
    Ok((u32_at(&descriptor, 0), size))
}

async fn read_directory(file: &Arc<dyn RandomAccess>) -> Result<Vec<Member>> {
    let (start, end, n_members) = find_directory(file).await?;
    if n_members > MAX_MEMBERS || end - start > MAX_DIRECTORY_BYTES {
        let message = format!(
            "the archive has more than {MAX_MEMBERS} members, or more than {MAX_DIRECTORY_BYTES} bytes of names"
        );
        return Err(Error::new(ErrorKind::Limit, "read zip", message).with("members", n_members));
    }
    let mut input = Input::new(byte_stream(Arc::clone(file), start..end));
    let mut members = Vec::new();
    for _ in 0..n_members {
        members.push(read_central(&mut input).await?);
    }
    Ok(members)
}

async fn read_central(input: &mut Input) -> Result<Member> {
    let header = input.take_exactly(CENTRAL_BYTES).await?;
    if u32_at(&header, 0) != CENTRAL {
        return Err(damaged("the directory is not where the end of the archive says"));
    }
    let name = input.take_exactly(u16_at(&header, 28).into()).await?;
    let extra = input.take_exactly(u16_at(&header, 30).into()).await?;
    input.take_exactly(u16_at(&header, 32).into()).await?;
    let mut sizes = [24, 20, 42].map(|at| u64::from(u32_at(&header, at)));
    let is_zip64 = read_zip64(&extra, &mut sizes);
    Ok(Member {
        method: u16_at(&header, 10),
        flags: u16_at(&header, 8),
        crc: u32_at(&header, 16),
        n_packed: sizes[1],
        n_unpacked: sizes[0],
        is_folder: name.ends_with(b"/"),
        format: Format::of_name(&String::from_utf8_lossy(&name)),
        is_zip64,
        offset: sizes[2],
    })
}

/// Start and end of the directory, and how many members it lists.
async fn find_directory(file: &Arc<dyn RandomAccess>) -> Result<(u64, u64, u64)> {
    let len = file.len();
    let n_tail = len.min((END_BYTES + LOCATOR_BYTES + usize::from(u16::MAX)) as u64);
    let tail = file.read(len - n_tail..len).await?;
    let end = (0..=tail.len().saturating_sub(END_BYTES)).rev().find(|at| {
        let comment = tail.get(at + 20..at + 22).map(|bytes| u16_at(bytes, 0));
        u32_at(&tail, *at) == END && comment.is_some_and(|n| at + END_BYTES + usize::from(n) == tail.len())
    });
    let Some(at) = end else { return Err(damaged("found no directory at its end; is it cut off?")) };
    let mut found =
        [u32_at(&tail, at + 16).into(), u32_at(&tail, at + 12).into(), u16_at(&tail, at + 10).into()];
    let locator = at.checked_sub(LOCATOR_BYTES).filter(|at| u32_at(&tail, *at) == LOCATOR_64);
    if let Some(locator) = locator {
        let start = u64_at(&tail, locator + 8);
        if start.saturating_add(END_64_BYTES as u64) > len {
            return Err(damaged("the directory is not where the end of the archive says"));
        }
        let end64 = file.read(start..start + END_64_BYTES as u64).await?;
        if u32_at(&end64, 0) == END_64 {
            found = [u64_at(&end64, 48), u64_at(&end64, 40), u64_at(&end64, 32)];
        }
    }
    let [start, size, n_members] = found;
    match start.checked_add(size) {
        Some(end) if end <= len => Ok((start, end, n_members)),
        _ => Err(damaged("the directory goes beyond the end of the file")),
    }
}

/// Replaces the values that are all ones by those of the zip64 field, in its order.
fn read_zip64(extra: &[u8], values: &mut [u64]) -> bool {
    let mut rest = extra;
    while rest.len() >= 4 {
        let (id, n) = (u16_at(rest, 0), usize::from(u16_at(rest, 2)));
        let Some(mut field) = rest.get(4..4 + n) else { return false };
        if id == 1 {
            for value in values.iter_mut().filter(|value| **value == u64::from(u32::MAX)) {
                if field.len() >= 8 {
                    *value = u64_at(field, 0);
                    field = &field[8..];
                }
            }
            return true;
        }
        rest = &rest[4 + n..];
    }
    false
}

fn damaged(message: &str) -> Error {
    Error::new(ErrorKind::Data, "read zip", format!("the archive is damaged: {message}"))
}

/// The little-endian number at a place; zero beyond the end, which no caller reaches unchecked.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
