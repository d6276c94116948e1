//! `jobsled top`: queues and running jobs, live.

use std::time::Duration;

use jobsled::control::{Call, HealthView, JobView, Seen, StatsView};
use jobsled::{Clock, State, SystemClock};
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Paragraph, Row, Table, TableState};
use serde_json::Value;

use super::stats::troubles;
use super::{Failure, Verdict};
use crate::output::{self, clean, count};
use crate::store::{Open, Session};
use crate::time;

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Jobs of one state that are shown at most.
const SHOWN_MAX: usize = 200;

/// What is on the screen.
#[derive(Default)]
struct View {
    stats: StatsView,
    health: HealthView,
    /// The process that has the store open.
    pid: Option<u32>,
    /// Running, then dead, then ready ones.
    jobs: Vec<JobView>,
    /// Jobs that ended, and when that was looked at.
    ended: (u64, Duration),
    per_second: f64,
    table: TableState,
    /// What the last key did.
    said: String,
    /// How the store was left, while it is not open here.
    seen: Option<Seen>,
}

pub(crate) fn run(session: &Session) -> Result<Verdict, Failure> {
    use std::io::IsTerminal;
    if !std::io::stdout().is_terminal() {
        return Err(Failure::usage(
            "top needs a terminal: `jobsled stats --json` and `jobsled watch --json` are for programs",
        ));
    }
    // Before the screen is taken: an error here is read in peace.
    let mut view = View::default();
    let mut open = Some(session.enter()?);
    let mut terminal = ratatui::init();
    let shown = view.live(session, &mut open, &mut terminal);
    ratatui::restore();
    shown
}

impl View {
    fn live<'s>(
        &mut self,
        session: &'s Session,
        open: &mut Option<Open<'s>>,
        terminal: &mut ratatui::DefaultTerminal,
    ) -> Result<Verdict, Failure> {
        let trouble = |e: std::io::Error| Failure::failed(format!("the terminal failed: {e}"));
        loop {
            self.renew(session, open)?;
            terminal.draw(|frame| self.draw(frame)).map_err(trouble)?;
            if event::poll(LOOK_EVERY).map_err(trouble)?
                && let Event::Key(key) = event::read().map_err(trouble)?
                && key.kind == KeyEventKind::Press
            {
                if is_quit(key) {
                    return Ok(Verdict::Well);
                }
                self.press(key, session, open)?;
            }
        }
    }

    /// Looks again. A store that nobody else has open is not kept open here, and entered again when somebody works
    /// in it or has changed it: who wants to work must get in.
    fn renew<'s>(
        &mut self,
        session: &'s Session,
        open: &mut Option<Open<'s>>,
    ) -> Result<(), Failure> {
        let is_same = self.seen.as_ref().is_some_and(|seen| !seen.has_changed());
        if open.is_none() && (!is_same || session.is_worked()) {
            *open = Some(session.enter()?);
        }
        if let Some(open) = open {
            self.look(open)?;
            self.seen = None;
        }
        if let Some(own) = open.take_if(|open| open.door.engine().is_some()) {
            self.seen = Some(session.seen());
            drop(own);
        }
        Ok(())
    }

    fn look(&mut self, open: &mut Open<'_>) -> Result<(), Failure> {
        self.stats = open.call(&Call::Stats {})?;
        self.health = open.call(&Call::Health {})?;
        self.jobs.clear();
        for state in [State::Running, State::Dead, State::Ready] {
            let page = open.jobs(&Call::Jobs {
                state: Some(state.name().to_owned()),
                kind: None,
                queue: None,
                after: 0,
                limit: Some(SHOWN_MAX),
            })?;
            self.jobs.extend(page.jobs);
        }
        self.pid = open.door.greeting().map(|greeting| greeting.pid);
        let ended = ["completed", "cancelled", "died"];
        let ended = ended
            .iter()
            .filter_map(|name| self.stats.counters.get(*name))
            .sum();
        let now = SystemClock.now().steady;
        let (before, at) = std::mem::replace(&mut self.ended, (ended, now));
        let spent = now.saturating_sub(at).as_secs_f64();
        self.per_second = match at {
            Duration::ZERO => 0.0,
            #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
            _ => ended.saturating_sub(before) as f64 / spent.max(0.001),
        };
        if self.table.selected().is_none_or(|at| at >= self.jobs.len()) {
            self.table.select((!self.jobs.is_empty()).then_some(0));
        }
        Ok(())
    }

    fn press<'s>(
        &mut self,
        key: KeyEvent,
        session: &'s Session,
        open: &mut Option<Open<'s>>,
    ) -> Result<(), Failure> {
        match key.code {
            KeyCode::Down | KeyCode::Char('j') => self.table.select_next(),
            KeyCode::Up | KeyCode::Char('k') => self.table.select_previous(),
            KeyCode::Char(key @ ('c' | 'r' | 'p')) => {
                let chosen = self.table.selected().and_then(|at| self.jobs.get(at));
                let Some(job) = chosen.map(|job| (job.id, job.queue.clone())) else {
                    return Ok(());
                };
                if open.is_none() {
                    *open = Some(session.enter()?);
                }
                if let Some(open) = open {
                    self.said = self.act(key, job, open)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn act(
        &self,
        key: char,
        (id, queue): (u64, String),
        open: &mut Open<'_>,
    ) -> Result<String, Failure> {
        let ids = vec![id];
        let call = match key {
            'c' => Call::Cancel {
                ids,
                reason: "cancelled by hand".to_owned(),
            },
            'r' => Call::Retry { ids },
            _ => {
                let is_paused = |q: &jobsled::control::QueueView| q.name == queue && q.paused;
                let paused = !self.stats.queues.iter().any(is_paused);
                open.call::<Value>(&Call::Queue {
                    name: queue.clone(),
                    paused: Some(paused),
                    concurrency: None,
                })?;
                let now = if paused { "is paused" } else { "goes on" };
                return Ok(format!("Queue {queue} {now}."));
            }
        };
        let answers: Vec<String> = open.call(&call)?;
        let answer = answers.first().map(String::as_str).unwrap_or_default();
        Ok(format!("Job {id} {}.", super::change::in_words(answer)))
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let queues = u16::try_from(self.stats.queues.len())
            .unwrap_or(u16::MAX)
            .clamp(1, 8);
        let [head, queue_area, job_area, foot] = Layout::vertical([
            Constraint::Length(2),
            Constraint::Length(queues + 2),
            Constraint::Min(3),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        self.draw_head(frame, head);
        self.draw_queues(frame, queue_area);
        self.draw_jobs(frame, job_area);
        let keys = "q quit  ↑↓ choose  c cancel  r retry  p pause or resume its queue";
        let text = if self.said.is_empty() {
            keys.to_owned()
        } else {
            format!("{}  ({keys})", self.said)
        };
        frame.render_widget(Line::from(text).style(style(Color::DarkGray)), foot);
    }

    fn draw_head(&self, frame: &mut Frame<'_>, area: Rect) {
        let count_of = |state: State| -> u64 {
            let of = |queue: &jobsled::control::QueueView| queue.jobs.get(state.name()).copied();
            self.stats.queues.iter().filter_map(of).sum()
        };
        let owner = match self.pid {
            Some(pid) if self.health.slots > 0 => {
                format!("process {pid}, {} at a time", self.health.slots)
            }
            Some(pid) => format!("process {pid}, which runs no jobs"),
            None => "no worker: `jobsled work` starts one".to_owned(),
        };
        let first = format!(
            "{} running  {} ready  {} later  {} dead  {:.1} a second  {owner}",
            count(self.stats.running),
            count(count_of(State::Ready)),
            count(count_of(State::Scheduled)),
            count(count_of(State::Dead)),
            self.per_second,
        );
        let trouble = troubles(&self.health).join("; ");
        let lines = vec![
            Line::from(first).bold(),
            Line::from(clean(&trouble)).style(style(Color::Red)),
        ];
        frame.render_widget(Paragraph::new(lines), area);
    }

    fn draw_queues(&self, frame: &mut Frame<'_>, area: Rect) {
        let states = [
            State::Running,
            State::Ready,
            State::Scheduled,
            State::Completed,
            State::Dead,
        ];
        let rows = self.stats.queues.iter().map(|queue| {
            let mut cells = vec![queue.name.clone()];
            let jobs = |state: &State| count(queue.jobs.get(state.name()).copied().unwrap_or(0));
            cells.extend(states.iter().map(jobs));
            cells.push(queue.oldest_ready_ms.map(time::short).unwrap_or_default());
            cells.push(if queue.paused {
                "paused".to_owned()
            } else {
                String::new()
            });
            Row::new(cells)
        });
        let mut widths = vec![Constraint::Fill(2)];
        widths.extend(states.iter().map(|_| Constraint::Length(10)));
        widths.extend([Constraint::Length(8), Constraint::Fill(1)]);
        let head = [
            "QUEUE", "RUNNING", "READY", "LATER", "DONE", "DEAD", "OLDEST", "",
        ];
        let table = Table::new(rows, widths)
            .header(Row::new(head).bold())
            .block(Block::new().borders(Borders::TOP));
        frame.render_widget(table, area);
    }

    fn draw_jobs(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let now_ms = time::now_ms();
        let rows = self.jobs.iter().map(|job| {
            let cells = [
                job.id.to_string(),
                super::ls::state(job).to_owned(),
                job.queue.clone(),
                super::ls::when(job, now_ms),
                super::ls::what(job),
                super::ls::result(job),
            ];
            let colour = match super::ls::colour(&job.state) {
                Some(output::Colour::Green) => Color::Green,
                Some(output::Colour::Red) => Color::Red,
                _ => Color::Reset,
            };
            Row::new(cells).style(style(colour))
        });
        let widths = [
            Constraint::Length(8),
            Constraint::Length(10),
            Constraint::Length(12),
            Constraint::Length(14),
            Constraint::Fill(3),
            Constraint::Fill(2),
        ];
        let table = Table::new(rows, widths)
            .header(Row::new(["ID", "STATE", "QUEUE", "WHEN", "WHAT", "RESULT"]).bold())
            .row_highlight_style(Modifier::REVERSED)
            .block(Block::new().borders(Borders::TOP));
        frame.render_stateful_widget(table, area, &mut self.table);
    }
}

fn is_quit(key: KeyEvent) -> bool {
    let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    control_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
}

fn style(colour: Color) -> Style {
    if output::may_colour() {
        Style::new().fg(colour)
    } else {
        Style::new()
    }
}
