//! Objects from a file, or from all `*.yaml`, `*.yml` and `*.json` of a folder, merged in the order of names.
//!
//! Changes are found by looking at time, size and inode a few times a second, which sees edits, renames and
//! swapped symbolic links alike and works on every file system. What is looked at may be half written, so:
//!
//! - a change is read once two looks in a row agree;
//! - a file that became empty, or lost the `#END` it ended with, is waited for, as is one that is gone;
//!   after `PATIENCE` this is reported and what it said before stays;
//! - what reads the same as before is not a change.
//!
//! `SIGHUP` asks for a reading at once, without these doubts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::clock::Moment;
use crate::base::hash;
use crate::model::ConfigError;
use crate::model::position::locate;
use crate::model::resources::{self, FILE_BYTES_MAX, Format, Resources, ends_with_marker};
use crate::model::substitute::Lookup;

/// Time between two looks.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a file may be gone, empty or without its end before it is reported.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// Files taken from a folder.
pub const FILES_MAX: usize = 4096;

/// The text of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// All files with what tells one version from another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sight(Vec<(PathBuf, Stamp)>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    bytes: u64,
    /// Device and inode, of what a link points to.
    file: (u64, u64),
}

/// What is looked at: the disk, or a test's idea of one.
pub(crate) trait Shelf {
    fn look(&self) -> io::Result<Sight>;
    fn read(&self, sight: &Sight) -> io::Result<Vec<Piece>>;
}

/// A path on the disk.
#[derive(Debug)]
pub(crate) struct Disk(PathBuf);

impl Shelf for Disk {
    fn look(&self) -> io::Result<Sight> {
        let found = fs::metadata(&self.0)?;
        if !found.is_dir() {
            return Ok(Sight(vec![(self.0.clone(), stamp(&found))]));
        }
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            if !is_wanted(&path) {
                continue;
            }
            // Not the entry's own: links are followed, which is how mounted volumes swap versions.
            let found = fs::metadata(&path)?;
            if found.is_file() {
                files.push((path, stamp(&found)));
            }
            if files.len() > FILES_MAX {
                return Err(io::Error::other(format!("more than {FILES_MAX} files")));
            }
        }
        files.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Sight(files))
    }

    fn read(&self, sight: &Sight) -> io::Result<Vec<Piece>> {
        let mut left = FILE_BYTES_MAX as u64;
        let mut pieces = Vec::with_capacity(sight.0.len());
        for (path, _) in &sight.0 {
            let text = read_text(path, left).map_err(|error| named(path, &error))?;
            left -= text.len() as u64;
            pieces.push(Piece { path: path.clone(), text });
        }
        Ok(pieces)
    }
}

fn is_wanted(path: &Path) -> bool {
    let is_hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().and_then(|extension| extension.to_str());
    !is_hidden && matches!(extension, Some("yaml" | "yml" | "json"))
}

fn stamp(found: &fs::Metadata) -> Stamp {
    Stamp {
        modified: (found.mtime(), found.mtime_nsec()),
        bytes: found.size(),
        file: (found.dev(), found.ino()),
    }
}

fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("more than {FILE_BYTES_MAX} bytes in all")));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("expected UTF-8"))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Why a path gave no objects.
#[derive(Debug)]
pub enum LoadError {
    /// It can not be read at all.
    Unreadable(io::Error),
    /// It says what can not be.
    Invalid(Vec<ConfigError>),
}

/// A path that was read, with the memory of what it said: the watch goes on from there.
#[derive(Debug)]
pub struct Source(pub(crate) Watch<Disk>);

impl Source {
    /// Reads a path for the first time.
    ///
    /// # Errors
    /// When it can not be read, or with every fault of it.
    pub fn open(path: &Path) -> Result<(Self, Resources), LoadError> {
        let disk = Disk(path.to_owned());
        let mut watch = Watch::new(disk, path);
        let sight = watch.shelf.look().map_err(|error| LoadError::Unreadable(named(path, &error)))?;
        let pieces = watch.shelf.read(&sight).map_err(LoadError::Unreadable)?;
        watch.accept(sight, &pieces);
        let resources = merge(&pieces).map_err(LoadError::Invalid)?;
        Ok((Self(watch), resources))
    }
}

/// What came of a look.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    /// It says something new; not parsed yet.
    Pieces(Vec<Piece>),
    /// It can not be used for the reason given, which is told once.
    Trouble(String),
}

/// What is remembered of a file that was taken.
#[derive(Clone, Copy, Debug)]
struct Known {
    is_blank: bool,
    has_marker: bool,
}

/// The state of watching a path. Pure but for its shelf: time is an argument.
#[derive(Debug)]
pub(crate) struct Watch<S> {
    shelf: S,
    path: PathBuf,
    /// What the look before saw.
    last: Option<Sight>,
    /// What was taken, or given up on and reported.
    taken: Option<Sight>,
    fingerprint: u64,
    known: BTreeMap<PathBuf, Known>,
    in_doubt_since: Option<Moment>,
    told: Option<String>,
}

impl<S: Shelf> Watch<S> {
    fn new(shelf: S, path: &Path) -> Self {
        Self {
            shelf,
            path: path.to_owned(),
            last: None,
            taken: None,
            fingerprint: 0,
            known: BTreeMap::new(),
            in_doubt_since: None,
            told: None,
        }
    }

    /// The path watched.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Looks once.
    pub(crate) fn poll_once(&mut self, now: Moment) -> Change {
        let sight = match self.shelf.look() {
            Ok(sight) => sight,
            Err(error) => {
                self.last = None;
                return self.doubt(now, &format!("{}: {error}", self.path.display()));
            }
        };
        let is_settled = self.last.as_ref() == Some(&sight);
        self.last = Some(sight.clone());
        if self.taken.as_ref() == Some(&sight) {
            (self.in_doubt_since, self.told) = (None, None);
            return Change::None;
        }
        if !is_settled {
            return Change::None;
        }
        let pieces = match self.shelf.read(&sight) {
            Ok(pieces) => pieces,
            Err(error) => return self.doubt(now, &error.to_string()),
        };
        // Written while it was read: the next looks will agree on something else.
        if !self.shelf.look().is_ok_and(|after| after == sight) {
            self.last = None;
            return Change::None;
        }
        if let Some(why) = self.half_written(&pieces) {
            let change = self.doubt(now, &why);
            if matches!(change, Change::Trouble(_)) {
                self.taken = Some(sight);
            }
            return change;
        }
        let before = self.fingerprint;
        self.accept(sight, &pieces);
        if self.fingerprint == before { Change::None } else { Change::Pieces(pieces) }
    }

    /// Reads at once, whatever it looks like.
    pub(crate) fn force(&mut self) -> Change {
        let read = self.shelf.look().map_err(|error| named(&self.path, &error));
        match read.and_then(|sight| self.shelf.read(&sight).map(|pieces| (sight, pieces))) {
            Ok((sight, pieces)) => {
                self.accept(sight, &pieces);
                Change::Pieces(pieces)
            }
            Err(error) => Change::Trouble(error.to_string()),
        }
    }

    fn accept(&mut self, sight: Sight, pieces: &[Piece]) {
        self.fingerprint = fingerprint(pieces);
        let known = pieces.iter().map(|piece| {
            let known =
                Known { is_blank: piece.text.trim().is_empty(), has_marker: ends_with_marker(&piece.text) };
            (piece.path.clone(), known)
        });
        self.known = known.collect();
        self.last = Some(sight.clone());
        self.taken = Some(sight);
        self.in_doubt_since = None;
        self.told = None;
    }

    /// What speaks for a writer that has not finished.
    fn half_written(&self, pieces: &[Piece]) -> Option<String> {
        if pieces.is_empty() && !self.known.is_empty() {
            return Some(format!("{}: all files are gone", self.path.display()));
        }
        pieces.iter().find_map(|piece| {
            let known = self.known.get(&piece.path)?;
            let path = piece.path.display();
            if !known.is_blank && piece.text.trim().is_empty() {
                Some(format!("{path}: is empty and was not"))
            } else if known.has_marker && !ends_with_marker(&piece.text) {
                Some(format!("{path}: does not end with #END and did before"))
            } else {
                None
            }
        })
    }

    /// Waits, and when that was long enough tells why, once.
    fn doubt(&mut self, now: Moment, why: &str) -> Change {
        let since = *self.in_doubt_since.get_or_insert(now);
        if now.since(since) < PATIENCE || self.told.as_deref() == Some(why) {
            return Change::None;
        }
        self.told = Some(why.to_owned());
        Change::Trouble(why.to_owned())
    }
}

fn fingerprint(pieces: &[Piece]) -> u64 {
    let mut all = Vec::new();
    for piece in pieces {
        all.extend_from_slice(piece.path.as_os_str().as_encoded_bytes());
        all.push(0);
        all.extend_from_slice(&hash::stable(piece.text.as_bytes()).to_le_bytes());
    }
    hash::stable(&all)
}

/// The texts of all files of a path, in the order of their reading.
///
/// # Errors
/// When one can not be read.
pub fn texts(path: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let disk = Disk(path.to_owned());
    let pieces = disk.read(&disk.look()?)?;
    Ok(pieces.into_iter().map(|piece| (piece.path, piece.text)).collect())
}

/// Parses the pieces and makes one of them; an id may stand in one of them only.
pub(crate) fn merge(pieces: &[Piece]) -> Result<Resources, Vec<ConfigError>> {
    merge_in(pieces, &|name| std::env::var(name).ok())
}

/// The objects of all files of all paths, in this order, in an environment.
///
/// # Errors
/// When one can not be read, or with every fault of them.
pub fn read_all(paths: &[PathBuf], env: Lookup<'_>) -> Result<Resources, LoadError> {
    let mut pieces = Vec::new();
    for path in paths {
        let disk = Disk(path.clone());
        let sight = disk.look().map_err(|error| LoadError::Unreadable(named(path, &error)))?;
        pieces.extend(disk.read(&sight).map_err(LoadError::Unreadable)?);
    }
    merge_in(&pieces, env).map_err(LoadError::Invalid)
}

fn merge_in(pieces: &[Piece], env: Lookup<'_>) -> Result<Resources, Vec<ConfigError>> {
    let mut all = Resources::default();
    let mut homes = BTreeMap::new();
    let mut faults = Vec::new();
    for piece in pieces {
        let path = piece.path.display().to_string();
        let part = match resources::parse(&piece.text, Format::of_path(&piece.path), env) {
            Ok(part) => part,
            Err(found) => {
                faults.extend(found.into_iter().map(|fault| in_file(fault, &path)));
                continue;
            }
        };
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for object in part.objects {
            let list = object.kind.home().plural();
            let count = counts.entry(list).or_default();
            let home = (piece, list, *count);
            *count += 1;
            if let Some(other) = homes.insert((object.kind, object.id.clone()), home) {
                let problem = format!("is in {} and in {}, expected it once", place(home), place(other));
                faults.push(ConfigError::new(problem).in_object(object.name()));
            }
            all.objects.push(object);
        }
        if let Some(plugins) = part.plugins {
            let known: BTreeSet<String> = all.plugins.iter().flatten().cloned().collect();
            let fresh = plugins.into_iter().filter(|plugin| !known.contains(plugin));
            all.plugins.get_or_insert_default().extend(fresh);
        }
    }
    if faults.is_empty() { Ok(all) } else { Err(faults) }
}

/// Where an object stands: file, line and column.
fn place((piece, list, index): (&Piece, &str, usize)) -> String {
    let position = locate(&piece.text, &format!("{list}[{index}]"));
    let position = position.map_or_else(String::new, |position| format!(":{position}"));
    format!("{}{position}", piece.path.display())
}

/// A fault that names no object at least names its file.
fn in_file(fault: ConfigError, path: &str) -> ConfigError {
    if fault.object.is_empty() { fault.in_object(path) } else { fault }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::os::unix::fs::symlink;
    use std::rc::Rc;

    use super::*;

    /// What the next look shows.
    #[derive(Clone, Default)]
    struct Table(Rc<RefCell<Vec<Piece>>>);

    impl Shelf for Table {
        fn look(&self) -> io::Result<Sight> {
            let pieces = self.0.borrow();
            if pieces.is_empty() {
                return Err(io::ErrorKind::NotFound.into());
            }
            // The content stands for the time of change.
            let stamp =
                |piece: &Piece| Stamp { bytes: hash::stable(piece.text.as_bytes()), ..Stamp::default() };
            Ok(Sight(pieces.iter().map(|piece| (piece.path.clone(), stamp(piece))).collect()))
        }

        fn read(&self, _: &Sight) -> io::Result<Vec<Piece>> {
            Ok(self.0.borrow().clone())
        }
    }

    /// A watch with its table and a clock that moves by one look.
    struct Scene {
        table: Table,
        watch: Watch<Table>,
        now: Moment,
    }

    impl Scene {
        fn of(text: &str) -> Self {
            let table = Table::default();
            let watch = Watch::new(table.clone(), Path::new("r.yaml"));
            let mut scene = Self { table, watch, now: Moment::from_nanos(1) };
            scene.write(text);
            scene.watch.force();
            scene
        }

        fn write(&self, text: &str) {
            *self.table.0.borrow_mut() = vec![Piece { path: "r.yaml".into(), text: text.to_owned() }];
        }

        fn remove(&self) {
            self.table.0.borrow_mut().clear();
        }

        fn poll(&mut self) -> Change {
            self.now = self.now.plus(LOOK_EVERY);
            self.watch.poll_once(self.now)
        }

        /// Everything but `None` that the looks of `PATIENCE` and a little more bring.
        fn poll_long(&mut self) -> Vec<Change> {
            let looks = PATIENCE.as_millis() / LOOK_EVERY.as_millis() + 5;
            (0..looks).map(|_| self.poll()).filter(|change| *change != Change::None).collect()
        }
    }

    fn says(change: &Change, text: &str) -> bool {
        matches!(change, Change::Pieces(pieces) if pieces.len() == 1 && pieces[0].text == text)
    }

    #[test]
    fn a_change_is_read_once_two_looks_agree() {
        let mut scene = Scene::of("routes: []");
        assert_eq!(scene.poll(), Change::None);
        scene.write("routes: [half");
        assert_eq!(scene.poll(), Change::None);
        scene.write("routes: [whole]");
        assert_eq!(scene.poll(), Change::None);
        assert!(says(&scene.poll(), "routes: [whole]"));
        assert_eq!(scene.poll(), Change::None);
    }

    #[test]
    fn what_reads_the_same_is_no_change() {
        let mut scene = Scene::of("a");
        scene.watch.taken = None; // As if only its time had changed.
        assert_eq!(scene.poll_long(), []);
    }

    #[test]
    fn an_emptied_file_is_waited_for_then_told_once_and_never_taken() {
        let mut scene = Scene::of("a");
        scene.write(" \n");
        let told = [Change::Trouble("r.yaml: is empty and was not".to_owned())];
        assert_eq!(scene.poll_long(), told);
        assert_eq!(scene.poll_long(), []);
        scene.write("b");
        scene.poll();
        assert!(says(&scene.poll(), "b"));
    }

    #[test]
    fn an_emptied_file_that_is_filled_in_time_is_not_worth_a_word() {
        let mut scene = Scene::of("a");
        scene.write("");
        assert_eq!((scene.poll(), scene.poll(), scene.poll()), (Change::None, Change::None, Change::None));
        scene.write("b");
        scene.poll();
        assert!(says(&scene.poll(), "b"));
    }

    #[test]
    fn a_file_that_lost_its_end_is_waited_for() {
        let mut scene = Scene::of("a\n#END\n");
        scene.write("a: 1");
        assert_eq!((scene.poll(), scene.poll()), (Change::None, Change::None));
        scene.write("a: 12\n#END");
        scene.poll();
        assert!(says(&scene.poll(), "a: 12\n#END"));
        scene.write("a: 3");
        assert_eq!(scene.poll_long().len(), 1);
    }

    #[test]
    fn a_file_that_never_had_an_end_needs_none() {
        let mut scene = Scene::of("a");
        scene.write("b");
        scene.poll();
        assert!(says(&scene.poll(), "b"));
    }

    #[test]
    fn a_file_that_is_gone_is_told_after_a_while_and_found_again() {
        let mut scene = Scene::of("a");
        scene.remove();
        let told = scene.poll_long();
        assert!(matches!(&told[..], [Change::Trouble(why)] if why.starts_with("r.yaml: ")), "{told:?}");
        scene.write("b");
        scene.poll();
        assert!(says(&scene.poll(), "b"));
    }

    #[test]
    fn force_takes_even_what_is_in_doubt_or_unchanged() {
        let mut scene = Scene::of("a\n#END");
        assert!(says(&scene.watch.force(), "a\n#END"));
        scene.write("");
        assert!(says(&scene.watch.force(), ""));
        scene.remove();
        assert!(matches!(scene.watch.force(), Change::Trouble(_)));
    }

    #[test]
    fn a_swapped_link_is_a_change_even_with_equal_times() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("v1"), "a").expect("written");
        fs::write(at("v2"), "b").expect("written");
        symlink(at("v1"), at("r.yaml")).expect("linked");
        let disk = Disk(at("r.yaml"));
        let before = disk.look().expect("there");
        symlink(at("v2"), at("next")).expect("linked");
        fs::rename(at("next"), at("r.yaml")).expect("renamed");
        let after = disk.look().expect("there");
        assert_ne!(before, after);
        assert_eq!(disk.read(&after).expect("readable")[0].text, "b");
    }

    #[test]
    fn a_folder_is_merged_in_name_order_without_hidden_and_foreign_files() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, id) in [("20.yaml", 2), ("10.yml", 1), ("30.json", 3), (".swp.yaml", 4), ("note.txt", 5)] {
            let text = format!("{{\"routes\": [{{\"id\": {id}, \"uri\": \"/\"}}]}}");
            fs::write(folder.path().join(name), text).expect("written");
        }
        let (_, resources) = Source::open(folder.path()).expect("it loads");
        let ids: Vec<&str> = resources.objects.iter().map(|object| object.id.as_str()).collect();
        assert_eq!(ids, ["1", "2", "3"]);
    }

    #[test]
    fn an_id_in_two_files_is_a_fault_that_names_both() {
        let piece = |path: &str| Piece { path: path.into(), text: "routes: [{id: 1, uri: /}]".to_owned() };
        let faults = merge(&[piece("a.yaml"), piece("b.yaml")]).expect_err("a double");
        let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["routes/1: is in b.yaml:1:10 and in a.yaml:1:10, expected it once"]);
    }

    #[test]
    fn faults_of_all_files_are_told_at_once_with_their_file() {
        let piece = |path: &str, text: &str| Piece { path: path.into(), text: text.to_owned() };
        let faults = merge(&[piece("a.yaml", "routes: 1"), piece("b.json", "{")]).expect_err("faults");
        assert_eq!(faults.len(), 2);
        assert!(faults[0].to_string().starts_with("a.yaml: routes: "), "{}", faults[0]);
        assert!(faults[1].to_string().starts_with("b.json: not JSON: "), "{}", faults[1]);
    }

    #[test]
    fn a_path_to_nothing_is_unreadable_rather_than_invalid() {
        assert!(matches!(Source::open(Path::new("/nowhere/r.yaml")), Err(LoadError::Unreadable(_))));
    }
}
