//! Where objects are held: in the store, where the Admin API changes them, or in a file, which it only shows.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::admin::{Keys, Shared, held};
use super::expiry;
use super::log;
use super::seal::Seal;
use super::socket::ControlSocket;
use super::source::etcd::Etcd;
use super::source::file::Source;
use super::store::{Author, Change, Revision, STORE_FILE, Store, Term};
use crate::base::clock;
use crate::model::resources::Resources;
use crate::model::{Kind, Settings};
use crate::snapshot::Compiler;
use crate::snapshot::compile::Outcome;

/// The objects, and who may change them.
pub struct Holdings {
    pub(super) store: Shared,
    /// What was taken out at the start, as its time was over; until it is noted.
    pub(super) went: Vec<Revision>,
    /// Who may use the Admin API; `None`: it is not offered.
    pub(super) keys: Option<Keys>,
    /// Where the key is that was made here.
    pub(super) key_file: Option<PathBuf>,
    /// Where whoever may open it needs no key.
    pub(super) socket: Option<ControlSocket>,
    /// Why nothing may be written.
    pub(super) read_only: Option<String>,
    /// Whether anybody can see what a file holds.
    is_shown: bool,
}

impl Holdings {
    /// Opens the store, unless a file holds the objects; the control socket; and the keys to the Admin API, if it is
    /// offered.
    ///
    /// # Errors
    /// When the store is damaged, the state's folder can not be used though it must be, or the socket is another's.
    pub fn open(settings: &Settings, source: Option<&Source>) -> io::Result<Self> {
        let wanted = settings.admin.enabled.unwrap_or_else(|| source.is_none());
        let state = &settings.state_dir;
        let mut read_only = source.map(|source| {
            let path = source.0.path().display();
            format!("objects are held in {path}: change them there, or start without a file of resources")
        });
        let socket = ControlSocket::open(settings)?;
        let seal = || Seal::open(settings);
        let store = match source {
            Some(_) => Ok(Store::in_memory()),
            None if settings.etcd.is_some() => Ok(Store::in_memory()),
            // Nobody could put anything into it.
            None if !wanted && socket.is_none() && !state.join(STORE_FILE).exists() => Ok(Store::in_memory()),
            None => seal().and_then(|seal| Store::open(state, seal)),
        };
        let store = store.or_else(|error| {
            // What is there is served all the same, if it can be read: a start without it would be worse than none.
            if !is_forbidden(&error) || !state.join(STORE_FILE).try_exists()? {
                return Err(error);
            }
            let store = Store::open_to_read(state, seal()?)?;
            let why = format!("nothing can be kept in {}: {error}", state.display());
            log::warn(format!("{why}; what is kept there is served, and can not be changed"));
            read_only.get_or_insert(why);
            Ok(store)
        });
        let mut went = Vec::new();
        let store = store.map(|mut store| {
            match expiry::catch_up(&mut store) {
                Ok(revisions) => went = revisions,
                Err(error) => log::error(format!("objects whose time is over stay for now: {error}")),
            }
            store
        });
        // Nobody asked for it by name: a gateway for a first look needs no folder.
        let is_optional = settings.admin.enabled != Some(true);
        let keys = |wanted| if wanted { Keys::open(&settings.admin, state).map(Some) } else { Ok(None) };
        let (store, keys) = match store {
            Ok(store) => match keys(wanted) {
                Ok(keys) => (store, keys),
                Err(error) if is_optional && is_forbidden(&error) => {
                    log::warn(format!("{error}; the Admin API is off"));
                    (store, None)
                }
                Err(error) => return Err(error),
            },
            // One that is there and can not be read is no empty one.
            Err(error) if state.join(STORE_FILE).try_exists().unwrap_or(false) => return Err(error),
            Err(error) if is_optional && is_forbidden(&error) => {
                let folder = state.display();
                log::warn(format!("state_dir {folder}: {error}; the Admin API is off, and nothing is kept"));
                read_only.get_or_insert_with(|| format!("nothing can be kept in {folder}: {error}"));
                (Store::in_memory(), None)
            }
            Err(error) => return Err(error),
        };
        let (keys, key_file) = keys.map_or((None, None), |(keys, path)| (Some(keys), path));
        let is_shown = source.is_some() && (keys.is_some() || socket.is_some());
        Ok(Self { store: Arc::new(Mutex::new(store)), went, keys, key_file, socket, read_only, is_shown })
    }

    /// Whether the Admin API has a port.
    pub(super) const fn offers_admin(&self) -> bool {
        self.keys.is_some()
    }

    /// Has the store follow an etcd from here on.
    pub fn follow(&self, etcd: &mut Etcd, compiler: &mut Compiler) -> Outcome {
        etcd.first(&mut held(&self.store), compiler)
    }

    /// What the store holds.
    pub fn resources(&self) -> Resources {
        held(&self.store).resources()
    }

    /// Has the store show what a file holds.
    ///
    /// # Errors
    /// When the store can not take it.
    pub fn show(&self, resources: &Resources) -> io::Result<()> {
        if !self.is_shown {
            return Ok(());
        }
        let mut store = held(&self.store);
        let named: BTreeSet<(Kind, &str)> =
            resources.objects.iter().map(|raw| (raw.kind, raw.id.as_str())).collect();
        let mut changes = Vec::new();
        for raw in store.resources().objects {
            if !named.contains(&(raw.kind, raw.id.as_str())) {
                changes.push(Change::Delete(raw.kind, raw.id));
            }
        }
        for raw in &resources.objects {
            if store.get(raw.kind, raw.id.as_str()).is_none_or(|entry| entry.value != raw.value) {
                changes.push(Change::Put(raw.clone()));
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        let author = Author { who: "file".to_owned(), from: String::new() };
        store.commit(changes, &author, clock::wall(), Term::Lasting).map(drop)
    }
}

fn is_forbidden(error: &io::Error) -> bool {
    use io::ErrorKind;
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}
