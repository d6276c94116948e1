//! A program's own test: its handlers on a clock that stands still, and a power cut after every durable step.
//!
//! The program sends an invoice and, a week later, a reminder. It must do neither twice by its own doing, and
//! forget neither.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jobsled::testing::{Rehearsal, every_crash};
use jobsled::{Context, Engine, EngineBuilder, JobResult, job, rkyv};

const WEEK: Duration = Duration::from_hours(7 * 24);

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = jobsled::rkyv)]
struct SendInvoice {
    order: u32,
}
job!(SendInvoice, kind = "send-invoice");

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = jobsled::rkyv)]
struct Remind {
    order: u32,
}
job!(Remind, kind = "remind");

/// What left the house. In a real program: letters. A job may run again after a crash, so each has a number by
/// which whoever gets it twice can tell.
type Sent = Arc<Mutex<Vec<String>>>;

fn program(sent: &Sent) -> EngineBuilder {
    let (invoices, reminders) = (sent.clone(), sent.clone());
    Engine::in_memory()
        .handle(move |job: SendInvoice, cx: &Context| -> JobResult<()> {
            send(&invoices, format!("invoice {}", job.order));
            // The key: run again after a crash, this does not ask for a second reminder.
            cx.engine()
                .job(Remind { order: job.order })
                .key(format!("remind-{}", job.order))
                .after(WEEK)
                .enqueue()?;
            Ok(())
        })
        .handle(move |job: Remind, _: &Context| -> JobResult<()> {
            send(&reminders, format!("reminder {}", job.order));
            Ok(())
        })
}

fn send(sent: &Sent, letter: String) {
    sent.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(letter);
}

fn main() -> jobsled::Result<()> {
    // Time passes only when the test says so.
    let sent = Sent::default();
    let of_program = sent.clone();
    let mut rehearsal = Rehearsal::of(move || program(&of_program))?;
    rehearsal.engine().enqueue(SendInvoice { order: 1 })?;
    println!("at once: {} attempt", rehearsal.run_due()?);
    rehearsal.advance(WEEK / 2);
    println!("half a week later: {} attempts", rehearsal.run_due()?);
    rehearsal.crash()?;
    println!(
        "after a crash, and the other half: {} attempt",
        rehearsal.run_all(WEEK)?
    );
    println!(
        "sent: {}",
        sent.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .join(", ")
    );

    // And now with the power going before each durable step.
    let sent = Sent::default();
    let (of_program, of_check) = (sent.clone(), sent);
    let cuts = every_crash(
        move || program(&of_program),
        |rehearsal| {
            let order = SendInvoice { order: 2 };
            rehearsal.engine().job(order).key("invoice-2").enqueue()?;
            rehearsal.run_all(2 * WEEK).map(drop)
        },
        move |rehearsal, step| {
            let mut letters = of_check.lock().unwrap_or_else(PoisonError::into_inner);
            letters.sort();
            letters.dedup(); // sent again after a crash: whoever gets it knows its number
            assert_eq!(
                *letters,
                ["invoice 2", "reminder 2"],
                "cut off at step {step}"
            );
            letters.clear();
            assert_eq!(rehearsal.engine().stats()?.counters.completed, 2);
            Ok(())
        },
    )?;
    println!("{cuts} power cuts: an invoice and a reminder each time, nothing else");
    Ok(())
}
