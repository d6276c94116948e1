//! A life on the bench: its record, cut at many places, and what is left of each cut.

use std::fs;
use std::path::{Path, PathBuf};

use jobsled::lab::journal::Random as Dice;

use super::child::{self, Opener, Stage, Task};
use super::promise::Promise;
use crate::check::Log;
use crate::disk::{Disk, Naming};
use crate::image::Mode;
use crate::log::Record;
use crate::places::{Cuts, Weights};

/// Where failures are kept.
const KEPT: &str = "jobsled-lab-failures";

pub(crate) fn kept(check: &str, seed: u64) -> PathBuf {
    let all = std::env::temp_dir().join(KEPT);
    all.join(format!("{check}-{seed}"))
}

/// What a life is cut into.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) check: &'static str,
    /// Decides where the cuts are.
    pub(crate) seed: u64,
    /// The number of the life's first state; the others follow.
    pub(crate) first: u64,
    /// Cuts of the life; of each recovery from those; and so on. Their product is the number of states.
    pub(crate) cuts: &'a [u64],
    /// Only these states.
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Plan<'_> {
    fn wants(&self, first: u64, states: u64) -> bool {
        first < self.to && self.from < first + states
    }
}

/// A record: the bytes of the logs that it is made of, in order.
pub(crate) type Logs = Vec<Vec<u8>>;

/// All that was recorded.
pub(crate) fn records_of(logs: &Logs) -> Vec<Record<'_>> {
    logs.iter()
        .flat_map(|log| Record::decode_all(log))
        .collect()
}

/// See the module.
pub(crate) struct Bench<'b> {
    plan: Plan<'b>,
    place: PathBuf,
    opener: &'b mut Opener,
    /// The life's own record, to be kept with a failure.
    logs: &'b Logs,
    log: &'b Log,
}

impl std::fmt::Debug for Bench<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bench")
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

/// One cut.
struct Cut<'c, 'r> {
    /// The number of its first state.
    first: u64,
    seed: u64,
    disk: &'c Disk<'r>,
    promise: &'c Promise,
}

impl Cut<'_, '_> {
    /// Every way in which contents survive meets both in which names do.
    fn write_image(&self, to: &Path) -> String {
        let turn = usize::try_from(self.seed % 14).unwrap();
        let mode = Mode::ALL[turn % Mode::ALL.len()];
        let naming = Naming::ALL[turn / Mode::ALL.len()];
        let _ = fs::remove_dir_all(to);
        fs::create_dir_all(to).unwrap();
        self.disk
            .write_image(mode, naming, &mut Dice(self.seed), to);
        format!("{mode:?}, names {naming:?}")
    }
}

/// A failure: the state's number and what is wrong.
pub(crate) type Failure = (u64, String);

impl<'b> Bench<'b> {
    pub(crate) fn new(
        plan: Plan<'b>,
        place: &Path,
        opener: &'b mut Opener,
        logs: &'b Logs,
        log: &'b Log,
    ) -> Bench<'b> {
        Bench {
            plan,
            place: place.to_owned(),
            opener,
            logs,
            log,
        }
    }

    /// Cuts the whole life, of which nothing was there before.
    pub(crate) fn run(&mut self) -> Result<(), Failure> {
        let logs = self.logs;
        let records: Vec<Record<'_>> = logs
            .iter()
            .flat_map(|log| Record::decode_all(log))
            .collect();
        let (first, seed) = (self.plan.first, self.plan.seed);
        self.cut(
            first,
            seed,
            0,
            Disk::default(),
            &records,
            &Promise::default(),
        )
    }

    /// Cuts a record, and what follows from each cut.
    fn cut<'r>(
        &mut self,
        first: u64,
        seed: u64,
        depth: usize,
        start: Disk<'r>,
        records: &[Record<'r>],
        promise: &Promise,
    ) -> Result<(), Failure> {
        let states: u64 = self.plan.cuts[depth + 1..].iter().product();
        let count = self.plan.cuts[depth];
        let ways = 4;
        let cuts = Cuts { count, seed, ways };
        let weights = Weights::of(&start, records, asks);
        let (mut disk, mut promise, mut done) = (start, promise.clone(), 0);
        for (place, number) in cuts.places(&weights) {
            let first = first + number * states;
            for record in &records[done..place] {
                disk.apply(record);
                if let Record::Mark { line } = record {
                    let noted = promise.note(line);
                    noted.map_err(|why| (first, format!("before any cut: {why}")))?;
                }
            }
            done = place;
            if !self.plan.wants(first, states) {
                continue;
            }
            let mut promise = promise.clone();
            promise.cut();
            let cut = Cut {
                first,
                seed: cuts.seed_of(number),
                disk: &disk,
                promise: &promise,
            };
            let tried = self.try_cut(&cut, depth, (place, records.len()));
            tried.map_err(|(state, why)| (state, self.keep(&cut, &why)))?;
        }
        Ok(())
    }

    /// Opens what is left. If more cuts are to come, that is recorded, and cut in turn.
    fn try_cut(
        &mut self,
        cut: &Cut<'_, '_>,
        depth: usize,
        (place, of): (usize, usize),
    ) -> Result<(), Failure> {
        let root = self.place.join(format!("image{depth}"));
        let (marks, log) = (root.with_extension("marks"), root.with_extension("log"));
        let how = cut.write_image(&root);
        let told = |why| {
            (
                cut.first,
                format!("cut {depth} at {place} of {of}, {how}: {why}"),
            )
        };
        let is_last = depth + 1 == self.plan.cuts.len();
        let start = (!is_last).then(|| Disk::read(&root));
        let task = Task {
            root: &root,
            marks: &marks,
            log: (!is_last).then_some(log.as_path()),
            seed: cut.seed,
            stage: if is_last {
                Stage::WorkedOff
            } else {
                Stage::Opened
            },
        };
        let _ = fs::remove_file(&marks);
        let went = if is_last {
            self.opener.run(&task)
        } else {
            child::run_alone(&task, &self.place)
        };
        let mut promise = cut.promise.clone();
        let said = fs::read_to_string(&marks).unwrap_or_default();
        promise.note(&said).map_err(told)?;
        went.map_err(told)?;
        self.log
            .note("jobs acknowledged", cut.promise.acknowledged());
        let Some(start) = start else {
            self.log.done(1);
            return Ok(());
        };
        let bytes = fs::read(&log).unwrap();
        let records = Record::decode_all(&bytes);
        assert_whole(start.clone(), &records, &root);
        let seed = cut.seed.rotate_left(17);
        self.cut(cut.first, seed, depth + 1, start, &records, cut.promise)
    }

    /// Keeps what is needed to look into a failure, and says where.
    fn keep(&self, cut: &Cut<'_, '_>, why: &str) -> String {
        let kept = kept(self.plan.check, cut.first);
        let image = kept.join("image");
        cut.write_image(&image);
        let log = kept.join("log");
        fs::write(&log, self.logs.concat()).unwrap();
        fs::write(kept.join("why"), format!("{why}\n{:#?}\n", cut.promise)).unwrap();
        format!(
            "{why}\n  kept in {}; exactly the same with LAB_LOG={}",
            kept.display(),
            log.display()
        )
    }
}

/// Whether a mark asks for something, or tells that it is done; what is found is neither.
fn asks(mark: &str) -> Option<bool> {
    const ASKS: [&str; 7] = [
        "enqueue", "cancel", "delete", "set", "retry", "pause", "resume",
    ];
    match mark.split([' ', '\n']).next()? {
        "found" => None,
        word => Some(ASKS.contains(&word) || word == "prune"),
    }
}

/// That the record alone gives what is really there.
pub(crate) fn assert_whole<'a>(start: Disk<'a>, records: &[Record<'a>], root: &Path) {
    let mut disk = start;
    for record in records {
        disk.apply(record);
    }
    disk.assert_equals(root);
}
