//! The file that says where a process that is ready listens: for tests, scripts and supervisors, which ask for
//! port 0 and need the real one. Written whole or not at all.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::base::address::Address;

/// What it says.
#[derive(Clone, Debug)]
pub(crate) struct Ready<'a> {
    /// Listeners for clients by name; several may have one name.
    pub(crate) listeners: &'a [(String, Address)],
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) status: Option<SocketAddr>,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) control: Option<SocketAddr>,
    pub(crate) cores: usize,
    pub(crate) driver: &'a str,
}

impl Ready<'_> {
    fn json(&self) -> Value {
        let mut fields = Map::new();
        for (name, address) in self.listeners {
            let list = fields.entry(name.as_str()).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                list.push(json!(address.to_string()));
            }
        }
        let text = |address: Option<SocketAddr>| address.map(|address| address.to_string());
        fields.insert("metrics".to_owned(), json!(text(self.metrics)));
        fields.insert("status".to_owned(), json!(text(self.status)));
        fields.insert("admin".to_owned(), json!(text(self.admin)));
        fields.insert("control".to_owned(), json!(text(self.control)));
        fields.insert("pid".to_owned(), json!(std::process::id()));
        fields.insert("cores".to_owned(), json!(self.cores));
        fields.insert("driver".to_owned(), json!(self.driver));
        Value::Object(fields)
    }

    /// Writes it beside its place and moves it there.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}.tmp", std::process::id()));
        let beside = PathBuf::from(beside);
        fs::write(&beside, format!("{}\n", self.json()))?;
        fs::rename(&beside, path).inspect_err(|_| {
            let _ = fs::remove_file(&beside);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_every_address_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ready.json");
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let entrance = |text: &str| ("http".to_owned(), text.parse::<Address>().expect("an address"));
        let listeners = [entrance("127.0.0.1:9080"), entrance("[::1]:9080"), entrance("unix:/run/a.sock")];
        let ready = Ready {
            listeners: &listeners,
            metrics: Some(address("127.0.0.1:9091")),
            status: None,
            admin: Some(address("127.0.0.1:9180")),
            control: Some(address("127.0.0.1:9090")),
            cores: 2,
            driver: "epoll",
        };
        ready.write(&path).expect("written");
        let text = fs::read_to_string(&path).expect("readable");
        let expected = format!(
            "{{\"http\":[\"127.0.0.1:9080\",\"[::1]:9080\",\"unix:/run/a.sock\"],\"metrics\":\"127.0.0.1:9091\",\"status\":null,\
             \"admin\":\"127.0.0.1:9180\",\"control\":\"127.0.0.1:9090\",\"pid\":{},\"cores\":2,\"driver\":\"epoll\"}}\n",
            std::process::id()
        );
        assert_eq!(text, expected);
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 1);
    }
}
