//! APISIX's `config.yaml` keys: those that mean the same become ours, the others are warned of, one by one.
//!
//! | theirs | ours |
//! |---|---|
//! | `apisix.node_listen` (a port, or a list of ports and `{ip, port}`) | `listen` |
//! | `apisix.router.http` | `router.http` |
//! | `apisix.delete_uri_tail_slash`, `.normalize_uri_like_servlet`, `.match_uri_encoded_slash` | `router.…` |
//! | `apisix.trusted_addresses` | `trusted_addresses`; without it `forwarded_for: append` |
//! | `apisix.status` (`{ip, port}`) | `status.listen` |
//! | `apisix.enable_control`, `apisix.control` (`{ip, port}`) | `control.enabled`, `control.listen` |
//! | `apisix.enable_server_tokens`, `.show_upstream_status_in_response_header` | `server_tokens`, `show_upstream_status` |
//! | `apisix.data_encryption`: `enable_encrypt_fields`, `keyring` (a key, or a list) | `data_encryption` |
//! | `apisix.proxy_mode` with `stream` in it | `admin.stream_routes` |
//! | `apisix.stream_proxy.tcp`, `.udp`, `apisix.proxy_protocol.enable_tcp_pp` | `stream_proxy.tcp`, `.udp` |
//! | `plugins`, `plugin_attr` | the same; `plugin_attr.prometheus.export_addr` is `metrics.listen` |
//! | `apisix.dns_resolver`, `.dns_resolver_valid`, `.enable_resolv_search_opt` | `dns.servers`, `.valid`, `.search` |
//! | `discovery.consul`, `.dns`, `.eureka`, `.nacos` | the same; of other registries a warning |
//! | `deployment.admin`: `admin_listen`, `allow_admin`, `admin_key`, `admin_key_required`, `enable_admin_cors`, `admin_api_version` | `admin`, with `admin.secrets: shown` |
//! | `deployment.admin.https_admin`, with `admin_api_mtls`: `admin_ssl_cert`, `admin_ssl_cert_key`, `admin_ssl_ca_cert` | `admin.tls` |
//! | `deployment.etcd`: `host`, `prefix`, `timeout`, `watch_timeout`, `startup_retry`, `user`, `password`, `tls` | `etcd` |
//! | `apisix.ssl.listen`, `enable`, `ssl_protocols`, `ssl_session_tickets`, `fallback_sni` | `ssl.listen`, `protocols`, … |
//! | `apisix.proxy_protocol.listen_http_port`, `listen_https_port` | `proxy_protocol.listen`, `ssl_listen` |
//! | `apisix.ssl.ssl_trusted_certificate` | `ssl.trusted_certificate` |
//! | `deployment.*.config_provider` | `etcd`: the objects are there; `yaml` or `json`: in a file; any other is a fault |
//! | `nginx_config.*` and what else there is | nothing; a warning each |

use serde_json::{Map, Value};

use super::{has, put};
use crate::model::ConfigError;
use crate::model::schema::shown_value;

/// What came of a translation.
#[derive(Default)]
pub(super) struct Translated {
    pub(super) warnings: Vec<String>,
    /// Our path and theirs, so that faults speak of what the user wrote.
    renamed: Vec<(&'static str, String)>,
}

/// Top-level keys of APISIX that are looked into.
const READ: [&str; 2] = ["apisix", "deployment"];

/// Top-level keys of APISIX that mean nothing here.
const IGNORED: [&str; 7] =
    ["stream_plugins", "ext-plugin", "wasm", "xrpc", "graphql", "tracing", "nginx_config"];

/// Registries of APISIX that are not asked here.
const OTHER_REGISTRIES: [&str; 4] = ["consul_kv", "kubernetes", "tars", "zookeeper"];

/// Keys of registries that mean nothing here.
const OF_REGISTRIES: [&str; 8] = [
    "default_service",
    "dump",
    "shared_size",
    "skip_services",
    "sort_type",
    "access_key",
    "secret_key",
    "max_retries",
];

/// Keys below `apisix` that mean the same here.
const SAME: [(&str, &str); 10] = [
    ("enable_http2", "http2.enabled"),
    ("delete_uri_tail_slash", "router.delete_uri_tail_slash"),
    ("normalize_uri_like_servlet", "router.normalize_uri_like_servlet"),
    ("match_uri_encoded_slash", "router.match_uri_encoded_slash"),
    ("trusted_addresses", "trusted_addresses"),
    ("enable_server_tokens", "server_tokens"),
    ("show_upstream_status_in_response_header", "show_upstream_status"),
    ("dns_resolver", "dns.servers"),
    ("dns_resolver_valid", "dns.valid"),
    ("enable_resolv_search_opt", "dns.search"),
];

/// The keys that only APISIX's files have.
pub fn keys_of_apisix() -> impl Iterator<Item = &'static str> {
    READ.into_iter().chain(IGNORED)
}

/// Moves APISIX's keys to where ours are.
pub(super) fn translate(settings: &mut Value, faults: &mut Vec<ConfigError>) -> Translated {
    let mut translated = Translated::default();
    for name in IGNORED {
        if let Some(value) = take(settings, name) {
            translated.ignore(name, &value);
        }
    }
    if let Some(Value::Object(registries)) = settings.get_mut("discovery") {
        translated.discovery(registries);
    }
    if let Some(deployment) = take(settings, "deployment") {
        translated.deployment(settings, &deployment, faults);
    }
    match take(settings, "apisix") {
        Some(Value::Object(fields)) => translated.apisix(settings, fields, faults),
        None | Some(Value::Null) => {}
        Some(other) => {
            let found = shown_value(&other);
            faults.push(ConfigError::at("apisix", format!("expected an object, got {found}")));
        }
    }
    translated
}

fn take(settings: &mut Value, name: &str) -> Option<Value> {
    settings.as_object_mut()?.shift_remove(name)
}

impl Translated {
    /// Tells a fault by the name the user knows it by.
    pub(super) fn as_written(&self, mut fault: ConfigError) -> ConfigError {
        for (ours, theirs) in &self.renamed {
            if let Some(rest) = fault.path.strip_prefix(ours)
                && (rest.is_empty() || rest.starts_with(['.', '[']))
            {
                fault.path = format!("{theirs}{rest}");
                break;
            }
        }
        fault
    }

    /// A warning for a key, or one for each key of an object, two levels deep.
    /// Registries, and keys of theirs, that mean nothing here.
    fn discovery(&mut self, registries: &mut Map<String, Value>) {
        for registry in OTHER_REGISTRIES {
            if let Some(value) = registries.shift_remove(registry) {
                self.ignore(&format!("discovery.{registry}"), &value);
            }
        }
        for (name, registry) in registries.iter_mut() {
            let Value::Object(fields) = registry else { continue };
            for key in OF_REGISTRIES {
                if let Some(value) = fields.shift_remove(key) {
                    self.ignore(&format!("discovery.{name}.{key}"), &value);
                }
            }
        }
    }

    pub(super) fn ignore(&mut self, path: &str, value: &Value) {
        match value {
            Value::Object(fields) if !fields.is_empty() && path.split('.').count() <= 2 => {
                for (name, value) in fields {
                    self.ignore(&format!("{path}.{name}"), value);
                }
            }
            _ if path.starts_with("nginx_config.") => {
                self.warnings.push(format!("{path} is ignored: it speaks to nginx, which is not here"));
            }
            _ => self.warnings.push(format!("{path} is ignored: it has no meaning here")),
        }
    }

    fn apisix(&mut self, settings: &mut Value, fields: Map<String, Value>, faults: &mut Vec<ConfigError>) {
        if !fields.contains_key("trusted_addresses") && !has(settings, "forwarded_for") {
            put(settings, &["forwarded_for"], Value::from("append"));
        }
        let proxied = fields.get("proxy_protocol").is_some_and(|fields| fields["enable_tcp_pp"] == true);
        for (name, value) in fields {
            if let Some((_, ours)) = SAME.iter().find(|(theirs, _)| *theirs == name) {
                self.place(settings, ours, &format!("apisix.{name}"), value, faults);
                continue;
            }
            match (name.as_str(), value) {
                ("node_listen", value) => {
                    let listen = self.listen("apisix.node_listen", value);
                    self.place(settings, "listen", "apisix.node_listen", listen, faults);
                }
                ("status", value) => {
                    let listen = ip_as_address(value);
                    self.place(settings, "status.listen", "apisix.status", listen, faults);
                }
                ("enable_control", value) => {
                    self.place(settings, "control.enabled", "apisix.enable_control", value, faults);
                }
                ("control", mut value) => {
                    if let Some(router) = take(&mut value, "router") {
                        self.ignore("apisix.control.router", &router);
                    }
                    let listen = ip_as_address(value);
                    self.place(settings, "control.listen", "apisix.control", listen, faults);
                }
                ("router", Value::Object(mut router)) => {
                    if let Some(http) = router.shift_remove("http") {
                        self.place(settings, "router.http", "apisix.router.http", http, faults);
                    }
                    for (name, value) in router {
                        self.ignore(&format!("apisix.router.{name}"), &value);
                    }
                }
                ("ssl", Value::Object(mut ssl)) => {
                    if let Some(trusted) = ssl.shift_remove("ssl_trusted_certificate") {
                        let theirs = "apisix.ssl.ssl_trusted_certificate";
                        self.place(settings, "ssl.trusted_certificate", theirs, trusted, faults);
                    }
                    self.ssl(settings, ssl, faults);
                }
                ("proxy_protocol", Value::Object(fields)) => self.proxy_protocol(settings, fields, faults),
                ("stream_proxy", Value::Object(fields)) => {
                    self.stream_proxy(settings, fields, proxied, faults)
                }
                ("data_encryption", Value::Object(fields)) => self.encryption(settings, fields, faults),
                ("proxy_mode", Value::String(mode)) if mode == "http" => {}
                ("proxy_mode", Value::String(mode)) if mode.contains("stream") => {
                    self.place(
                        settings,
                        "admin.stream_routes",
                        "apisix.proxy_mode",
                        Value::Bool(true),
                        faults,
                    );
                }
                (name, value) => self.ignore(&format!("apisix.{name}"), &value),
            }
        }
    }

    /// Where TLS is spoken, and how.
    fn ssl(&mut self, settings: &mut Value, ssl: Map<String, Value>, faults: &mut Vec<ConfigError>) {
        let is_off = ssl.get("enable") == Some(&Value::Bool(false));
        for (name, value) in ssl {
            let theirs = format!("apisix.ssl.{name}");
            match (name.as_str(), value) {
                ("enable", _) if is_off => {
                    self.place(settings, "ssl.listen", &theirs, Value::Array(Vec::new()), faults);
                }
                ("enable", _) => {}
                ("listen", value) if is_off => self.ignore(&theirs, &value),
                ("listen", value) => {
                    let listen = self.listen(&theirs, value);
                    self.place(settings, "ssl.listen", &theirs, listen, faults);
                }
                // nginx's list has spaces.
                ("ssl_protocols", Value::String(words)) => {
                    let versions = words.split_whitespace().map(Value::from).collect();
                    self.place(settings, "ssl.protocols", &theirs, versions, faults);
                }
                ("ssl_session_tickets", value) => {
                    self.place(settings, "ssl.session_tickets", &theirs, value, faults);
                }
                ("fallback_sni", value) => {
                    self.place(settings, "ssl.fallback_sni", &theirs, value, faults);
                }
                (_, value) => self.ignore(&theirs, &value),
            }
        }
    }

    /// Ports of load balancers that say for whom they speak.
    fn proxy_protocol(
        &mut self,
        settings: &mut Value,
        fields: Map<String, Value>,
        faults: &mut Vec<ConfigError>,
    ) {
        for (name, value) in fields {
            let theirs = format!("apisix.proxy_protocol.{name}");
            let ours = match name.as_str() {
                "listen_http_port" => "proxy_protocol.listen",
                "listen_https_port" => "proxy_protocol.ssl_listen",
                // Said of the places of `stream_proxy.tcp`.
                "enable_tcp_pp" => continue,
                _ => {
                    self.ignore(&theirs, &value);
                    continue;
                }
            };
            self.place(settings, ours, &theirs, value, faults);
        }
    }

    /// Puts a value where ours is, unless ours was given as well: then who is to know which was meant?
    pub(super) fn place(
        &mut self,
        settings: &mut Value,
        ours: &'static str,
        theirs: &str,
        value: Value,
        faults: &mut Vec<ConfigError>,
    ) {
        if value.is_null() {
            return;
        }
        if has(settings, ours) {
            faults.push(ConfigError::at(theirs, format!("means the same as {ours}, which is given, too")));
            return;
        }
        put(settings, &ours.split('.').collect::<Vec<_>>(), value);
        self.renamed.push((ours, theirs.to_owned()));
    }

    fn encryption(
        &mut self,
        settings: &mut Value,
        fields: Map<String, Value>,
        faults: &mut Vec<ConfigError>,
    ) {
        for (name, value) in fields {
            let theirs = format!("apisix.data_encryption.{name}");
            match (name.as_str(), value) {
                ("enable_encrypt_fields" | "enable", value) => {
                    self.place(settings, "data_encryption.enable", &theirs, value, faults);
                }
                ("keyring", key @ Value::String(_)) => {
                    self.place(settings, "data_encryption.keyring", &theirs, Value::Array(vec![key]), faults);
                }
                ("keyring", keys) => {
                    self.place(settings, "data_encryption.keyring", &theirs, keys, faults);
                }
                (_, value) => self.ignore(&theirs, &value),
            }
        }
    }

    /// A port, or a list of ports and of `{ip, port, enable_http2, …}`.
    fn listen(&mut self, theirs: &str, value: Value) -> Value {
        let Value::Array(items) = value else { return value };
        let listen = |item: Value| {
            let mut item = ip_as_address(item);
            if let Value::Object(fields) = &mut item {
                for switch in ["enable_http2", "enable_http3", "enable_quic"] {
                    if fields.shift_remove(switch).is_some() {
                        self.ignore(&format!("{theirs}.{switch}"), &Value::Null);
                    }
                }
            }
            item
        };
        Value::Array(items.into_iter().map(listen).collect())
    }

    fn deployment(&mut self, settings: &mut Value, deployment: &Value, faults: &mut Vec<ConfigError>) {
        let Value::Object(fields) = deployment else { return };
        let mut provider = None;
        for (name, value) in fields {
            match (name.as_str(), value.get("config_provider")) {
                ("etcd", _) => {}
                ("role", _) => self.role(settings, value),
                ("admin", _) => self.admin(settings, value, faults),
                (role, Some(found)) if role.starts_with("role_") => {
                    provider = self.provider(role, found, faults).or(provider);
                }
                (name, _) => self.ignore(&format!("deployment.{name}"), value),
            }
        }
        // Where nobody says, APISIX's provider is etcd; here that is so where etcd is spoken of at all.
        match (provider, fields.get("etcd")) {
            (Some(Provider::File), Some(etcd)) => self.ignore("deployment.etcd", etcd),
            (Some(Provider::File), None) | (None, None) => {}
            (Some(Provider::Etcd), None) => {
                self.place(settings, "etcd", "deployment.etcd", Value::Object(Map::new()), faults);
            }
            (_, Some(etcd)) => self.etcd(settings, etcd, faults),
        }
    }

    /// A data plane has no Admin API.
    fn role(&mut self, settings: &mut Value, role: &Value) {
        if role == "data_plane" && !has(settings, "admin.enabled") {
            put(settings, &["admin", "enabled"], Value::Bool(false));
        }
    }

    fn provider(&mut self, role: &str, provider: &Value, faults: &mut Vec<ConfigError>) -> Option<Provider> {
        match provider.as_str() {
            Some("etcd") => Some(Provider::Etcd),
            Some("yaml" | "json") => Some(Provider::File),
            _ => {
                // To start without the objects that are meant would be worse than not to start.
                let found = shown_value(provider);
                let path = format!("deployment.{role}.config_provider");
                faults
                    .push(ConfigError::at(path, format!("expected one of etcd, yaml or json, got {found}")));
                None
            }
        }
    }

    fn etcd(&mut self, settings: &mut Value, etcd: &Value, faults: &mut Vec<ConfigError>) {
        let Value::Object(fields) = etcd else {
            let found = shown_value(etcd);
            faults.push(ConfigError::at("deployment.etcd", format!("expected an object, got {found}")));
            return;
        };
        if has(settings, "etcd") {
            self.place(settings, "etcd", "deployment.etcd", etcd.clone(), faults);
            return;
        }
        put(settings, &["etcd"], Value::Object(Map::new()));
        for (name, value) in fields {
            let theirs = format!("deployment.etcd.{name}");
            match ETCD.iter().find(|(theirs, _)| theirs == name) {
                // One member needs no list.
                Some((_, ours)) if value.is_string() && name == "host" => {
                    self.place(settings, ours, &theirs, Value::Array(vec![value.clone()]), faults);
                }
                Some((_, ours)) => self.place(settings, ours, &theirs, value.clone(), faults),
                None => self.ignore(&theirs, value),
            }
        }
    }
}

/// Where objects come from, as APISIX names it.
#[derive(Clone, Copy)]
enum Provider {
    Etcd,
    File,
}

/// Below `deployment.etcd`, what means the same here.
const ETCD: [(&str, &str); 8] = [
    ("host", "etcd.endpoints"),
    ("prefix", "etcd.prefix"),
    ("timeout", "etcd.timeout"),
    ("watch_timeout", "etcd.watch_timeout"),
    ("startup_retry", "etcd.startup_retry"),
    ("user", "etcd.user"),
    ("password", "etcd.password"),
    ("tls", "etcd.tls"),
];

/// Below `deployment.admin`, what means the same here. An empty or absent key is ours to make.
const ADMIN: [(&str, &str); 6] = [
    ("admin_listen", "admin.listen"),
    ("allow_admin", "admin.allow"),
    ("admin_key", "admin.keys"),
    ("admin_key_required", "admin.key_required"),
    ("enable_admin_cors", "admin.cors"),
    ("admin_api_version", "admin.api_version"),
];

impl Translated {
    fn admin(&mut self, settings: &mut Value, admin: &Value, faults: &mut Vec<ConfigError>) {
        let Value::Object(fields) = admin else { return };
        // Its clients write back what they have read, secrets and all.
        if !has(settings, "admin.secrets") {
            put(settings, &["admin", "secrets"], Value::from("shown"));
        }
        self.admin_tls(settings, fields, faults);
        for (name, value) in fields {
            let theirs = format!("deployment.admin.{name}");
            if ADMIN_TLS.contains(&name.as_str()) {
                continue;
            }
            match ADMIN.iter().find(|(theirs, _)| theirs == name) {
                // The word of APISIX's own file for the older form.
                Some((_, ours)) if name == "admin_api_version" && value == "default" => {
                    self.place(settings, ours, &theirs, Value::from("v2"), faults);
                }
                Some((_, ours)) => self.place(settings, ours, &theirs, ip_as_address(value.clone()), faults),
                None => self.ignore(&theirs, value),
            }
        }
    }
}

/// Below `deployment.admin`, what is about TLS.
const ADMIN_TLS: [&str; 2] = ["https_admin", "admin_api_mtls"];

/// Below `deployment.admin.admin_api_mtls`, all that there is.
const ADMIN_MTLS: [&str; 3] = ["admin_ssl_cert", "admin_ssl_cert_key", "admin_ssl_ca_cert"];

impl Translated {
    /// APISIX's certificate for whoever names none is known to everybody, so one must be named here.
    fn admin_tls(&mut self, settings: &mut Value, admin: &Map<String, Value>, faults: &mut Vec<ConfigError>) {
        match admin.get("admin_api_mtls") {
            None | Some(Value::Null) => {}
            Some(Value::Object(fields)) => {
                for name in fields.keys() {
                    // A slip that leaves out who may connect must not pass.
                    if !ADMIN_MTLS.contains(&name.as_str()) {
                        let path = format!("deployment.admin.admin_api_mtls.{name}");
                        let problem = format!("unknown field, expected one of {}", ADMIN_MTLS.join(", "));
                        faults.push(ConfigError::at(path, problem));
                    }
                }
            }
            Some(other) => {
                let problem = format!("expected an object, got {}", shown_value(other));
                faults.push(ConfigError::at("deployment.admin.admin_api_mtls", problem));
            }
        }
        let given = |name: &str| {
            let text = admin.get("admin_api_mtls")?.get(name)?;
            text.as_str().is_none_or(|text| !text.is_empty()).then(|| text.clone())
        };
        let (cert, key, authority) =
            (given("admin_ssl_cert"), given("admin_ssl_cert_key"), given("admin_ssl_ca_cert"));
        match admin.get("https_admin") {
            None | Some(Value::Bool(false) | Value::Null) => {
                for name in ADMIN_MTLS {
                    if given(name).is_some() {
                        let path = format!("deployment.admin.admin_api_mtls.{name}");
                        self.warnings.push(format!("{path} is ignored: https_admin is not true"));
                    }
                }
            }
            Some(Value::Bool(true)) => {
                let (Some(cert), Some(key)) = (cert, key) else {
                    faults.push(ConfigError::at(
                        "deployment.admin.https_admin",
                        "expected admin_api_mtls.admin_ssl_cert and admin_ssl_cert_key beside it",
                    ));
                    return;
                };
                let mut tls = Map::from_iter([("cert".to_owned(), cert), ("key".to_owned(), key)]);
                tls.extend(authority.map(|authority| ("client_ca".to_owned(), authority)));
                let theirs = "deployment.admin.admin_api_mtls";
                self.place(settings, "admin.tls", theirs, Value::Object(tls), faults);
            }
            Some(other) => {
                let problem = format!("expected true or false, got {}", shown_value(other));
                faults.push(ConfigError::at("deployment.admin.https_admin", problem));
            }
        }
    }
}

/// `{ip: …}` is `{address: …}` here.
fn ip_as_address(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value
        && let Some(ip) = fields.shift_remove("ip")
    {
        fields.insert("address".to_owned(), ip);
    }
    value
}
