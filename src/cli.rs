//! The command line: what it says, and what the process exits with.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done; or ended as asked |
//! | 1 | failed at run time |
//! | 2 | there are differences (`diff`); a file of tests has faults (`test`) |
//! | 3 | the configuration has faults |
//! | 64 | used wrongly |
//! | 69 | no running gateway was reached |
//! | 78 | the configuration can not be read |
//! | 130, 143 | ended by force, on `INT` or `TERM` |
//!
//! Every verb returns its exit code and writes what it has to say; nothing here ends the process.

mod apply;
mod args;
mod cases;
mod check;
mod diff;
mod explain;
mod inspect;
mod limits;
mod load;
mod node;
mod objects;
mod past;
mod places;
mod plan;
mod process;
mod sarif;
mod schema;
mod slow;
mod table;
mod winners;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::Parser as _;
use clap::error::ErrorKind;

use crate::boot;
use crate::control::source::file::Source;
use crate::control::{log, origin};
use crate::model::Settings;
use crate::model::resources::Resources;

use args::{CheckArgs, Cli, OriginArgs, RunArgs, Verb};
use load::{Loaded, Overrides, Surroundings};
use process::Wish;

/// Done, or ended as asked.
pub const OK: u8 = 0;
/// Failed at run time.
pub const FAILED: u8 = 1;
/// There are differences.
pub const DIFFERENT: u8 = 2;
/// The configuration has faults.
pub const INVALID: u8 = 3;
/// Used wrongly (`EX_USAGE`).
pub const USAGE: u8 = 64;
/// No running gateway was reached (`EX_UNAVAILABLE`).
pub const UNREACHABLE: u8 = 69;
/// The configuration can not be read (`EX_CONFIG`).
pub const UNREADABLE: u8 = 78;

/// All that a start needs.
#[derive(Debug)]
pub struct Launch {
    pub settings: Settings,
    /// Where `resources` came from, to be watched; `None`: there is no file of them.
    pub source: Option<Source>,
    pub resources: Resources,
    pub ready_file: Option<PathBuf>,
}

/// Does what the command line says and returns the exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    match Cli::try_parse_from(args) {
        Ok(cli) => obey(cli),
        Err(error) => {
            let _ = error.print();
            usage_code(error.kind())
        }
    }
}

/// Help and version are answers, all else is a misuse.
fn usage_code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => OK,
        _ => USAGE,
    }
}

fn obey(cli: Cli) -> u8 {
    let around = Surroundings::real();
    match cli.verb {
        None if cli.test => {
            let RunArgs { files, overrides, .. } = cli.run;
            tell(check::check(&CheckArgs { files, ..CheckArgs::default() }, &overrides, &around))
        }
        None => run(cli.run),
        Some(Verb::Run(args)) => run(args),
        Some(Verb::Check(args)) => tell(check::check(&args, &Overrides::default(), &around)),
        Some(Verb::Version(args)) => tell(inspect::version(&args, &crate::runtime::driver::probe())),
        Some(Verb::Schema(args)) => tell(schema::schema(&args)),
        Some(Verb::Plugins(args)) => tell(inspect::plugins(&args)),
        Some(Verb::Get(args)) => tell_either(objects::get(&args, &around)),
        Some(Verb::Apply(args)) => tell_either(apply::apply(&args, &around)),
        Some(Verb::Diff(args)) => tell_either(diff::diff(&args, &around)),
        Some(Verb::Dump(args)) => tell_either(objects::dump(&args, &around)),
        Some(Verb::History(args)) => tell_either(past::history(&args, &around)),
        Some(Verb::Rollback(args)) => tell_either(past::rollback(&args, &around)),
        Some(Verb::Explain(args)) => tell_either(explain::explain(&args, &around)),
        Some(Verb::Test(args)) => tell_either(cases::test(&args, &around)),
        Some(Verb::Limits(args)) => tell_either(limits::limits(&args, &around)),
        Some(Verb::Reload(args)) => tell_either(process::wish(Wish::Reload, &args, &around)),
        Some(Verb::Quit(args)) => tell_either(process::wish(Wish::Quit, &args, &around)),
        Some(Verb::Stop(args)) => tell_either(process::wish(Wish::Stop, &args, &around)),
        Some(Verb::Origin(args)) => serve_origin(&args),
    }
}

/// What a verb has to say, with its exit code. What goes wrong is said on stderr.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    code: u8,
    text: String,
}

fn tell(told: Told) -> u8 {
    if told.code == OK || told.code == INVALID {
        // A reader that left, such as `head`, is no failure of ours.
        let _ = io::stdout().lock().write_all(told.text.as_bytes());
    } else {
        log::say(told.text.trim_end());
    }
    told.code
}

/// What was asked for goes to the standard output, and why it is not to be had to stderr.
fn tell_either(told: Result<Told, Told>) -> u8 {
    match told {
        Ok(told) => {
            let _ = io::stdout().lock().write_all(told.text.as_bytes());
            told.code
        }
        Err(told) => {
            log::say(told.text.trim_end());
            told.code
        }
    }
}

fn run(args: RunArgs) -> u8 {
    let loaded = match load::load(&args.files, &args.overrides, &Surroundings::real()) {
        Ok(loaded) => loaded,
        Err(trouble) => {
            trouble.lines().iter().for_each(log::say);
            return trouble.code();
        }
    };
    if let Err(error) = log::set_up(&loaded.settings.log) {
        log::say(format!("log.output {}: {error}", loaded.settings.log.output));
        return FAILED;
    }
    tell_what_was_found(&loaded);
    let Loaded { settings, source, resources, .. } = loaded;
    match boot::run(Launch { settings, source, resources, ready_file: args.ready_file }) {
        Ok(ended) => ended.exit_code(),
        Err(error) => {
            log::error(error.to_string());
            log::flush();
            FAILED
        }
    }
}

fn tell_what_was_found(loaded: &Loaded) {
    log::info(match &loaded.config_path {
        Some(path) => format!("settings from {}", path.display()),
        None => "no config.yaml found, starting with built-in defaults".to_owned(),
    });
    match (&loaded.resources_path, &loaded.settings.etcd) {
        (Some(path), _) => log::info(format!("resources from {}", path.display())),
        (None, Some(etcd)) => {
            let members: Vec<String> = etcd.endpoints.iter().map(ToString::to_string).collect();
            let prefix = etcd.prefix.as_str();
            log::info(format!("objects from etcd at {}, below {prefix}", members.join(", ")));
        }
        (None, None) => {
            let state = loaded.settings.state_dir.display();
            log::info(format!("no resources.yaml or apisix.yaml found: objects are kept in {state}"));
        }
    }
    for warning in &loaded.settings.warnings {
        log::warn(warning);
    }
}

fn serve_origin(args: &OriginArgs) -> u8 {
    let bound = |address| {
        let _ = writeln!(io::stdout().lock(), "{} listens on http://{address}", args.name);
    };
    match origin::run(args.listen, args.threads, &args.name, bound) {
        Ok(()) => OK,
        Err(error) => {
            log::say(format!("origin on {}: {error}", args.listen));
            FAILED
        }
    }
}

#[cfg(test)]
mod tests;
