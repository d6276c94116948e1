//! `jobsled stats`: figures of one moment.

use jobsled::State;
use jobsled::control::{Call, HealthView, StatsView};
use serde_json::json;

use super::{Failure, Verdict};
use crate::output::{self, Align, Colour, Table, clean, count, size};
use crate::store::Session;
use crate::time;

pub(crate) fn run(session: &Session) -> Result<Verdict, Failure> {
    let mut open = session.enter()?;
    let stats: StatsView = open.call(&Call::Stats {})?;
    let health: HealthView = open.call(&Call::Health {})?;
    let owner = open.door.greeting().map(|greeting| greeting.pid);
    if session.json {
        output::say(json!({ "stats": stats, "health": health, "pid": owner }));
        return Ok(Verdict::Well);
    }
    // This program runs no jobs on a visit: that somebody is missing who does is no news.
    let is_visit = owner.is_none();
    show_queues(&stats, is_visit);
    output::say("");
    let line = |name: &str, value: &str| output::say(format_args!("{name:<12}{value}"));
    line("store", &session.store.display().to_string());
    match owner {
        Some(pid) => line(
            "opened by",
            &format!("process {pid}, {}", output::counted(health.slots, "slot")),
        ),
        None => line("opened by", "nobody else"),
    }
    let ever = |name: &str| stats.counters.get(name).copied().unwrap_or(0);
    let told = [
        "enqueued",
        "completed",
        "died",
        "cancelled",
        "retried",
        "crashed",
    ];
    let told = told.map(|name| format!("{} {name}", count(ever(name))));
    line("since made", &told.join(", "));
    let (whole, needed) = (size(stats.bytes_on_disk), size(stats.live_bytes));
    line("on disk", &format!("{whole}, {needed} of it needed"));
    line(
        "syncs",
        &format!("{} since it was opened", count(stats.syncs)),
    );
    for trouble in troubles(&health) {
        line("trouble", &output::coloured(Colour::Red, &clean(&trouble)));
    }
    Ok(Verdict::Well)
}

fn show_queues(stats: &StatsView, is_visit: bool) {
    let shown = State::ALL
        .into_iter()
        .filter(|state| *state != State::Blocked);
    let names: Vec<&str> = shown.map(State::name).collect();
    let heads: Vec<String> = names.iter().map(|state| state.to_uppercase()).collect();
    let mut columns = vec![("QUEUE", Align::Left)];
    columns.extend(heads.iter().map(|head| (head.as_str(), Align::Right)));
    columns.extend([
        ("AT A TIME", Align::Right),
        ("OLDEST", Align::Right),
        ("", Align::Left),
    ]);
    let mut table = Table::new(&columns);
    for queue in &stats.queues {
        let mut cells = vec![queue.name.clone()];
        let jobs = |state: &&str| count(queue.jobs.get(*state).copied().unwrap_or(0));
        cells.extend(names.iter().map(jobs));
        cells.push(
            queue
                .concurrency
                .map(|most| most.to_string())
                .unwrap_or_default(),
        );
        cells.push(queue.oldest_ready_ms.map(time::short).unwrap_or_default());
        cells.push(match (queue.paused, queue.parked) {
            (true, _) => "paused".to_owned(),
            (false, 0) => String::new(),
            (false, _) if is_visit => String::new(),
            (false, parked) => format!("{} without a worker", count(parked)),
        });
        table.row(&cells, queue.paused.then_some(Colour::Grey));
    }
    if stats.queues.is_empty() {
        output::note("No jobs yet.");
    } else {
        table.print();
    }
}

/// What needs somebody's attention.
pub(super) fn troubles(health: &HealthView) -> Vec<String> {
    let stalled = health.stalled_commit_ms.map(|ms| {
        format!(
            "a write to the disk has been going on for {}",
            time::short(ms)
        )
    });
    let held = health.held_for.map(|id| {
        format!("job {id} was running in two crashes: nothing else starts until it has ended")
    });
    let lost = (health.lost_slots > 0).then(|| {
        format!(
            "{} hang and are not replaced",
            output::counted(health.lost_slots, "slot")
        )
    });
    let poisoned = health.poisoned.clone();
    [poisoned, stalled, held, lost]
        .into_iter()
        .flatten()
        .collect()
}
