//! gzip, zstd, bzip2 and xz: whole files of one or several members, pushed through piece by piece.

use aqueduct_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use compression_codecs::core::util::{PartialBuffer, WriteBuffer};
use compression_codecs::zstd::params::DParameter;
use compression_codecs::{BzDecoder, DecodeV2, DeflateDecoder, GzipDecoder, XzDecoder, ZstdDecoder};

use super::input::cut_off;
use crate::Compression;

/// What zstd may keep of what it has unpacked, as a power of two: 32 MiB. Files made with `--long` or
/// `--ultra` want more and are refused, because this memory is beside the budget.
const ZSTD_WINDOW_LOG: u32 = 25;

/// What xz may take: enough for its strongest preset, `-9`.
const XZ_MEMORY: u64 = 72 << 20;

/// Unpacked at once, however little there is to unpack.
const LEAST_ROOM: usize = 64 << 10;

/// A decoder and where it stands.
pub(crate) struct Codec {
    name: &'static str,
    decoder: Box<dyn DecodeV2 + Send>,
    state: State,
    /// The last call filled all its room, so that more may come out without more going in.
    is_full: bool,
    /// Members may follow each other.
    has_members: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first member.
    Start,
    Within,
    /// Behind a member: another, zeros or the end.
    Behind,
}

/// What one call did.
pub(crate) struct Step {
    pub(crate) out: Vec<u8>,
    /// Of the input.
    pub(crate) n_used: usize,
    pub(crate) is_end: bool,
}

impl Codec {
    /// A decoder of whole files.
    ///
    /// # Errors
    /// Of what is no such compression.
    pub(crate) fn new(compression: Compression) -> Result<Self> {
        let decoder: Box<dyn DecodeV2 + Send> = match compression {
            Compression::Gzip => Box::new(GzipDecoder::new()),
            Compression::Bzip2 => Box::new(BzDecoder::new()),
            Compression::Xz => Box::new(XzDecoder::with_memlimit(XZ_MEMORY)),
            Compression::Zstd => {
                Box::new(ZstdDecoder::new_with_params(&[DParameter::window_log_max(ZSTD_WINDOW_LOG)]))
            }
            Compression::None | Compression::Zip => {
                return Err(Error::bug("unpack", "no decoder of its own"));
            }
        };
        let (name, has_members) = (compression.name(), true);
        Ok(Self { name, decoder, state: State::Start, is_full: false, has_members })
    }

    /// A decoder of one member of a zip; nothing for one that is stored.
    ///
    /// # Errors
    /// The method is not known.
    pub(super) fn of_zip(method: u16) -> Result<Option<Self>> {
        let compression = match method {
            0 => return Ok(None),
            8 => None,
            12 => Some(Compression::Bzip2),
            93 => Some(Compression::Zstd),
            95 => Some(Compression::Xz),
            _ => {
                let message = format!(
                    "a member is packed by method {method}; known are stored, deflate, bzip2, zstd and xz"
                );
                return Err(Error::new(ErrorKind::Data, "read zip", message));
            }
        };
        let codec = match compression {
            Some(compression) => Self::new(compression)?,
            None => Self {
                name: "deflate",
                decoder: Box::new(DeflateDecoder::new()),
                state: State::Start,
                is_full: false,
                has_members: false,
            },
        };
        Ok(Some(Self { has_members: false, ..codec }))
    }

    /// Unpacks up to `room` bytes of `packed`; nothing means that the input has ended.
    ///
    /// # Errors
    /// It is damaged or cut off.
    pub(crate) fn run(&mut self, packed: Option<&Bytes>, mut out: Vec<u8>, room: usize) -> Result<Step> {
        let input = packed.map_or(&[][..], |bytes| &bytes[..]);
        // Room is filled with zeros first: not more of it than the input may need.
        let room = room.min(LEAST_ROOM.max(input.len().saturating_mul(8)));
        let before = out.len();
        out.resize(before + room, 0);
        let (mut n_used, mut n_out) = (0, 0);
        let mut is_end = false;
        while n_out < room {
            n_used += self.between_members(&input[n_used..])?;
            let rest = &input[n_used..];
            if self.state == State::Behind && (rest.is_empty() || !self.has_members) {
                is_end = packed.is_none() || !self.has_members;
                break;
            }
            if rest.is_empty() && !self.is_full {
                is_end = self.at_end_of_input(packed.is_none())?;
                break;
            }
            let (used, written) = self.decode(rest, &mut out[before + n_out..])?;
            n_used += used;
            n_out += written;
        }
        out.truncate(before + n_out);
        Ok(Step { out, n_used, is_end })
    }

    /// Gets ready for another member if one comes. Returns how much padding there is before it.
    fn between_members(&mut self, rest: &[u8]) -> Result<usize> {
        if self.state != State::Behind || !self.has_members || rest.is_empty() {
            return Ok(0);
        }
        let n_zeros = rest.iter().take_while(|byte| **byte == 0).count();
        if n_zeros == 0 {
            self.decoder.reinit().map_err(|error| self.damaged(error))?;
            self.state = State::Within;
        }
        Ok(n_zeros)
    }

    fn at_end_of_input(&self, is_last: bool) -> Result<bool> {
        match (is_last, self.state) {
            (false, _) => Ok(false),
            // An empty file is an empty file, however it is named.
            (true, State::Start) => Ok(true),
            (true, _) => Err(cut_off().with("compression", self.name)),
        }
    }

    fn decode(&mut self, rest: &[u8], out: &mut [u8]) -> Result<(usize, usize)> {
        let mut input = PartialBuffer::new(rest);
        let mut output = WriteBuffer::new_initialized(out);
        let decoded = self.decoder.decode(&mut input, &mut output);
        let (n_used, n_out) = (input.written_len(), output.written_len());
        self.is_full = output.has_no_spare_space();
        match decoded {
            Ok(true) => (self.state, self.is_full) = (State::Behind, false),
            Ok(false) => self.state = State::Within,
            // With nothing to read it may complain that it got no further; it then waits for more.
            Err(_) if rest.is_empty() && n_out == 0 => self.is_full = false,
            Err(error) => return Err(self.damaged(error)),
        }
        if n_used == 0 && n_out == 0 && !rest.is_empty() && self.state == State::Within {
            return Err(self.damaged(std::io::Error::other("the decoder makes no progress")));
        }
        Ok((n_used, n_out))
    }

    fn damaged(&self, error: std::io::Error) -> Error {
        let message = "the data is damaged, is not what its name says, or needs more memory than is allowed";
        Error::new(ErrorKind::Data, "unpack", message).with("compression", self.name).with_source(error)
    }
}
