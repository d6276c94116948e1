//! How payloads and outputs become bytes and back.
//!
//! Two marker types instead of two blanket impls: no clash between them, and rkyv's bounds are
//! written once, here.

use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator, to_bytes_in_with_alloc};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error as RkyvError;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::with_arena;
use rkyv::{Archive, Deserialize, Portable, Serialize};

use super::definition::Job;

/// Bytes that are not what the format expects, or a value that it cannot write.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct PayloadError {
    text: String,
    /// Bytes reached when the limit was passed.
    too_large: Option<u64>,
}

impl PayloadError {
    pub(crate) fn new(doing: &str, error: impl std::fmt::Display) -> PayloadError {
        PayloadError {
            text: format!("{doing}: {error}"),
            too_large: None,
        }
    }

    /// How large it would have become at least, if that was the trouble.
    pub(crate) fn too_large(&self) -> Option<u64> {
        self.too_large
    }
}

/// A buffer that takes no more than its limit, so that a value which is too large is refused before it
/// is copied.
#[doc(hidden)]
#[derive(Debug)]
pub struct Bounded {
    bytes: Vec<u8>,
    limit: u64,
    /// Bytes that come last, for which there is to be room without another allocation.
    last: usize,
    /// Set when the limit was passed.
    reached: Option<u64>,
}

impl Bounded {
    fn new(limit: u64, last: usize) -> Bounded {
        Bounded {
            bytes: Vec::new(),
            limit,
            last,
            reached: None,
        }
    }

    fn take(&mut self, more: &[u8]) -> bool {
        let reached = self.bytes.len() as u64 + more.len() as u64;
        if reached > self.limit {
            self.reached = Some(reached);
            return false;
        }
        if self.bytes.capacity() - self.bytes.len() < more.len() {
            self.bytes.reserve(more.len() + self.last);
        }
        self.bytes.extend_from_slice(more);
        true
    }

    /// The bytes, or why there are none.
    fn end(self, written: Result<(), PayloadError>) -> Result<Vec<u8>, PayloadError> {
        match (written, self.reached) {
            (Ok(()), _) => Ok(self.bytes),
            (Err(error), reached) => Err(PayloadError {
                too_large: reached,
                ..error
            }),
        }
    }
}

impl rkyv::ser::Positional for &mut Bounded {
    fn pos(&self) -> usize {
        self.bytes.len()
    }
}

impl rkyv::ser::Writer<RkyvError> for &mut Bounded {
    fn write(&mut self, bytes: &[u8]) -> Result<(), RkyvError> {
        if self.take(bytes) {
            Ok(())
        } else {
            Err(rkyv::rancor::Source::new(PastLimit))
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("it is larger than its limit")]
struct PastLimit;

#[cfg(feature = "json")]
impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.take(bytes) {
            Ok(bytes.len())
        } else {
            Err(std::io::Error::other(PastLimit))
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// How a stored payload is encoded; a byte of the stored record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Encoding {
    Rkyv = 0,
    Json = 1,
}

impl std::fmt::Display for Encoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Encoding::Rkyv => "rkyv",
            Encoding::Json => "JSON",
        })
    }
}

impl Encoding {
    pub(crate) fn from_byte(byte: u8) -> Option<Encoding> {
        match byte {
            0 => Some(Encoding::Rkyv),
            1 => Some(Encoding::Json),
            _ => None,
        }
    }
}

mod sealed {
    pub trait Format {
        const ENCODING: u8;
    }
    impl Format for super::Rkyv {
        const ENCODING: u8 = super::Encoding::Rkyv as u8;
    }
    #[cfg(feature = "json")]
    impl Format for super::Json {
        const ENCODING: u8 = super::Encoding::Json as u8;
    }
}

/// How a value of type `T` becomes bytes and back. Sealed: pick [`Rkyv`] or `Json` (feature `json`).
pub trait Format<T>: sealed::Format {
    #[doc(hidden)]
    fn encode(value: &T, limit: u64) -> Result<Vec<u8>, PayloadError>;
    #[doc(hidden)]
    fn decode(bytes: &[u8]) -> Result<T, PayloadError>;
}

/// A format whose bytes can be read in place, without a copy.
pub trait InPlace<T>: Format<T> {
    /// What a handler borrows: for rkyv the archived type.
    type View;
    #[doc(hidden)]
    fn view(bytes: &[u8]) -> Result<&Self::View, PayloadError>;
}

/// What a payload was written as, or what a reader takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    /// 0: JSON by a program that knows only the kind's name.
    pub(crate) version: u16,
    pub(crate) encoding: Encoding,
}

impl Form {
    pub(crate) fn of<J: Job>() -> Form {
        Form {
            version: J::VERSION,
            encoding: encoding_of::<J::Format>(),
        }
    }
}

/// The encoding of a format.
pub(crate) fn encoding_of<F: sealed::Format + ?Sized>() -> Encoding {
    Encoding::from_byte(F::ENCODING).unwrap_or(Encoding::Rkyv)
}

/// Payloads as rkyv archives: the default, readable in place. Always read with full validation.
///
/// Derive `rkyv::Archive`, `rkyv::Serialize` and `rkyv::Deserialize` (from [`jobsled::rkyv`](crate::rkyv)).
#[derive(Debug)]
pub enum Rkyv {}

impl<T> Format<T> for Rkyv
where
    T: Archive + for<'a> Serialize<HighSerializer<&'a mut Bounded, ArenaHandle<'a>, RkyvError>>,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, RkyvError>>
        + Deserialize<T, HighDeserializer<RkyvError>>,
{
    fn encode(value: &T, limit: u64) -> Result<Vec<u8>, PayloadError> {
        // The archive ends with the value itself; what hangs from it comes before.
        let mut out = Bounded::new(limit, size_of::<T::Archived>());
        let written = with_arena(|arena| {
            to_bytes_in_with_alloc::<_, _, RkyvError>(value, &mut out, arena.acquire()).map(drop)
        });
        let written = written.map_err(|e| PayloadError::new("cannot be written as rkyv", e));
        out.end(written)
    }

    fn decode(bytes: &[u8]) -> Result<T, PayloadError> {
        rkyv::from_bytes::<T, RkyvError>(bytes)
            .map_err(|e| PayloadError::new("is not a valid rkyv archive of this type", e))
    }
}

impl<T> InPlace<T> for Rkyv
where
    T: Archive + for<'a> Serialize<HighSerializer<&'a mut Bounded, ArenaHandle<'a>, RkyvError>>,
    T::Archived: Portable
        + for<'a> CheckBytes<HighValidator<'a, RkyvError>>
        + Deserialize<T, HighDeserializer<RkyvError>>,
{
    type View = T::Archived;

    fn view(bytes: &[u8]) -> Result<&T::Archived, PayloadError> {
        rkyv::access::<T::Archived, RkyvError>(bytes)
            .map_err(|e| PayloadError::new("is not a valid rkyv archive of this type", e))
    }
}

/// Payloads as JSON text: for programs that share jobs by name and value.
#[cfg(feature = "json")]
#[derive(Debug)]
pub enum Json {}

#[cfg(feature = "json")]
impl<T: serde::Serialize + serde::de::DeserializeOwned> Format<T> for Json {
    fn encode(value: &T, limit: u64) -> Result<Vec<u8>, PayloadError> {
        let mut out = Bounded::new(limit, 0);
        let written = serde_json::to_writer(&mut out, value);
        out.end(written.map_err(|e| PayloadError::new("cannot be written as JSON", e)))
    }

    fn decode(bytes: &[u8]) -> Result<T, PayloadError> {
        serde_json::from_slice(bytes).map_err(|e| PayloadError::new("is not the JSON expected", e))
    }
}
