//! Draws what the bench `scaling` has measured: reads its lines from standard input, writes pictures into a directory.
//!
//! `cargo bench --features bench --bench scaling | tee LINES`, then here `cargo run -- ../../docs/plots < LINES`.

use std::io::BufRead;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use plotters::coord::Shift;
use plotters::prelude::*;
use serde::Deserialize;

const SIZE: (u32, u32) = (720, 400);
const ENGINE: RGBColor = RGBColor(0x1f, 0x5f, 0xa8);
const JOURNAL: RGBColor = RGBColor(0x8a, 0x8a, 0x8a);

#[derive(Debug, Deserialize)]
#[serde(tag = "plot", rename_all = "lowercase")]
enum Line {
    Workers {
        workers: u32,
        jobs_per_second: f64,
        journal: f64,
    },
    Cost {
        jobs: f64,
        us_per_job: f64,
        journal: f64,
    },
}

/// What both pictures have: the engine and the journal alone over something.
struct Plot<'a> {
    title: &'a str,
    x: &'a str,
    y: &'a str,
    /// Where no line is.
    legend: SeriesLabelPosition,
    /// `x`, engine, journal.
    points: Vec<(f64, f64, f64)>,
}

fn main() -> Result<()> {
    let dir = std::env::args_os().nth(1).map(PathBuf::from);
    let dir = dir.context("where the pictures go is missing: cargo run -- DIRECTORY < LINES")?;
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let (mut workers, mut cost) = (Vec::new(), Vec::new());
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        // Cargo's own words may be among them.
        if !line.starts_with('{') {
            continue;
        }
        match serde_json::from_str(&line).with_context(|| line.clone())? {
            Line::Workers {
                workers: x,
                jobs_per_second,
                journal,
            } => workers.push((f64::from(x), jobs_per_second / 1e3, journal / 1e3)),
            Line::Cost {
                jobs,
                us_per_job,
                journal,
            } => cost.push((jobs, us_per_job, journal)),
        }
    }
    let workers = Plot {
        title: "Jobs to durable completion",
        x: "workers",
        y: "thousand jobs a second",
        legend: SeriesLabelPosition::MiddleRight,
        points: workers,
    };
    workers.draw(&dir.join("workers.svg"))?;
    let cost = Plot {
        title: "What a job costs, enqueued, run by two workers and done",
        x: "jobs",
        y: "microseconds a job",
        legend: SeriesLabelPosition::UpperMiddle,
        points: cost,
    };
    cost.draw(&dir.join("cost.svg"))
}

impl Plot<'_> {
    fn draw(&self, path: &Path) -> Result<()> {
        ensure!(self.points.len() > 1, "{}: too few points", path.display());
        let area = SVGBackend::new(path, SIZE).into_drawing_area();
        let failed = || path.display().to_string();
        self.draw_in(&area).with_context(failed)?;
        area.present().with_context(failed)?;
        println!("{}", path.display());
        Ok(())
    }

    /// From 0 to a little more than the most.
    fn height(&self) -> Range<f64> {
        let most = self
            .points
            .iter()
            .map(|(_, engine, journal)| engine.max(*journal));
        0.0..most.fold(0.0, f64::max) * 1.1
    }

    fn width(&self) -> Range<f64> {
        let all = self.points.iter().map(|(x, ..)| *x);
        all.clone().fold(f64::INFINITY, f64::min)..all.fold(0.0, f64::max)
    }

    fn draw_in(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<()> {
        let font = ("sans-serif", 14);
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, ("sans-serif", 18))
            .margin(16)
            .margin_right(48)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(
                self.width()
                    .log_scale()
                    .with_key_points(self.points.iter().map(|(x, ..)| *x).collect()),
                self.height(),
            )?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc(self.x)
            .y_desc(self.y)
            .x_label_formatter(&|x| thousands(*x))
            .y_label_formatter(&|y| thousands(*y))
            .label_style(font)
            .draw()?;
        let engine = self.points.iter().map(|(x, engine, _)| (*x, *engine));
        let journal = self.points.iter().map(|(x, _, journal)| (*x, *journal));
        for (name, colour, points) in [
            ("engine", ENGINE, engine.collect::<Vec<_>>()),
            ("journal alone", JOURNAL, journal.collect()),
        ] {
            let line = LineSeries::new(points, colour.stroke_width(2)).point_size(4);
            chart.draw_series(line)?.label(name).legend(move |(x, y)| {
                PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2))
            });
        }
        chart
            .configure_series_labels()
            .position(self.legend.clone())
            .background_style(WHITE.mix(0.8))
            .label_font(font)
            .draw()?;
        Ok(())
    }
}

/// 10,000 as people write it.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let from_end = |n: usize| digits.len() - n;
    let with_commas = digits.char_indices().flat_map(|(n, digit)| {
        let comma = (n > 0 && from_end(n).is_multiple_of(3)).then_some(',');
        comma.into_iter().chain([digit])
    });
    with_commas.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas() {
        for (number, text) in [
            (8.0, "8"),
            (1e3, "1,000"),
            (1e5, "100,000"),
            (1e7, "10,000,000"),
        ] {
            assert_eq!(thousands(number), text);
        }
    }
}
