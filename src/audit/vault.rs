//! An archive in a bucket: one object for each segment, and one for the heads over it, so that no object is ever changed.
//!
//! ```text
//! PREFIX/log-00000000000000000000.jsonl.gz     a segment as gzip, as in a folder
//! PREFIX/heads-00000000000000000000.gz         the heads that sign something in it, and nothing after it
//! ```
//!
//! All heads one after the other are the file `heads` of an archive in a folder: `zcat heads-*.gz > heads`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use bytes::{Buf, Bytes};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::archive::{Archived, bring_all, is_same, put, unwritable};
use super::archiving::{Closed, Shelf, own_heads};
use super::point::unreadable;
use super::{heads, segment};
use crate::bucket::{Bucket, Made};
use crate::crash_point;
use crate::error::{Error, Kind, Result};
use crate::types::PublicKey;

/// What gzip may add to what cannot be compressed.
const SLACK: usize = 1024 * 1024;
/// The most bytes of an object of ours.
const MAX_OBJECT: u64 = 1024 * 1024 * 1024;

/// A bucket as an archive.
#[derive(Debug)]
pub(super) struct Vault(pub(super) Bucket);

fn heads_name(first: u64) -> String {
    format!("heads-{first:020}.gz")
}

impl Vault {
    /// Puts an object where there is none; and finds that what is there is that, or as good as that, whoever put it. `plain` is how many
    /// bytes it has unpacked.
    fn store(&mut self, name: &str, packed: Vec<u8>, plain: u64, same: impl Fn(&[u8]) -> Result<bool>) -> Result<()> {
        let packed = Bytes::from(packed);
        crash_point!("archive.before_put");
        let made = self.0.make(name, packed.clone())?;
        crash_point!("archive.put");
        // A store that says yes may have kept something else.
        let there = self.0.get(name, most(plain))?.ok_or_else(|| self.other(name, "was made and is not there"))?;
        match made {
            Made::New if there != packed => Err(self.other(name, "is not what was put there")),
            Made::Taken if !same(&there)? => Err(self.other(name, "is there with another content")),
            Made::New | Made::Taken => Ok(()),
        }
    }

    /// All objects that look like ours: segments, and heads.
    fn objects(&mut self) -> Result<Listed> {
        let mut listed = Listed::default();
        for object in self.0.list()? {
            let number = |prefix: &str, suffix: &str| -> Option<u64> {
                object.name.strip_prefix(prefix)?.strip_suffix(suffix)?.parse().ok()
            };
            let (of_log, of_heads) = (number("log-", ".jsonl.gz"), number("heads-", ".gz"));
            match (of_log, of_heads) {
                (Some(first), _) if segment::packed_name(first) == object.name => {
                    listed.segments.push((first, object.size))
                }
                (_, Some(first)) if heads_name(first) == object.name => listed.heads.push((first, object.size)),
                (_, _) => return Err(self.other(&object.name, "does not belong in it")),
            }
        }
        Ok(listed)
    }
}

/// The objects of an archive: first records and bytes, in order.
#[derive(Debug, Default)]
struct Listed {
    segments: Vec<(u64, u64)>,
    heads: Vec<(u64, u64)>,
}

impl Shelf for Vault {
    fn segments(&mut self) -> Result<Vec<u64>> {
        let Listed { segments, heads } = self.objects()?;
        let signed = |first: &u64| heads.binary_search_by_key(first, |(first, _)| *first).is_ok();
        // One without its heads was being brought when somebody died.
        Ok(segments.into_iter().map(|(first, _)| first).filter(signed).collect())
    }

    fn compare(&mut self, log: &Path, closed: &Closed) -> Result<()> {
        let name = segment::packed_name(closed.first);
        let plain = fs::metadata(segment::path(log, closed.first)).map_err(|e| unreadable(&name, e))?.len();
        if !is_same(log, closed.first, self.open(closed.first, plain)?)? {
            return Err(self.other(&name, "is not the segment of the log"));
        }
        self.check_heads(log, closed)
    }

    fn open(&mut self, first: u64, plain: u64) -> Result<Box<dyn Read + Send>> {
        let name = segment::packed_name(first);
        let there = self.0.get(&name, most(plain))?.ok_or_else(|| self.other(&name, "is gone"))?;
        Ok(Box::new(MultiGzDecoder::new(there.reader())))
    }

    fn check_heads(&mut self, log: &Path, closed: &Closed) -> Result<()> {
        let (name, own) = (heads_name(closed.first), own_heads(log, closed)?);
        let there = self.0.get(&name, most(own.len() as u64))?.ok_or_else(|| self.other(&name, "is gone"))?;
        if unpacked(&there, own.len()) == Some(own) {
            Ok(())
        } else {
            Err(self.other(&name, "does not hold the heads of the log"))
        }
    }

    fn bring(&mut self, log: &Path, closed: &Closed) -> Result<()> {
        let path = segment::path(log, closed.first);
        let refused = |e| unreadable(path.display(), e);
        let plain = File::open(&path).map_err(refused)?;
        let length = plain.metadata().map_err(refused)?.len();
        let packed = pack(plain).map_err(refused)?;
        self.store(&segment::packed_name(closed.first), packed, length, |there| {
            is_same(log, closed.first, MultiGzDecoder::new(there))
        })?;
        let own = own_heads(log, closed)?;
        let packed = pack(&own[..]).map_err(|e| Error::internal(format!("compressing heads: {e}")))?;
        let same = |there: &[u8]| Ok(unpacked(there, own.len()).as_ref() == Some(&own));
        self.store(&heads_name(closed.first), packed, own.len() as u64, same)
    }

    fn bytes(&mut self) -> Result<u64> {
        Ok(self.objects()?.segments.iter().map(|(_, size)| size).sum())
    }

    fn other(&self, file: &str, what: &str) -> Error {
        Error::new(Kind::Tampered, format!("the archive in {} is not of this log: {file} {what}", self.0.shown()))
            .hint("it was changed, cut short, or is another log's: `signet audit verify` tells; nothing there was written over")
    }
}

fn pack(mut plain: impl Read) -> io::Result<Vec<u8>> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    io::copy(&mut plain, &mut packed)?;
    packed.finish()
}

/// The most bytes that so many have once they are packed.
fn most(plain: u64) -> usize {
    usize::try_from(plain).unwrap_or(usize::MAX).saturating_add(SLACK)
}

/// What is packed, where it has so many bytes.
fn unpacked(packed: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(length);
    MultiGzDecoder::new(packed).take(length as u64 + 1).read_to_end(&mut plain).ok()?;
    (plain.len() == length).then_some(plain)
}

/// Brings the closed segments of the log in `folder` to a bucket. What is there is compared with the log, all of it, and never written over.
/// With keys the signatures of the heads are checked.
///
/// # Errors
/// As [`super::archive()`].
pub fn archive_in_bucket<'k>(
    folder: &Path,
    bucket: Bucket,
    keys: impl IntoIterator<Item = &'k PublicKey>,
) -> Result<Archived> {
    bring_all(folder, &mut Vault(bucket), keys)
}

/// Brings an archive from a bucket into the folder `to`, which must be there: as [`super::archive()`] makes one. What is there already
/// with the same size is left, so that it can be repeated. How many segments are there now.
///
/// # Errors
/// [`Kind::NotFound`] where there is no archive; [`Kind::Tampered`] for what does not belong in one; [`Kind::Unavailable`] where the store
/// or the disk refuses.
pub fn fetch(bucket: Bucket, to: &Path) -> Result<u64> {
    let mut vault = Vault(bucket);
    let Listed { segments, heads } = vault.objects()?;
    if segments.is_empty() {
        return Err(Error::new(Kind::NotFound, format!("there is no archive in {}", vault.0.shown())));
    }
    let mut bring = |name: &str, size: u64| -> Result<Bytes> {
        if size > MAX_OBJECT {
            return Err(vault.other(name, "is far too long"));
        }
        let there = vault.0.get(name, usize::try_from(size).unwrap_or(usize::MAX))?;
        there.ok_or_else(|| vault.other(name, "is gone"))
    };
    for (first, size) in &segments {
        let name = segment::packed_name(*first);
        if fs::metadata(to.join(&name)).is_ok_and(|there| there.len() == *size) {
            continue;
        }
        let bytes = bring(&name, *size)?;
        put(to, &name, |file| file.write_all(&bytes), |_| Ok(()))?;
    }
    let part = tempfile::NamedTempFile::new_in(to).map_err(|e| unwritable(to, &e))?;
    for (first, size) in &heads {
        let name = heads_name(*first);
        let bytes = bring(&name, *size)?;
        let mut plain = MultiGzDecoder::new(&bytes[..]).take(MAX_OBJECT);
        let unreadable = |e| Error::new(Kind::DoesNotOpen, format!("{name} cannot be unpacked: {e}"));
        io::copy(&mut plain, &mut part.as_file()).map_err(unreadable)?;
    }
    part.persist(to.join(heads::NAME)).map_err(|e| unwritable(to, &e.error))?;
    Ok(segments.len() as u64)
}
