//! What was found: one figure for each set-up and measure, and the runs that it is the median of.

use contest::{Class, Line};
use serde::Serialize;

use crate::syncs::Syncs;

/// In the order of the tables' columns.
pub const MEASURES: [&str; 5] = ["enqueue-1", "enqueue-8", "enqueue-64", "bulk", "through"];

#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// The run in the middle; or why there is none.
    #[serde(flatten)]
    pub line: Line,
    /// Jobs a second of all runs, in their order.
    pub runs: Vec<f64>,
    /// Of a run of its own, under `strace`.
    #[serde(flatten)]
    pub counted: Counted,
    /// This rate by Jobsled's of the same class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_jobsled: Option<f64>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Counted {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syncs: Option<Syncs>,
    /// Jobs of the counted run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syncs_jobs: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syncs_per_job: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range_syncs_per_job: Option<f64>,
    /// Why nothing was counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syncs_skipped: Option<String>,
}

impl Counted {
    #[expect(clippy::cast_precision_loss, reason = "a ratio is rounded anyway")]
    pub fn of(syncs: Syncs, jobs: u64) -> Counted {
        let per_job =
            |count: u64| Some(count as f64 / jobs as f64).filter(|ratio| ratio.is_finite());
        Counted {
            syncs: Some(syncs),
            syncs_jobs: Some(jobs),
            syncs_per_job: per_job(syncs.whole),
            range_syncs_per_job: per_job(syncs.ranges),
            syncs_skipped: None,
        }
    }

    pub fn skipped(why: impl Into<String>) -> Counted {
        Counted {
            syncs_skipped: Some(why.into()),
            ..Counted::default()
        }
    }
}

impl Figure {
    /// There is a rate.
    pub fn is_measured(&self) -> bool {
        self.line.error.is_none() && self.line.unsupported.is_none()
    }

    pub fn is_jobsled(&self) -> bool {
        self.line.peer == "jobsled"
    }
}

/// The run whose rate is in the middle; of an even number, the better one of the two.
pub fn median(mut runs: Vec<Line>) -> Option<Line> {
    runs.sort_by(|a, b| a.jobs_per_second.total_cmp(&b.jobs_per_second));
    let middle = runs.len() / 2;
    runs.into_iter().nth(middle)
}

/// Jobsled's figure that one of a class is held against. Jobsled has no C1: there it is the one of C2.
pub fn held_against<'f>(figures: &'f [Figure], class: Class, measure: &str) -> Option<&'f Figure> {
    let class = if class == Class::C1 { Class::C2 } else { class };
    figures.iter().find(|figure| {
        figure.is_jobsled() && figure.line.class == class && figure.line.measure == measure
    })
}

/// Fills in all ratios.
pub fn compare(figures: &mut [Figure]) {
    let ratios: Vec<Option<f64>> = figures
        .iter()
        .map(|figure| {
            let jobsled = held_against(figures, figure.line.class, &figure.line.measure)?;
            let is_there = figure.is_measured() && jobsled.is_measured();
            is_there.then(|| figure.line.jobs_per_second / jobsled.line.jobs_per_second)
        })
        .collect();
    for (figure, ratio) in figures.iter_mut().zip(ratios) {
        figure.of_jobsled = ratio;
    }
}
