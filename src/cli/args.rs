//! The shape of the command line. The comments here are its help.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::load::{FileArgs, Overrides};
use crate::model::Kind;
use crate::model::nearest::hint;

const AFTER_HELP: &str = "\
Without a verb, `run` is meant, and takes the same options.

Files:
  Settings are looked for in this order: --config, $RINGWAY_CONFIG, ./config.yaml, /etc/ringway/config.yaml.
  With none, built-in defaults are used and said so. Resources (routes, upstreams, plugins) come from the file or
  folder that --resources or the setting `resources` names, else from resources.yaml or apisix.yaml beside the
  settings; they are watched and taken over without a restart.

Environment:
  Every setting can be given as RINGWAY_<KEY>, two underscores for a level: RINGWAY_LIMITS__HEAD_BYTES=16384.
  Options win over the environment, the environment over the file. In files, ${{NAME}} and ${{NAME:=default}}
  are replaced.

Signals:
  TERM  drain within limits.shutdown_timeout, accepting for limits.pre_stop_delay first
  INT   the same without accepting on; a second INT ends at once
  QUIT  drain without bound        WINCH  stop accepting, serve on, readiness fails
  HUP   read resources again       USR1   reopen log files

Exit codes:
  0 ended as asked    1 failed    2 there are differences (diff), faults in a file (test)    3 configuration has faults
  64 used wrongly    69 no running gateway reached    78 configuration unreadable    130, 143 ended by force";

/// An API gateway and edge proxy: one event loop per core, routes and plugins as in Apache APISIX.
#[derive(Debug, Parser)]
#[command(
    name = "ringway",
    version,
    max_term_width = 110,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_long_help = AFTER_HELP,
    after_help = "Without a verb, `run` is meant. --help tells of files, environment, signals and exit codes."
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) verb: Option<Verb>,
    #[command(flatten)]
    pub(super) run: RunArgs,
    /// Check the configuration instead of running, as `check` does
    #[arg(short = 't', long = "test")]
    pub(super) test: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Serve, in the foreground, until told to end by a signal
    Run(RunArgs),
    /// Read the configuration as `run` would and tell every fault; exits 0, 3 (faults) or 78 (unreadable)
    Check(CheckArgs),
    /// Tell what this is: version, revision, kernel, and the driver it would use here
    Version(VersionArgs),
    /// Print the JSON schema of a file, of a kind of resource, or of a plugin's configuration
    Schema(SchemaArgs),
    /// List the plugins there are, or tell of one
    Plugins(PluginsArgs),
    /// Show objects of a running gateway
    Get(GetArgs),
    /// Make the objects of a running gateway those of a file: what is not in it is deleted
    #[command(visible_alias = "sync")]
    Apply(ApplyArgs),
    /// Tell what `apply` of a file would change, and which requests other routes would win; exits 2 if anything
    Diff(DiffArgs),
    /// Print all objects of a running gateway, in a form that `apply` and `run --resources` take
    Dump(DumpArgs),
    /// Tell who changed what, newest first
    History(HistoryArgs),
    /// Make the objects of a running gateway what they were at a revision
    Rollback(RollbackArgs),
    /// Tell what becomes of a request and why: which route takes it, which plugins run, where it is sent
    Explain(ExplainArgs),
    /// Make the requests of files of tests to a configuration, and tell which are not answered as expected
    Test(TestArgs),
    /// Tell what is left of limits, for a key
    Limits(LimitsArgs),
    /// Have a running gateway read its resources again; tells what is wrong with them
    Reload(ControlArgs),
    /// Have a running gateway accept nothing more and end when its connections have
    Quit(ControlArgs),
    /// Have a running gateway end at once, cutting what is open
    Stop(ControlArgs),
    /// Run a small server to stand behind the gateway: for first steps, tests and load
    Origin(OriginArgs),
}

#[derive(Args, Debug)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) files: FileArgs,
    #[command(flatten)]
    pub(super) overrides: Overrides,
    /// Write addresses, process id and driver to this file, as JSON, once all cores serve
    #[arg(long, value_name = "FILE")]
    pub(super) ready_file: Option<PathBuf>,
}

#[derive(Args, Debug, Default)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    pub(super) files: FileArgs,
    /// Take warnings for faults: what is valid and not done here as it is asked for, and settings that are ignored
    #[arg(long)]
    pub(super) strict: bool,
    /// How faults are told
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: ReportFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum ReportFormat {
    /// A line a fault
    #[default]
    Text,
    /// One JSON object
    Json,
    /// SARIF 2.1.0, for code scanners
    Sarif,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    /// For people
    #[default]
    Text,
    /// For machines: one JSON object
    Json,
}

#[derive(Args, Debug)]
pub(super) struct VersionArgs {
    /// As one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct SchemaArgs {
    /// `resources`, `config` or `tests` for a whole file; a kind such as `routes`, a plugin, `plugins` for the list of them,
    /// or `_meta` for what any of them may be told. Absent: either file
    pub(super) name: Option<String>,
    /// As tables of Markdown, as on the pages of the documentation
    #[arg(long)]
    pub(super) markdown: bool,
}

#[derive(Args, Debug)]
pub(super) struct PluginsArgs {
    /// The plugin to tell of
    pub(super) name: Option<String>,
}

/// Which running gateway.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct NodeArgs {
    /// The control socket of the gateway; by default that of the settings
    #[arg(long, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
    /// File of the gateway's settings, which say where its socket is
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct GetArgs {
    /// Routes, services, upstreams, consumers, credentials and so on
    #[arg(value_parser = kind)]
    pub(super) kind: Kind,
    /// One of them; a credential as USER/ID, a secret as MANAGER/ID
    pub(super) id: Option<String>,
    /// Secrets as they are, with private keys; without, *** stands for them
    #[arg(long)]
    pub(super) secrets: bool,
    /// How they are told
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: OutputFormat,
    #[command(flatten)]
    pub(super) node: NodeArgs,
}

#[derive(Args, Debug)]
pub(super) struct ApplyArgs {
    /// File of all objects, or a folder of such files; - is the standard input
    #[arg(short, long, value_name = "PATH")]
    pub(super) file: PathBuf,
    /// Check it and tell what would change, and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Go on though the file has no object, so that all are deleted
    #[arg(long)]
    pub(super) empty: bool,
    /// How it is told
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: OutputFormat,
    #[command(flatten)]
    pub(super) node: NodeArgs,
}

#[derive(Args, Debug)]
pub(super) struct DiffArgs {
    /// File of all objects, or a folder of such files; - is the standard input
    #[arg(short, long, value_name = "PATH")]
    pub(super) file: PathBuf,
    /// How it is told
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: OutputFormat,
    #[command(flatten)]
    pub(super) node: NodeArgs,
}

#[derive(Args, Debug)]
pub(super) struct DumpArgs {
    /// Write to this file rather than to the standard output
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Secrets as they are, with private keys; without, *** stands for them
    #[arg(long)]
    pub(super) secrets: bool,
    /// YAML or JSON
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: OutputFormat,
    #[command(flatten)]
    pub(super) node: NodeArgs,
}

#[derive(Args, Debug)]
pub(super) struct HistoryArgs {
    /// How many revisions
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(super) limit: usize,
    /// How they are told
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: OutputFormat,
    #[command(flatten)]
    pub(super) node: NodeArgs,
}

#[derive(Args, Debug)]
pub(super) struct RollbackArgs {
    /// The revision, as `history` tells it
    pub(super) revision: u64,
    /// Tell what would change, and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// How it is told
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: OutputFormat,
    #[command(flatten)]
    pub(super) node: NodeArgs,
}

#[derive(Args, Debug)]
pub(super) struct ControlArgs {
    /// How it is told
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: OutputFormat,
    #[command(flatten)]
    pub(super) node: NodeArgs,
}

#[derive(Args, Debug)]
pub(super) struct ExplainArgs {
    /// The method, such as GET
    pub(super) method: String,
    /// http://HOST/PATH?QUERY, or a path, which may be followed by a query
    pub(super) url: String,
    /// A header of the request; may be said several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub(super) headers: Vec<String>,
    /// The address the request comes from; 127.0.0.1 where none is said
    #[arg(long, value_name = "IP")]
    pub(super) remote_addr: Option<String>,
    /// Tell of this route in any case
    #[arg(long, value_name = "ID")]
    pub(super) route: Option<String>,
    /// Send the request, too, from here to the gateway, and tell what came back
    #[arg(long, conflicts_with = "resources")]
    pub(super) send: bool,
    /// File of resources, or a folder of such files, to be asked rather than a running gateway
    #[arg(long, value_name = "PATH", conflicts_with = "socket")]
    pub(super) resources: Option<PathBuf>,
    /// As one JSON object; the same as --format json
    #[arg(long)]
    pub(super) json: bool,
    /// How it is told
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: OutputFormat,
    #[command(flatten)]
    pub(super) node: NodeArgs,
}

#[derive(Args, Debug)]
pub(super) struct TestArgs {
    /// Files of tests
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// Only cases whose name has this in it
    #[arg(long, value_name = "TEXT")]
    pub(super) filter: Option<String>,
    /// Write what came of them to this file, too, as JUnit does
    #[arg(long, value_name = "FILE")]
    pub(super) junit: Option<PathBuf>,
    /// Fail unless so many of a hundred routes are reached
    #[arg(long, value_name = "PERCENT", conflicts_with = "filter", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(super) coverage_min: Option<u8>,
    /// Tell only of what does not pass
    #[arg(short, long)]
    pub(super) quiet: bool,
}

#[derive(Args, Debug)]
pub(super) struct LimitsArgs {
    /// What keys of limits come to: an address, the value of a header; that of a consumer is its name
    pub(super) key: Option<String>,
    /// Look at this route only
    #[arg(long, value_name = "ID")]
    pub(super) route: Option<String>,
    /// With the plugins and the tier of this consumer
    #[arg(long, value_name = "NAME")]
    pub(super) consumer: Option<String>,
    /// Look at this stream route only
    #[arg(long, value_name = "ID", conflicts_with = "route")]
    pub(super) stream_route: Option<String>,
    /// How it is told
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: OutputFormat,
    #[command(flatten)]
    pub(super) node: NodeArgs,
}

fn kind(text: &str) -> Result<Kind, String> {
    let known = Kind::ALL.iter().copied().find(|kind| kind.plural() == text || kind.singular() == text);
    known.ok_or_else(|| {
        let plurals = || Kind::ALL.iter().map(|kind| kind.plural());
        format!("expected one of {}{}", plurals().collect::<Vec<_>>().join(", "), hint(text, plurals()))
    })
}

#[derive(Args, Debug)]
pub(super) struct OriginArgs {
    /// Where to listen; port 0 takes a free one, which is printed
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:1980")]
    pub(super) listen: SocketAddr,
    /// How many threads, each with a listener of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = threads)]
    pub(super) threads: usize,
    /// What it calls itself in its answers
    #[arg(long, default_value = "origin")]
    pub(super) name: String,
}

fn threads(text: &str) -> Result<usize, String> {
    let threads = text.parse().ok().filter(|threads| (1..=256).contains(threads));
    threads.ok_or_else(|| "expected 1 to 256".to_owned())
}
