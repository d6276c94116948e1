//! Every bound on what a caller may hand in, and the checks.
//!
//! The byte budgets are chosen so that a whole job with all that it gathered fits one journal entry
//! (a constant assertion in `journal/frame` holds them to it).

use crate::error::{Error, Result};

/// Longest kind, queue or pool name.
pub(crate) const NAME_BYTES_MAX: usize = 64;
/// Longest key.
pub(crate) const KEY_BYTES_MAX: usize = 256;
/// All metadata of a job together, names and values.
pub(crate) const METADATA_BYTES_MAX: usize = 2048;
/// Larger payloads go to a file of their own.
pub(crate) const INLINE_PAYLOAD_MAX: usize = 24 * 1024;
/// Larger outputs go to a file of their own.
pub(crate) const INLINE_OUTPUT_MAX: usize = 4 * 1024;
/// An attempt's error text is cut to this many bytes.
pub(crate) const ERROR_BYTES_MAX: usize = 1000;
/// Errors kept per job: the newest ones.
pub(crate) const ERRORS_KEPT_MAX: usize = 10;
/// The reason of a job's end is cut to this many bytes.
pub(crate) const REASON_BYTES_MAX: usize = 1000;
/// Jobs in one batch.
pub(crate) const BATCH_JOBS_MAX: usize = 100_000;
/// Inline payload bytes in one batch.
pub(crate) const BATCH_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Checks a kind, queue or pool name: 1 to 64 of `a-z 0-9 . _ -`.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<()> {
    let legal =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(legal) {
        let rule = format!("a name has 1 to {NAME_BYTES_MAX} of the characters a-z 0-9 . _ -");
        return Err(Error::Invalid {
            what,
            found: format!("`{}`", truncate(name, 80)),
            rule,
        });
    }
    Ok(())
}

/// Checks a key: 1 to 256 bytes, any text.
pub(crate) fn check_key(key: &str) -> Result<()> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(Error::Invalid {
            what: "key",
            found: format!("{} bytes long", key.len()),
            rule: format!("a key has 1 to {KEY_BYTES_MAX} bytes"),
        });
    }
    Ok(())
}

/// Checks metadata: 2 KiB for all names and values together.
pub(crate) fn check_metadata(pairs: &[(String, String)]) -> Result<()> {
    let size: usize = pairs
        .iter()
        .map(|(name, value)| name.len() + value.len() + 16)
        .sum();
    if size > METADATA_BYTES_MAX {
        return Err(Error::TooLarge {
            what: "metadata",
            size: size as u64,
            limit: METADATA_BYTES_MAX as u64,
            remedy: "put large values into the payload",
        });
    }
    Ok(())
}

/// The start of `text`, at most `bytes` long and cut between characters.
pub(crate) fn truncate(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_at_both_ends_of_the_rule() {
        for good in ["a", "mail.send_2-x", &"k".repeat(64)] {
            assert!(check_name("kind", good).is_ok(), "{good}");
        }
        for bad in ["", "A", "a b", "ä", "a/b", &"k".repeat(65)] {
            let error = check_name("kind", bad).unwrap_err().to_string();
            assert!(
                error.contains("kind") && error.contains("1 to 64"),
                "{error}"
            );
        }
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(truncate("größe", 3), "gr");
        assert_eq!(truncate("ab", 3), "ab");
    }
}
