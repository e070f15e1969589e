//! The configuration that is tested: read and compiled as `run` does, but that names have made-up addresses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::form::TestFile;
use crate::base::address::Address;
use crate::cli::load::{Surroundings, in_file};
use crate::control::roots_of_nodes;
use crate::control::secrets::Files;
use crate::control::source::file::{LoadError, read_all};
use crate::model::resources::{self, Resources};
use crate::model::settings::{AccessFormat, LogOutput};
use crate::model::substitute::substitute;
use crate::model::{ConfigError, Kind, Raw, Settings};
use crate::plugin::Witness;
use crate::snapshot::{Compiler, Outcome, at_once};

/// Names have addresses of the block that is set aside for trials of networks (RFC 2544), so that none is anybody's.
const NAMES_BASE: u32 = u32::from_be_bytes([198, 18, 0, 1]);
/// How many.
const NAMES_MAX: usize = (1 << 17) - 2;

/// Names that were asked for; the place of each is its address.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(Arc<Mutex<Vec<String>>>);

impl Names {
    /// The address that stands for a name; the same whenever it is asked for.
    fn address(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = names.iter().position(|known| known == name).unwrap_or(names.len());
        if at >= NAMES_MAX {
            return Err(format!("expected at most {NAMES_MAX} names"));
        }
        if at == names.len() {
            names.push(name.to_owned());
        }
        Ok(vec![IpAddr::V4(Ipv4Addr::from_bits(NAMES_BASE + at as u32))])
    }

    /// A node as it is written: its address, unless nobody has asked for its name.
    pub(super) fn of(&self, node: &str) -> Option<Address> {
        if let Ok(address) = node.parse() {
            return Some(address);
        }
        let (host, port) = node.rsplit_once(':')?;
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = names.iter().position(|known| known == host)?;
        let ip = Ipv4Addr::from_bits(NAMES_BASE + at as u32).into();
        Some(SocketAddr::new(ip, port.parse().ok()?).into())
    }

    /// A node as it would be written.
    pub(super) fn name(&self, node: Address) -> String {
        let at = match node.ip().map(|node| node.ip()) {
            Some(IpAddr::V4(ip)) => ip.to_bits().checked_sub(NAMES_BASE),
            Some(IpAddr::V6(_)) | None => None,
        };
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = at.and_then(|at| names.get(at as usize));
        name.map_or_else(|| node.to_string(), |name| format!("{name}:{}", node.port()))
    }
}

/// What a file of tests names.
pub(super) struct Ground {
    pub(super) settings: Settings,
    resources: Resources,
    env: Vec<(String, String)>,
    pub(super) names: Names,
}

impl Ground {
    /// Reads all of it, and compiles it once.
    ///
    /// # Errors
    /// Every fault, as lines.
    pub(super) fn open(file: &TestFile, folder: &Path, around: &Surroundings) -> Result<Self, Vec<String>> {
        let own = file.env.iter().map(|(name, value)| (name.clone(), value.clone()));
        let others = around.vars.iter().filter(|(name, _)| !file.env.contains_key(name)).cloned();
        let env: Vec<(String, String)> = own.chain(others).collect();
        let lookup = |name: &str| env.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
        let mut faults = Vec::new();
        let config = file.config.as_ref().map(|path| folder.join(path));
        let settings = read_settings(config.as_deref(), &lookup, &mut faults);
        let paths = file.resources.iter().flat_map(|paths| paths.all());
        let paths: Vec<PathBuf> = paths.map(|path| folder.join(path)).collect();
        let mut resources = read_all(&paths, &lookup).unwrap_or_else(|error| {
            match error {
                LoadError::Unreadable(error) => faults.push(error.to_string()),
                LoadError::Invalid(found) => faults.extend(found.iter().map(ToString::to_string)),
            }
            Resources::default()
        });
        if let Some(objects) = &file.objects {
            let mut document = Value::Object(objects.clone());
            let mut found = substitute(&mut document, &lookup);
            match resources::of_document(document) {
                Ok(own) => faults.extend(add(&mut resources, own)),
                Err(more) => found.extend(more),
            }
            faults.extend(found.into_iter().map(|fault| fault.under("objects").to_string()));
        }
        let Some(settings) = settings.filter(|_| faults.is_empty()) else { return Err(faults) };
        let ground = Self { settings, resources, env, names: Names::default() };
        // What waits for something outside is as it is in a gateway that has just started.
        let wrong =
            ground.compile(Witness::new(|_, _| ())).faults.into_iter().filter(|fault| !fault.may_pass);
        let faults: Vec<String> = wrong.map(|fault: ConfigError| fault.to_string()).collect();
        if faults.is_empty() { Ok(ground) } else { Err(faults) }
    }

    /// A snapshot that nothing is known to yet.
    pub(super) fn compile(&self, witness: Witness) -> Outcome {
        let names = self.names.clone();
        let env = self.env.clone();
        let read_env =
            move |name: &str| env.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
        let mut compiler = Compiler::new(&self.settings, at_once(move |name| names.address(name)))
            .trusting(roots_of_nodes(&self.settings))
            .reading_env(Box::new(read_env))
            .reading_files(Files::new(&self.settings).reader())
            .witnessed_by(witness);
        compiler.compile(&self.resources)
    }

    /// Ids of the routes that take requests.
    pub(super) fn routes(&self) -> Vec<String> {
        let routes = self.resources.objects.iter().filter(|raw| raw.kind == Kind::Route);
        let on = routes.filter(|raw| raw.value.get("status").is_none_or(|status| *status != 0));
        on.map(|raw| raw.id.to_string()).collect()
    }
}

/// Adds the objects of a test to those of files.
fn add(resources: &mut Resources, own: Resources) -> Vec<String> {
    let is_known =
        |raw: &&Raw| resources.objects.iter().any(|other| (other.kind, &other.id) == (raw.kind, &raw.id));
    let twice = own.objects.iter().filter(is_known);
    let faults = twice.map(|raw| format!("objects: {}: is in the files, too, expected it once", raw.name()));
    let faults = faults.collect();
    resources.objects.extend(own.objects);
    if let Some(plugins) = own.plugins {
        resources.plugins.get_or_insert_default().extend(plugins);
    }
    faults
}

/// The settings of a file, with a record of each request in a form that we can read.
fn read_settings(
    path: Option<&Path>,
    env: &dyn Fn(&str) -> Option<String>,
    faults: &mut Vec<String>,
) -> Option<Settings> {
    let file = path.map_or_else(String::new, |path| path.display().to_string());
    let text = match path.map(std::fs::read_to_string) {
        None => String::new(),
        Some(Ok(text)) => text,
        Some(Err(error)) => {
            faults.push(format!("{file}: {error}"));
            return None;
        }
    };
    match Settings::parse(&text, env) {
        Ok(mut settings) => {
            settings.access_log.enabled = true;
            settings.access_log.output = LogOutput::Stdout;
            settings.access_log.format = AccessFormat::Json;
            Some(settings)
        }
        Err(found) => {
            faults.extend(found.iter().map(|fault| in_file(&file, fault)));
            None
        }
    }
}

/// A path of a file of tests as a folder and what is in it.
pub(super) fn folder_of(path: &Path) -> PathBuf {
    path.parent().map_or_else(PathBuf::new, Path::to_owned)
}
