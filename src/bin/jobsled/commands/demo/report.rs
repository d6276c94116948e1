//! The table at the end, and the verdict.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};

use super::drive::Driven;
use super::plan::Plan;
use super::store::Found;
use super::tally::{Fault, Tally};
use crate::commands::Verdict;
use crate::output::{self, Colour};

/// Prints what was found and says whether all is well.
pub(super) fn tell(plan: &Plan, driven: &Driven, found: &Found, tally: &Tally) -> Verdict {
    let rows = rows(plan, driven, tally);
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    for row in &rows {
        table.add_row(vec![
            row.name.to_owned(),
            row.value.clone(),
            row.remark.clone(),
        ]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    // Coloured as lines, the first of which is the border: the table would count the colour codes as text.
    for (number, line) in table.lines().enumerate() {
        let is_bad = number
            .checked_sub(1)
            .and_then(|row| rows.get(row))
            .is_some_and(|row| row.is_bad);
        output::say(if is_bad {
            output::coloured(Colour::Red, &line)
        } else {
            line
        });
    }
    for note in notes(found) {
        output::say(note);
    }
    let verdict = match &driven.trouble {
        Some(trouble) => Err(trouble.clone()),
        None if rows.iter().any(|row| row.is_bad) => Err("not all is well".to_owned()),
        None => Ok("all is well"),
    };
    match verdict {
        Ok(words) => {
            output::say(output::coloured(Colour::Green, words));
            Verdict::Well
        }
        Err(words) => {
            output::say(output::coloured(Colour::Red, &words));
            Verdict::NotWell
        }
    }
}

/// A line of the table.
struct Row {
    name: &'static str,
    value: String,
    remark: String,
    is_bad: bool,
}

fn rows(plan: &Plan, driven: &Driven, tally: &Tally) -> Vec<Row> {
    let jobs = u64::from(plan.jobs);
    let mut rows = vec![
        Row::of(jobs, "accepted", tally.accepted),
        Row::of(jobs, "completed", tally.completed),
    ];
    rows.extend(tally.faults().map(|(name, fault)| Row::fault(name, fault)));
    let again = match tally.ended_again {
        0 => "allowed after a kill".to_owned(),
        ended => format!("allowed; {} of them had ended", output::count(ended)),
    };
    rows.push(Row::fact(
        "started more than once",
        output::count(tally.started_again),
        again,
    ));
    rows.push(Row::fact(
        "kills (SIGKILL)",
        output::count(u64::from(driven.kills)),
        idle(driven),
    ));
    if let Some((min, median, max)) = spread(&driven.recoveries) {
        let number = output::counted(driven.recoveries.len() as u64, "time");
        let remark = format!(
            "{number}; min {}, max {}",
            output::time(min),
            output::time(max)
        );
        rows.push(Row::fact(
            "median time to recover",
            output::time(median),
            remark,
        ));
    }
    let per_second = |number: u64| {
        let ms = driven.took.as_millis().max(1);
        u64::try_from(u128::from(number) * 1_000 / ms).unwrap_or(u64::MAX)
    };
    rows.push(Row::fact(
        "throughput",
        format!("{} jobs/s", output::count(per_second(tally.completed))),
        format!(
            "{}/s; {} with all kills",
            output::size(per_second(plan.bytes)),
            output::time(driven.took)
        ),
    ));
    rows
}

impl Row {
    fn fact(name: &'static str, value: String, remark: String) -> Row {
        Row {
            name,
            value,
            remark,
            is_bad: false,
        }
    }

    /// Must be all of them.
    fn of(all: u64, name: &'static str, number: u64) -> Row {
        let remark = format!("of {}", output::count(all));
        Row {
            name,
            value: output::count(number),
            remark,
            is_bad: number != all,
        }
    }

    /// Must be 0.
    fn fault(name: &'static str, fault: &Fault) -> Row {
        let ids: Vec<String> = fault.examples.iter().map(u64::to_string).collect();
        let more = if fault.count > ids.len() as u64 && !ids.is_empty() {
            ", …"
        } else {
            ""
        };
        let remark = if ids.is_empty() {
            String::new()
        } else {
            format!("job {}{more}", ids.join(", "))
        };
        Row {
            name,
            value: output::count(fault.count),
            remark,
            is_bad: fault.count > 0,
        }
    }
}

fn idle(driven: &Driven) -> String {
    match driven.idle_kills {
        0 => String::new(),
        idle => format!("{} with no work left", output::count(u64::from(idle))),
    }
}

fn notes(found: &Found) -> Vec<String> {
    let kinds = [
        (
            found.files_changed,
            "changed meanwhile; their hashes prove nothing and were not compared",
        ),
        (
            found.files_unreadable,
            "could not be read; their jobs completed without a hash",
        ),
    ];
    let met = kinds.into_iter().filter(|(number, _)| *number > 0);
    met.map(|(number, what)| format!("{} {what}.", output::counted(number, "file")))
        .collect()
}

/// Least, middle and most.
fn spread(times: &[Duration]) -> Option<(Duration, Duration, Duration)> {
    let mut times = times.to_vec();
    times.sort_unstable();
    Some((
        *times.first()?,
        *times.get(times.len() / 2)?,
        *times.last()?,
    ))
}
