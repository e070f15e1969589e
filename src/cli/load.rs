//! From options, environment and files to settings and resources: what is found where, and what is wrong with it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::control::source::file::{LoadError, Source};
use crate::model::nearest::hint;
use crate::model::resources::Resources;
use crate::model::settings::ENV_PREFIX;
use crate::model::{ConfigError, Settings};
use crate::plugins::{CATALOG, Card};

use super::{INVALID, UNREADABLE};

/// Where settings are looked for when nobody says where they are.
const CONFIG_PATHS: [&str; 2] = ["config.yaml", "/etc/ringway/config.yaml"];
/// Names of resources beside the settings, in this order.
const RESOURCE_NAMES: [&str; 2] = ["resources.yaml", "apisix.yaml"];

/// Which files.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct FileArgs {
    /// File of settings: listeners, cores, logs, limits
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// File of resources (routes, upstreams, plugins), or a folder of such files
    #[arg(long, value_name = "PATH")]
    pub(super) resources: Option<PathBuf>,
}

/// Settings given as options.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Overrides {
    /// Processors to run on, such as 0-3, or how many [setting: cores]
    #[arg(long, value_name = "LIST|N")]
    pub(super) cores: Option<String>,
    /// How to ask the kernel for input and output [setting: driver]
    #[arg(long, value_enum)]
    pub(super) driver: Option<DriverName>,
    /// How much the process's own log tells [setting: log.level]
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub(super) log_level: Option<LevelName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum DriverName {
    /// io_uring where the kernel lets us, else epoll
    Auto,
    /// io_uring or nothing
    #[value(name = "io_uring")]
    IoUring,
    /// epoll
    Epoll,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LevelName {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

fn name_of(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

impl Overrides {
    /// The variables that would say the same: one way in, so that faults read alike.
    fn vars(&self) -> Vec<(String, String)> {
        let given = [
            ("CORES", self.cores.clone()),
            ("DRIVER", self.driver.map(name_of)),
            ("LOG__LEVEL", self.log_level.map(name_of)),
        ];
        let vars = given.into_iter().filter_map(|(key, value)| Some((format!("{ENV_PREFIX}{key}"), value?)));
        vars.collect()
    }
}

/// The world outside, so that tests can have one of their own.
pub(super) struct Surroundings {
    pub(super) vars: Vec<(String, String)>,
    /// The folder that relative paths start from.
    pub(super) folder: PathBuf,
    pub(super) config_paths: Vec<PathBuf>,
}

impl Surroundings {
    /// Those of this process.
    pub(super) fn real() -> Self {
        let utf8 = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self {
            vars: std::env::vars_os().filter_map(utf8).collect(),
            folder: PathBuf::new(),
            config_paths: CONFIG_PATHS.iter().map(PathBuf::from).collect(),
        }
    }

    pub(super) fn var(&self, name: &str) -> Option<String> {
        self.vars.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone())
    }
}

/// What was found.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) settings: Settings,
    /// `None`: built-in defaults.
    pub(super) config_path: Option<PathBuf>,
    pub(super) source: Option<Source>,
    pub(super) resources: Resources,
    pub(super) resources_path: Option<PathBuf>,
}

/// Why there is nothing to start with.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    pub(super) unreadable: Vec<String>,
    /// With the file each is in.
    pub(super) faults: Vec<(String, ConfigError)>,
}

impl Trouble {
    /// What the process exits with.
    pub(super) fn code(&self) -> u8 {
        if self.unreadable.is_empty() { INVALID } else { UNREADABLE }
    }

    /// As people read it.
    pub(super) fn lines(&self) -> Vec<String> {
        let faults = self.faults.iter().map(|(file, fault)| in_file(file, fault));
        self.unreadable.iter().cloned().chain(faults).collect()
    }

    fn is_none(&self) -> bool {
        self.unreadable.is_empty() && self.faults.is_empty()
    }
}

/// A fault with its file, which some name themselves.
pub(super) fn in_file(file: &str, fault: &ConfigError) -> String {
    if file.is_empty() || fault.object.starts_with(file) {
        fault.to_string()
    } else {
        format!("{file}: {fault}")
    }
}

/// Finds and reads both files. All that is wrong with both is told at once.
pub(super) fn load(
    files: &FileArgs,
    overrides: &Overrides,
    around: &Surroundings,
) -> Result<Loaded, Trouble> {
    let mut trouble = Trouble::default();
    let config_path = find_config(files.config.as_deref(), around);
    let settings = read_settings(config_path.as_deref(), overrides, around, &mut trouble);
    let resources_path = match find_resources(files, settings.as_ref(), config_path.as_deref(), around) {
        Ok(path) => path,
        Err(error) => {
            trouble.unreadable.push(error.to_string());
            None
        }
    };
    let (mut source, mut resources) = (None, Resources::default());
    if let Some(path) = &resources_path {
        match Source::open(path) {
            Ok((opened, objects)) => (source, resources) = (Some(opened), objects),
            Err(LoadError::Unreadable(error)) => trouble.unreadable.push(error.to_string()),
            Err(LoadError::Invalid(faults)) => {
                let file = path.display().to_string();
                trouble.faults.extend(faults.into_iter().map(|fault| (file.clone(), fault)));
            }
        }
    }
    if let (Some(path), Some(true)) =
        (&resources_path, settings.as_ref().map(|settings| settings.etcd.is_some()))
    {
        let problem = "expected no file of resources, as etcd holds the objects";
        trouble.faults.push((path.display().to_string(), ConfigError::new(problem)));
    }
    match settings {
        Some(settings) if trouble.is_none() => {
            Ok(Loaded { settings, config_path, source, resources, resources_path })
        }
        _ => Err(trouble),
    }
}

/// Settings alone, where nothing is to be started: found and read in the same way.
pub(super) fn settings(config: Option<&Path>, around: &Surroundings) -> Result<Settings, Trouble> {
    let mut trouble = Trouble::default();
    let path = find_config(config, around);
    read_settings(path.as_deref(), &Overrides::default(), around, &mut trouble).ok_or(trouble)
}

fn read_settings(
    path: Option<&Path>,
    overrides: &Overrides,
    around: &Surroundings,
    trouble: &mut Trouble,
) -> Option<Settings> {
    let text = match path {
        None => String::new(),
        Some(path) => match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                trouble.unreadable.push(format!("{}: {error}", path.display()));
                return None;
            }
        },
    };
    let vars = around.vars.iter().cloned().chain(overrides.vars());
    let parsed = Settings::parse_with(&text, &|name| around.var(name), vars).map(|mut settings| {
        settings.warnings.extend(strange_plugins(&settings));
        settings
    });
    let file = path.map_or_else(String::new, |path| path.display().to_string());
    parsed.map_err(|faults| trouble.faults.extend(faults.into_iter().map(|f| (file.clone(), f)))).ok()
}

/// That plugins may be used that are not here. An object that does is told so itself.
fn strange_plugins(settings: &Settings) -> Option<String> {
    let strange = |name: &&String| Card::of(name).is_none();
    let told = |name: &String| format!("{name}{}", hint(name, CATALOG.iter().map(|card| card.name)));
    let named: Vec<String> = settings.plugins.iter().filter(strange).map(told).collect();
    (!named.is_empty()).then(|| format!("plugins: not among those there are: {}", named.join(", ")))
}

/// The file of settings: the one named, or the first there is.
fn find_config(named: Option<&Path>, around: &Surroundings) -> Option<PathBuf> {
    let named = named.map(Path::to_owned).or_else(|| around.var("RINGWAY_CONFIG").map(PathBuf::from));
    match named {
        Some(path) => Some(around.folder.join(path)),
        None => around.config_paths.iter().map(|path| around.folder.join(path)).find(|path| path.exists()),
    }
}

/// The file of resources: as the option or the environment says, from where we are; as the settings say, from where
/// they are; else by its name beside them.
fn find_resources(
    files: &FileArgs,
    settings: Option<&Settings>,
    config: Option<&Path>,
    around: &Surroundings,
) -> io::Result<Option<PathBuf>> {
    let given = files.resources.clone().or_else(|| around.var("RINGWAY_RESOURCES").map(PathBuf::from));
    if let Some(path) = given {
        return Ok(Some(around.folder.join(path)));
    }
    let beside = config.and_then(Path::parent).unwrap_or(&around.folder);
    if let Some(path) = settings.and_then(|settings| settings.resources.as_ref()) {
        return Ok(Some(beside.join(path)));
    }
    if settings.is_some_and(|settings| settings.etcd.is_some()) {
        return Ok(None);
    }
    for name in RESOURCE_NAMES {
        let path = beside.join(name);
        // A file that is there but may not be read must not look like one that is not there.
        if path.try_exists()? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
