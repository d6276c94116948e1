//! Limits and disks: what a machine refuses.

use crate::check::Log;
use crate::preload::Preload;

/// What may happen to a machine.
#[derive(Clone, Copy, Debug)]
pub(super) enum Machine {
    None,
}

pub(super) const ALL: &[Machine] = &[];

pub(super) fn run(machine: Machine, _preload: &Preload, _log: &Log) -> Result<(), String> {
    match machine {
        Machine::None => Ok(()),
    }
}
