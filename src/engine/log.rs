//! What a running handler shows of its work: the newest bytes, in memory only.

use std::collections::VecDeque;
use std::time::Duration;

use super::api::Engine;
use super::command::Command;
use crate::error::Result;
use crate::job::JobId;
use crate::sys::sync::{Condvar, Mutex};

/// Bytes of a log that are kept: the newest ones.
pub(crate) const LOG_BYTES_MAX: usize = 64 * 1024;

/// A part of a running attempt's log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogPart {
    /// Which attempt's log it is, counted from 1.
    pub attempt: u32,
    /// Where in the log its first byte is. Later than asked for if what was there before has made room.
    pub from: u64,
    /// The bytes, up to the newest.
    pub bytes: Vec<u8>,
    /// Where the next part begins.
    pub next: u64,
    /// The attempt has ended: there will be no more.
    pub ended: bool,
}

/// The log of one attempt. Each side holds the lock for as long as it copies, never while it waits.
#[derive(Debug, Default)]
pub(crate) struct Log {
    attempt: u32,
    kept: Mutex<Kept>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Kept {
    newest: Newest,
    ended: bool,
}

/// The newest bytes of a stream.
#[derive(Debug, Default)]
pub(crate) struct Newest {
    /// Takes memory from the first byte on.
    bytes: VecDeque<u8>,
    /// Bytes ever written.
    end: u64,
}

impl Newest {
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.end += bytes.len() as u64;
        let skipped = bytes.len().saturating_sub(LOG_BYTES_MAX);
        let bytes = bytes.get(skipped..).unwrap_or_default();
        let room = LOG_BYTES_MAX - bytes.len();
        let oldest = self.bytes.len().saturating_sub(room);
        self.bytes.drain(..oldest);
        self.bytes.extend(bytes);
    }

    /// The bytes, and how many there were before them.
    #[cfg(all(unix, feature = "command"))]
    pub(crate) fn into_parts(self) -> (Vec<u8>, u64) {
        let first = self.first();
        (self.bytes.into(), first)
    }

    /// Where in the stream the first byte is that is still there.
    fn first(&self) -> u64 {
        self.end - self.bytes.len() as u64
    }
}

impl Log {
    pub(super) fn of_attempt(attempt: u32) -> Log {
        Log {
            attempt,
            ..Log::default()
        }
    }

    pub(crate) fn append(&self, bytes: &[u8]) {
        self.kept.lock().newest.append(bytes);
        self.more.notify_all();
    }

    /// Nothing more will come.
    pub(super) fn end(&self) {
        self.kept.lock().ended = true;
        self.more.notify_all();
    }

    /// What there is from `from` on; waits up to `wait` for something.
    pub(super) fn read(&self, from: u64, wait: Duration) -> LogPart {
        let mut kept = self.kept.lock();
        // One that is shorter than what was read is another attempt's, and read from its start.
        let from = if from > kept.newest.end { 0 } else { from };
        let is_short = |kept: &mut Kept| !kept.ended && kept.newest.end <= from;
        self.more.wait_while_for(&mut kept, is_short, wait);
        let Kept { newest, ended } = &*kept;
        let from = from.max(newest.first());
        let skipped = usize::try_from(from - newest.first()).unwrap_or(usize::MAX);
        LogPart {
            attempt: self.attempt,
            from,
            bytes: newest.bytes.iter().skip(skipped).copied().collect(),
            next: newest.end,
            ended: *ended,
        }
    }
}

impl Engine {
    /// What a running job has [logged](crate::Context::log) from byte `from` on, the newest 64 KiB at most; waits up
    /// to `wait` for something to come. `None` if the job does not run in this process now: it waits, has ended
    /// (see [`output`](Engine::output)), or is not there.
    ///
    /// To follow a log, begin at 0 and ask again from [`next`](LogPart::next), until [`ended`](LogPart::ended) or
    /// `None`. A later [`attempt`](LogPart::attempt) has a log of its own: begin at 0 again when the number has
    /// changed. It is given from its start if it is shorter than `from`.
    ///
    /// *Blocking:* as long as the group that is being written, and up to `wait`. Woken by what is logged and by the
    /// end of the attempt; holds up neither the handler nor the engine.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`](crate::Error::Closed); [`Error::Refused`](crate::Error::Refused) after a failed write.
    pub fn log(&self, id: JobId, from: u64, wait: Duration) -> Result<Option<LogPart>> {
        let live = self.shared.ask(|reply| Command::Watch { id, reply })?;
        Ok(live.map(|live| live.log.read(from, wait)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(from: u64, bytes: &[u8], next: u64, ended: bool) -> LogPart {
        LogPart {
            attempt: 3,
            from,
            bytes: bytes.to_vec(),
            next,
            ended,
        }
    }

    #[test]
    fn a_log_keeps_its_newest_bytes() {
        const MAX: u64 = LOG_BYTES_MAX as u64;
        let log = Log::of_attempt(3);
        let now = Duration::ZERO;
        assert_eq!(log.read(0, now), part(0, b"", 0, false));
        assert_eq!(log.kept.lock().newest.bytes.capacity(), 0, "none at all");
        log.append(b"abc");
        assert_eq!(log.read(0, now), part(0, b"abc", 3, false));
        assert_eq!(log.read(2, now), part(2, b"c", 3, false));
        assert_eq!(log.read(3, now), part(3, b"", 3, false));
        assert_eq!(log.read(9, now), part(0, b"abc", 3, false), "another one's");
        log.append(&vec![b'x'; LOG_BYTES_MAX - 2]);
        let whole = log.read(0, now);
        assert_eq!((whole.from, whole.next), (1, MAX + 1));
        assert!(whole.bytes.starts_with(b"bcx") && whole.bytes.len() == LOG_BYTES_MAX);
        let mut large = vec![b'y'; 3 * LOG_BYTES_MAX];
        large.extend(b"end");
        log.append(&large);
        let newest = log.read(5, now);
        assert_eq!((newest.from, newest.next), (3 * MAX + 4, 4 * MAX + 4));
        assert!(newest.bytes.ends_with(b"yend") && newest.bytes.len() == LOG_BYTES_MAX);
        assert!(log.kept.lock().newest.bytes.capacity() <= 2 * LOG_BYTES_MAX);
        log.end();
        assert!(log.read(newest.next, Duration::MAX).ended);
    }
}
