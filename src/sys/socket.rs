//! Local sockets that carry lines: for the processes of one user on one machine.
//!
//! Unix: a socket file with mode 0600. Windows: a named pipe, without the time limits, which it has not.

use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use interprocess::local_socket::traits::{Listener as _, Stream as _};
use interprocess::local_socket::{
    ConnectOptions, GenericFilePath, ListenerOptions, Name, Stream, ToFsName,
};

use super::awake_time;

/// Longest path that a socket file can have: the system's own structure has 108 bytes on Linux, 104 elsewhere.
pub(crate) const PATH_BYTES_MAX: usize = 100;

/// Read at once.
const CHUNK: usize = 16 << 10;

/// Where connections come in.
#[derive(Debug)]
pub(crate) struct Listener {
    inner: interprocess::local_socket::Listener,
}

/// One end of a connection, shared by whoever reads, writes and hangs up.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    stream: Arc<Stream>,
}

/// What a reader of lines found.
#[derive(Debug)]
pub(crate) enum Line {
    /// A line, without its end.
    Whole(Vec<u8>),
    /// The other end hung up; what it had begun to say is dropped.
    End,
    TooLong,
    TimedOut,
}

/// Lines from a connection.
#[derive(Debug)]
pub(crate) struct Lines {
    connection: Connection,
    /// Read and not yet given out.
    ahead: Vec<u8>,
}

impl Listener {
    /// Listens at `path`. A file that is there is taken away: the caller holds the lock that says whose it is.
    pub(crate) fn bind(path: &Path) -> io::Result<Listener> {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let options = ListenerOptions::new().name(name(path)?).reclaim_name(false);
        #[cfg(unix)]
        let options =
            interprocess::os::unix::local_socket::ListenerOptionsExt::mode(options, 0o600);
        let inner = options.create_sync()?;
        Ok(Listener { inner })
    }

    /// Waits for the next connection. An error too when [`stop`](Listener::stop) was called.
    pub(crate) fn accept(&self) -> io::Result<Connection> {
        self.inner.accept().map(Connection::of)
    }

    /// Lets nobody in any more, and wakes who waits in `accept`.
    pub(crate) fn stop(&self) {
        #[cfg(unix)]
        {
            use std::os::fd::AsFd;
            let interprocess::local_socket::Listener::UdSocket(listener) = &self.inner;
            // It can only fail when it is stopped already.
            let _ = rustix::net::shutdown(listener.as_fd(), rustix::net::Shutdown::Both);
        }
    }
}

impl Connection {
    fn of(stream: Stream) -> Connection {
        Connection {
            stream: Arc::new(stream),
        }
    }

    pub(crate) fn open(path: &Path) -> io::Result<Connection> {
        let options = ConnectOptions::new().name(name(path)?);
        options.connect_sync().map(Connection::of)
    }

    pub(crate) fn lines(&self) -> Lines {
        Lines {
            connection: self.clone(),
            ahead: Vec::new(),
        }
    }

    /// Writes all of it, or fails when the other end takes nothing for `patience`.
    pub(crate) fn write(&self, bytes: &[u8], patience: Duration) -> io::Result<()> {
        self.limit(patience, Stream::set_send_timeout)?;
        (&*self.stream).write_all(bytes)
    }

    /// What was sent before is still read, then comes the end; the other end cannot send any more.
    pub(crate) fn stop_reading(&self) {
        #[cfg(unix)]
        {
            use std::os::fd::AsFd;
            let Stream::UdSocket(stream) = &*self.stream;
            // The other end may have hung up.
            let _ = rustix::net::shutdown(stream.as_fd(), rustix::net::Shutdown::Read);
        }
    }

    fn limit(
        &self,
        time: Duration,
        set: impl Fn(&Stream, Option<Duration>) -> io::Result<()>,
    ) -> io::Result<()> {
        let time = time.max(Duration::from_millis(1)); // 0 would be an error
        match set(&self.stream, Some(time)) {
            // Named pipes have no time limits.
            Err(e) if e.kind() == ErrorKind::Unsupported => Ok(()),
            set => set,
        }
    }
}

impl Lines {
    /// The next line of at most `bytes_max`: its first byte must come within `begin`, its end within `rest` after
    /// that.
    pub(crate) fn next(
        &mut self,
        bytes_max: usize,
        begin: Duration,
        rest: Duration,
    ) -> io::Result<Line> {
        let mut looked = 0;
        let mut until =
            awake_time().saturating_add(if self.ahead.is_empty() { begin } else { rest });
        loop {
            let new = self.ahead.get(looked..).unwrap_or_default();
            if let Some(at) = new.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.ahead.drain(..=looked + at).collect();
                line.pop();
                return Ok(Line::Whole(line));
            }
            looked = self.ahead.len();
            if looked > bytes_max {
                return Ok(Line::TooLong);
            }
            let left = until.saturating_sub(awake_time());
            if left.is_zero() {
                return Ok(Line::TimedOut);
            }
            match self.read(left) {
                Ok(0) => return Ok(Line::End),
                Ok(_) if looked == 0 => until = awake_time().saturating_add(rest),
                Ok(_) => {}
                Err(e) => match e.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Ok(Line::TimedOut),
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                        return Ok(Line::End);
                    }
                    _ => return Err(e),
                },
            }
        }
    }

    fn read(&mut self, patience: Duration) -> io::Result<usize> {
        self.connection.limit(patience, Stream::set_recv_timeout)?;
        let mut chunk = [0; CHUNK];
        let read = (&*self.connection.stream).read(&mut chunk)?;
        self.ahead
            .extend_from_slice(chunk.get(..read).unwrap_or_default());
        Ok(read)
    }
}

fn name(path: &Path) -> io::Result<Name<'_>> {
    path.to_fs_name::<GenericFilePath>()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);
    const AT_ONCE: Duration = Duration::from_millis(1);

    fn pair() -> (TempDir, Connection, Connection) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("socket");
        std::fs::write(&path, "left over").unwrap();
        let listener = Listener::bind(&path).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let here = Connection::open(&path).unwrap();
        let there = listener.accept().unwrap();
        listener.stop();
        assert!(listener.accept().is_err());
        assert!(Connection::open(&path).is_err());
        (dir, here, there)
    }

    fn whole(line: Line) -> String {
        match line {
            Line::Whole(line) => String::from_utf8(line).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lines_come_as_they_were_sent() {
        let (_dir, here, there) = pair();
        let mut lines = there.lines();
        here.write(b"one\n\ntwo", SOON).unwrap();
        assert_eq!(whole(lines.next(100, SOON, SOON).unwrap()), "one");
        assert_eq!(whole(lines.next(100, SOON, SOON).unwrap()), "");
        here.write(b" and a half\nthree\nhal", SOON).unwrap();
        assert_eq!(
            whole(lines.next(100, SOON, SOON).unwrap()),
            "two and a half"
        );
        there.stop_reading();
        assert!(here.write(b"too late\n", SOON).is_err());
        let sent = whole(lines.next(100, SOON, SOON).unwrap());
        assert_eq!(sent, "three", "what was sent before is read");
        let end = lines.next(100, SOON, SOON).unwrap();
        assert!(matches!(end, Line::End), "{end:?}");
    }

    #[test]
    fn nobody_waits_for_ever_or_takes_too_much() {
        let (_dir, here, there) = pair();
        let mut lines = there.lines();
        let none = lines.next(100, AT_ONCE, SOON).unwrap();
        assert!(matches!(none, Line::TimedOut), "{none:?}");
        here.write(b"begun", SOON).unwrap();
        let half = lines.next(100, SOON, AT_ONCE).unwrap();
        assert!(matches!(half, Line::TimedOut), "{half:?}");
        here.write(&[b'x'; 200], SOON).unwrap();
        let long = lines.next(100, SOON, SOON).unwrap();
        assert!(matches!(long, Line::TooLong), "{long:?}");
        let full = there.write(&vec![0; 64 << 20], AT_ONCE).unwrap_err();
        let kinds = [ErrorKind::WouldBlock, ErrorKind::TimedOut];
        assert!(kinds.contains(&full.kind()), "{full}");
        drop(here);
        drop(there);
        drop(lines);
    }
}
