//! The open files of a log, in the hands of its writer.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::log::Settings;
use super::point::{self, Point, tampered};
use super::pruned::{self, Pruned};
use super::queue::{Extent, Failure, Group, Signed};
use super::segment::{self, Stamp};
use super::{heads, open, tiles};
use crate::error::Result;
use crate::types::PublicKey;

/// The files, each with how it was left.
#[derive(Debug)]
pub(super) struct Files {
    settings: Settings,
    key: Option<PublicKey>,
    current: Watched,
    closed: Vec<Watched>,
    heads: Watched,
    /// What says where the log begins, where something was pruned.
    pruned: Option<Watched>,
    /// Where that is.
    begin: Point,
    /// All that is durable.
    point: Point,
    signed: Option<Signed>,
    /// Locked as long as it is open.
    lock: File,
}

/// A file of ours and how we left it.
#[derive(Debug)]
pub(super) struct Watched {
    file: Option<File>,
    path: PathBuf,
    stamp: Stamp,
}

impl Watched {
    /// A file that is written to.
    pub(super) fn open(file: File, path: PathBuf) -> io::Result<Self> {
        Ok(Self { stamp: Stamp::of(&file)?, file: Some(file), path })
    }

    /// A file that nobody writes to any more.
    pub(super) fn closed(path: PathBuf) -> io::Result<Self> {
        Ok(Self { stamp: Stamp::at(&path)?, file: None, path })
    }

    /// Its bytes, as we left it.
    pub(super) const fn length(&self) -> u64 {
        self.stamp.length()
    }

    /// As one that nobody writes to any more.
    pub(super) fn put_away(mut self) -> Self {
        self.file = None;
        self
    }

    /// Whether it is as we left it.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match self.stamp.difference(&self.path) {
            None => Ok(()),
            Some(difference) => {
                let name = self.path.file_name().unwrap_or_default().to_string_lossy();
                Err(Failure::from(&tampered(format!("{name} {difference}"))))
            }
        }
    }

    /// Writes at the end, which is at `offset`, and syncs. After an error that does not last, the file is as before.
    pub(super) fn append(&mut self, bytes: &[u8], offset: u64) -> Result<(), Failure> {
        let broken = |e: io::Error| Failure::broken("the audit log could not be written", &e);
        let Some(file) = &self.file else { return Err(broken(ErrorKind::NotFound.into())) };
        match file.write_all_at(bytes, offset) {
            Ok(()) => file.sync_data().map_err(broken)?,
            Err(e) if matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                // Only what was never acknowledged lies beyond: cut it off, so that the next record finds the end clean.
                file.set_len(offset).map_err(broken)?;
                self.stamp = Stamp::of(file).map_err(broken)?;
                return Err(Failure::full(&e));
            }
            Err(e) => return Err(broken(e)),
        }
        self.stamp = Stamp::of(file).map_err(broken)?;
        Ok(())
    }
}

/// What [`Files::new`] is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) lock: File,
    pub(super) current: Watched,
    pub(super) closed: Vec<Watched>,
    pub(super) heads: Watched,
    pub(super) pruned: Option<Watched>,
    pub(super) begin: Point,
    pub(super) point: Point,
    pub(super) signed: Option<Signed>,
}

impl Files {
    pub(super) fn new(settings: &Settings, key: Option<&PublicKey>, parts: Parts) -> Self {
        let Parts { lock, current, closed, heads, pruned, begin, point, signed } = parts;
        let (settings, key) = (settings.clone(), key.cloned());
        Self { settings, key, current, closed, heads, pruned, begin, point, signed, lock }
    }

    /// Opens the files again, after a failure: as at a start, and only where they hold, byte for byte, all that was
    /// acknowledged. Answers what it mended.
    ///
    /// # Errors
    /// Those of a start; [`Kind::Tampered`] where something that was acknowledged is missing or another. Then nothing changed.
    pub(super) fn reopen(&mut self) -> Result<Vec<String>> {
        let folder = &self.settings.folder;
        // Compared before anything is written, and with what this process knows: not even the last record may be lost.
        point::reread(folder, &self.begin, &self.point, |_| ())?;
        tiles::hold_below(folder, &self.begin)?;
        if let Some(Signed { head, .. }) = &self.signed
            && !heads::holds(folder, head.size(), head.root())?
        {
            return Err(tampered(format!("heads does not hold the head of {} records", head.size())));
        }
        let lock = open::lock_again(folder, &self.lock)?;
        let (opened, mended) = open::open_locked(&self.settings, self.key.as_ref(), lock)?;
        if opened.point.size() < self.point.size() {
            return Err(tampered(format!("it ends after {} of {} records", opened.point.size(), self.point.size())));
        }
        *self = opened;
        Ok(mended)
    }

    /// All that is durable.
    pub(super) fn point(&self) -> Point {
        self.point.clone()
    }

    /// The bytes of the heads that are durable.
    pub(super) const fn head_bytes(&self) -> u64 {
        self.heads.length()
    }

    /// What the files hold.
    pub(super) fn extent(&self) -> Extent {
        Extent { begin: self.begin(), durable: self.point(), signed: self.signed(), head_bytes: self.head_bytes() }
    }

    /// Where the log begins.
    pub(super) fn begin(&self) -> Point {
        self.begin.clone()
    }

    /// The last head.
    pub(super) fn signed(&self) -> Option<Signed> {
        self.signed.clone()
    }

    /// Makes a group of records durable: one write, one sync.
    pub(super) fn append(&mut self, group: &Group) -> Result<(), Failure> {
        self.current.check()?;
        if self.point.offset >= self.settings.segment_bytes {
            self.rotate()?;
        }
        let mut frontier = self.point.frontier.clone();
        for entry in &group.entries {
            frontier.push(entry.leaf);
        }
        self.current.append(&group.bytes, self.point.offset)?;
        self.point.offset += group.bytes.len() as u64;
        self.point.frontier = frontier;
        Ok(())
    }

    /// Goes on in a new segment. The old one is durable already: each group was synced.
    fn rotate(&mut self) -> Result<(), Failure> {
        let next = self.point.rotated();
        let path = segment::path(&self.settings.folder, next.segment);
        let file = match create(&path).and_then(|file| sync_folder(&self.settings.folder).map(|()| file)) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                return Err(Failure::from(&tampered(format!("{} is there already", segment::name(next.segment)))));
            }
            Err(e) if matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                // Whether or not it came to be, an empty segment must not stand in the way of the next try.
                return match fs::remove_file(&path) {
                    Err(left) if left.kind() != ErrorKind::NotFound => {
                        Err(Failure::broken("the audit log cannot start a new segment", &left))
                    }
                    Ok(()) | Err(_) => Err(Failure::full(&e)),
                };
            }
            Err(e) => return Err(Failure::broken("the audit log cannot start a new segment", &e)),
        };
        let current =
            Watched::open(file, path).map_err(|e| Failure::broken("the audit log cannot start a new segment", &e))?;
        self.closed.push(std::mem::replace(&mut self.current, current).put_away());
        self.point = next;
        Ok(())
    }

    /// Makes a head durable, unless one as recent is: who stored that had not waited for the answer.
    pub(super) fn keep(&mut self, signed: &Signed) -> Result<(), Failure> {
        self.heads.check()?;
        let Signed { head, point } = signed;
        if self.signed.as_ref().is_some_and(|last| last.head.size() >= head.size()) {
            return Ok(());
        }
        let entry = heads::Entry { head: head.clone(), log_bytes: point.log_bytes(), frontier: point.frontier.clone() };
        let end = self.heads.stamp.length();
        self.heads.append(&entry.encode(), end)?;
        self.signed = Some(signed.clone());
        Ok(())
    }

    /// Begins the log behind what is pruned, and says which segments are to be removed now: nobody reads them from here on.
    pub(super) fn prune(&mut self, pruned: &Pruned) -> Result<Vec<PathBuf>, Failure> {
        self.check()?;
        let (folder, begin) = (&self.settings.folder, pruned.point());
        let covered = self.signed.as_ref().is_some_and(|signed| signed.head.size() >= pruned.head());
        if begin.size() <= self.begin.size() || !covered {
            return Err(Failure::unpruned(&ErrorKind::InvalidInput.into()));
        }
        let written = pruned.write(folder);
        let there = pruned::begin(folder).is_ok_and(|there| there == begin);
        if there {
            let path = folder.join(pruned::NAME);
            self.pruned = Some(Watched::closed(path).map_err(|e| Failure::unpruned(&e))?);
            self.begin = begin;
        }
        written.map_err(|e| Failure::unpruned(&e))?;
        // The names are of one length, so that paths are in the order of their first records.
        let first = segment::path(&self.settings.folder, self.begin.segment);
        let (gone, kept) = std::mem::take(&mut self.closed).into_iter().partition(|closed| closed.path < first);
        self.closed = kept;
        let gone: Vec<Watched> = gone;
        Ok(gone.into_iter().map(|closed| closed.path).collect())
    }

    /// Whether all files are as we left them.
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.current.check()?;
        self.heads.check()?;
        match &self.pruned {
            Some(pruned) => pruned.check()?,
            None if self.settings.folder.join(pruned::NAME).exists() => {
                return Err(Failure::from(&tampered("pruned is there, and nothing was")));
            }
            None => {}
        }
        self.closed.iter().try_for_each(Watched::check)
    }
}

/// Makes a file that must not be there yet, and can be read by its group.
pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o640).open(path)
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
