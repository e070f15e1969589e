//! DNS as a registry: the nodes of a service are what its SRV records say, or its addresses.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::Told;
use crate::control::names::resolver::{Before, Resolver};
use crate::model::upstream::NodeSpec;
use crate::snapshot::Service;

/// After a failure: so long, then twice as long, up to the second.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// The nodes of a service, asked for once.
pub(super) async fn once(resolver: &Arc<Resolver>, service: &Service) -> Result<Vec<NodeSpec>, String> {
    let found = resolver.nodes(&service.name, &mut Before::default()).await;
    found.map(|found| found.held).map_err(|trouble| trouble.to_string())
}

/// Asks after a service whenever its answer has run out, for as long as anybody hears.
pub(super) async fn watch(resolver: &Arc<Resolver>, service: Service, tell: &mpsc::Sender<Told>) {
    let (mut before, mut patience) = (Before::default(), RETRY);
    loop {
        let (told, pause) = match resolver.nodes(&service.name, &mut before).await {
            Ok(found) => {
                patience = RETRY;
                (Ok(found.held), found.valid)
            }
            Err(trouble) => {
                let pause = patience;
                patience = (patience * 2).min(RETRY_MAX);
                (Err(trouble.to_string()), pause)
            }
        };
        if tell.send((service.clone(), told)).await.is_err() {
            return;
        }
        sleep(pause).await;
    }
}
