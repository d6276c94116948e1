//! File calls that fail.

use std::process::ExitCode;

use crate::check::{self, Log, Order};

pub(crate) const CHECK: check::Check = check::Check {
    name: "faults",
    unit: "fault plans",
    little: 0,
    ci: 0,
    goal: 0,
    run,
};

pub(crate) const CHILD: check::Child = ("faults-script", main);

fn main(_: &[String]) -> ExitCode {
    ExitCode::SUCCESS
}

fn run(_: &Order, _: &Log) {}
