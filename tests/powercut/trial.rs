//! Trials: lives that are recorded and cut at many moments, and the judgement of what is left.

use std::fs;
use std::path::{Path, PathBuf};

use jobsled::lab::journal::{Group, Mark, Plan, Random};

use crate::child::{self, FailureKind, Stage, Task, Told};
use crate::disk::{Disk, Naming};
use crate::image::Mode;
use crate::log::Record;
use crate::places::{Cuts, Weights};

/// Groups of a second life.
const SECOND_LIFE_GROUPS: u32 = 40;
/// Groups of a second life that is recorded, to be cut in turn: little beside the recovery itself.
const CUT_LIFE_GROUPS: u32 = 6;
/// Cuts of each recorded recovery.
const CUTS_OF_RECOVERY: u64 = 4;

/// What came of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Ok,
    /// Something acknowledged is not there.
    LostAcked,
    /// The store is refused, or opening it crashes or hangs.
    CannotOpen,
    /// It opens, and is not what was written.
    WrongContent,
    /// Good at first, broken by living on.
    SecondLife,
}

impl Verdict {
    pub(crate) const ALL: [Verdict; 5] = [
        Verdict::Ok,
        Verdict::LostAcked,
        Verdict::CannotOpen,
        Verdict::WrongContent,
        Verdict::SecondLife,
    ];
}

/// A life to be recorded and cut.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) plan: Plan,
    /// Images built from it.
    pub(crate) cuts: u64,
    /// Power cuts in a row, each within the recovery from the one before.
    pub(crate) depth: u32,
    /// Sabotage, see `Recording`.
    pub(crate) forget_data_syncs: bool,
    /// Only this trial of it.
    pub(crate) only: Option<u64>,
    /// A log kept from an earlier run, instead of a new one: the order of writes differs a little from
    /// run to run.
    pub(crate) log: Option<PathBuf>,
}

/// A failed trial.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) trial: u64,
    pub(crate) verdict: Verdict,
    pub(crate) text: String,
}

/// All trials of a life.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) failed: Vec<Failed>,
    /// Images in which a group had been cut short.
    pub(crate) unfinished: usize,
    /// The most that a commit left un-synced at any moment, in percent of a segment.
    pub(crate) unsynced_percent: u64,
}

/// What a disk must hold: told by the marks before the cut.
#[derive(Clone, Debug, Default)]
struct Promise {
    /// Groups that may be the newest one.
    possible: Vec<Group>,
    /// The newest group that was acknowledged (or seen by an opening that went well).
    acked: Option<Group>,
}

impl Promise {
    /// Something was done.
    fn note(&mut self, mark: Mark) {
        match mark {
            Mark::NoStore => self.possible.clear(),
            Mark::Unfinished(_) => {}
            Mark::Begun(group) => self.possible.push(group),
            Mark::Acked(group) => self.acked = Some(group),
            Mark::Found(group) => {
                self.possible = vec![group];
                self.acked = Some(group);
            }
        }
    }

    /// Something was found: is that what was promised?
    fn check(&self, mark: Mark) -> Result<(), (Verdict, String)> {
        match (mark, self.acked) {
            (Mark::NoStore, Some(acked)) => Err((
                Verdict::LostAcked,
                format!("no store, acknowledged was {}", acked.number),
            )),
            (Mark::Found(found), Some(acked)) if found.number < acked.number => {
                let text = format!(
                    "group {} is the newest, acknowledged was {}",
                    found.number, acked.number
                );
                Err((Verdict::LostAcked, text))
            }
            (Mark::Found(found), _) if !self.possible.contains(&found) => Err((
                Verdict::WrongContent,
                format!("group {} was never written so", found.number),
            )),
            _ => Ok(()),
        }
    }

    /// Judges a whole life after a cut.
    fn judge(mut self, told: &Told) -> (Verdict, String) {
        let mut survived = false;
        let in_life = |survived: bool, verdict| {
            if survived {
                Verdict::SecondLife
            } else {
                verdict
            }
        };
        for mark in &told.marks {
            if let Err((verdict, text)) = self.check(*mark) {
                return (in_life(survived, verdict), text);
            }
            survived |= matches!(mark, Mark::Found(_));
            self.note(*mark);
        }
        let Some(failure) = &told.failure else {
            return (Verdict::Ok, String::new());
        };
        let verdict = match failure.kind {
            FailureKind::Open | FailureKind::Died => Verdict::CannotOpen,
            FailureKind::Content | FailureKind::Write => Verdict::WrongContent,
        };
        (in_life(survived, verdict), failure.text.clone())
    }
}

/// Records a life and cuts it. `scratch` is an empty directory for it; what fails is kept in `keep`, if that is wanted.
pub(crate) fn run(life: &Life, scratch: &Path, keep: Option<&Path>) -> Outcome {
    let log_path = match &life.log {
        Some(log) => log.clone(),
        None => record_first_life(life, scratch),
    };
    let log = fs::read(&log_path).expect("the log is there");
    let records = Record::decode_all(&log);
    if life.log.is_none() {
        assert_log_is_whole(Disk::default(), &records, &scratch.join("first"));
    }
    let mut bench = Bench {
        life,
        scratch,
        keep,
        log: &log_path,
        outcome: Outcome::default(),
    };
    let cuts = Cuts {
        count: life.cuts,
        seed: life.plan.seed,
        ways: 3,
    };
    bench.cut(
        &cuts,
        life.depth,
        Disk::default(),
        &records,
        Promise::default(),
    );
    bench.outcome
}

fn record_first_life(life: &Life, scratch: &Path) -> PathBuf {
    let (root, log) = (scratch.join("first"), scratch.join("first.log"));
    fs::create_dir(&root).unwrap();
    let task = Task {
        plan: &life.plan,
        root: &root,
        stage: Stage::First,
        log: Some(&log),
        forget_data_syncs: life.forget_data_syncs,
    };
    let told = child::run(&task);
    assert!(
        told.failure.is_none(),
        "the first life failed on a whole disk: {:?}",
        told.failure
    );
    log
}

fn assert_log_is_whole<'a>(start: Disk<'a>, records: &[Record<'a>], root: &Path) {
    let mut disk = start;
    for record in records {
        disk.apply(record);
    }
    disk.assert_equals(root);
}

/// A first group is committed while the store is made, amid much else.
fn is_in_commit(line: &str) -> bool {
    let marks = child::marks_of(line);
    matches!(marks[..], [Mark::Begun(group)] if group.number > 1)
}

/// A life's trials in progress.
struct Bench<'b> {
    life: &'b Life,
    scratch: &'b Path,
    keep: Option<&'b Path>,
    log: &'b Path,
    outcome: Outcome,
}

/// One image.
struct Trial<'t, 'r> {
    number: u64,
    /// Which mode's turn it is.
    turn: u64,
    depth: u32,
    seed: u64,
    disk: &'t Disk<'r>,
    promise: &'t Promise,
}

impl Trial<'_, '_> {
    /// Every mode meets both ways of naming, in turn.
    fn write_image(&self, to: &Path) -> String {
        let turn = usize::try_from(self.turn).unwrap();
        let mode = Mode::ALL[turn % Mode::ALL.len()];
        let naming = Naming::ALL[turn / Mode::ALL.len() % Naming::ALL.len()];
        let _ = fs::remove_dir_all(to);
        fs::create_dir_all(to).unwrap();
        self.disk
            .write_image(mode, naming, &mut Random(self.seed), to);
        format!("{mode:?}, names {naming:?}")
    }
}

impl Bench<'_> {
    /// Cuts a log and tries every image.
    fn cut<'r>(
        &mut self,
        cuts: &Cuts,
        depth: u32,
        start: Disk<'r>,
        records: &[Record<'r>],
        promise: Promise,
    ) {
        let weights = Weights::of(&start, records, |line| Some(is_in_commit(line)));
        let percent = weights.commit_max * 100 / u64::from(self.life.plan.segment_bytes);
        self.outcome.unsynced_percent = self.outcome.unsynced_percent.max(percent);
        let (mut disk, mut promise, mut done) = (start, promise, 0);
        for (place, number) in cuts.places(&weights) {
            for record in &records[done..place] {
                disk.apply(record);
                if let Record::Mark { line } = record {
                    for mark in child::marks_of(line) {
                        promise.note(mark);
                    }
                }
            }
            done = place;
            let is_first_cut = depth == self.life.depth;
            if is_first_cut && self.life.only.is_some_and(|only| only != number) {
                continue;
            }
            let seed = cuts.seed_of(number);
            let turn = cuts.seed.wrapping_add(number);
            let trial = Trial {
                number,
                turn,
                depth,
                seed,
                disk: &disk,
                promise: &promise,
            };
            self.try_image(&trial);
        }
    }

    /// Revives an image; if more cuts are to come, records that and cuts it in turn.
    fn try_image(&mut self, trial: &Trial<'_, '_>) {
        let image = self.scratch.join(format!("image{}", trial.depth));
        let how = trial.write_image(&image);
        let is_cut_again = trial.depth > 1;
        let log_path = child::beside(&image, "log");
        let start = is_cut_again.then(|| Disk::read(&image));
        let mut random = Random(trial.seed.rotate_left(17));
        let groups = match (random.one_in(2), is_cut_again) {
            (false, _) => 0,
            (true, true) => CUT_LIFE_GROUPS,
            (true, false) => SECOND_LIFE_GROUPS,
        };
        let plan = Plan {
            seed: trial.seed,
            ..self.life.plan.clone()
        };
        let told = child::run(&Task {
            plan: &plan,
            root: &image,
            stage: Stage::Revived { groups },
            log: is_cut_again.then_some(log_path.as_path()),
            forget_data_syncs: self.life.forget_data_syncs,
        });
        let (verdict, text) = trial.promise.clone().judge(&told);
        self.outcome.verdicts.push(verdict);
        let cut_short = told
            .marks
            .iter()
            .any(|mark| matches!(mark, Mark::Unfinished(_)));
        self.outcome.unfinished += usize::from(cut_short);
        if verdict != Verdict::Ok {
            let text = format!(
                "cut {} from the last, {how}, {groups} groups after: {text}",
                trial.depth
            );
            return self.failed(trial, verdict, text);
        }
        if let Some(start) = start {
            let log = fs::read(&log_path).unwrap();
            let records = Record::decode_all(&log);
            assert_log_is_whole(start.clone(), &records, &image);
            let cuts = Cuts {
                count: CUTS_OF_RECOVERY,
                seed: trial.seed,
                ways: 3,
            };
            self.cut(
                &cuts,
                trial.depth - 1,
                start,
                &records,
                trial.promise.clone(),
            );
        }
    }

    fn failed(&mut self, trial: &Trial<'_, '_>, verdict: Verdict, text: String) {
        if let Some(keep) = self.keep {
            let kept = keep.join(format!("cut-{}-trial-{}", trial.depth, trial.number));
            trial.write_image(&kept.join("image"));
            fs::copy(self.log, kept.join("first.log")).unwrap();
            let told = format!("{verdict:?}: {text}\n{:#?}\n", trial.promise);
            fs::write(kept.join("verdict"), told).unwrap();
        }
        let trial = trial.number;
        self.outcome.failed.push(Failed {
            trial,
            verdict,
            text,
        });
    }
}
