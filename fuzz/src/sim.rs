//! The part of the crash lab that simulates lives.

#[path = "../../tests/lab/sim/life/mod.rs"]
mod life;
#[path = "../../tests/lab/sim/model/mod.rs"]
mod model;
#[path = "../../tests/lab/sim/swarm.rs"]
mod swarm;

pub(crate) use life::Life;
