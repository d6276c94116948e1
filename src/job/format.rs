//! How payloads and outputs become bytes and back.
//!
//! Two marker types instead of two blanket impls: no clash between them, and rkyv's bounds are
//! written once, here.

use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error as RkyvError;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Portable, Serialize};

/// Bytes that are not what the format expects, or a value that it cannot write.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PayloadError(pub(crate) String);

impl PayloadError {
    fn new(doing: &str, error: impl std::fmt::Display) -> PayloadError {
        PayloadError(format!("{doing}: {error}"))
    }
}

/// How a stored payload is encoded; a byte of the stored record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Encoding {
    Rkyv = 0,
    Json = 1,
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
    fn encode(value: &T) -> Result<Vec<u8>, PayloadError>;
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
    T: Archive + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, RkyvError>>,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, RkyvError>>
        + Deserialize<T, HighDeserializer<RkyvError>>,
{
    fn encode(value: &T) -> Result<Vec<u8>, PayloadError> {
        let bytes = rkyv::to_bytes::<RkyvError>(value)
            .map_err(|e| PayloadError::new("cannot be written as rkyv", e))?;
        Ok(bytes.into_vec())
    }

    fn decode(bytes: &[u8]) -> Result<T, PayloadError> {
        rkyv::from_bytes::<T, RkyvError>(bytes)
            .map_err(|e| PayloadError::new("is not a valid rkyv archive of this type", e))
    }
}

impl<T> InPlace<T> for Rkyv
where
    T: Archive + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, RkyvError>>,
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
    fn encode(value: &T) -> Result<Vec<u8>, PayloadError> {
        serde_json::to_vec(value).map_err(|e| PayloadError::new("cannot be written as JSON", e))
    }

    fn decode(bytes: &[u8]) -> Result<T, PayloadError> {
        serde_json::from_slice(bytes).map_err(|e| PayloadError::new("is not the JSON expected", e))
    }
}
