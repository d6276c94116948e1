//! A disk as a log leaves it at some moment: what is durable, and what a power cut may still take.
//!
//! Contents and names are kept apart. A sync of a file makes its content and length durable. Names
//! follow one of two models, [`Naming`].

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use jobsled::lab::journal::Random;

use crate::image::{Keep, Mode, Odds};
use crate::log::Record;

/// What survives of un-synced creations, renames and removals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// They become durable in their order, all of them with any `fsync`, and with an `fdatasync` that
    /// has a new length to store; the first few of the rest survive. The journal of ext4 or xfs.
    Ordered,
    /// They become durable only with a sync of their directory; of the rest each survives or not by
    /// itself. All that POSIX promises, and less than any file system in use.
    Loose,
}

impl Naming {
    pub(crate) const ALL: [Naming; 2] = [Naming::Ordered, Naming::Loose];
}

/// A name: the directory's inode, and the name in it.
type Entry = (u64, String);
type Names = BTreeMap<Entry, u64>;

/// An un-synced change of names.
#[derive(Clone, Debug)]
struct NameChange {
    inode: u64,
    from: Option<Entry>,
    to: Option<Entry>,
}

impl NameChange {
    fn apply(&self, names: &mut Names) {
        if let Some(from) = &self.from
            && names.get(from) == Some(&self.inode)
        {
            names.remove(from);
        }
        if let Some(to) = &self.to {
            names.insert(to.clone(), self.inode);
        }
    }

    fn directory(&self) -> Option<u64> {
        self.from
            .as_ref()
            .or(self.to.as_ref())
            .map(|(directory, _)| *directory)
    }
}

/// Durable names and the changes since, under one model.
#[derive(Clone, Debug, Default)]
struct Directory {
    durable: Names,
    pending: Vec<NameChange>,
}

impl Directory {
    fn sync(&mut self, is_synced: impl Fn(&NameChange) -> bool) {
        let durable = &mut self.durable;
        self.pending.retain(|change| {
            let synced = is_synced(change);
            if synced {
                change.apply(durable);
            }
            !synced
        });
    }

    fn survivors(&self, mut survives: impl FnMut() -> bool) -> Names {
        let mut names = self.durable.clone();
        self.pending
            .iter()
            .filter(|_| survives())
            .for_each(|change| change.apply(&mut names));
        names
    }
}

/// An un-synced change of a file's content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change<'a> {
    /// Its place in the order of all changes to all files.
    pub(crate) number: u64,
    pub(crate) kind: ChangeKind<'a>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum ChangeKind<'a> {
    Write { offset: u64, bytes: &'a [u8] },
    Truncate { len: u64 },
}

#[derive(Clone, Debug, Default)]
pub(crate) struct File<'a> {
    pub(crate) durable: Vec<u8>,
    pub(crate) pending: Vec<Change<'a>>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk<'a> {
    /// What the recorded paths begin with.
    root_path: String,
    root: u64,
    /// Names as the process sees them.
    names: Names,
    ordered: Directory,
    loose: Directory,
    /// Only regular files.
    files: HashMap<u64, File<'a>>,
    changes: u64,
}

impl<'a> Disk<'a> {
    /// The disk as it is now, all durable.
    pub(crate) fn read(root: &Path) -> Disk<'a> {
        let root_inode = fs::metadata(root).unwrap().ino();
        let mut disk = Disk {
            root: root_inode,
            ..Disk::default()
        };
        disk.read_directory(root, root_inode);
        disk.ordered.durable.clone_from(&disk.names);
        disk.loose.durable.clone_from(&disk.names);
        disk
    }

    fn read_directory(&mut self, path: &Path, inode: u64) {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let child = entry.metadata().unwrap();
            if !child.is_file() && !child.is_dir() {
                // A socket: no power cut leaves one that anybody would miss.
                continue;
            }
            let name = entry.file_name().into_string().expect("our names are text");
            self.names.insert((inode, name), child.ino());
            if child.is_dir() {
                self.read_directory(&entry.path(), child.ino());
            } else {
                let durable = fs::read(entry.path()).unwrap();
                self.files.insert(
                    child.ino(),
                    File {
                        durable,
                        pending: Vec::new(),
                    },
                );
            }
        }
    }

    /// Goes on by one record.
    pub(crate) fn apply(&mut self, record: &Record<'a>) {
        match *record {
            Record::Root { inode, path } => {
                self.root = inode;
                path.clone_into(&mut self.root_path);
            }
            Record::Write {
                inode,
                offset,
                bytes,
            } => {
                self.change(inode, ChangeKind::Write { offset, bytes });
            }
            Record::Truncate { inode, len } => self.change(inode, ChangeKind::Truncate { len }),
            Record::Sync { inode, data_only } => self.sync(inode, data_only),
            Record::CreateFile { inode, path } => {
                self.files.insert(inode, File::default());
                self.rename(NameChange {
                    inode,
                    from: None,
                    to: Some(self.entry(path)),
                });
            }
            Record::CreateDir { inode, path } => {
                self.rename(NameChange {
                    inode,
                    from: None,
                    to: Some(self.entry(path)),
                });
            }
            Record::Rename { from, to } => {
                let (from, to) = (self.entry(from), self.entry(to));
                assert_eq!(from.0, to.0, "names move within their directory");
                let inode = self.names[&from];
                self.rename(NameChange {
                    inode,
                    from: Some(from),
                    to: Some(to),
                });
            }
            Record::Remove { path } => {
                let from = self.entry(path);
                // A socket is made by a call that is not recorded.
                if let Some(&inode) = self.names.get(&from) {
                    self.rename(NameChange {
                        inode,
                        from: Some(from),
                        to: None,
                    });
                }
            }
            Record::Mark { .. } => {}
        }
    }

    fn entry(&self, path: &str) -> Entry {
        let below = path
            .strip_prefix(&self.root_path)
            .expect("only what is below was recorded");
        let mut directory = self.root;
        let mut names = below.split('/').filter(|name| !name.is_empty()).peekable();
        while let Some(name) = names.next() {
            let entry = (directory, name.to_owned());
            if names.peek().is_none() {
                return entry;
            }
            directory = self.names[&entry];
        }
        panic!("{path} names the root");
    }

    fn change(&mut self, inode: u64, kind: ChangeKind<'a>) {
        self.changes += 1;
        let number = self.changes;
        let file = self
            .files
            .get_mut(&inode)
            .expect("the file was seen when it was made");
        file.pending.push(Change { number, kind });
    }

    fn rename(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.ordered.pending.push(change.clone());
        self.loose.pending.push(change);
    }

    fn sync(&mut self, inode: u64, data_only: bool) {
        let mut commits_names = !data_only;
        if let Some(file) = self.files.get_mut(&inode) {
            let len = file.durable.len();
            for change in std::mem::take(&mut file.pending) {
                change.apply(&mut file.durable);
            }
            commits_names |= file.durable.len() != len;
        } else {
            self.loose.sync(|change| change.directory() == Some(inode));
            self.forget_unreachable();
        }
        if commits_names {
            self.ordered.sync(|_| true);
        }
    }

    /// Drops the content of files that no cut can bring back.
    fn forget_unreachable(&mut self) {
        let durable = [&self.names, &self.ordered.durable, &self.loose.durable];
        let pending = self.ordered.pending.iter().chain(&self.loose.pending);
        let mut reachable: HashSet<u64> = pending.map(|change| change.inode).collect();
        reachable.extend(durable.iter().flat_map(|names| names.values()));
        self.files.retain(|inode, _| reachable.contains(inode));
    }

    /// Bytes that are not synced, but for the witness: its marks never are, as a rule, and would only pile up here.
    pub(crate) fn unsynced(&self) -> u64 {
        let witness =
            |((_, name), inode): (&(u64, String), &u64)| (name == "witness").then_some(*inode);
        let witnesses: Vec<u64> = self.names.iter().filter_map(witness).collect();
        let files = self
            .files
            .iter()
            .filter(|(inode, _)| !witnesses.contains(inode));
        let changes = files.flat_map(|(_, file)| &file.pending);
        changes.map(Change::volume).sum()
    }

    /// Writes a state in which a power cut may leave the disk into an empty directory.
    pub(crate) fn write_image(&self, mode: Mode, naming: Naming, random: &mut Random, to: &Path) {
        let names = match naming {
            Naming::Ordered => {
                let mut left = random.between(0, self.ordered.pending.len() as u64);
                self.ordered.survivors(|| {
                    let survives = left > 0;
                    left = left.saturating_sub(1);
                    survives
                })
            }
            Naming::Loose => {
                let odds = Odds::any(random);
                self.loose.survivors(|| odds.come_true(random))
            }
        };
        let pick = self.pick(random);
        let mut keep = Keep {
            mode,
            pick,
            odds: Odds::any(random),
            random,
        };
        self.write_directory(&names, self.root, to, &mut |file| keep.content(file));
    }

    /// One of the un-synced changes.
    fn pick(&self, random: &mut Random) -> u64 {
        let changes = self.files.values().flat_map(|file| &file.pending);
        let mut numbers: Vec<u64> = changes.map(|change| change.number).collect();
        numbers.sort_unstable();
        let Some(last) = numbers.len().checked_sub(1) else {
            return 0;
        };
        numbers[usize::try_from(random.between(0, last as u64)).unwrap()]
    }

    fn write_directory(
        &self,
        names: &Names,
        directory: u64,
        path: &Path,
        content: &mut dyn for<'f> FnMut(&'f File<'a>) -> Cow<'f, [u8]>,
    ) {
        let first = (directory, String::new());
        for ((_, name), inode) in names
            .range(first..)
            .take_while(|((d, _), _)| *d == directory)
        {
            let path = path.join(name);
            if let Some(file) = self.files.get(inode) {
                write_sparse(&path, &content(file)).unwrap();
            } else {
                fs::create_dir(&path).unwrap();
                self.write_directory(names, *inode, &path, content);
            }
        }
    }

    /// Asserts that the records alone gave what is really there: nothing went past the recorder.
    pub(crate) fn assert_equals(&self, root: &Path) {
        let found = Disk::read(root);
        assert_eq!(
            self.names, found.names,
            "names that the log gives, and those on disk"
        );
        for inode in self.names.values() {
            let Some(file) = self.files.get(inode) else {
                continue;
            };
            let mut content = file.durable.clone();
            file.pending
                .iter()
                .for_each(|change| change.apply(&mut content));
            assert!(
                content == found.files[inode].durable,
                "inode {inode}: the log misses a write"
            );
        }
    }
}

impl Change<'_> {
    pub(crate) fn apply(&self, content: &mut Vec<u8>) {
        match self.kind {
            ChangeKind::Write { offset, bytes } => put(content, offset, bytes),
            ChangeKind::Truncate { len } => content.resize(usize::try_from(len).unwrap(), 0),
        }
    }

    fn volume(&self) -> u64 {
        match self.kind {
            ChangeKind::Write { bytes, .. } => bytes.len() as u64,
            ChangeKind::Truncate { .. } => 0,
        }
    }
}

/// Leaves holes where a whole page is zero: much of a store is.
fn write_sparse(path: &Path, content: &[u8]) -> std::io::Result<()> {
    const PAGE: usize = 4096;
    static ZEROES: [u8; PAGE] = [0; PAGE];
    let file = fs::File::create(path)?;
    file.set_len(content.len() as u64)?;
    let mut at = 0;
    let is_hole = |page: &&[u8]| **page == ZEROES[..page.len()];
    // Runs of pages of one sort.
    while at < content.len() {
        let rest = &content[at..];
        let holes = rest.chunks(PAGE).take_while(is_hole).map(<[u8]>::len).sum();
        at += holes;
        let rest = &rest[holes..];
        let full = rest.chunks(PAGE).take_while(|page| !is_hole(page));
        let full: usize = full.map(<[u8]>::len).sum();
        file.write_all_at(&rest[..full], at as u64)?;
        at += full;
    }
    Ok(())
}

pub(crate) fn put(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let from = usize::try_from(offset).unwrap();
    let to = from + bytes.len();
    if content.len() < to {
        content.resize(to, 0);
    }
    content[from..to].copy_from_slice(bytes);
}
