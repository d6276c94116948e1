//! What is tried: one row of the table each.

use jobsled::lab::journal::{Plan, Random};

/// What a row is expected to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Every trial is good.
    Ok,
    /// Sabotage: some are not, or the laboratory is blind.
    Broken,
    /// No promise: the figures are the result.
    Either,
}

/// How much of a row is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) lives: u64,
    /// Cuts of each life.
    pub(crate) cuts: u64,
}

#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) plan: fn(life: u64) -> Plan,
    pub(crate) depth: u32,
    pub(crate) forget_data_syncs: bool,
    pub(crate) expect: Expect,
    /// On every change.
    pub(crate) short: Extent,
    /// For the figures in `docs/durability.md`.
    pub(crate) full: Extent,
    /// Lives of it that once found something: on every change, cut as in the full row.
    pub(crate) found: &'static [u64],
}

/// Sizes that belong together: segment, entry cap, budget.
type Sizes = (u32, u32, u32);

const SMALL: Sizes = (64 << 10, 900, 8 << 10);
const MIDDLE: Sizes = (512 << 10, 6 << 10, 64 << 10);
/// What the engine uses.
const DEFAULT: Sizes = (4 << 20, 56 << 10, 512 << 10);

/// Sizes in turn: small ones see far more cleaning of segments in the same time.
fn sizes(life: u64) -> Sizes {
    match life % 8 {
        2 | 4 | 6 => MIDDLE,
        7 => DEFAULT,
        _ => SMALL,
    }
}

/// The accounted volume of a life, in segments.
const SEGMENTS_PER_LIFE: u32 = 12;

/// A life of groups of so many entries, in a window of so many. `name` keeps the rows' seeds apart.
fn plan(name: u64, life: u64, sizes: Sizes, entries: (u32, u32), window: (u32, u32)) -> Plan {
    let (segment_bytes, entry_cap, sync_budget) = sizes;
    // An entry is on average half full, and its removal costs at least as much as its making.
    let group_bytes = u32::midpoint(entries.0, entries.1) * entry_cap;
    let groups = (segment_bytes / group_bytes.max(1) * SEGMENTS_PER_LIFE).max(SEGMENTS_PER_LIFE);
    Plan {
        seed: Random(name << 32 | life).next_u64(),
        segment_bytes,
        entry_cap,
        sync_budget,
        groups,
        entries,
        window,
        reopen_every: None,
        pins: true,
        carries: false,
    }
}

fn groups_of_1(life: u64) -> Plan {
    plan(1, life, sizes(life), (1, 1), (1, 60))
}

fn groups_of_4(life: u64) -> Plan {
    plan(2, life, sizes(life), (4, 4), (1, 120))
}

fn groups_of_32(life: u64) -> Plan {
    plan(3, life, sizes(life), (32, 32), (1, 200))
}

fn larger_than_a_segment(life: u64) -> Plan {
    let sizes = sizes(life);
    let per_segment = sizes.0 / sizes.1;
    plan(
        4,
        life,
        sizes,
        (per_segment * 5 / 4, per_segment * 3),
        (1, per_segment * 4),
    )
}

fn carries_and_bursts(life: u64) -> Plan {
    Plan {
        carries: true,
        ..plan(5, life, sizes(life), (1, 8), (1, 400))
    }
}

fn small_segments(life: u64) -> Plan {
    let plan = plan(6, life, SMALL, (1, 40), (1, 300));
    Plan {
        carries: true,
        groups: plan.groups * 8,
        ..plan
    }
}

fn reopened(life: u64) -> Plan {
    let plan = plan(7, life, sizes(life), (1, 4), (1, 4));
    Plan {
        carries: true,
        reopen_every: Some(12),
        groups: plan.groups.min(120),
        ..plan
    }
}

/// Next to nothing live, so that whole segments between two snapshots of sled's hold nothing any more:
/// there its open is at its weakest.
fn nearly_empty(life: u64) -> Plan {
    let pick = |n: u64| usize::try_from(n % 3).unwrap_or(0);
    let entries = [(1, 1), (1, 4), (8, 20)][pick(life)];
    let reopen_every = Some([1, 5, 40][pick(life / 3)]);
    let plan = plan(12, life, SMALL, entries, (1, 2));
    Plan {
        carries: life.is_multiple_of(2),
        pins: false,
        reopen_every,
        groups: 160,
        ..plan
    }
}

/// So much live at times that the journal is opened in place, and hardly anything at others.
fn large(life: u64) -> Plan {
    Plan {
        carries: life.is_multiple_of(2),
        reopen_every: Some(if life.is_multiple_of(3) { 3 } else { 11 }),
        groups: 90,
        ..plan(13, life, SMALL, (150, 300), (1, 12_000))
    }
}

fn any(name: u64, life: u64) -> Plan {
    let entries = [(1, 1), (1, 8), (32, 32), (80, 160)];
    let windows = [(1, 4), (1, 60), (1, 300)];
    let pick = |n: u64, of: usize| usize::try_from(n).unwrap_or(0) % of;
    let plan = plan(
        name,
        life,
        sizes(life / 12),
        entries[pick(life, entries.len())],
        windows[pick(life, windows.len())],
    );
    Plan {
        carries: life % 2 == 1,
        reopen_every: (life.is_multiple_of(3)).then_some(12),
        ..plan
    }
}

fn cut_in_recovery(life: u64) -> Plan {
    any(8, life)
}

fn cut_in_recovery_twice(life: u64) -> Plan {
    any(9, life)
}

fn without_data_syncs(life: u64) -> Plan {
    plan(10, life, SMALL, (1, 8), (1, 60))
}

fn without_a_budget(life: u64) -> Plan {
    let sizes = if life.is_multiple_of(2) {
        SMALL
    } else {
        MIDDLE
    };
    let per_segment = sizes.0 / sizes.1;
    let plan = plan(
        11,
        life,
        sizes,
        (per_segment * 2, per_segment * 6),
        (1, per_segment * 8),
    );
    Plan {
        sync_budget: u32::MAX,
        ..plan
    }
}

const fn row(
    name: &'static str,
    plan: fn(u64) -> Plan,
    short: (u64, u64),
    full: (u64, u64),
) -> Row {
    Row {
        name,
        plan,
        depth: 1,
        forget_data_syncs: false,
        expect: Expect::Ok,
        short: Extent {
            lives: short.0,
            cuts: short.1,
        },
        full: Extent {
            lives: full.0,
            cuts: full.1,
        },
        found: &[],
    }
}

pub(crate) const ROWS: [Row; 13] = [
    row("groups-of-1", groups_of_1, (4, 14), (40, 28)),
    row("groups-of-4", groups_of_4, (4, 14), (40, 28)),
    row("groups-of-32", groups_of_32, (4, 14), (40, 28)),
    row(
        "larger-than-a-segment",
        larger_than_a_segment,
        (4, 14),
        (40, 28),
    ),
    row("carries-and-bursts", carries_and_bursts, (4, 14), (40, 28)),
    row("small-segments", small_segments, (4, 28), (40, 42)),
    row("reopened", reopened, (4, 28), (40, 28)),
    row("nearly-empty", nearly_empty, (9, 14), (90, 42)),
    Row {
        depth: 2,
        ..row("large", large, (1, 4), (30, 12))
    },
    Row {
        depth: 2,
        ..row("cut-in-recovery", cut_in_recovery, (6, 4), (60, 7))
    },
    Row {
        depth: 3,
        // The copy's name was not synced before the original lost its own.
        found: &[45],
        ..row(
            "cut-in-recovery-twice",
            cut_in_recovery_twice,
            (3, 2),
            (48, 2),
        )
    },
    Row {
        expect: Expect::Broken,
        forget_data_syncs: true,
        ..row("without-fdatasync", without_data_syncs, (2, 14), (20, 28))
    },
    Row {
        expect: Expect::Either,
        ..row("without-a-budget", without_a_budget, (2, 14), (40, 28))
    },
];
