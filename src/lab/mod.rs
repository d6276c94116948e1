//! The insides of the engine, for the crash lab (`tests/lab`, `tests/powercut`, `fuzz`).
//!
//! Feature `lab`; no part of what the crate promises. Here is only what has to be inside to be reached: what a
//! right engine does is told by the lab's own model, which shares no code with the engine.

pub use crate::fault::{Bug, Point};
pub use crate::journal::lab as journal;
