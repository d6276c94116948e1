//! The hands.
mod recorder;
