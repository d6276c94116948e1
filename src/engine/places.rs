//! Places of the flight recorder, handed out by the writer.
//!
//! A place is used again only when the settle of its claim is synced: until then a crash must still
//! be able to read what it says.

#[derive(Debug, Default)]
pub(crate) struct Places {
    free: Vec<u32>,
    used: u32,
}

impl Places {
    pub(crate) fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.used += 1;
            self.used - 1
        })
    }

    /// Gives a place back, after the sync.
    pub(crate) fn give_back(&mut self, place: u32) {
        self.free.push(place);
    }
}
