//! The insides of the engine, for the crash lab (`tests/lab`, `tests/powercut`, `fuzz`).
//!
//! Feature `lab`; no part of what the crate promises. Here is only what has to be inside to be reached: a
//! machine that can be stepped, crashed and opened again. What a right engine does is told by the lab's own
//! model, which shares no code with the engine.

mod disk;
pub mod fuzz;
mod machine;
mod words;

pub use crate::fault::{Bug, Point};
pub use crate::journal::lab as journal;
pub use disk::{Damage, Fate, Trouble};
pub use machine::{Held, Loss, Machine, Setting};
pub use words::{Answer, Call, End, Refusal, Seen, Told, When, Wish};
