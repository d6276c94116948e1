//! The log of a recorded process: what it did to the files below one directory, in one order.
//!
//! A record is `kind u8 | a u64 | b u64 | length u32 | bytes`, little endian.

/// One thing that the process did, or said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// The directory below which everything is recorded: the first record.
    Root { inode: u64, path: &'a str },
    /// Bytes at an offset of a file.
    Write {
        inode: u64,
        offset: u64,
        bytes: &'a [u8],
    },
    /// A file's new length.
    Truncate { inode: u64, len: u64 },
    /// `fsync` of a file or directory returned, or, if `data_only`, `fdatasync`.
    Sync { inode: u64, data_only: bool },
    /// A new file.
    CreateFile { inode: u64, path: &'a str },
    /// A new directory.
    CreateDir { inode: u64, path: &'a str },
    /// Another name; both in the same directory.
    Rename { from: &'a str, to: &'a str },
    /// A file or directory lost its name.
    Remove { path: &'a str },
    /// The process said something, a line of text.
    Mark { line: &'a str },
}

const HEADER: usize = 1 + 8 + 8 + 4;
/// Between the two names of a rename.
const BETWEEN: char = '\0';

impl<'a> Record<'a> {
    /// The record's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let joined;
        let (kind, a, b, bytes): (u8, u64, u64, &[u8]) = match *self {
            Record::Write {
                inode,
                offset,
                bytes,
            } => (1, inode, offset, bytes),
            Record::Truncate { inode, len } => (2, inode, len, &[]),
            Record::Sync { inode, data_only } => (3, inode, data_only.into(), &[]),
            Record::CreateFile { inode, path } => (4, inode, 0, path.as_bytes()),
            Record::CreateDir { inode, path } => (5, inode, 0, path.as_bytes()),
            Record::Rename { from, to } => {
                joined = format!("{from}{BETWEEN}{to}");
                (6, 0, 0, joined.as_bytes())
            }
            Record::Remove { path } => (7, 0, 0, path.as_bytes()),
            Record::Mark { line } => (8, 0, 0, line.as_bytes()),
            Record::Root { inode, path } => (9, inode, 0, path.as_bytes()),
        };
        let len = u32::try_from(bytes.len()).expect("one call writes less than 4 GiB");
        let mut out = Vec::with_capacity(HEADER + bytes.len());
        out.push(kind);
        out.extend_from_slice(&a.to_le_bytes());
        out.extend_from_slice(&b.to_le_bytes());
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(bytes);
        out
    }

    /// All records of a log. A last one that is incomplete (the process was killed) is left out.
    pub(crate) fn decode_all(log: &'a [u8]) -> Vec<Record<'a>> {
        let mut records = Vec::new();
        let mut rest = log;
        while let Some((record, after)) = Record::decode(rest) {
            records.push(record);
            rest = after;
        }
        records
    }

    fn decode(log: &'a [u8]) -> Option<(Record<'a>, &'a [u8])> {
        let (header, rest) = log.split_at_checked(HEADER)?;
        let number = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap());
        let (a, b) = (number(1), number(9));
        let len = u32::from_le_bytes(header[17..].try_into().unwrap()) as usize;
        let (bytes, rest) = rest.split_at_checked(len)?;
        let text = || std::str::from_utf8(bytes).expect("names and marks are text");
        let record = match header[0] {
            1 => Record::Write {
                inode: a,
                offset: b,
                bytes,
            },
            2 => Record::Truncate { inode: a, len: b },
            3 => Record::Sync {
                inode: a,
                data_only: b > 0,
            },
            4 => Record::CreateFile {
                inode: a,
                path: text(),
            },
            5 => Record::CreateDir {
                inode: a,
                path: text(),
            },
            6 => {
                let (from, to) = text().split_once(BETWEEN).expect("a rename has two names");
                Record::Rename { from, to }
            }
            7 => Record::Remove { path: text() },
            8 => Record::Mark { line: text() },
            9 => Record::Root {
                inode: a,
                path: text(),
            },
            kind => panic!("a log record of kind {kind}"),
        };
        Some((record, rest))
    }
}
