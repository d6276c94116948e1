//! Payloads of other forms: older versions, JSON, another kind.

use std::time::Duration;

use jobsled::{Engine, Error, Finished, job, rkyv};
use serde_json::json;

const MINUTE: Duration = Duration::from_mins(1);

mod first_release {
    use super::{job, rkyv};

    #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    pub(super) struct Add {
        pub(super) a: u8,
    }
    job!(Add, kind = "add", output = u32);
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, serde::Deserialize)]
struct Add {
    a: u32,
    b: u32,
}
job!(Add, kind = "add", version = 2, output = u32);

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Other;
job!(Other, kind = "other");

/// Claims by hand once knew neither upgrades nor JSON, and both had to be registered after a handler, which
/// a program with its own threads does not have.
#[test]
fn a_claim_converts_as_a_handler_does() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::builder(dir.path().join("store"))
        .upgrade(1, |old: first_release::Add| Add {
            a: old.a.into(),
            b: 1,
        })
        .accept_json::<Add>()
        .open()
        .unwrap();
    let old = engine.enqueue(first_release::Add { a: 41 }).unwrap();
    let as_json = engine.json("add", &json!({"a": 2, "b": 3}));
    let as_json = as_json.enqueue().unwrap().into_handle();
    for _ in 0..2 {
        let claim = engine.claim::<Add>("default", MINUTE).unwrap().unwrap();
        let job = claim.job().unwrap();
        assert!(claim.complete(&(job.a + job.b)).unwrap());
    }
    assert_eq!(old.wait().unwrap(), Finished::Completed(42));
    assert_eq!(as_json.wait().unwrap(), Finished::Completed(json!(5)));
}

#[test]
fn a_claim_that_nothing_converts_says_what_to_register() {
    let engine = Engine::in_memory().open().unwrap();
    engine.enqueue(first_release::Add { a: 41 }).unwrap();
    let claim = engine.claim::<Add>("default", MINUTE).unwrap().unwrap();
    let Err(Error::Payload { kind, reason, .. }) = claim.job() else {
        panic!("decoded as what it is not");
    };
    assert_eq!(kind, "add");
    assert!(
        reason.contains("version 1") && reason.contains("`upgrade`"),
        "{reason}"
    );
}

/// Once gave a handle that read the output as another type's.
#[test]
fn a_handle_of_another_kind_is_refused() {
    let engine = Engine::in_memory().open().unwrap();
    let id = engine.enqueue(Other).unwrap().id();
    assert!(engine.handle::<Other>(id).unwrap().is_some());
    let Err(Error::Invalid { found, rule, .. }) = engine.handle::<Add>(id) else {
        panic!("a handle to another kind");
    };
    assert!(
        found.contains("`add`") && rule.contains("`other`"),
        "{found} {rule}"
    );
}

/// Completing from outside once took an output of any kind, and kept it in another encoding than the job's.
#[test]
fn completing_from_outside_keeps_to_the_job() {
    let engine = Engine::in_memory().accept_json::<Add>().open().unwrap();
    let job = engine.json("add", &json!({"a": 2, "b": 3}));
    let job = job.enqueue().unwrap().into_handle();
    let refused = engine.change(job.id()).complete::<Other>(&());
    assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    engine.change(job.id()).complete::<Add>(&5).unwrap();
    assert_eq!(job.wait().unwrap(), Finished::Completed(json!(5)));
}
