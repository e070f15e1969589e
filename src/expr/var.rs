//! Variable names, resolved when configuration is compiled: no text is compared while a request passes.
//!
//! A name nobody knows is [`Var::Unknown`], which is always unset; whether that is a fault is for the caller to
//! say. Values are bytes: a header need not be UTF-8.

use std::borrow::Cow;
use std::fmt;

use super::rule::Literal;

/// Answers for variables: an exchange on the hot path, a table in tests.
pub trait Vars {
    /// The value; `None` when it is unset. Set and empty is `Some` of nothing.
    fn var<'a>(&'a self, var: &Var) -> Option<Cow<'a, [u8]>>;

    /// Appends the value; whether there is one. For who has room already, so that a value that is put together needs none of
    /// its own.
    fn append(&self, var: &Var, out: &mut Vec<u8>) -> bool {
        let value = self.var(var);
        value.inspect(|value| out.extend_from_slice(value)).is_some()
    }

    /// Whether a variable that is a list ([`Var::GraphqlRootFields`], [`Var::PostArgPath`] with `[*]`) has the
    /// member. A variable that is no list has none.
    fn has(&self, _list: &Var, _member: &Literal) -> bool {
        false
    }
}

macro_rules! vars {
    (
        plain { $($variant:ident = $name:literal $(| $alias:literal)*,)* }
        families { $($family:ident = $prefix:literal $form:ident,)* }
    ) => {
        /// A variable. Families carry what follows their prefix.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum Var {
            $($variant,)*
            $(
                #[doc = concat!("`", $prefix, "NAME`, carrying the name.")]
                $family(Box<str>),
            )*
            /// A name without meaning here: always unset.
            Unknown(Box<str>),
        }

        /// Every plain name, for messages and documentation. Aliases follow their variable.
        pub const NAMES: &[&str] = &[$($name, $($alias,)*)*];

        /// The prefix of every family.
        pub const PREFIXES: &[&str] = &[$($prefix,)*];

        impl Var {
            /// The variable of a name, without a `$`.
            pub fn parse(name: &str) -> Self {
                match name {
                    $($name $(| $alias)* => Self::$variant,)*
                    _ => {
                        $(
                            if let Some(rest) = name.strip_prefix($prefix).filter(|rest| !rest.is_empty()) {
                                return Self::$family($form(rest));
                            }
                        )*
                        Self::Unknown(name.into())
                    }
                }
            }

            /// The name it is known by; of several, the first.
            pub fn name(&self) -> Cow<'_, str> {
                match self {
                    $(Self::$variant => Cow::Borrowed($name),)*
                    $(Self::$family(rest) => Cow::Owned(concat_name($prefix, rest, stringify!($form))),)*
                    Self::Unknown(name) => Cow::Borrowed(name),
                }
            }
        }
    };
}

/// A header's name as it stands in a message: `http_X_Api_Key` asks for `x-api-key`.
fn header(name: &str) -> Box<str> {
    name.bytes().map(|byte| if byte == b'_' { '-' } else { byte.to_ascii_lowercase() as char }).collect()
}

fn verbatim(name: &str) -> Box<str> {
    name.into()
}

fn concat_name(prefix: &str, rest: &str, form: &str) -> String {
    let rest = if form == "header" { rest.replace('-', "_") } else { rest.to_owned() };
    format!("{prefix}{rest}")
}

vars! {
    plain {
        // The request.
        Uri = "uri",
        RequestUri = "request_uri",
        RealRequestUri = "real_request_uri",
        Args = "args" | "query_string",
        IsArgs = "is_args",
        RequestMethod = "request_method" | "method",
        Scheme = "scheme",
        Host = "host",
        ServerProtocol = "server_protocol",
        RequestLine = "request_line" | "request",
        RequestLength = "request_length",
        RequestBody = "request_body",
        ContentType = "content_type",
        ContentLength = "content_length",
        RequestId = "request_id",
        ApisixRequestId = "apisix_request_id",
        GraphqlName = "graphql_name",
        GraphqlOperation = "graphql_operation",
        GraphqlRootFields = "graphql_root_fields",
        // The connection.
        RemoteAddr = "remote_addr",
        RemotePort = "remote_port",
        RealipRemoteAddr = "realip_remote_addr",
        RealipRemotePort = "realip_remote_port",
        ServerAddr = "server_addr",
        ServerPort = "server_port",
        ServerName = "server_name",
        Hostname = "hostname",
        SslServerName = "ssl_server_name",
        SslProtocol = "ssl_protocol",
        SslCipher = "ssl_cipher",
        SslClientVerify = "ssl_client_verify",
        SslClientSubject = "ssl_client_s_dn",
        SslClientIssuer = "ssl_client_i_dn",
        SslClientSerial = "ssl_client_serial",
        SslClientFingerprint = "ssl_client_fingerprint",
        MqttClientId = "mqtt_client_id",
        TimeIso8601 = "time_iso8601",
        TimeLocal = "time_local",
        Msec = "msec",
        Pid = "pid",
        Connection = "connection",
        ConnectionRequests = "connection_requests",
        // The gateway.
        RouteId = "route_id",
        RouteName = "route_name",
        ServiceId = "service_id",
        ServiceName = "service_name",
        ConsumerName = "consumer_name",
        ConsumerGroupId = "consumer_group_id",
        MatchedUri = "matched_uri",
        MatchedHost = "matched_host",
        BalancerIp = "balancer_ip",
        BalancerPort = "balancer_port",
        UpstreamUnresolvedHost = "upstream_unresolved_host",
        RateLimitingInfo = "rate_limiting_info",
        RequestType = "request_type",
        RequestLlmModel = "request_llm_model",
        ProxyRewriteCaptures = "proxy_rewrite_regex_uri_captures",
        // The response.
        Status = "status",
        WouldReject = "would_reject",
        BodyBytesSent = "body_bytes_sent",
        BytesSent = "bytes_sent",
        RequestTime = "request_time",
        ResponseBody = "resp_body",
        UpstreamAddr = "upstream_addr",
        UpstreamStatus = "upstream_status",
        UpstreamResponseTime = "upstream_response_time",
        ApisixUpstreamResponseTime = "apisix_upstream_response_time",
        UpstreamHost = "upstream_host",
        UpstreamUri = "upstream_uri",
        UpstreamScheme = "upstream_scheme",
        UpstreamCacheStatus = "upstream_cache_status",
    }
    families {
        Header = "http_" header,
        Arg = "arg_" verbatim,
        Cookie = "cookie_" verbatim,
        PostArg = "post_arg_" verbatim,
        PostArgPath = "post_arg." verbatim,
        UriParam = "uri_param_" verbatim,
        SentHeader = "sent_http_" header,
        UpstreamHeader = "upstream_http_" header,
        UpstreamTrailer = "upstream_trailer_" header,
        OriginalForwarded = "original_x_forwarded_" verbatim,
        Llm = "llm_" verbatim,
    }
}

impl Var {
    /// Whether nothing here gives it a value.
    pub const fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }

    /// Whether its text stands for a typed (JSON) value, so that `true` is not the word.
    pub const fn is_typed(&self) -> bool {
        matches!(self, Self::PostArgPath(_))
    }

    /// Whether only the head of the response can answer it.
    pub const fn is_of_response_head(&self) -> bool {
        matches!(self, Self::SentHeader(_) | Self::UpstreamHeader(_))
    }

    /// Whether only a body that was read can answer it.
    pub const fn needs_request_body(&self) -> bool {
        matches!(
            self,
            Self::RequestBody
                | Self::PostArg(_)
                | Self::PostArgPath(_)
                | Self::GraphqlName
                | Self::GraphqlOperation
                | Self::GraphqlRootFields
                | Self::RequestLlmModel
        )
    }
}

impl fmt::Display for Var {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// A table of values by name, for tests here and beside.
#[cfg(test)]
pub(crate) struct Table<'a>(pub(crate) &'a [(&'a str, &'a str)]);

#[cfg(test)]
impl Vars for Table<'_> {
    fn var<'a>(&'a self, var: &Var) -> Option<Cow<'a, [u8]>> {
        let name = var.name();
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| Cow::Borrowed(value.as_bytes()))
    }

    /// A list is written with bars between its members.
    fn has(&self, list: &Var, member: &Literal) -> bool {
        let Some(value) = self.var(list) else { return false };
        let Literal::Text(member) = member else { return false };
        value.contains(&b'|') && value.split(|byte| *byte == b'|').any(|found| found == &**member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plain_name_is_known_and_leads_back_to_its_variable() {
        for name in NAMES {
            let var = Var::parse(name);
            assert!(!var.is_unknown(), "{name}");
            assert_eq!(Var::parse(&var.name()), var, "{name}");
        }
    }

    #[test]
    fn families_carry_their_names() {
        for (name, expected) in [
            ("http_X_Api_Key", Var::Header("x-api-key".into())),
            ("http_host", Var::Header("host".into())),
            ("sent_http_Content_Type", Var::SentHeader("content-type".into())),
            ("upstream_http_server", Var::UpstreamHeader("server".into())),
            ("upstream_trailer_grpc_status", Var::UpstreamTrailer("grpc-status".into())),
            ("arg_Name", Var::Arg("Name".into())),
            ("arg_a-b", Var::Arg("a-b".into())),
            ("cookie_SID", Var::Cookie("SID".into())),
            ("uri_param_id", Var::UriParam("id".into())),
            ("post_arg_model", Var::PostArg("model".into())),
            ("post_arg.messages[*].role", Var::PostArgPath("messages[*].role".into())),
        ] {
            let var = Var::parse(name);
            assert_eq!(var, expected);
            assert_eq!(Var::parse(&var.name()), var);
        }
    }

    #[test]
    fn neighbours_of_known_names_are_unknown() {
        for name in ["", "http_", "arg_", "URI", "uri ", "$uri", "HTTP_x", "remote_add", "post_arg"] {
            assert_eq!(Var::parse(name), Var::Unknown(name.into()));
            assert_eq!(Var::parse(name).name(), name);
        }
    }
}
