//! `GET /v1/explain`: a question about a request, read from a query; the answer is the compiler's.
//!
//! The command line puts its question in the same words, whether it goes to a running gateway or stays here.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

use super::ask::Booth;
use crate::base::text::form_decode;
use crate::model::nearest::hint;
use crate::snapshot::Compiler;
use crate::snapshot::explain::Ask;

/// What may be said.
const PARAMETERS: [&str; 7] = ["method", "url", "uri", "host", "header", "remote_addr", "route"];
/// Who asks where nobody says who would send the request.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The host where nobody names one.
const HOST: &str = "localhost";

/// The answer, or a status and why there is none.
pub(crate) async fn answer(booth: &Booth, query: Option<&str>) -> Result<Value, (u16, String)> {
    let ask = ask_of(query.unwrap_or_default()).map_err(|faults| (400, faults.join("; ")))?;
    let told = booth.ask(move |compiler: &Compiler| compiler.explain(&ask)).await;
    told.ok_or_else(|| (503, "the gateway is ending".to_owned()))
}

/// Reads a question.
///
/// # Errors
/// All that is wrong with it, each with the parameter, what is expected and what was found.
pub fn ask_of(query: &str) -> Result<Ask, Vec<String>> {
    let mut faults = Vec::new();
    let mut given: Vec<(String, String)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decoded(name), decoded(value));
        if !PARAMETERS.contains(&name.as_str()) {
            let hint = hint(&name, PARAMETERS);
            faults.push(format!("expected one of {}, got {name}{hint}", PARAMETERS.join(", ")));
        } else if name != "header" && given.iter().any(|(other, _)| *other == name) {
            faults.push(format!("{name}: expected once, got several"));
        } else {
            given.push((name, value));
        }
    }
    let one = |name: &str| given.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone());
    let mut headers = Vec::new();
    for (_, line) in given.iter().filter(|(name, _)| name == "header") {
        match line.split_once(':') {
            Some((name, value)) => headers.push((name.trim_end().to_owned(), value.trim().to_owned())),
            None => faults.push(format!("header: expected NAME: VALUE, got {line:?}")),
        }
    }
    let (https, authority, target) = match (one("url"), one("uri")) {
        (Some(url), None) => split(&url).unwrap_or_else(|fault| {
            faults.push(fault);
            (false, None, "/".to_owned())
        }),
        (None, Some(uri)) => (false, None, uri),
        (Some(_), Some(_)) => {
            faults.push("expected one of url and uri, got both".to_owned());
            (false, None, "/".to_owned())
        }
        (None, None) => {
            faults.push("expected url or uri, got neither".to_owned());
            (false, None, "/".to_owned())
        }
    };
    let peer = one("remote_addr").map_or(Ok(CLIENT), |text| {
        text.parse().map_err(|_| format!("remote_addr: expected an IP address, got {text:?}"))
    });
    let peer = peer.unwrap_or_else(|fault| {
        faults.push(fault);
        CLIENT
    });
    let names_host = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
    let host = match one("host") {
        None if names_host => None,
        None => Some(authority.unwrap_or_else(|| HOST.to_owned())),
        given => given,
    };
    let method = one("method").unwrap_or_else(|| "GET".to_owned());
    let ask = Ask { method, target, host, headers, peer, https, route: one("route") };
    faults.extend(ask.check().err());
    if faults.is_empty() { Ok(ask) } else { Err(faults) }
}

fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    form_decode(text.as_bytes(), &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// A URL as whether it is of https, authority and target.
///
/// # Errors
/// What is expected and what was found.
pub fn split(url: &str) -> Result<(bool, Option<String>, String), String> {
    let fault = || format!("url: expected http://HOST/PATH or https://HOST/PATH, got {url:?}");
    let (scheme, behind) = url.split_once("://").ok_or_else(fault)?;
    let https = match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "https" => true,
        _ => return Err(fault()),
    };
    // A client keeps what follows a # to itself.
    let behind = behind.split('#').next().unwrap_or_default();
    let (authority, target) = behind.split_at(behind.find(['/', '?']).unwrap_or(behind.len()));
    if authority.is_empty() {
        return Err(fault());
    }
    let slash = if target.starts_with('/') { "" } else { "/" };
    Ok((https, Some(authority.to_owned()), format!("{slash}{target}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(query: &str) -> String {
        ask_of(query).expect_err(query).join("; ")
    }

    #[test]
    fn a_url_is_taken_apart_and_a_host_of_its_own_wins() {
        let ask = ask_of("method=POST&url=https%3A%2F%2Fa.test:8443%2Fb%3Fc%3D1%23d&header=X:+1&header=x:2")
            .expect("valid");
        assert_eq!(
            (&*ask.method, &*ask.target, ask.host.as_deref()),
            ("POST", "/b?c=1", Some("a.test:8443"))
        );
        assert_eq!(ask.headers, [("X".to_owned(), "1".to_owned()), ("x".to_owned(), "2".to_owned())]);
        assert!(ask.https && ask.peer == CLIENT);
        let target = |query: &str| ask_of(query).expect("valid").target;
        assert_eq!((target("url=http://a"), target("url=http://a?b")), ("/".to_owned(), "/?b".to_owned()));
        let host = |query: &str| ask_of(query).expect("valid").host;
        assert_eq!(host("url=http://a/&host=b").as_deref(), Some("b"));
        assert_eq!(host("url=http://a/&header=Host:b"), None);
        assert_eq!(host("uri=/a").as_deref(), Some(HOST));
    }

    #[test]
    fn every_fault_of_a_question_is_told() {
        for (query, expect) in [
            ("", "expected url or uri, got neither"),
            ("uri=/&url=http://a/", "expected one of url and uri, got both"),
            ("uri=/&uri=/b", "uri: expected once, got several"),
            ("uri=/a b", "uri: expected a path with or without a query, no blanks, got \"/a b\""),
            ("url=ftp://a/", "url: expected http://HOST/PATH or https://HOST/PATH, got \"ftp://a/\""),
            ("uri=/&header=x", "header: expected NAME: VALUE, got \"x\""),
            ("uri=/&header=x y:1", "header: expected NAME: VALUE, got the name \"x y\""),
            ("uri=/&header=x:1%0d%0ay:2", "header x: expected one line"),
            ("uri=/&remote_addr=me", "remote_addr: expected an IP address, got \"me\""),
            ("uri=/&method=G T", "method: expected a word such as GET, got \"G T\""),
        ] {
            assert_eq!(faults(query), expect, "{query}");
        }
        let told = faults("hots=a&remote_addr=me");
        assert!(told.contains("got hots; did you mean \"host\"?") && told.contains("remote_addr"), "{told}");
    }
}
