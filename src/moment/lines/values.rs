//! How values stand in a line.

use std::borrow::Cow;
use std::fmt;

use base64::display::Base64Display;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::de::{Deserializer, Error as _, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::job::{DeadReason, Encoding, State, truncate};

/// 128 bits as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::moment) struct Hex(pub(in crate::moment) u128);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{:032x}", self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Hex, D::Error> {
        let text = Cow::<str>::deserialize(from)?;
        let number = u128::from_str_radix(&text, 16).ok();
        let number = number.filter(|number| format!("{number:032x}") == text);
        number
            .map(Hex)
            .ok_or_else(|| D::Error::custom("not 32 lower-case hexadecimal digits"))
    }
}

/// Bytes that are no line of JSON.
#[derive(Debug)]
pub(in crate::moment) struct Base64<'a>(pub(in crate::moment) Cow<'a, [u8]>);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        // Written piece by piece: a large payload is not in memory a second time.
        to.collect_str(&Base64Display::new(&self.0, &BASE64_STANDARD))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Base64<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Base64<'a>, D::Error> {
        struct Decode;
        impl Visitor<'_> for Decode {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string of base64")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
                let decoded = BASE64_STANDARD.decode(text);
                decoded.map_err(|e| E::custom(format!("not base64: {e}")))
            }
        }
        from.deserialize_str(Decode)
            .map(|bytes| Base64(Cow::Owned(bytes)))
    }
}

/// A value that is there, also if it is `null`.
pub(super) fn raw<'de: 'a, 'a, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&'a RawValue>::deserialize(from).map(Some)
}

/// Bytes as they go into a line: as they are if they are one line of JSON, else as base64.
pub(in crate::moment) fn embed(
    bytes: &[u8],
    encoding: Encoding,
) -> (Option<&RawValue>, Option<Base64<'_>>) {
    let text = std::str::from_utf8(bytes).ok();
    let text = text.filter(|text| encoding == Encoding::Json && !text.contains(['\n', '\r']));
    let value = text.and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
    // Blanks around the value are a part of the payload, and not of the value.
    match value.filter(|value| value.get().len() == bytes.len()) {
        Some(value) => (Some(value), None),
        None => (None, Some(Base64(Cow::Borrowed(bytes)))),
    }
}

/// One of several words; the error names them all.
fn word<'de, D: Deserializer<'de>, T: Copy + fmt::Display>(
    from: D,
    all: &[T],
) -> Result<T, D::Error> {
    let found = Cow::<str>::deserialize(from)?;
    let same = |one: &&T| one.to_string() == found;
    all.iter().find(same).copied().ok_or_else(|| {
        let all: Vec<String> = all.iter().map(|one| format!("`{one}`")).collect();
        let found = truncate(&found, 80);
        D::Error::custom(format!("`{found}` is none of {}", all.join(", ")))
    })
}

pub(super) mod state {
    use super::{Deserializer, Serializer, State, word};

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "the signature is serde's"
    )]
    pub(in crate::moment) fn serialize<S: Serializer>(
        state: &State,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(state)
    }

    pub(in crate::moment) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<State, D::Error> {
        word(from, &State::ALL)
    }
}

pub(super) mod dead_reason {
    use super::{DeadReason, Deserializer, Serializer, word};

    const ALL: [DeadReason; 5] = [
        DeadReason::AttemptsUsedUp,
        DeadReason::Expired,
        DeadReason::Discarded,
        DeadReason::Quarantined,
        DeadReason::Crashed,
    ];

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        clippy::ref_option,
        reason = "the signature is serde's"
    )]
    pub(in crate::moment) fn serialize<S: Serializer>(
        reason: &Option<DeadReason>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match reason {
            Some(reason) => to.collect_str(reason),
            None => to.serialize_none(),
        }
    }

    pub(in crate::moment) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<DeadReason>, D::Error> {
        word(from, &ALL).map(Some)
    }
}

pub(super) mod encoding {
    use super::{Deserializer, Encoding, Serialize, Serializer};
    use serde::Deserialize;

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Name {
        Rkyv,
        Json,
    }

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "the signature is serde's"
    )]
    pub(in crate::moment) fn serialize<S: Serializer>(
        encoding: &Encoding,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let name = match encoding {
            Encoding::Rkyv => Name::Rkyv,
            Encoding::Json => Name::Json,
        };
        name.serialize(to)
    }

    pub(in crate::moment) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Encoding, D::Error> {
        Name::deserialize(from).map(|name| match name {
            Name::Rkyv => Encoding::Rkyv,
            Name::Json => Encoding::Json,
        })
    }
}
