use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::Cli;

/// A program at a terminal of its own, and what is on its screen.
struct Terminal {
    keys: File,
    child: Child,
    screen: Arc<(Mutex<vt100::Parser>, Condvar)>,
}

impl Terminal {
    fn open(cli: &Cli, words: &str, (rows, columns): (u16, u16), env: &[(&str, &str)]) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let side = || -> OwnedFd {
            File::options()
                .read(true)
                .write(true)
                .open(&name)
                .unwrap()
                .into()
        };
        let window = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&master, window).unwrap();
        let mut command = cli.command(words);
        command
            .env("TERM", "xterm-256color")
            .envs(env.iter().copied());
        command
            .stdin(Stdio::from(side()))
            .stdout(side())
            .stderr(side());
        let child = command.spawn().unwrap();
        drop(command);
        let keys = File::from(master);
        let mut output = keys.try_clone().unwrap();
        let parser = vt100::Parser::new(rows, columns, 1_000);
        let screen = Arc::new((Mutex::new(parser), Condvar::new()));
        let shown = screen.clone();
        std::thread::Builder::new()
            .spawn(move || {
                let mut bytes = [0; 4_096];
                // An error, too, is the end: the other side of the terminal is closed.
                while let Ok(read) = output.read(&mut bytes) {
                    let read_now = bytes.get(..read).unwrap();
                    shown.0.lock().unwrap().process(read_now);
                    shown.1.notify_all();
                    if read == 0 {
                        return;
                    }
                }
            })
            .unwrap();
        Terminal {
            keys,
            child,
            screen,
        }
    }

    /// Waits until the screen shows this; the whole screen.
    fn until(&self, what: &str, shows: impl Fn(&vt100::Screen) -> bool) -> String {
        let (parser, changed) = &*self.screen;
        let parser = parser.lock().unwrap();
        let until = Duration::from_secs(30);
        let waiting = |parser: &mut vt100::Parser| !shows(parser.screen());
        let (parser, timed) = changed.wait_timeout_while(parser, until, waiting).unwrap();
        let text = parser.screen().contents();
        assert!(!timed.timed_out(), "{what} is not on the screen:\n{text}");
        text
    }

    fn until_text(&self, text: &str) -> String {
        self.until(text, |screen| screen.contents().contains(text))
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    fn end(mut self) -> (bool, String) {
        let status = self.child.wait().unwrap();
        let text = self.screen.0.lock().unwrap().screen().contents();
        (status.success(), text)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn has_colours(screen: &vt100::Screen) -> bool {
    let (rows, columns) = screen.size();
    let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    cells
        .filter_map(|(row, column)| screen.cell(row, column))
        .any(|cell| cell.fgcolor() != vt100::Color::Default)
}

/// One line a job however narrow the terminal, and nothing of a job's text moves the cursor.
#[test]
fn lists_fit_the_terminal() {
    let cli = Cli::new();
    cli.add("", "exit 3");
    cli.add(
        "",
        &format!("echo {} '\x1b[2J\x07evil'", "a long command ".repeat(20)),
    );
    cli.drain();
    cli.add("", "true");
    let terminal = Terminal::open(&cli, "ls", (10, 60), &[]);
    let text = terminal.until_text("ready");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(
        lines[2].contains('…') && lines[0].contains("STATE"),
        "{text}"
    );
    terminal.until("a colour", has_colours);
    let plain = Terminal::open(&cli, "ls", (10, 60), &[("NO_COLOR", "1")]);
    plain.until_text("ready");
    assert!(!has_colours(plain.screen.0.lock().unwrap().screen()));
    // Piped, everything is there, without colours.
    let whole = cli.ok("ls");
    assert!(!whole.contains('…') && !whole.contains('\x1b'), "{whole}");
}

#[test]
fn a_log_on_a_terminal_moves_no_cursor() {
    let cli = Cli::new();
    cli.add("", r"printf 'one\n\033[2J\033[31mtwo\n'");
    cli.drain();
    let terminal = Terminal::open(&cli, "log 1", (10, 60), &[]);
    let text = terminal.until_text("two");
    assert!(text.contains("one"), "the screen was not cleared: {text}");
    assert_eq!(
        cli.ok("log 1"),
        "one\n\x1b[2J\x1b[31mtwo\n",
        "to the letter elsewhere"
    );
}

#[test]
fn work_has_a_live_line() {
    let cli = Cli::new();
    let go = cli.path("go");
    rustix::fs::mkfifoat(rustix::fs::CWD, &go, rustix::fs::Mode::RWXU).unwrap();
    cli.add("", "exit 3");
    cli.add("", "cat go");
    cli.add("--in 1h", "true");
    let mut terminal = Terminal::open(&cli, "work --workers 1", (10, 80), &[]);
    let text = terminal.until_text("1 running, 0 waiting, 1 later, 1 done, 1 of them failed");
    assert!(text.lines().count() <= 4, "{text}");
    terminal.until_text("job 1 failed: exit status 3");
    // Ctrl-C at the keyboard is for the worker, and not for what it runs.
    let worker = rustix::process::Pid::from_child(&terminal.child);
    rustix::process::kill_process(worker, rustix::process::Signal::INT).unwrap();
    terminal.until_text("Once more to stop now");
    std::fs::write(&go, "").unwrap();
    let (well, text) = {
        let status = terminal.child.wait().unwrap();
        terminal.until_text("2 jobs done");
        let text = terminal.screen.0.lock().unwrap().screen().contents();
        (status.success(), text)
    };
    assert!(well, "{text}");
    assert!(
        !text.contains("waiting, 1 later"),
        "the line is gone:\n{text}"
    );
    assert_eq!(cli.state(2), "completed");
}

#[test]
fn top_shows_and_changes_what_runs() {
    let cli = Cli::new();
    let worker = cli.work("--workers 1");
    let running = cli.add("", "echo one of two; sleep 1000");
    let waiting = cli.add("--queue later", "echo I wait");
    while cli.state(running) != "running" {}
    let mut terminal = Terminal::open(&cli, "top", (20, 100), &[]);
    let text = terminal.until_text("I wait");
    for part in [
        "1 running",
        "1 ready",
        "QUEUE",
        "default",
        "later",
        "1 at a time",
        "q quit",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    terminal.press("c");
    terminal.until_text(&format!("Job {running} runs and is asked to stop"));
    assert_eq!(cli.run(&format!("wait {waiting}")).code(), 0);
    assert_eq!(cli.state(running), "cancelled");
    cli.add("--queue later", "sleep 1000");
    terminal.until_text("sleep 1000");
    terminal.press("p");
    terminal.until_text("Queue later is paused");
    assert!(cli.ok("stats").contains("paused"));
    terminal.press("q");
    let (well, _) = terminal.end();
    assert!(well);
    worker.kill();
}

/// Without a worker it keeps nobody out of the store.
#[test]
fn top_waits_for_a_worker() {
    let cli = Cli::new();
    let id = cli.add("", "true");
    let mut terminal = Terminal::open(&cli, "top", (20, 100), &[]);
    terminal.until_text("no worker");
    let worker = cli.work("");
    assert_eq!(cli.run(&format!("wait {id}")).code(), 0);
    terminal.until_text(&format!("process {}", worker.child.id()));
    worker.stop();
    terminal.until_text("no worker");
    terminal.press("\x03");
    assert!(terminal.end().0);
    let piped = cli.run("top");
    assert_eq!(piped.code(), 2);
    assert!(piped.err.contains("needs a terminal"), "{}", piped.err);
}
