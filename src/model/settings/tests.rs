//! The process's own file: defaults, both layouts, and what is refused.

use std::net::SocketAddr;

use super::*;

fn none_set(_: &str) -> Option<String> {
    None
}

fn settings(text: &str) -> Settings {
    Settings::parse(text, &none_set).unwrap_or_else(|faults| panic!("{text}: {faults:?}"))
}

fn faults(text: &str) -> Vec<String> {
    Settings::parse(text, &none_set).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

fn addresses(text: &str) -> Vec<String> {
    settings(text).listen.iter().map(ToString::to_string).collect()
}

#[test]
fn apisix_says_where_tls_is_spoken_and_where_load_balancers_come_in() {
    let settings = settings(
        "apisix:
          ssl:
            enable: true
            listen: [{port: 9443, enable_http3: false}, {ip: 127.0.0.1, port: 9445}]
            ssl_protocols: TLSv1.2 TLSv1.3
            ssl_session_tickets: false
            ssl_ciphers: ECDHE-ECDSA-AES128-GCM-SHA256
            fallback_sni: a.test
          proxy_protocol: {listen_http_port: 9181, listen_https_port: 9182, enable_tcp_pp: true}
        ",
    );
    let places =
        |listeners: &[Entrance]| -> Vec<String> { listeners.iter().map(ToString::to_string).collect() };
    assert_eq!(places(&settings.ssl.listen), ["0.0.0.0:9443", "127.0.0.1:9445"]);
    assert_eq!(places(&settings.proxy_protocol.listen), ["0.0.0.0:9181"]);
    assert_eq!(places(&settings.proxy_protocol.ssl_listen), ["0.0.0.0:9182"]);
    assert_eq!((settings.ssl.protocols.len(), settings.ssl.session_tickets), (2, false));
    assert_eq!(settings.ssl.fallback_sni.as_deref(), Some("a.test"));
    assert!(settings.warnings.iter().any(|warning| warning.starts_with("apisix.ssl.ssl_ciphers is ignored")));
    let off = self::settings("apisix: {ssl: {enable: false, listen: [{port: 9443}]}}");
    assert!(off.ssl.listen.is_empty());
    assert_eq!(places(&self::settings("ssl: {listen: 8443}").ssl.listen), ["0.0.0.0:8443"]);
}

#[test]
fn where_load_balancers_come_in_and_none_is_believed_that_is_told() {
    for (written, warned) in [
        ("proxy_protocol: {listen: 9181}", true),
        ("proxy_protocol: {ssl_listen: 9182}", true),
        ("stream_proxy: {tcp: [{port: 9100, proxy_protocol: true}]}", true),
        ("stream_proxy: {tcp: [9100]}", false),
        ("proxy_protocol: {listen: 9181, from: [10.0.0.0/8]}", false),
        ("{proxy_protocol: {listen: 9181}, trusted_addresses: [10.0.0.1]}", false),
    ] {
        let told = settings(written).warnings;
        let expected = told.iter().filter(|told| told.starts_with("proxy_protocol.from: expected")).count();
        assert_eq!((told.len(), expected), (usize::from(warned), usize::from(warned)), "{written}: {told:?}");
    }
}

#[test]
fn apisix_says_where_streams_come_in() {
    let settings = settings(
        "apisix:
          proxy_mode: http&stream
          stream_proxy: {tcp: [9100, '9101', '127.0.0.1:9102', {addr: 9103, tls: true}, {addr: '127.0.0.1:9104'}], udp: [9200, '127.0.0.1:9201']}
          proxy_protocol: {enable_tcp_pp: true}",
    );
    let places: Vec<_> =
        settings.stream_proxy.tcp.iter().map(|at| (at.entrance.to_string(), at.tls)).collect();
    let expected = [
        ("0.0.0.0:9100", false),
        ("0.0.0.0:9101", false),
        ("127.0.0.1:9102", false),
        ("0.0.0.0:9103", true),
        ("127.0.0.1:9104", false),
    ];
    assert_eq!(places, expected.map(|(at, tls)| (at.to_owned(), tls)));
    let udp: Vec<_> = settings.stream_proxy.udp.iter().map(|at| at.address().to_string()).collect();
    assert_eq!(udp, ["0.0.0.0:9200", "127.0.0.1:9201"]);
    assert!(settings.stream_proxy.tcp.iter().all(|at| at.proxy_protocol) && settings.admin.stream_routes);
    assert!(
        settings.warnings[0].starts_with("proxy_protocol.from: expected") && settings.warnings.len() == 1
    );
    assert_eq!(
        faults("apisix: {stream_proxy: {tcp: [nowhere]}}"),
        [
            "apisix.stream_proxy.tcp[0]: expected an address with port such as 0.0.0.0:9080, or unix: and an absolute path of at most 107 bytes, got \"nowhere\""
        ]
    );
}

/// A change here is one that operators notice, and wants its line in the change log.
const DEFAULTS: &str = r#"{
        "listen": ["0.0.0.0:9080"],
        "proxy_protocol": {"listen": [], "ssl_listen": [], "from": []},
        "stream_proxy": {
            "tcp": [], "udp": [], "idle_timeout": 600, "preread_bytes": 16384, "preread_timeout": 10,
            "udp_sessions": 4096, "udp_idle_timeout": 60, "datagram_bytes": 65507
        },
        "cores": "auto",
        "driver": "auto",
        "resources": null,
        "etcd": null,
        "discovery": {"consul": null, "dns": null, "eureka": null, "nacos": null},
        "dns": {
            "servers": [], "valid": null, "resolv_conf": "/etc/resolv.conf", "hosts": "/etc/hosts", "search": true
        },
        "ssl": {
            "listen": ["0.0.0.0:9443"], "protocols": ["TLSv1.2", "TLSv1.3"], "session_tickets": true,
            "stapling": false, "ticket_keys": [], "fallback_sni": null, "trusted_certificate": ["system"]
        },
        "acme": [],
        "http2": {
            "enabled": true, "streams": 100, "stream_window": 65535, "connection_window": 1048576,
            "resets_unseen": 50, "resets_owed": 200
        },
        "state_dir": "/var/lib/ringway",
            "data_encryption": {"enable": true, "keyring": []},
        "secrets": {"directories": ["/run/secrets"]},
        "log": {"level": "info", "format": "text", "output": "stderr"},
        "access_log": {
            "enabled": true, "output": "stdout", "format": "json", "buffer_bytes": 65536, "flush_interval": 1
        },
        "metrics": {"enabled": true, "listen": "127.0.0.1:9091"},
        "status": {"enabled": true, "listen": "127.0.0.1:7085"},
        "admin": {
            "enabled": null, "listen": "127.0.0.1:9180", "tls": null, "allow": [], "key_required": true, "keys": [],
            "cors": false, "secrets": "masked", "api_version": "v3", "stream_routes": false, "audit_log": null
        },
        "control": {"enabled": null, "listen": "127.0.0.1:9090"},
        "control_socket": null,
        "trusted_addresses": [],
        "forwarded_for": "drop",
        "router": {
            "http": "radixtree_host_uri", "merge_slashes": true, "match_uri_encoded_slash": false,
            "delete_uri_tail_slash": false, "normalize_uri_like_servlet": false
        },
        "via": false,
        "server_tokens": false,
        "show_upstream_status": false,
        "plugin_attr": {},
        "plugins": [],
        "limits": {
            "head_bytes": 32768,
            "line_bytes": 8192,
            "headers": 100,
            "head_timeout": 10,
            "handshake_timeout": 10,
            "handshakes_waiting_max": 512,
            "body_timeout": 30,
            "body_bytes": 0,
            "held_body_bytes": 67108864,
            "routed_body_bytes": 1048576,
            "keepalive_timeout": 60,
            "keepalive_requests": 10000,
            "write_timeout": 60,
            "upstream_head_bytes": 32768,
            "interim_responses": 10,
            "retries": 2,
            "retry_budget_percent": 20,
            "retry_budget_per_second": 10,
            "shutdown_timeout": 30,
            "pre_stop_delay": 0,
            "connections_max": 16384,
            "connections_per_address": 0,
            "buffer_bytes": 65536,
            "buffers_idle": 256,
            "drain_body_bytes": 65536,
            "drain_body_timeout": 5,
            "tunnel_timeout": 3600,
            "tunnel_close_timeout": 5
        }
    }"#;

#[test]
fn nothing_written_is_the_defaults() {
    let expected: Value = serde_json::from_str(DEFAULTS).unwrap();
    assert_eq!(serde_json::to_value(Settings::default()).unwrap(), expected);
    assert_eq!(serde_json::to_value(settings("# nothing\n")).unwrap(), expected);
    // What is written out reads back.
    assert_eq!(serde_json::to_value(settings(&expected.to_string())).unwrap(), expected);
}

#[test]
fn listening_is_written_in_several_ways() {
    let check = |text: &str, expected: &[&str]| assert_eq!(addresses(text), expected, "{text}");
    check("listen: 9080", &["0.0.0.0:9080"]);
    check("listen: 127.0.0.1:0", &["127.0.0.1:0"]);
    check("listen: ['[::]:9080', 81]", &["[::]:9080", "0.0.0.0:81"]);
    check("listen: [{port: 0}, {address: '::1', port: 80}]", &["0.0.0.0:0", "[::1]:80"]);
    check("apisix: {node_listen: 9081}", &["0.0.0.0:9081"]);
    check("apisix: {node_listen: [9081, 9082]}", &["0.0.0.0:9081", "0.0.0.0:9082"]);
    check(
        "apisix: {node_listen: [{ip: 127.0.0.2, port: 9081}, {port: 1}]}",
        &["127.0.0.2:9081", "0.0.0.0:1"],
    );
}

#[test]
fn a_wrong_place_to_listen_is_refused() {
    let check = |text: &str, fault: &str| assert_eq!(faults(text), [fault], "{text}");
    let one = "a list of at least 1, an address with port such as 0.0.0.0:9080, or unix: and an absolute path of at most 107 bytes, a whole number from 0 to 65535 or an object";
    check("listen: []", "listen: expected a list of at least 1, got an empty list");
    check(
        "listen: localhost",
        "listen: expected an address with port such as 0.0.0.0:9080, or unix: and an absolute path of at most 107 bytes, got \"localhost\"",
    );
    check("listen: true", &format!("listen: expected {one}, got true"));
    check("listen: [65536]", "listen[0]: expected a whole number from 0 to 65535, got 65536");
    check("listen: [{address: a, port: 1}]", "listen[0].address: expected an IP address, got \"a\"");
    check("listen: [80, 80]", "listen: expected each item once, got 80 again");
    check(
        "apisix: {node_listen: [{ip: a, port: 1}]}",
        "apisix.node_listen[0].address: expected an IP address, got \"a\"",
    );
    check(
        "listen: 80\napisix: {node_listen: 81}",
        "apisix.node_listen: means the same as listen, which is given, too",
    );
}

#[test]
fn faults_are_all_told_with_the_nearest_name() {
    assert_eq!(
        faults(
            "lisen: 80\nlog: {level: loud}\nlimits: {head_byte: 1, head_timeout: 0, headers: 0}\ncores: many"
        ),
        [
            "additional properties forbidden, found lisen; did you mean \"listen\"?",
            "log.level: expected one of error, warn, info, debug or trace, got \"loud\"",
            "limits: additional properties forbidden, found head_byte; did you mean \"head_bytes\"?",
            "limits.head_timeout: expected a number above 0, got 0",
            "limits.headers: expected a whole number from 1 to 1000, got 0",
            "cores: expected auto, a number of cores, or processors such as 0-3,6, got \"many\"",
        ]
    );
    assert_eq!(
        faults("limits: {head_bytes: 4096}"),
        ["limits.line_bytes: expected at most limits.head_bytes, which is 4096, got 8192"]
    );
    assert_eq!(
        faults("state_dir: ${{NO_SUCH}}"),
        ["state_dir: the environment variable NO_SUCH is not set, and no default is given"]
    );
    assert_eq!(faults("- 1"), ["expected an object, got a list of 1"]);
    assert_eq!(
        faults("access_log: {output: stdot, format: plain}"),
        [
            "access_log.output: expected stdout, stderr, off or the path of a file, got \"stdot\"",
            "access_log.format: expected json, combined or a text with $variables, got \"plain\"",
        ]
    );
}

#[test]
fn folders_of_secrets_are_named_from_the_root() {
    assert_eq!(settings("").secrets.directories, [std::path::PathBuf::from("/run/secrets")]);
    assert!(settings("secrets: {directories: []}").secrets.directories.is_empty());
    assert_eq!(
        faults("secrets: {directories: [/a, keys]}"),
        ["secrets.directories[1]: expected a path from the root, such as /run/secrets, got keys"]
    );
}

#[test]
fn logs_go_where_they_are_told() {
    let settings = settings(
        "log: {level: debug, format: json, output: /tmp/a.log}\naccess_log: {output: off, format: '$remote_addr $status'}",
    );
    assert_eq!(settings.log.output, LogOutput::File("/tmp/a.log".into()));
    assert_eq!(settings.access_log.format, AccessFormat::Template("$remote_addr $status".to_owned()));
    assert_eq!(settings.access_log.output, LogOutput::Off);
}

const APISIX: &str = "
apisix:
  node_listen:
    - port: 9080
      enable_http2: true
  enable_admin: false
  router: {http: radixtree_uri, ssl: radixtree_sni}
  delete_uri_tail_slash: true
  trusted_addresses: [10.0.0.0/8]
  status: {ip: 0.0.0.0, port: 7086}
  enable_server_tokens: true
  dns_resolver: [10.0.0.53]
  dns_resolver_valid: 30
  enable_resolv_search_opt: false
nginx_config:
  worker_processes: auto
  error_log_level: warn
  http:
    keepalive_timeout: 60s
    client_header_timeout: 60s
  http_server_configuration_snippet: |
    location /x {}
deployment:
  role: data_plane
  role_data_plane: {config_provider: yaml}
  etcd: {host: ['http://127.0.0.1:2379']}
discovery: {dns: {servers: ['127.0.0.1:8600'], order: [last, SRV]}, kubernetes: {}}
plugins: [cors, key-auth]
stream_plugins: [mqtt-proxy]
plugin_attr: {prometheus: {export_addr: {ip: 127.0.0.1, port: 9191}}}
";

#[test]
fn apisix_config_yaml_means_what_it_meant_and_the_rest_is_warned_of() {
    let settings = settings(APISIX);
    assert_eq!(settings.listen[0].to_string(), "0.0.0.0:9080");
    assert_eq!(settings.router.http, RouterKind::RadixtreeUri);
    assert!(settings.router.delete_uri_tail_slash && settings.server_tokens);
    assert_eq!(settings.trusted_addresses[0].as_str(), "10.0.0.0/8");
    assert_eq!(settings.forwarded_for, ForwardedFor::Drop, "as it is said who is to be believed");
    assert_eq!(settings.status.listen.address(), "0.0.0.0:7086".parse::<SocketAddr>().unwrap());
    assert_eq!(&settings.plugins[..], ["cors", "key-auth"]);
    assert_eq!(settings.dns.servers[0].to_string(), "10.0.0.53:53");
    assert_eq!(settings.dns.valid.map(|valid| valid.get().as_secs()), Some(30));
    assert!(!settings.dns.search);
    assert_eq!(settings.discovery.kinds(), ["dns"]);
    assert_eq!(settings.metrics.listen.address(), "127.0.0.1:9191".parse::<SocketAddr>().unwrap());
    let nginx = "is ignored: it speaks to nginx, which is not here";
    let other = "is ignored: it has no meaning here";
    assert_eq!(
        settings.warnings,
        [
            format!("stream_plugins {other}"),
            format!("nginx_config.worker_processes {nginx}"),
            format!("nginx_config.error_log_level {nginx}"),
            format!("nginx_config.http.keepalive_timeout {nginx}"),
            format!("nginx_config.http.client_header_timeout {nginx}"),
            format!("nginx_config.http_server_configuration_snippet {nginx}"),
            format!("discovery.kubernetes {other}"),
            format!("deployment.etcd.host {other}"),
            format!("apisix.node_listen.enable_http2 {other}"),
            format!("apisix.enable_admin {other}"),
            format!("apisix.router.ssl {other}"),
        ]
    );
}

#[test]
fn where_clients_of_one_kind_come_in_no_others_do() {
    let own = |field: &str, at: &str, of: &str| {
        vec![format!("{field}: expected a place of its own, got {at}, which is one of {of}")]
    };
    assert_eq!(faults("stream_proxy: {tcp: [9080]}"), own("stream_proxy.tcp", "0.0.0.0:9080", "listen"));
    assert_eq!(
        faults("ssl: {listen: ['unix:/a']}\nproxy_protocol: {listen: ['unix:/a']}"),
        own("proxy_protocol.listen", "unix:/a", "ssl.listen")
    );
    let twice = "stream_proxy: {tcp: [5432, {port: 5432, tls: true}]}";
    assert_eq!(faults(twice), own("stream_proxy.tcp", "0.0.0.0:5432", "stream_proxy.tcp"));
    // Each is another one, and an address is not all of them.
    settings("listen: 127.0.0.1:0\nssl: {listen: '127.0.0.1:0'}\nstream_proxy: {tcp: ['127.0.0.1:9080']}");
    settings("listen: 127.0.0.1:9443\nstream_proxy: {udp: [9443]}");
}

#[test]
fn what_is_ignored_of_a_port_of_apisix_is_told_where_it_stands() {
    let listen = "listen: [{port: 9443, enable_http2: true, enable_quic: true}]";
    let settings = settings(&format!("apisix: {{ssl: {{enable: true, {listen}}}}}"));
    assert_eq!(settings.ssl.listen[0].to_string(), "0.0.0.0:9443");
    let told = |switch: &str| format!("apisix.ssl.listen.{switch} is ignored: it has no meaning here");
    assert_eq!(settings.warnings, [told("enable_http2"), told("enable_quic")]);
}

#[test]
fn clients_of_apisix_are_shown_secrets_unless_ours_says_otherwise() {
    let secrets = |text: &str| settings(text).admin.secrets;
    assert_eq!(secrets(""), AdminSecrets::Masked);
    assert_eq!(secrets("deployment: {admin: {admin_key: []}}"), AdminSecrets::Shown);
    assert_eq!(
        secrets("{deployment: {admin: {admin_key: []}}, admin: {secrets: masked}}"),
        AdminSecrets::Masked
    );
    assert_eq!(
        faults("admin: {secrets: hidden}"),
        ["admin.secrets: expected one of masked or shown, got \"hidden\""]
    );
}

#[test]
fn apisix_says_by_which_certificate_the_admin_api_is_known() {
    let mtls =
        "admin_api_mtls: {admin_ssl_cert: /a.crt, admin_ssl_cert_key: /a.key, admin_ssl_ca_cert: /ca.crt}";
    let tls = settings(&format!("deployment: {{admin: {{https_admin: true, {mtls}}}}}")).admin.tls;
    let tls = tls.expect("it is spoken");
    assert_eq!(
        [Some(tls.cert), Some(tls.key), tls.client_ca],
        ["/a.crt", "/a.key", "/ca.crt"].map(|path| Some(path.into()))
    );
    let none = "admin_api_mtls: {admin_ssl_cert: '', admin_ssl_cert_key: '', admin_ssl_ca_cert: ''}";
    let plain = settings(&format!("deployment: {{admin: {{https_admin: false, {none}}}}}"));
    assert!(plain.admin.tls.is_none() && plain.warnings.is_empty(), "{:?}", plain.warnings);
    let unused = settings(&format!("deployment: {{admin: {{{mtls}}}}}"));
    assert!(unused.admin.tls.is_none());
    assert_eq!(
        unused.warnings[0],
        "deployment.admin.admin_api_mtls.admin_ssl_cert is ignored: https_admin is not true"
    );
    let misspelt =
        "admin_api_mtls: {admin_ssl_cert: /a.crt, admin_ssl_cert_key: /a.key, admin_ssl_ca: /ca.crt}";
    assert_eq!(
        faults(&format!("deployment: {{admin: {{https_admin: true, {misspelt}}}}}")),
        ["deployment.admin.admin_api_mtls.admin_ssl_ca: unknown field, expected one of admin_ssl_cert, \
             admin_ssl_cert_key, admin_ssl_ca_cert"]
    );
    assert_eq!(
        faults("deployment: {admin: {admin_api_mtls: yes}}"),
        ["deployment.admin.admin_api_mtls: expected an object, got \"yes\""]
    );
    assert_eq!(
        faults(&format!("deployment: {{admin: {{https_admin: true, {none}}}}}")),
        [
            "deployment.admin.https_admin: expected admin_api_mtls.admin_ssl_cert and admin_ssl_cert_key beside it"
        ]
    );
    assert_eq!(
        faults("deployment: {admin: {https_admin: 'yes'}}"),
        ["deployment.admin.https_admin: expected true or false, got \"yes\""]
    );
}

#[test]
fn a_source_of_objects_that_is_not_here_is_a_fault_and_no_warning() {
    assert_eq!(
        faults("deployment: {role: traditional, role_traditional: {config_provider: xds}}"),
        ["deployment.role_traditional.config_provider: expected one of etcd, yaml or json, got \"xds\""]
    );
    assert_eq!(
        faults("apisix: {router: {http: radix}, trusted_addresses: [x]}"),
        [
            "apisix.router.http: expected one of radixtree_host_uri, radixtree_uri or radixtree_uri_with_parameter, \
             got \"radix\"",
            "apisix.trusted_addresses[0]: expected an IP address or a range such as 10.0.0.0/8, got \"x\"",
        ]
    );
    assert_eq!(faults("apisix: 1"), ["apisix: expected an object, got 1"]);
}

fn with_vars(text: &str, vars: &[(&str, &str)]) -> Result<Settings, Vec<ConfigError>> {
    let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Settings::parse_with(text, &none_set, vars)
}

#[test]
fn the_environment_sets_single_keys() {
    let settings = with_vars(
        "limits: {headers: 50, head_bytes: 16384}\nlog: 7",
        &[
            ("RINGWAY_LIMITS__HEAD_BYTES", "65536"),
            ("RINGWAY_LISTEN", "[\"127.0.0.1:0\", 81]"),
            ("RINGWAY_VIA", "true"),
            ("RINGWAY_STATE_DIR", "/tmp/x"),
            ("RINGWAY_LOG__LEVEL", "debug"),
            // Not settings: the file to read, and what Kubernetes sets for a service named ringway.
            ("RINGWAY_CONFIG", "/etc/x.yaml"),
            ("RINGWAY_PORT", "tcp://10.0.0.1:80"),
            ("RINGWAY_SERVICE_HOST", "10.0.0.1"),
            ("PATH", "/bin"),
        ],
    )
    .unwrap();
    assert_eq!((settings.limits.head_bytes, settings.limits.headers), (65536, 50));
    assert_eq!((settings.listen.len(), settings.via, settings.log.level), (2, true, LogLevel::Debug));
    assert_eq!(settings.state_dir.to_str(), Some("/tmp/x"));
}

#[test]
fn a_wrong_key_in_the_environment_is_a_fault_like_any_other() {
    let faults = with_vars("", &[("RINGWAY_LIMITS__HEAD_BYTE", "1")]).unwrap_err();
    assert_eq!(
        faults[0].to_string(),
        "limits: additional properties forbidden, found head_byte; did you mean \"head_bytes\"?"
    );
}

#[test]
fn substitution_reaches_settings() {
    let env = |name: &str| (name == "PORT").then(|| "9999".to_owned());
    let settings = Settings::parse("listen: ${{PORT}}\nstate_dir: ${{DIR:=/tmp}}/x", &env).unwrap();
    assert_eq!(settings.listen[0].to_string(), "0.0.0.0:9999");
    assert_eq!(settings.state_dir.to_str(), Some("/tmp/x"));
}

#[test]
fn every_setting_and_limit_is_described() {
    let schema = schema_of::<Settings>();
    let undescribed = |fields: &Value| -> Vec<String> {
        let fields = fields.as_object().unwrap().iter();
        fields.filter(|(_, field)| !field["description"].is_string()).map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(undescribed(&schema["properties"]), [""; 0]);
    assert_eq!(undescribed(&schema["$defs"]["Limits"]["properties"]), [""; 0]);
    assert_eq!(schema["$defs"]["Limits"]["properties"]["head_bytes"]["default"], 32768);
}

#[test]
fn apisix_deployment_etcd_means_what_it_meant() {
    let settings = settings(
        "deployment:
           role: data_plane
           role_data_plane: {config_provider: etcd}
           etcd: {host: ['http://a:2379', 'https://b:2379/'], prefix: /x/, timeout: 7, user: u, password: p, resync_delay: 5,
                  tls: {cert: c.pem, key: k.pem, verify: false, sni: etcd.test}}\napisix: {ssl: {ssl_trusted_certificate: 'system, /ca.pem'}}",
    );
    let etcd = settings.etcd.expect("it is spoken of");
    assert_eq!(
        etcd.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["http://a:2379", "https://b:2379"]
    );
    assert_eq!((etcd.tls.verify, etcd.tls.sni.as_deref()), (false, Some("etcd.test")));
    assert_eq!(settings.ssl.trusted_certificate.list(), [Trusted::System, Trusted::File("/ca.pem".into())]);
    let members: Vec<&str> = etcd.endpoints.iter().map(|member| member.authority()).collect();
    assert_eq!((members, etcd.prefix.as_str()), (vec!["a:2379", "b:2379"], "/x"));
    assert_eq!(etcd.timeout.get(), std::time::Duration::from_secs(7));
    assert_eq!(settings.admin.enabled, Some(false), "a data plane has no Admin API");
    assert_eq!(settings.warnings, ["deployment.etcd.resync_delay is ignored: it has no meaning here"]);
}

#[test]
fn where_etcd_is_not_spoken_of_or_a_file_provides_there_is_none() {
    assert!(settings("deployment: {role: traditional}").etcd.is_none());
    let file = "deployment: {role_data_plane: {config_provider: yaml}, etcd: {host: 'http://a:2379'}}";
    assert!(settings(file).etcd.is_none());
    assert!(settings("deployment: {role_traditional: {config_provider: etcd}}").etcd.is_some());
    assert_eq!(settings("deployment: {etcd: {host: 'http://a:2379'}}").etcd.expect("one").endpoints.len(), 1);
}

#[test]
fn an_etcd_that_can_not_be_meant_is_a_fault_with_its_path() {
    for (text, fault) in [
        ("etcd: {endpoints: []}", "etcd.endpoints: expected at least one, got none"),
        ("etcd: {tls: {cert: a.crt}}", "etcd.tls.key: expected, as etcd.tls.cert is given, got nothing"),
        ("ssl: {trusted_certificate: ''}", "expected at least one path or `system`, got nothing"),
        ("ssl: {trusted_certificate: 7}", "ssl.trusted_certificate: expected"),
        (
            "etcd: {endpoints: ['http://a']}",
            "expected one such as http://127.0.0.1:2379 or https://etcd.example.com:2379, got",
        ),
        (
            "etcd: {endpoints: ['http://a:0']}",
            "expected one such as http://127.0.0.1:2379 or https://etcd.example.com:2379, got",
        ),
        ("etcd: {prefix: /}", "expected one such as /apisix, got nothing"),
        ("etcd: {user: u}", "etcd.password: expected, as etcd.user is given, got nothing"),
        ("etcd: {endpoint: x}", "endpoints"),
        ("{etcd: {}, resources: r.yaml}", "resources: expected this or etcd, got both"),
    ] {
        let told = faults(text).join("; ");
        assert!(told.contains(fault), "{text}: {told}");
    }
}
