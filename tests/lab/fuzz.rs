//! `fuzz`: the bodies of the fuzz targets (`fuzz/`) without a fuzzer: on the committed corpora, and on inputs from
//! fixed seeds, made, picked from the corpora, changed, or just random.
//!
//! An input is counted as past the door if its reader believed it at first. Does not cover what coverage would lead
//! to; that is what `cargo fuzz` is for.

use std::fs;

use crate::bodies::{self, TARGETS, Target, top};
use crate::check::{Check, Log, Order, caught};
use crate::random::Random;

pub(crate) const CHECK: Check = Check {
    name: "fuzz",
    unit: "inputs of readers",
    little: 3_000,
    ci: 100_000,
    goal: 5_000_000,
    signs: &[("past the door", 300)],
    run,
};

/// A target, with its corpus in the order of the names.
struct Known {
    target: &'static Target,
    corpus: Vec<Vec<u8>>,
}

fn run(order: &Order, log: &Log) {
    try_all(order, log);
    bodies::clean();
}

fn try_all(order: &Order, log: &Log) {
    let all: Vec<Known> = TARGETS.iter().map(load).collect();
    if !order.one {
        for known in &all {
            for (n, input) in known.corpus.iter().enumerate() {
                if let Err(why) = tried(known.target, input, log) {
                    let name = known.target.name;
                    return log.failed(0, format!("{name}, input {n} of its corpus: {why}"));
                }
            }
        }
    }
    order.each_seed(log, |seed, log| {
        let random = &mut Random::new(seed);
        let known = pick(&all, random);
        let input = input(known, random);
        if order.one {
            println!("{}: b\"{}\"", known.target.name, input.escape_ascii());
        }
        tried(known.target, &input, log).map_err(|why| format!("{}: {why}", known.target.name))
    });
}

fn load(target: &'static Target) -> Known {
    let dir = top().join("fuzz/corpus").join(target.name);
    let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort_unstable();
    Known {
        target,
        corpus: paths.iter().map(|path| fs::read(path).unwrap()).collect(),
    }
}

fn tried(target: &'static Target, input: &[u8], log: &Log) -> Result<(), String> {
    let past = caught(|| Ok((target.body)(input)))?;
    log.note(target.name, 1);
    log.note("past the door", past.into());
    Ok(())
}

/// One of the targets, by their shares.
fn pick<'k>(all: &'k [Known], random: &mut Random) -> &'k Known {
    let mut at = random.below(all.iter().map(|known| known.target.share).sum());
    let mut is_it = |known: &&Known| {
        let found = at < known.target.share;
        at = at.saturating_sub(known.target.share);
        found
    };
    all.iter().find(|known| is_it(known)).unwrap()
}

fn input(known: &Known, random: &mut Random) -> Vec<u8> {
    let mut input = match known.target.make {
        Some(make) if random.one_in(2) => make(random),
        _ if known.corpus.is_empty() || random.one_in(8) => {
            (0..random.below(300)).map(|_| byte(random)).collect()
        }
        _ => random.pick(&known.corpus).clone(),
    };
    for _ in 0..random.below(4) {
        let other = (!known.corpus.is_empty()).then(|| random.pick(&known.corpus));
        change(&mut input, other.map_or(&[], Vec::as_slice), random);
    }
    input
}

/// Changes some bytes, at times to some of another input.
fn change(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    if bytes.is_empty() {
        return bytes.push(byte(random));
    }
    let at = random.index(bytes.len());
    let to = bytes.len().min(at + random.index(16) + 1);
    match random.below(8) {
        0 | 1 => bytes[at] ^= 1 << random.below(8),
        2 => bytes[at] = byte(random),
        3 => drop(bytes.drain(at..to)),
        4 => bytes[at..to].fill(*random.pick(&[0, 0xFF, b'0'])),
        5 => {
            let block = bytes[at..to].to_vec();
            bytes.splice(at..at, block);
        }
        6 => bytes.truncate(at),
        _ if other.is_empty() => bytes.push(byte(random)),
        _ => {
            let from = random.index(other.len());
            let end = other.len().min(from + random.index(64) + 1);
            bytes.splice(at..to, other[from..end].iter().copied());
        }
    }
}

fn byte(random: &mut Random) -> u8 {
    u8::try_from(random.below(256)).unwrap()
}
