//! What the gateways of a fleet tell each other through etcd beside the objects: keys below `PREFIX/ringway/acme/`. Some are written
//! under a lease, and go when whoever wrote them does.

use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Again, Client, Trouble};
use super::watch::News;
use super::wire::{self, Bytes};

/// What names begin with, below the prefix.
const BELOW: &str = "ringway/acme/";

/// What has changed: names, and what they hold; `None`: no longer anything.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// There is nothing else.
    All(Vec<(String, Vec<u8>)>),
    Some(Vec<(String, Option<Vec<u8>>)>),
}

/// What news tell of it, if anything.
pub(super) fn told(news: &News) -> Option<Told> {
    let name_of = |key: &[u8]| std::str::from_utf8(key).ok()?.strip_prefix(BELOW).map(str::to_owned);
    match news {
        News::All(all) => {
            let ours = all.items.iter().filter_map(|(key, item)| Some((name_of(key)?, item.value.clone())));
            Some(Told::All(ours.collect()))
        }
        News::Some(changes) => {
            let ours = changes.items.iter().filter_map(|(key, (_, item))| {
                Some((name_of(key)?, item.as_ref().map(|item| item.value.clone())))
            });
            let ours: Vec<_> = ours.collect();
            (!ours.is_empty()).then_some(Told::Some(ours))
        }
        News::Away(_) | News::Back => None,
    }
}

/// Reads and writes there.
#[derive(Clone)]
pub(crate) struct Shelf {
    client: Client,
    prefix: String,
}

/// Keys written under it go some seconds after it was last kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Lease {
    #[serde(rename = "ID")]
    pub(super) id: String,
}

impl Lease {
    pub(super) async fn grant(client: &mut Client, seconds: u64, again: Again) -> Result<Self, Trouble> {
        client.ask("/v3/lease/grant", &json!({"TTL": seconds.to_string()}), again).await
    }

    /// Has what was written under it go now.
    pub(super) async fn end(&self, client: &mut Client, again: Again) -> Result<(), Trouble> {
        client.ask::<Value>("/v3/lease/revoke", &json!({"ID": self.id}), again).await.map(drop)
    }
}

impl Shelf {
    pub(super) fn new(client: Client, prefix: &str) -> Self {
        Self { client, prefix: prefix.to_owned() }
    }

    fn key(&self, name: &str) -> Bytes {
        Bytes::of(&format!("{}{BELOW}{name}", self.prefix))
    }

    pub(crate) async fn lease(&mut self, seconds: u64) -> Result<Lease, Trouble> {
        Lease::grant(&mut self.client, seconds, Again::Always).await
    }

    /// Keeps a lease for its time from now on.
    pub(crate) async fn keep(&mut self, lease: &Lease) -> Result<(), Trouble> {
        let asked = json!({"ID": lease.id});
        self.client.ask::<Value>("/v3/lease/keepalive", &asked, Again::Always).await.map(drop)
    }

    /// Has what was written under a lease go now.
    pub(crate) async fn end(&mut self, lease: &Lease) -> Result<(), Trouble> {
        lease.end(&mut self.client, Again::Always).await
    }

    /// Writes a name that nobody has written; whether nobody had.
    pub(crate) async fn claim(&mut self, name: &str, lease: &Lease) -> Result<bool, Trouble> {
        let key = self.key(name);
        let asked = json!({
            "compare": [{"key": key, "target": "CREATE", "result": "EQUAL", "create_revision": "0"}],
            "success": [{"request_put": {"key": key, "value": Bytes::of("held"), "lease": lease.id}}],
        });
        let done: wire::Done = self.client.ask("/v3/kv/txn", &asked, Again::WhenUnheard).await?;
        Ok(done.succeeded)
    }

    pub(crate) async fn put(
        &mut self,
        name: &str,
        value: &str,
        lease: Option<&Lease>,
    ) -> Result<(), Trouble> {
        let mut asked = json!({"key": self.key(name), "value": Bytes::of(value)});
        if let Some(lease) = lease {
            asked["lease"] = json!(lease.id);
        }
        self.client.ask::<Value>("/v3/kv/put", &asked, Again::Always).await.map(drop)
    }

    pub(crate) async fn get(&mut self, name: &str) -> Result<Option<Vec<u8>>, Trouble> {
        let asked = json!({"key": self.key(name)});
        let mut range: wire::Range = self.client.ask("/v3/kv/range", &asked, Again::Always).await?;
        Ok(range.kvs.pop().map(|kv| kv.value.0))
    }
}

#[cfg(test)]
mod tests {
    use super::super::watch::{All, Item};
    use super::super::wire::Header;
    use super::*;

    #[test]
    fn only_what_is_ours_is_told() {
        let item = |value: &str| Item { value: value.into(), created: 1, modified: 1, is_leased: false };
        let items = [("routes/1", "{}"), ("ringway/accept-empty", "yes"), ("ringway/acme/lock/le", "held")];
        let items = items.map(|(key, value)| (key.as_bytes().to_vec(), item(value))).into();
        let all = News::All(All { header: Header::default(), items });
        assert_eq!(told(&all), Some(Told::All(vec![("lock/le".to_owned(), b"held".to_vec())])));
        assert_eq!(told(&News::Back), None);
    }
}
