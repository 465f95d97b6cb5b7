//! Unpacking: a compressed stream of bytes as its members, one after the other.

mod codec;
mod input;
mod zip;

use std::sync::Arc;

use aqueduct_core::{ByteStream, Error, ErrorKind, RandomAccess, Result};
use aqueduct_primitives::Tasks;
use bytes::Bytes;

use crate::{Compression, DecodedLimits, Format};
use codec::Codec;
use input::Input;
pub(crate) use input::byte_stream;
use zip::Zip;

/// What one call unpacks at most, so that a compute job stays short.
const MAX_STEP: usize = 1 << 20;

/// A file being unpacked. Only [`Unpacker::wait`] waits for the network or the disk; the rest computes.
pub(crate) struct Unpacker {
    input: Input,
    kind: Kind,
    n_members: u64,
    meter: Meter,
    tasks: Tasks,
}

enum Kind {
    Plain,
    /// Taken out while a job has it.
    Packed(Option<Box<Codec>>),
    Zip(Box<Zip>),
}

/// What is left of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Perhaps more.
    More,
    /// Nothing.
    End,
}

impl Unpacker {
    /// Begins to read a stream. `named` is the compression if the user named one.
    ///
    /// # Errors
    /// The stream fails at once.
    pub(crate) async fn of_stream(
        body: ByteStream,
        name: &str,
        named: Option<Compression>,
        limits: DecodedLimits,
        tasks: &Tasks,
    ) -> Result<Self> {
        let mut input = Input::new(body);
        input.peek(6).await?;
        let compression = named.unwrap_or_else(|| Compression::detect(name, input.pending()));
        Self::new(input, compression, limits, tasks, Zip::of_stream)
    }

    /// Begins to read a file by range: a zip goes by its central directory, from the member at `from` on.
    ///
    /// # Errors
    /// It cannot be read, or its directory is damaged.
    pub(crate) async fn of_file(
        file: &Arc<dyn RandomAccess>,
        from: u64,
        name: &str,
        named: Option<Compression>,
        limits: DecodedLimits,
        tasks: &Tasks,
    ) -> Result<Self> {
        let mut input = Input::new(byte_stream(Arc::clone(file), 0..file.len()));
        input.peek(6).await?;
        let compression = named.unwrap_or_else(|| Compression::detect(name, input.pending()));
        let directory = match compression {
            Compression::Zip => Some(Zip::of_file(file, from).await?),
            _ => None,
        };
        Self::new(input, compression, limits, tasks, |_| directory.unwrap_or_default())
    }

    fn new(
        input: Input,
        compression: Compression,
        limits: DecodedLimits,
        tasks: &Tasks,
        zip: impl FnOnce(&Input) -> Zip,
    ) -> Result<Self> {
        let kind = match compression {
            Compression::None => Kind::Plain,
            Compression::Zip => Kind::Zip(Box::new(zip(&input))),
            packed => Kind::Packed(Some(Box::new(Codec::new(packed)?))),
        };
        Ok(Self { input, kind, n_members: 0, meter: Meter::new(limits), tasks: tasks.clone() })
    }

    /// Whether the bytes come as they are.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.kind, Kind::Plain)
    }

    /// The format that the name of the member at hand tells, in an archive.
    pub(crate) fn member_format(&self) -> Option<Format> {
        match &self.kind {
            Kind::Zip(zip) => zip.format(),
            _ => None,
        }
    }

    /// Goes on to the next member; false when there is none. All but a zip have one.
    ///
    /// # Errors
    /// The archive is damaged, encrypted or packed in a way that is not known; or
    /// [`NeedsSpool`](crate::NeedsSpool).
    pub(crate) async fn next_member(&mut self) -> Result<bool> {
        let is_next = match &mut self.kind {
            Kind::Zip(zip) => zip.next_member(&mut self.input).await?,
            _ => self.n_members == 0,
        };
        self.n_members += u64::from(is_next);
        Ok(is_next)
    }

    /// Waits until there is something to unpack, or nothing will come.
    ///
    /// # Errors
    /// The stream failed.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn wait(&mut self) -> Result<()> {
        self.input.peek(1).await
    }

    /// Adds up to `room` more bytes of the member to `out`.
    ///
    /// # Errors
    /// The data is damaged or cut off, or goes beyond the limits.
    pub(crate) async fn fill(&mut self, out: Vec<u8>, room: usize) -> Result<(Vec<u8>, Left)> {
        let room = room.min(MAX_STEP);
        let before = out.len();
        let n_packed = self.input.n_taken();
        let (out, left) = match &mut self.kind {
            Kind::Plain => self.input.copy(out, room).await?,
            Kind::Packed(codec) => unpack(codec, &mut self.input, out, room, MAX_STEP, &self.tasks).await?,
            Kind::Zip(zip) => zip.fill(&mut self.input, out, room, &self.tasks).await?,
        };
        if !self.is_plain() {
            self.meter.count(self.input.n_taken() - n_packed, out.len() - before)?;
        }
        Ok((out, left))
    }

    /// The next bytes of the member, without a copy where they come as they are; nothing at its end.
    ///
    /// # Errors
    /// As [`Unpacker::fill`].
    pub(crate) async fn next_bytes(&mut self, max: usize) -> Result<Option<Bytes>> {
        if self.is_plain() {
            self.wait().await?;
            return Ok(self.input.take(max));
        }
        let mut out = Vec::new();
        loop {
            let (filled, left) = self.fill(out, max).await?;
            if !filled.is_empty() {
                return Ok(Some(filled.into()));
            }
            if left == Left::End {
                return Ok(None);
            }
            out = filled;
        }
    }
}

/// Runs the codec over what input there is, at most `max` bytes, as a compute job. 0 stands for its end.
async fn unpack(
    codec: &mut Option<Box<Codec>>,
    input: &mut Input,
    out: Vec<u8>,
    room: usize,
    max: usize,
    tasks: &Tasks,
) -> Result<(Vec<u8>, Left)> {
    if max > 0 {
        input.peek(1).await?;
    }
    let packed = input.look(max);
    let Some(mut running) = codec.take() else {
        return Err(Error::bug("unpack", "used again after a failure"));
    };
    let job = move || {
        let result = running.run(packed.as_ref(), out, room);
        (running, result)
    };
    let (running, result) = tasks.compute(job).await?;
    let step = result?;
    *codec = Some(running);
    input.take(step.n_used);
    let left = if step.is_end { Left::End } else { Left::More };
    Ok((step.out, left))
}

/// Counts what goes in and comes out.
struct Meter {
    limits: DecodedLimits,
    n_packed: u64,
    n_unpacked: u64,
}

impl Meter {
    fn new(limits: DecodedLimits) -> Self {
        Self { limits, n_packed: 0, n_unpacked: 0 }
    }

    fn count(&mut self, n_packed: u64, n_unpacked: usize) -> Result<()> {
        self.n_packed += n_packed;
        self.n_unpacked += n_unpacked as u64;
        let DecodedLimits { max_ratio, max_bytes } = self.limits;
        if self.n_unpacked > max_bytes.get() {
            let message = "it unpacks to more bytes than `max_bytes` allows";
            return Err(Error::new(ErrorKind::Limit, "unpack", message).with("limit_bytes", max_bytes));
        }
        let is_judged = self.n_unpacked > DecodedLimits::RATIO_FROM.get();
        if is_judged && self.n_unpacked / max_ratio.max(1) > self.n_packed {
            let message = format!("it unpacks to more than {max_ratio} times its size, as a bomb does");
            return Err(Error::new(ErrorKind::Limit, "unpack", message)
                .with("packed_bytes", self.n_packed)
                .with("unpacked_bytes", self.n_unpacked));
        }
        Ok(())
    }
}
