//! The log as the service uses it.
//!
//! ```text
//! folder/
//!   lock                                one writer at a time
//!   log-00000000000000000000.jsonl      the records: see `segment`
//!   log-00000000000000140212.jsonl
//!   heads                               the signed heads: see `heads`
//!   tiles-0 …                           hashes of the tree, derived: see `tiles`
//!   pruned                              where the log begins, if not at its first record: see `pruned`
//! ```
//!
//! [`Log::append`] answers only when its record is durable. One thread writes; what arrives while it syncs is written
//! together next time, so the cost of a sync is shared by all who wait. Nothing waits for ever: a full queue is
//! [`Kind::Busy`], a disk that takes longer than the deadline is [`Kind::Unavailable`].
//!
//! After a failed write or sync everything is refused, because what a disk does with bytes after that is unknown; and once
//! somebody else's hand shows in the files, a file that is gone among them, with [`Kind::Tampered`]. That is over when the files
//! were opened again ([`Log::mend`], or a start), and only where they hold, byte for byte, all that was acknowledged. A full disk
//! needs none of that: what was not acknowledged is cut off again, and the next record is tried afresh.
//!
//! The folder must be on a local file system, and nobody else may write to it, not even a mode or a hard link: backups
//! read.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{Mutex, OwnedRwLockReadGuard, RwLock};
use tokio::time::{Instant, timeout_at};

use super::checkpoint::{Head, HeadSigner, Origin};
use super::files::Files;
use super::heads;
use super::merkle::{Frontier, Hash, leaf_hash};
use super::open;
use super::point::{self, Point};
use super::prune::Prune;
use super::pruned::{self, Pruned};
use super::queue::{Entry, Errand, Failure, News, Queue, Signed};
use super::read::Lined;
use super::receipt::Receipt;
use super::record::Record;
use super::sink::{Sink, SinkSettings, SinkStatus};
use super::tiles::{self, Tiles};
use super::tree::Tree;
use super::writer;
use crate::error::{Error, Kind, Result};
use crate::types::{PublicKey, blocking};

/// Where a log is and how it behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder, which holds this log and nothing else.
    pub folder: PathBuf,
    /// The name that its heads bear.
    pub origin: Origin,
    /// A segment that reached so many bytes is followed by a new one.
    pub segment_bytes: u64,
    /// So many records may wait; more are [`Kind::Busy`].
    pub queue: usize,
    /// The longest wait for the disk.
    pub deadline: Duration,
    /// Further places of the log.
    pub sinks: Vec<SinkSettings>,
    /// The Ed25519 key that signs its heads as well, where it has one.
    pub second_key: Option<SecondKey>,
}

/// The second key of a log.
#[derive(Clone, Debug)]
pub struct SecondKey {
    /// The key.
    pub public: PublicKey,
    /// Each head of more records bears its signature.
    pub since: u64,
}

impl Settings {
    /// The usual ones: segments of 64 MiB, 8,192 waiting records, 5 seconds.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>, origin: Origin) -> Self {
        Self {
            folder: folder.into(),
            origin,
            segment_bytes: 64 * 1024 * 1024,
            queue: 8192,
            deadline: Duration::from_secs(5),
            sinks: Vec::new(),
            second_key: None,
        }
    }
}

/// A log that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The log, ready for records.
    pub log: Log,
    /// The last signed head, whose signature was checked if a key was given: compare it with an anchor elsewhere.
    pub head: Option<Head>,
    /// What was mended, one sentence each.
    pub recovered: Vec<String>,
}

/// An open log. Share it in an [`Arc`]; dropping it waits for the records that are under way.
pub struct Log {
    settings: Settings,
    queue: Arc<Queue>,
    /// Held while a head is made, so that heads are made one after the other.
    signing: Arc<Mutex<()>>,
    /// Whether a change was made whose leaf is not here yet: nothing else is recorded before it is.
    owing: AtomicBool,
    shelf: Arc<Shelf>,
    /// Held by whoever needs the files to stay, and taken to remove some. Never waited for with another lock held.
    staying: Arc<RwLock<()>>,
    /// They end after the writer.
    sinks: Arc<[Sink]>,
}

/// The stored hashes, and up to which head they are there.
#[derive(Debug, Default)]
struct Shelf {
    /// Held while they are written, by one thread. None before they were looked at, and after an error.
    tiles: std::sync::Mutex<Option<Tiles>>,
    tree: ArcSwapOption<Tree>,
    /// Whether the log is closed: a long reading ends.
    closed: AtomicBool,
}

impl Log {
    /// Makes a new log in an empty or missing folder.
    ///
    /// # Errors
    /// [`Kind::Conflict`] where there is something already; [`Kind::Unavailable`] where the disk refuses.
    pub fn create(settings: Settings) -> Result<Self> {
        Self::start(settings, open::create)
    }

    /// Opens a log: checks its last head, reads everything after it, and cuts off a last line that was never finished.
    ///
    /// Without `trusted_key` the head's signature is not checked, only its root. What lies before the last head is checked
    /// by sizes; [`Self::scrub`] and [`super::verify()`] check every byte.
    ///
    /// # Errors
    /// [`Kind::Tampered`] where the log is gone or not what was written; [`Kind::Conflict`] where another process has it
    /// open; [`Kind::Unavailable`] where the disk refuses.
    pub fn open(settings: Settings, trusted_key: Option<&PublicKey>) -> Result<Opened> {
        let mut recovered = Vec::new();
        let log = Self::start(settings, |settings| {
            let (files, mended) = open::open(settings, trusted_key)?;
            recovered = mended;
            Ok(files)
        })?;
        Ok(Opened { head: log.last_head(), log, recovered })
    }

    fn start(settings: Settings, files: impl FnOnce(&Settings) -> Result<Files>) -> Result<Self> {
        let files = files(&settings)?;
        let queue = Arc::new(Queue::new(files.extent(), settings.queue, settings.deadline));
        writer::spawn(files, Arc::clone(&queue))?;
        let start = |sink: &SinkSettings| {
            let log = (settings.folder.clone(), settings.origin.clone());
            Sink::start(sink.clone(), log, Arc::clone(&queue), settings.deadline)
        };
        let sinks: Arc<[Sink]> = match settings.sinks.iter().map(start).collect() {
            Ok(sinks) => sinks,
            Err(error) => {
                queue.close();
                return Err(error);
            }
        };
        // What stands in the log and was never acknowledged, because a sink lacked it, is there before anything is built on it.
        sinks.iter().filter(|sink| sink.is_required()).for_each(Sink::catch_up);
        let (signing, owing, shelf, staying) = (Arc::default(), AtomicBool::new(false), Arc::default(), Arc::default());
        Ok(Self { settings, queue, signing, owing, shelf, staying, sinks })
    }

    /// Appends a record. The future ends with the record's index once its bytes are durable.
    ///
    /// The record is on its way when this returns: dropping the future gives up the answer, not the record. Likewise a
    /// record whose answer is [`Kind::Unavailable`] may still come to stand in the log. The future needs a Tokio runtime.
    ///
    /// # Errors
    /// [`Kind::Busy`] where too many wait; [`Kind::Unavailable`] where the disk is full, too slow or failed;
    /// [`Kind::Tampered`] where somebody else's hand was found; [`Kind::Limit`] for a record of more than 16 MiB.
    pub fn append(&self, record: &Record) -> impl Future<Output = Result<u64>> + Send + use<> {
        let answer = self.settled().map(|()| self.append_leaf(record));
        async move { answer?.await }
    }

    /// As [`Self::append`], for an answer that tells its caller of the record.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn append_for(&self, record: &Record) -> impl Future<Output = Result<Receipt>> + Send + use<> {
        let answer = self.settled().map(|()| self.enter(record));
        let (origin, shelf) = (self.settings.origin.clone(), Arc::clone(&self.shelf));
        async move {
            let (index, leaf) = answer?.await?;
            let head = shelf.tree.load().as_ref().map(|tree| (tree.head().size(), *tree.head().root()));
            Ok(Receipt { origin, index, leaf, head })
        }
    }

    /// As [`Self::append`], also while leaves are owed: for whoever owes them.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn append_leaf(&self, record: &Record) -> impl Future<Output = Result<u64>> + Send + use<> {
        let answer = self.enter(record);
        async move { answer.await.map(|(index, _)| index) }
    }

    /// The index and the leaf hash of a record, once it is durable.
    fn enter(&self, record: &Record) -> impl Future<Output = Result<(u64, Hash)>> + Send + use<> {
        let deadline = Instant::now() + self.settings.deadline;
        let answer = self.sinks_answer().and_then(|()| Entry::new(record)).and_then(|(entry, line, answer)| {
            let leaf = entry.leaf;
            self.queue.push(entry, &line)?;
            Ok((answer, leaf))
        });
        let sinks = Arc::clone(&self.sinks);
        async move {
            let (answer, leaf) = answer?;
            let index = match timeout_at(deadline, answer).await {
                Ok(Ok(answer)) => answer.map_err(Error::from)?,
                Ok(Err(_)) => return Err(Failure::ended().into()),
                Err(_) => return Err(Failure::slow().into()),
            };
            held(&sinks, index + 1, deadline).await?;
            Ok((index, leaf))
        }
    }

    /// Whether each sink that records wait for is at work.
    fn sinks_answer(&self) -> Result<()> {
        let mut required = self.sinks.iter().filter(|sink| sink.is_required());
        required.find_map(Sink::refusal).map_or(Ok(()), |failure| Err(failure.into()))
    }

    /// Waits until each sink that is required holds all that is durable now, at most for the deadline.
    ///
    /// # Errors
    /// That of the sink.
    pub async fn held(&self) -> Result<()> {
        self.sinks_answer()?;
        held(&self.sinks, self.size(), Instant::now() + self.settings.deadline).await
    }

    /// How the sinks stand.
    #[must_use]
    pub fn sinks(&self) -> Vec<SinkStatus> {
        self.sinks.iter().map(Sink::status).collect()
    }

    /// Says whether a change was made whose leaf could not be recorded. While it is, nothing else is, so that nothing is
    /// acknowledged that the log does not know.
    pub fn owe(&self, owing: bool) {
        self.owing.store(owing, Ordering::SeqCst);
    }

    fn settled(&self) -> Result<()> {
        if self.owing.load(Ordering::SeqCst) {
            return Err(Error::new(Kind::Unavailable, "a change waits to be recorded in the audit log or to be anchored")
                .hint("make room on the disk of the log, or bring back the device of the anchor: then the service goes on by itself"));
        }
        Ok(())
    }

    /// Looks whether the files are as they were left. Cheap: one look at each file's metadata.
    ///
    /// # Errors
    /// [`Kind::Tampered`] with the segment, from then on for every append; [`Kind::Unavailable`] where the log has failed
    /// or the disk does not answer.
    pub async fn inspect(&self) -> Result<()> {
        let deadline = Instant::now() + self.settings.deadline;
        let (errand, answer) = Errand::inspect();
        self.queue.send(errand)?;
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer.map_err(Failure::into),
            Ok(Err(_)) => Err(Failure::ended().into()),
            Err(_) => Err(Failure::slow().into()),
        }
    }

    /// Signs the log as it is now, and keeps the head; the last one again where nothing came since. Before, everything
    /// since the last head is read back from disk and compared.
    ///
    /// # Errors
    /// The signer's; [`Kind::Tampered`] where the files differ from what was written; [`Kind::Unavailable`] where the head
    /// cannot be stored.
    pub async fn sign_head(&self, signer: &dyn HeadSigner) -> Result<Head> {
        let _one = self.signing.lock().await;
        let (signed, now) = self.queue.points()?;
        if let Some(signed) = signed.as_ref().filter(|signed| signed.point.size() == now.size()) {
            return Ok(signed.head.clone());
        }
        let from = signed.map_or_else(|| self.begin(), |signed| signed.point);
        let before = from.size();
        let (now, leaves) = self.compare(from, now).await?;
        let head = Head::sign(&self.settings.origin, now.size(), &now.frontier.root(), signer).await?;

        let deadline = Instant::now() + self.settings.deadline;
        let (errand, answer) = Errand::keep(Signed { head: head.clone(), point: now });
        self.queue.send(errand)?;
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer.map_err(Error::from)?,
            Ok(Err(_)) => return Err(Failure::ended().into()),
            Err(_) => return Err(Failure::slow().into()),
        }
        let (shelf, folder, kept) = (Arc::clone(&self.shelf), self.settings.folder.clone(), head.clone());
        blocking(move || {
            shelf.add(&folder, before, &leaves, kept);
            Ok(())
        })
        .await?;
        Ok(head)
    }

    /// The tree below the newest head whose hashes are stored: what proofs and tiles are made of.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] where there is none yet.
    pub fn tree(&self) -> Result<Arc<Tree>> {
        self.shelf.tree.load_full().ok_or_else(|| {
            Error::new(Kind::Unavailable, "the hashes of the audit log are not stored yet")
                .hint("try again in a moment")
        })
    }

    /// What `make` makes of the tree. Where what is stored does not hold, the next [`Self::tend`] makes it anew.
    ///
    /// # Errors
    /// Those of `make`, and of [`Self::tree`].
    pub async fn with_tree<T: Send + 'static>(
        &self,
        make: impl FnOnce(&Tree) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let tree = self.tree()?;
        let (shelf, folder) = (Arc::clone(&self.shelf), self.settings.folder.clone());
        blocking(move || {
            let made = make(&tree);
            if made.as_ref().is_err_and(tiles::is_damage) {
                shelf.forget(&folder);
            }
            made
        })
        .await
    }

    /// Brings the stored hashes up to the last head where they are not: after a start, or where they were deleted or changed.
    /// Each second's own come by [`Self::sign_head`]. It may take long, ends with the log, and does nothing while another call
    /// does it.
    ///
    /// # Errors
    /// [`Kind::Tampered`] where the records do not hash to the last head, from then on for every append;
    /// [`Kind::Unavailable`] where the disk refuses.
    pub fn tend(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        let head = self.last_head().filter(|head| !self.shelf.reaches(head.size()));
        let (shelf, queue, folder) = (Arc::clone(&self.shelf), Arc::clone(&self.queue), self.settings.folder.clone());
        async move {
            let Some(head) = head else { return Ok(()) };
            blocking(move || {
                let grown = shelf.grow(&folder, head);
                if let Err(error) = &grown
                    && error.kind() == Kind::Tampered
                {
                    queue.condemn(Failure::from(error));
                }
                grown
            })
            .await
        }
    }

    /// Reads the whole log back from disk and compares it with what was written: slow, for the background.
    ///
    /// # Errors
    /// As [`Self::inspect`].
    pub async fn scrub(&self) -> Result<()> {
        let (_, now) = self.queue.points()?;
        let (folder, queue) = (self.settings.folder.clone(), Arc::clone(&self.queue));
        blocking(move || {
            loop {
                let begin = queue.begin();
                let held =
                    tiles::hold_below(&folder, &begin).and_then(|()| point::reread(&folder, &begin, &now, |_| ()));
                match held {
                    // What was missing may have been pruned meanwhile.
                    Err(_) if queue.begin() != begin => {}
                    Err(error) if error.kind() == Kind::Tampered => {
                        queue.condemn(Failure::from(&error));
                        return Err(error);
                    }
                    held => return held,
                }
            }
        })
        .await
    }

    /// Where the log begins.
    pub(super) fn begin(&self) -> Point {
        Point::clone(&self.queue.begin())
    }

    /// The first record that is there: those before were pruned.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.queue.begin().size()
    }

    /// Nothing is pruned as long as this is held.
    pub async fn stay(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.staying).read_owned().await
    }

    /// Removes what `prune` names, as record `act` says, which stands in the log and below its last head. On return it is gone; where
    /// a crash comes before, what is left of it goes with the next start.
    ///
    /// # Errors
    /// [`Kind::Busy`] while somebody needs the files to stay; [`Kind::Unavailable`] where the stored hashes do not reach that record, or
    /// the disk refuses.
    pub async fn prune(&self, prune: &Prune, act: u64) -> Result<()> {
        let staying = Arc::clone(&self.staying).try_write_owned();
        let _staying = staying.map_err(|_| {
            Error::new(Kind::Busy, "the log is being pruned or a backup of it taken: nothing was pruned")
        })?;
        let (below, bytes, folder) = (prune.below(), prune.log_bytes(), self.settings.folder.clone());
        let pruned = self.with_tree(move |tree| Pruned::new(tree, below, bytes, act)).await?;
        let pruned = blocking(move || {
            // They cannot be made anew from here on.
            tiles::lead_to(&folder, &pruned.point())?;
            tiles::sync(&folder, below).map_err(|e| point::unreadable(tiles::PREFIX, e))?;
            Ok(pruned)
        })
        .await?;
        let deadline = Instant::now() + self.settings.deadline;
        let (errand, answer) = Errand::prune(pruned);
        self.queue.send(errand)?;
        let gone = match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer.map_err(Error::from)?,
            Ok(Err(_)) => return Err(Failure::ended().into()),
            Err(_) => return Err(Failure::slow().into()),
        };
        let folder = self.settings.folder.clone();
        blocking(move || {
            let cleared = pruned::clear(&folder, &gone);
            cleared.map(drop).map_err(|e| {
                Error::new(Kind::Unavailable, "pruned segments could not be removed")
                    .because(e)
                    .hint("the log begins behind them already; they go with the next start")
            })
        })
        .await
    }

    /// Reads back what lies between two points, on a thread that may block, and remembers a difference for ever.
    /// Gives the leaves between them.
    async fn compare(&self, from: Point, to: Point) -> Result<(Point, Vec<Hash>)> {
        self.reread(from, to, |leaves: &mut Vec<Hash>, leaf| leaves.push(leaf)).await
    }

    async fn reread<T: Default + Send + 'static>(
        &self,
        from: Point,
        to: Point,
        keep: impl Fn(&mut T, Hash) + Send + 'static,
    ) -> Result<(Point, T)> {
        let (folder, queue) = (self.settings.folder.clone(), Arc::clone(&self.queue));
        blocking(move || {
            let mut kept = T::default();
            let result = point::reread(&folder, &from, &to, |leaf| keep(&mut kept, leaf));
            if let Err(error) = &result
                && error.kind() == Kind::Tampered
            {
                queue.condemn(Failure::from(error));
            }
            result.map(|()| (to, kept))
        })
        .await
    }

    /// Where the log is refused, has its files opened again, which reads all of them: it is under way when this returns. They are
    /// taken only where they hold all that was acknowledged, down to the last byte: a folder that was away, a file that was put
    /// back, a disk that failed for a moment. What is missing or another stays refused. It costs nothing where nothing failed.
    pub fn mend(&self) {
        self.queue.reopen();
    }

    /// The oldest thing that happened to the log or a sink and is not recorded yet: see [`Self::news_is_recorded`].
    #[must_use]
    pub fn news(&self) -> Option<News> {
        self.queue.news()
    }

    /// What [`Self::news`] said is recorded.
    pub fn news_is_recorded(&self) {
        self.queue.news_is_recorded();
    }

    /// Whether records are accepted: the reason where not.
    ///
    /// # Errors
    /// What an append would answer now.
    pub fn health(&self) -> Result<()> {
        self.queue.points()?;
        self.sinks_answer()?;
        self.settled()
    }

    /// The number of durable records.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.queue.durable().size()
    }

    /// The size and the root of the log as it is now, durable but perhaps not signed yet.
    #[must_use]
    pub fn root(&self) -> (u64, Hash) {
        let point = self.queue.durable();
        (point.size(), point.frontier.root())
    }

    /// Whether the log goes on from a head that was signed earlier.
    ///
    /// # Errors
    /// [`Kind::Tampered`] where it ends before, or is another log from there on; [`Kind::Unavailable`] where the heads cannot be read.
    pub fn knows(&self, size: u64, root: &Hash) -> Result<()> {
        let last = self.last_head();
        let end = last.as_ref().map_or(0, Head::size);
        if last.is_some_and(|last| last.size() == size && last.root() == root) {
            return Ok(());
        }
        if end > size && heads::holds(&self.settings.folder, size, root)? {
            return Ok(());
        }
        let text = format!(
            "the store knows a signed head of {size} records that the audit log, with {end} signed, does not go on from"
        );
        Err(Error::new(Kind::Tampered, text)
            .hint("the audit folder was cut, put back or exchanged: restore the newest one"))
    }

    /// Whether the log goes on from a point that it was at, signed or not, and what follows up to the last head hashes to that head.
    /// It reads what follows.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] where the files cannot be read.
    pub async fn goes_on_from(&self, size: u64, root: &Hash) -> Result<bool> {
        let (signed, now) = self.queue.points()?;
        let head = signed.map(|signed| (signed.head, signed.point.frontier));
        let frontier = match &head {
            _ if size > now.size() => return Ok(false),
            Some((head, _)) if head.size() > size => {
                self.tend().await?;
                self.with_tree(move |tree| tree.frontier(size)).await?
            }
            Some((_, frontier)) => frontier.clone(),
            None => Frontier::default(),
        };
        let (folder, root, begin) = (self.settings.folder.clone(), *root, self.queue.begin());
        blocking(move || {
            let (mut frontier, mut good) = (frontier, true);
            if frontier.size() < begin.size() {
                // What lies between was pruned, and its hashes have just led to the head.
                good = frontier.size() != size || frontier.root() == root;
                frontier = begin.frontier.clone();
            }
            let mut lines = Lined::open(&folder, frontier.size())?;
            loop {
                good &= frontier.size() != size || frontier.root() == root;
                good &= head
                    .as_ref()
                    .is_none_or(|(head, _)| head.size() != frontier.size() || *head.root() == frontier.root());
                let Some(line) = lines.next()?.filter(|_| frontier.size() < now.size()) else {
                    return Ok(good && frontier.size() == now.size());
                };
                frontier.push(leaf_hash(line));
            }
        })
        .await
    }

    /// The last signed head.
    #[must_use]
    pub fn last_head(&self) -> Option<Head> {
        self.queue.signed().map(|signed| signed.head)
    }

    /// Which log it is.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.settings.origin
    }

    /// Where the log is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.settings.folder
    }
}

/// Waits until each sink that is required holds the first `size` records.
async fn held(sinks: &[Sink], size: u64, deadline: Instant) -> Result<()> {
    for sink in sinks.iter().filter(|sink| sink.is_required()) {
        match timeout_at(deadline, sink.reaches(size)).await {
            Ok(reached) => reached.map_err(Error::from)?,
            Err(_) => return Err(sink.refusal().unwrap_or_else(|| sink.late()).into()),
        }
    }
    Ok(())
}

impl Shelf {
    /// Nothing is left half-done under this lock: after an error the files are taken up afresh.
    fn add(&self, folder: &Path, before: u64, leaves: &[Hash], head: Head) {
        // While another thread reads the log anew, it gets there by itself.
        let Ok(mut tiles) = self.tiles.try_lock() else { return };
        let Some(mut own) = tiles.take_if(|tiles| tiles.size() == before) else { return };
        if own.extend(leaves).is_ok() {
            *tiles = Some(own);
            self.tree.store(Some(Arc::new(Tree::new(folder, head))));
        }
    }

    fn grow(&self, folder: &Path, head: Head) -> Result<()> {
        let Ok(mut tiles) = self.tiles.try_lock() else { return Ok(()) };
        if self.reaches(head.size()) {
            return Ok(());
        }
        *tiles = None;
        if let Some(grown) = Tiles::grown(folder, &head, &self.closed)? {
            *tiles = Some(grown);
            self.tree.store(Some(Arc::new(Tree::new(folder, head))));
        }
        Ok(())
    }

    /// Whether the hashes of so many records are there.
    fn reaches(&self, size: u64) -> bool {
        self.tree.load().as_ref().is_some_and(|tree| tree.head().size() >= size)
    }

    /// Has the hashes made anew from the first record on that is there.
    fn forget(&self, folder: &Path) {
        if let Ok(mut tiles) = self.tiles.try_lock() {
            // Where not even this can be done, what is there is found wanting once more.
            *tiles = Tiles::least(folder).ok();
            self.tree.store(None);
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shelf.closed.store(true, Ordering::Relaxed);
        self.queue.close();
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("settings", &self.settings).field("size", &self.size()).finish_non_exhaustive()
    }
}
