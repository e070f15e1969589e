//! The process's own file, `config.yaml`, read once at start: where it listens, on which cores, what it logs, and
//! every limit. Routes and other objects are elsewhere, see [`super::resources`].
//!
//! ```yaml
//! listen: ["0.0.0.0:9080"]
//! cores: auto
//! resources: /etc/ringway/resources.yaml
//! limits: {head_bytes: 32768, head_timeout: 10}
//! ```
//!
//! APISIX's keys are taken where they mean the same (see `settings/apisix.rs`); what means nothing here is told in
//! [`Settings::warnings`]. Values may hold `${{NAME:=default}}`, and every key may be set from outside as
//! `RINGWAY_LIMITS__HEAD_BYTES=16384` (see [`apply_env`]).

mod acme;
pub mod admin;
mod apisix;
mod apisix_stream;
mod cores;
pub mod discovery;
mod dns;
mod encryption;
mod etcd;
pub mod exported;
mod http2;
pub mod limits;
mod listen;
mod logs;
mod secrets;
mod ssl;
pub mod stream;

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ConfigError;
use super::field::{AddressRange, Unique};
use super::path::pointer;
use super::schema::{parse, schema_of};
use super::substitute::{Lookup, scalar, substitute};
use super::values::{Format, read};

pub use acme::{AcmeChallenge, AcmeHook, AcmeIssuer, AcmeKeyType, ExternalAccount};
pub use admin::{AdminApiVersion, AdminKey, AdminRole, AdminSecrets, AdminSettings, AdminTls};
pub use apisix::keys_of_apisix;
pub use cores::Cores;
pub use discovery::DiscoverySettings;
pub use dns::{DnsRegistry, DnsSettings, NameServer, RecordType};
pub use encryption::DataEncryption;
pub use etcd::{Endpoint, EtcdSettings, EtcdTls};
pub use http2::Http2Settings;
pub use limits::Limits;
pub use listen::{Entrance, Listen, Listeners, OptionalListeners, ProxyProtocolSettings, UnixListen};
pub use logs::{AccessFormat, AccessLogSettings, LogFormat, LogLevel, LogOutput, LogSettings};
pub use secrets::SecretsSettings;
pub use ssl::{SslSettings, Trusted, TrustedCertificates};
pub use stream::{StreamListen, StreamSettings};

/// What environment variables that set a key start with.
pub const ENV_PREFIX: &str = "RINGWAY_";
/// Where state is kept: the place the file system's standard has for it.
pub const STATE_DIR: &str = "/var/lib/ringway";
/// Where sockets and process ids are kept, by the same standard.
pub const RUN_DIR: &str = "/run/ringway";
/// The name of the control socket.
const CONTROL_SOCKET: &str = "control.sock";

/// The process's own configuration.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where requests come in: an address with port, a port (all IPv4 addresses), `{address, port}`, `unix:/path`, `{unix, mode}`, or a list of these.
    /// Port 0 is any free one.
    pub listen: Listeners,
    /// Where load balancers say for whom they pass bytes on.
    pub proxy_protocol: ProxyProtocolSettings,
    /// Connections and datagrams that stream routes pass on as they are.
    pub stream_proxy: Box<StreamSettings>,
    /// How many event loops, and on which processors: `auto` (one on each the process may use), a number, or processors
    /// such as `0-3,6`.
    pub cores: Cores,
    /// How the kernel is asked for input and output.
    pub driver: Driver,
    /// The file of objects, or a folder whose `*.yaml`, `*.yml` and `*.json` are merged in the order of names. Absent:
    /// `resources.yaml`, then `apisix.yaml`, beside this file.
    pub resources: Option<PathBuf>,
    /// The etcd 3 that holds the objects, where no file does.
    pub etcd: Option<EtcdSettings>,
    /// Registries that know the nodes of upstreams, for `discovery_type`.
    pub discovery: Box<DiscoverySettings>,
    /// How names of nodes are resolved.
    pub dns: Box<DnsSettings>,
    /// TLS: where it is spoken, and whom the gateway believes.
    pub ssl: SslSettings,
    /// Authorities that issue certificates by themselves, for ssls with `acme`.
    pub acme: Vec<AcmeIssuer>,
    /// HTTP/2 with clients.
    pub http2: Http2Settings,
    /// The folder where the store of objects and its keys are kept.
    pub state_dir: PathBuf,
    /// How secrets of objects are kept.
    pub data_encryption: DataEncryption,
    /// Where values that objects refer to may be read.
    pub secrets: SecretsSettings,
    /// The process's own log.
    pub log: LogSettings,
    /// The record of every request.
    pub access_log: AccessLogSettings,
    /// Where metrics are read.
    pub metrics: MetricsSettings,
    /// Where health is asked.
    pub status: StatusSettings,
    /// The Admin API.
    pub admin: AdminSettings,
    /// The control API: what is in force, for those who look after the gateway.
    pub control: ControlSettings,
    /// The Unix socket of the command line, which whoever may open it owns the gateway by; `off`: none. Absent:
    /// `control.sock` in `/run/ringway`, or in `state_dir` where that is another than by default.
    pub control_socket: Option<PathBuf>,
    /// Addresses of proxies whose `X-Forwarded-*` headers are believed. Empty: nobody's.
    pub trusted_addresses: Unique<AddressRange>,
    /// What becomes of an `X-Forwarded-For` of anybody else. With APISIX's keys and without its `trusted_addresses`: `append`.
    pub forwarded_for: ForwardedFor,
    /// How paths are compared with those of routes.
    pub router: RouterSettings,
    /// Is `Via: 1.1 ringway` added to messages?
    pub via: bool,
    /// Does the `Server` header tell the version?
    pub server_tokens: bool,
    /// Is the status that the node answered with told in `X-APISIX-Upstream-Status` of every answer, rather than of those from 500 on alone?
    pub show_upstream_status: bool,
    /// What plugins are told once for the process, by name of plugin.
    pub plugin_attr: Map<String, Value>,
    /// Names of the plugins that may be used. Empty: all there are.
    pub plugins: Unique<String>,
    /// How much of everything.
    pub limits: Limits,
    /// What was in the file and means nothing here. Not a setting.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: Listeners::default(),
            proxy_protocol: ProxyProtocolSettings::default(),
            stream_proxy: Box::default(),
            cores: Cores::Auto,
            driver: Driver::Auto,
            resources: None,
            etcd: None,
            discovery: Box::default(),
            dns: Box::default(),
            ssl: SslSettings::default(),
            acme: Vec::new(),
            http2: Http2Settings::default(),
            state_dir: PathBuf::from(STATE_DIR),
            data_encryption: DataEncryption::default(),
            secrets: SecretsSettings::default(),
            log: LogSettings::default(),
            access_log: AccessLogSettings::default(),
            metrics: MetricsSettings::default(),
            status: StatusSettings::default(),
            admin: AdminSettings::default(),
            control: ControlSettings::default(),
            control_socket: None,
            trusted_addresses: none(),
            forwarded_for: ForwardedFor::default(),
            router: RouterSettings::default(),
            via: false,
            server_tokens: false,
            show_upstream_status: false,
            plugin_attr: Map::new(),
            plugins: none(),
            limits: Limits::default(),
            warnings: Vec::new(),
        }
    }
}

/// How the kernel is asked for input and output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Driver {
    /// io_uring where the kernel lets us, else epoll.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// io_uring, or the process does not start.
    #[serde(rename = "io_uring")]
    IoUring,
    /// epoll.
    #[serde(rename = "epoll")]
    Epoll,
}

/// Where metrics are read.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsSettings {
    /// Are metrics offered at all?
    pub enabled: bool,
    /// Where, in the forms of the outer `listen`. Loopback by default: metrics tell names of routes and nodes.
    pub listen: Listen,
}

impl Default for MetricsSettings {
    fn default() -> Self {
        Self { enabled: true, listen: Listen::loopback(9091) }
    }
}

/// Where health is asked.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StatusSettings {
    /// Are health endpoints offered at all?
    pub enabled: bool,
    /// Where, in the forms of the outer `listen`. Loopback by default; a probe of Kubernetes needs `0.0.0.0:7085`.
    pub listen: Listen,
}

impl Default for StatusSettings {
    fn default() -> Self {
        Self { enabled: true, listen: Listen::loopback(7085) }
    }
}

/// The control API.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ControlSettings {
    /// Is the control API offered? Absent: when its address is free, as 9090 is a port that others use, too.
    pub enabled: Option<bool>,
    /// Where, in the forms of the outer `listen`. Loopback by default: nobody is asked for a key.
    pub listen: Listen,
}

impl Default for ControlSettings {
    fn default() -> Self {
        Self { enabled: None, listen: Listen::loopback(9090) }
    }
}

/// How paths are compared with those of routes.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RouterSettings {
    /// In which order host and path are compared, by APISIX's names.
    pub http: RouterKind,
    /// Is `//` compared as `/`?
    pub merge_slashes: bool,
    /// Is `%2F` taken, and kept apart from `/`? Otherwise it is refused.
    pub match_uri_encoded_slash: bool,
    /// Is `/a/` compared as `/a`?
    pub delete_uri_tail_slash: bool,
    /// Are `;parameters` of path segments left out of the comparison, as servlet containers do?
    pub normalize_uri_like_servlet: bool,
}

impl Default for RouterSettings {
    fn default() -> Self {
        Self {
            http: RouterKind::default(),
            merge_slashes: true,
            match_uri_encoded_slash: false,
            delete_uri_tail_slash: false,
            normalize_uri_like_servlet: false,
        }
    }
}

/// What becomes of the list of proxies that a request claims to have come by, where nobody says that it is to be believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum ForwardedFor {
    /// It is not sent on.
    #[default]
    Drop,
    /// It is sent on, with the client's address behind it: nodes must not take all of it for true.
    Append,
}

/// The order in which host and path are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum RouterKind {
    /// The host first, then the path.
    #[default]
    RadixtreeHostUri,
    /// The path, with the host as one of the conditions.
    RadixtreeUri,
    /// The path, with parameters such as `/user/:id`.
    RadixtreeUriWithParameter,
}

impl Settings {
    /// Reads the file's text (YAML, of which JSON is a part), or tells all that is wrong with it.
    pub fn parse(text: &str, env: Lookup<'_>) -> Result<Self, Vec<ConfigError>> {
        Self::parse_with(text, env, std::iter::empty())
    }

    /// The same, with variables of the environment that set single keys.
    pub fn parse_with(
        text: &str,
        env: Lookup<'_>,
        vars: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Vec<ConfigError>> {
        let mut value = read(text, Format::Yaml).map_err(|fault| vec![fault])?;
        if value.is_null() {
            value = Value::Object(Map::new());
        }
        let mut faults = substitute(&mut value, env);
        apply_env(&mut value, vars);
        let mut translated = apisix::translate(&mut value, &mut faults);
        translated.prometheus(&mut value, &mut faults);
        match parse::<Self>(value) {
            Ok(mut settings) if faults.is_empty() => {
                settings.warnings = translated.warnings;
                settings.warnings.extend(settings.nobody_vouches());
                faults.extend(settings.faults());
                if faults.is_empty() { Ok(settings) } else { Err(faults) }
            }
            Ok(_) => Err(faults),
            Err(more) => {
                faults.extend(more.into_iter().map(|fault| translated.as_written(fault)));
                Err(faults)
            }
        }
    }

    /// Where the control socket is; `None`: nobody wants one.
    pub fn control_socket(&self) -> Option<PathBuf> {
        match &self.control_socket {
            Some(path) if path == Path::new("off") => None,
            Some(path) => Some(path.clone()),
            // Beside a state of its own, so that two gateways on a machine do not meet.
            None if self.state_dir != Path::new(STATE_DIR) => Some(self.state_dir.join(CONTROL_SOCKET)),
            None => Some(Path::new(RUN_DIR).join(CONTROL_SOCKET)),
        }
    }

    /// That load balancers are to say for whom they connect, and none is believed.
    fn nobody_vouches(&self) -> Option<String> {
        let proxied = &self.proxy_protocol;
        let is_wanted = !proxied.listen.is_empty()
            || !proxied.ssl_listen.is_empty()
            || self.stream_proxy.tcp.iter().any(|listen| listen.proxy_protocol);
        let is_nobody = proxied.from.is_empty() && self.trusted_addresses.is_empty();
        let told = "proxy_protocol.from: expected the addresses of load balancers, here or in trusted_addresses, got \
                    none: whoever connects where a PROXY header is to come first is closed";
        (is_wanted && is_nobody).then(|| told.to_owned())
    }

    /// Rules between settings.
    fn faults(&self) -> Vec<ConfigError> {
        let mut faults = self.etcd.as_ref().map_or_else(Vec::new, EtcdSettings::faults);
        faults.extend(self.data_encryption.faults());
        faults.extend(self.secrets.faults());
        faults.extend(self.discovery.faults());
        faults.extend(AcmeIssuer::faults(&self.acme));
        faults.extend(self.shared_entrances());
        if self.etcd.is_some()
            && let Some(path) = &self.resources
        {
            let problem = format!("expected this or etcd, got both ({})", path.display());
            faults.push(ConfigError::at("resources", problem));
        }
        if self.limits.line_bytes > self.limits.head_bytes {
            let (line, head) = (self.limits.line_bytes, self.limits.head_bytes);
            faults.push(ConfigError::at(
                "limits.line_bytes",
                format!("expected at most limits.head_bytes, which is {head}, got {line}"),
            ));
        }
        faults
    }

    /// Places where clients would come in that are for two kinds of them: the system would deal connections out among both.
    fn shared_entrances(&self) -> Vec<ConfigError> {
        let proxied = &self.proxy_protocol;
        let of_requests: [(&str, &[Entrance]); 4] = [
            ("listen", &self.listen),
            ("ssl.listen", &self.ssl.listen),
            ("proxy_protocol.listen", &proxied.listen),
            ("proxy_protocol.ssl_listen", &proxied.ssl_listen),
        ];
        let of_requests = of_requests.into_iter().flat_map(|(field, entrances)| {
            entrances.iter().map(move |entrance| ((field, false, false), entrance))
        });
        let of_streams = self
            .stream_proxy
            .tcp
            .iter()
            .map(|listen| (("stream_proxy.tcp", listen.tls, listen.proxy_protocol), &listen.entrance));
        let all: Vec<_> = of_requests.chain(of_streams).collect();
        let mut faults = Vec::new();
        for (at, (kind, entrance)) in all.iter().enumerate() {
            let taken = all[..at].iter().find(|(other, one)| other != kind && one.is_same_place(entrance));
            if let Some(((field, ..), _)) = taken {
                let problem = format!("expected a place of its own, got {entrance}, which is one of {field}");
                faults.push(ConfigError::at(kind.0, problem));
            }
        }
        faults
    }
}

/// Sets keys from variables of the environment: `RINGWAY_LIMITS__HEAD_BYTES=16384` is `limits.head_bytes`, two
/// underscores for a level. A value in brackets or braces is read as JSON; one that reads as a number or a truth
/// is that; any other is text.
///
/// Variables whose first word is no setting are passed over: Kubernetes itself sets `RINGWAY_PORT` and its like
/// for a service of our name.
pub fn apply_env(settings: &mut Value, vars: impl Iterator<Item = (String, String)>) {
    let schema = schema_of::<Settings>();
    let is_setting = |name: &str| schema["properties"].get(name).is_some();
    for (variable, text) in vars {
        let Some(name) = variable.strip_prefix(ENV_PREFIX) else { continue };
        let path = name.to_ascii_lowercase();
        let levels: Vec<&str> = path.split("__").collect();
        if levels.first().is_some_and(|first| is_setting(first)) {
            put(settings, &levels, of_env(text));
        }
    }
}

fn of_env(text: String) -> Value {
    if text.starts_with(['[', '{'])
        && let Ok(value) = read(&text, Format::Json)
    {
        return value;
    }
    scalar(text)
}

/// Puts a value at a path, making objects on the way; what is not an object there gives way.
fn put(at: &mut Value, levels: &[&str], value: Value) {
    let Some((level, inner)) = levels.split_first() else {
        *at = value;
        return;
    };
    if !at.is_object() {
        *at = Value::Object(Map::new());
    }
    if let Value::Object(fields) = at {
        put(fields.entry(*level).or_insert(Value::Null), inner, value);
    }
}

/// Is there anything at a dotted path?
fn has(value: &Value, path: &str) -> bool {
    value.pointer(&pointer(path)).is_some()
}

fn none<T: Eq + std::hash::Hash>() -> Unique<T> {
    Unique::new(Vec::new()).expect("an empty list has no doubles")
}

#[cfg(test)]
mod tests;
