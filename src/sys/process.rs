//! Child processes and their groups: what std does not know of them.
//!
//! Linux tells all of it in `/proc`. Elsewhere no process is found by its group, so nothing that an earlier process
//! of ours left over can be ended, and children do not die with their parent.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, test_kill_process_group,
    waitid,
};

use super::awake_time;

/// Between two looks at processes that cannot be waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A process group, told apart from a later one of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// The number of the group and of its leader.
    pub(crate) number: u32,
    pub(crate) session: u32,
    /// When the leader started, in the kernel's ticks since boot.
    pub(crate) started: u64,
}

/// What `/proc` says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    state: u8,
    group: u32,
    session: u32,
    started: u64,
}

impl Stat {
    fn is_alive(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x')
    }

    fn is_of(&self, group: &Group) -> bool {
        self.group == group.number && self.session == group.session && self.started >= group.started
    }
}

impl Group {
    /// The group that a child leads. `None` where the system does not tell (elsewhere than on Linux: always). An
    /// error: it could not be looked at now.
    pub(crate) fn led_by(child: &Child) -> io::Result<Option<Group>> {
        let number = child.id();
        let leads = |stat: Stat| {
            (stat.group == number).then_some(Group {
                number,
                session: stat.session,
                started: stat.started,
            })
        };
        Ok(stat(number)?.and_then(leads))
    }

    /// Members that are alive. A number is not used again while a group has it; so if its leader is there and
    /// started at another time, or the members are of another session or older, this group is gone.
    fn members(&self, all: &[(u32, Stat)]) -> Vec<u32> {
        let leader = all.iter().find(|(pid, _)| *pid == self.number);
        if leader.is_some_and(|(_, stat)| stat.started != self.started) {
            return Vec::new();
        }
        let members = all
            .iter()
            .filter(|(_, stat)| stat.is_alive() && stat.is_of(self));
        members.map(|(pid, _)| *pid).collect()
    }
}

/// Sends a signal to each member of a group that a child of ours leads which was not waited for yet: so long, its
/// number is not used again. The child itself may have moved to another group; SIGKILL reaches it there too.
pub(crate) fn signal_group(leader: &Child, signal: Signal) -> io::Result<()> {
    let leader = Pid::from_child(leader);
    let mut sent = kill_process_group(leader, signal);
    if signal == Signal::KILL || sent == Err(Errno::SRCH) {
        sent = kill_process(leader, signal);
    }
    match sent {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(refusal) => Err(refusal.into()),
    }
}

/// Whether nobody is left in a group. True may come too late: on macOS and where nobody waits for orphans, those that
/// have ended count. Whoever asks looks closer then.
pub(crate) fn is_empty(number: u32) -> bool {
    let number = i32::try_from(number).ok().and_then(Pid::from_raw);
    number.is_none_or(|group| test_kill_process_group(group) == Err(Errno::SRCH))
}

/// Kills all members of the groups, and waits up to `within` until none is alive. Returns those that have one even
/// then. Where the system does not tell who is in a group, none is found.
///
/// # Errors
///
/// It cannot be seen who is there: too many open files, no `/proc`. Then nobody knows.
pub(crate) fn end_groups(groups: &[Group], within: Duration) -> io::Result<Vec<Group>> {
    let until = awake_time().saturating_add(within);
    loop {
        let all = all_processes()?;
        let alive: Vec<(Group, Vec<u32>)> = groups
            .iter()
            .map(|group| (*group, group.members(&all)))
            .filter(|(_, members)| !members.is_empty())
            .collect();
        let over = awake_time() >= until;
        if alive.is_empty() || over {
            return Ok(alive.into_iter().map(|(group, _)| group).collect());
        }
        for (group, _) in &alive {
            // A member was alive just now, so the number is still that group's.
            if let Some(pid) = i32::try_from(group.number).ok().and_then(Pid::from_raw) {
                let _ = kill_process_group(pid, Signal::KILL); // refused: it stays alive, and that is told
            }
        }
        for pid in alive.iter().flat_map(|(_, members)| members) {
            wait_for_stranger(*pid, until.saturating_sub(awake_time()));
        }
    }
}

/// Waits until a process that is no child of ours has ended. May return earlier: the caller looks again.
fn wait_for_stranger(pid: u32, within: Duration) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::process::{PidfdFlags, pidfd_open};
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        match pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
            Some(Ok(process)) => {
                let _ = wait_for(&mut [readable(&process)], Some(within));
                return;
            }
            None | Some(Err(Errno::SRCH)) => return,
            // Kernels before 5.3, and sandboxes, have no such call.
            Some(Err(_)) => {}
        }
    }
    // Nothing tells when it ends, so it is looked at again after a while.
    let _ = (pid, wait_for(&mut [], Some(within.min(LOOK_AGAIN))));
}

/// Waits for the end of a child, which it leaves to be waited for: until then its number is not used again.
pub(crate) fn wait_for_exit(pid: Pid) -> io::Result<()> {
    loop {
        match waitid(
            WaitId::Pid(pid),
            WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
        ) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(refusal) => return Err(refusal.into()),
        }
    }
}

/// From now on this process gets SIGKILL when the thread that started it ends. Elsewhere than on Linux it does
/// not: it then lives on.
pub(crate) fn die_with_parent() -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

/// The program of this process: on Linux the very file, also if another was put in its place since.
pub(crate) fn own_program() -> io::Result<PathBuf> {
    let itself = PathBuf::from("/proc/self/exe");
    if cfg!(any(target_os = "linux", target_os = "android")) && itself.exists() {
        Ok(itself)
    } else {
        std::env::current_exe()
    }
}

/// Sends all of `bytes`. A receiver that is gone is an error, also where a broken pipe would end the process.
pub(crate) fn send_all(stream: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    use rustix::net::{SendFlags, send};
    // Apple has no such flag; std gives its sockets an option instead.
    #[cfg(not(target_vendor = "apple"))]
    let flags = SendFlags::NOSIGNAL;
    #[cfg(target_vendor = "apple")]
    let flags = SendFlags::empty();
    while !bytes.is_empty() {
        match send(stream, bytes, flags) {
            Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(refusal) => return Err(refusal.into()),
        }
    }
    Ok(())
}

/// To be waited for until there is something to read, or the other end is gone.
pub(crate) fn readable<F: AsFd>(file: &F) -> PollFd<'_> {
    PollFd::new(file, PollFlags::IN)
}

/// Waits until one of the files is ready, or for `within`; an interruption ends it as well.
pub(crate) fn wait_for(files: &mut [PollFd<'_>], within: Option<Duration>) -> io::Result<()> {
    // Rounded up to the millisecond: woken a little early, the caller would only have to wait again.
    let within = within.map(|time| time.saturating_add(Duration::from_micros(999)));
    // No limit is as good as one that the system cannot express.
    let within = within.and_then(|time| Timespec::try_from(time).ok());
    match poll(files, within.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(refusal) => Err(refusal.into()),
    }
}

/// When a process started, in the kernel's ticks since boot: with its number it names a process for ever. `None` if
/// it is not there, or the system does not tell.
///
/// # Errors
///
/// It could not be looked at now.
pub(crate) fn started_at(pid: u32) -> io::Result<Option<u64>> {
    Ok(stat(pid)?.map(|stat| stat.started))
}

/// `None`: there is no such process, and nothing else. That something could not be read is no proof of that.
fn stat(pid: u32) -> io::Result<Option<Stat>> {
    if !cfg!(any(target_os = "linux", target_os = "android")) {
        return Ok(None);
    }
    match std::fs::read(format!("/proc/{pid}/stat")) {
        Ok(line) => Ok(parse_stat(&line)),
        Err(e) if e.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn all_processes() -> io::Result<Vec<(u32, Stat)>> {
    if !cfg!(any(target_os = "linux", target_os = "android")) {
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid else { continue };
        all.extend(stat(pid)?.map(|stat| (pid, stat)));
    }
    // A /proc that is not mounted has nobody, and not even us.
    if all.iter().any(|(pid, _)| *pid == std::process::id()) {
        Ok(all)
    } else {
        Err(io::Error::other("/proc tells of no processes"))
    }
}

/// `pid (name) state parent group session …`: the name may hold anything, also spaces and brackets.
fn parse_stat(line: &[u8]) -> Option<Stat> {
    let name_end = line.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(line.get(name_end + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // Counted from the state, which is the third field in proc_pid_stat(5).
    let number = |at: usize| fields.get(at - 3)?.parse::<u64>().ok();
    Some(Stat {
        state: *fields.first()?.as_bytes().first()?,
        group: number(5)?.try_into().ok()?,
        session: number(6)?.try_into().ok()?,
        started: number(22)?,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_line_of_proc_is_read_whatever_the_name_is() {
        let line = b"17 (a) R 9 (x) S 1 15 12 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 777 2 3";
        let stat = Stat {
            state: b'S',
            group: 15,
            session: 12,
            started: 777,
        };
        assert_eq!(parse_stat(line), Some(stat));
        for broken in [&b""[..], b"17 (a", b"17 (a) S", b"17 (a) S 1 x 12"] {
            assert_eq!(parse_stat(broken), None);
        }
    }

    #[test]
    fn only_its_own_members_are_of_a_group() {
        let group = Group {
            number: 15,
            session: 12,
            started: 777,
        };
        let of = |state, group, session, started| Stat {
            state,
            group,
            session,
            started,
        };
        let own = [
            (15, of(b'S', 15, 12, 777)),
            (16, of(b'R', 15, 12, 778)),
            (17, of(b'Z', 15, 12, 779)),
        ];
        assert_eq!(group.members(&own), [15, 16]);
        let leader_gone = [
            (16, of(b'D', 15, 12, 778)),
            (18, of(b'S', 15, 13, 778)),
            (19, of(b'S', 15, 12, 776)),
            (20, of(b'S', 14, 12, 778)),
        ];
        assert_eq!(group.members(&leader_gone), [16]);
        let number_used_again = [(15, of(b'S', 15, 12, 900)), (16, of(b'S', 15, 12, 901))];
        assert!(group.members(&number_used_again).is_empty());
    }

    /// Killed when dropped, with its group: what lives on would hold the test's own output open.
    struct Family(Child);

    impl Drop for Family {
        fn drop(&mut self) {
            let _ = signal_group(&self.0, Signal::KILL);
            let _ = self.0.wait();
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_group_is_ended_with_all_its_members() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 1000 & sleep 1000 & echo; wait"]);
        let (out, their_out) = io::pipe().unwrap();
        shell
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(their_out)
            .stderr(Stdio::null());
        let family = Family(shell.spawn().unwrap());
        drop(shell);
        let mut line = [0];
        io::Read::read_exact(&mut &out, &mut line).unwrap();
        let group = Group::led_by(&family.0).unwrap().unwrap();
        assert_eq!(started_at(family.0.id()).unwrap(), Some(group.started));
        let other = Group {
            started: group.started + 1,
            ..group
        };
        let now = Duration::ZERO;
        assert!(end_groups(&[other], now).unwrap().is_empty(), "another's");
        assert_eq!(group.members(&all_processes().unwrap()).len(), 3);
        assert!(
            end_groups(&[group], Duration::from_mins(1))
                .unwrap()
                .is_empty()
        );
        assert!(group.members(&all_processes().unwrap()).is_empty());
        // All are gone: nobody has the pipe open any more.
        let mut rest = Vec::new();
        io::Read::read_to_end(&mut &out, &mut rest).unwrap();
    }
}
