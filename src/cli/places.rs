//! From a fault to the line it is on: which file has the object, where in it, and where in that the field.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::control::source::file;
use crate::model::position::{Position, broken_at, locate};
use crate::model::resources::{self, Format};
use crate::model::{ConfigError, Kind, Raw};

/// Text that is read for places in all: one place costs a reading of its file, and a person reads the first faults.
const BYTES_MAX: usize = 1024 * 1024 * 1024;

/// What is known of the files that faults are in; each is read when the first is.
pub(super) struct Places {
    /// Where the objects are: a file or a folder.
    resources: Option<PathBuf>,
    pieces: Option<Vec<Piece>>,
    texts: BTreeMap<String, Option<String>>,
    bytes_left: usize,
}

/// A file of objects, and the place of each, such as `routes[2]`, by its name.
struct Piece {
    path: String,
    places: BTreeMap<String, String>,
}

impl Places {
    pub(super) const fn new(resources: Option<PathBuf>) -> Self {
        Self { resources, pieces: None, texts: BTreeMap::new(), bytes_left: BYTES_MAX }
    }

    /// The file a fault is in, better known than before, and where in it.
    pub(super) fn of(&mut self, file: String, fault: &ConfigError) -> (String, Option<Position>) {
        if file.is_empty() {
            return (file, None);
        }
        // Faults of a file's frame name it in place of an object.
        if fault.object.is_empty() || fault.object.starts_with(&file) {
            let file = if fault.object.is_empty() { file } else { fault.object.clone() };
            let position = self.locate(&file, &fault.path, &fault.problem);
            return (file, position);
        }
        match self.home_of(&fault.object, &file) {
            None => (file, None),
            Some((home, place)) => {
                let inside = ConfigError::at(fault.path.clone(), "").under(&place);
                let position = self.locate(&home, &inside.path, &fault.problem);
                (home, position)
            }
        }
    }

    fn locate(&mut self, file: &str, path: &str, problem: &str) -> Option<Position> {
        let text =
            self.texts.entry(file.to_owned()).or_insert_with(|| fs::read_to_string(file).ok()).as_ref()?;
        self.bytes_left = self.bytes_left.checked_sub(text.len())?;
        if problem.starts_with("not YAML") || problem.starts_with("not JSON") {
            return broken_at(text);
        }
        locate(text, path)
    }

    /// The file of an object and its place there. Of several that have it the last: it is the one too many.
    fn home_of(&mut self, object: &str, root: &str) -> Option<(String, String)> {
        let root = self.resources.clone().unwrap_or_else(|| PathBuf::from(root));
        let pieces = self.pieces.get_or_insert_with(|| pieces_of(&root));
        let piece = pieces.iter().rev().find(|piece| piece.places.contains_key(object))?;
        Some((piece.path.clone(), piece.places.get(object)?.clone()))
    }
}

fn pieces_of(root: &Path) -> Vec<Piece> {
    let env = |name: &str| std::env::var(name).ok();
    let texts = file::texts(root).unwrap_or_default();
    texts
        .into_iter()
        .map(|(path, text)| {
            let parsed = resources::parse(&text, Format::of_path(&path), &env).unwrap_or_default();
            Piece { path: path.display().to_string(), places: places_of(&parsed.objects) }
        })
        .collect()
}

/// Objects come in the order of their lists, credentials among the consumers.
fn places_of(objects: &[Raw]) -> BTreeMap<String, String> {
    let mut counts: BTreeMap<Kind, usize> = BTreeMap::new();
    let mut places = BTreeMap::new();
    for raw in objects {
        let home = raw.kind.home();
        let count = counts.entry(home).or_default();
        places.insert(raw.name(), format!("{home}[{count}]"));
        *count += 1;
    }
    places
}
