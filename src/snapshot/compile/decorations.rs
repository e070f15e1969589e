//! Cost decorations, compiled: the prices of a service's fields, as one for each service.

use std::collections::BTreeMap;
use std::sync::Arc;

use rpds::HashTrieMapSync;

use super::work::Work;
use crate::exchange::graphql::{Price, Prices};
use crate::model::{ConfigError, CostDecoration, Kind};
use crate::plugin::PriceBook;

/// The prices that are said of one service: by path, with the id of who says it.
type Said = BTreeMap<String, (String, Price)>;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Decorations {
    said: HashTrieMapSync<Arc<str>, Arc<Said>>,
    pub(super) prices: PriceBook,
}

impl Decorations {
    fn settle(&mut self, service: &str) {
        let Some(said) = self.said.get(service).filter(|said| !said.is_empty()) else {
            self.said.remove_mut(service);
            self.prices.remove_mut(service);
            return;
        };
        let mut prices = Prices::default();
        said.iter().for_each(|(path, (_, price))| prices.set(path, price.clone()));
        self.prices.insert_mut(service.into(), Arc::new(prices));
    }

    pub(super) fn remove(&mut self, id: &str) {
        let (service, own) = split(id);
        if let Some(said) = self.said.get(service) {
            let mut said = Said::clone(said);
            said.retain(|_, (other, _)| other != own);
            self.said.insert_mut(service.into(), Arc::new(said));
        }
        self.settle(service);
    }
}

fn split(id: &str) -> (&str, &str) {
    id.split_once("/graphql_cost_decorations/").unwrap_or((id, ""))
}

impl Work<'_> {
    pub(super) fn add_decoration(&mut self, id: &str, one: &CostDecoration) -> Result<(), Vec<ConfigError>> {
        let (service, own) = split(id);
        self.need(Kind::Service, service);
        if self.parts.services.get(service).is_none() {
            return Err(vec![ConfigError::new(format!("service not found: {service}"))]);
        }
        if let Some(named) = one.service_id.as_ref().filter(|named| named.as_str() != service) {
            let problem = format!("expected {service}, as in the id, got {named}");
            return Err(vec![ConfigError::at("service_id", problem)]);
        }
        let path = one.field_path.as_str();
        let mut said =
            self.parts.decorations.said.get(service).map_or_else(Said::default, |said| Said::clone(said));
        if let Some((other, _)) = said.get(path) {
            let problem = format!("{path} is already decorated on this service by [{other}]");
            let other = format!("{service}/graphql_cost_decorations/{other}");
            // It may be given up some day.
            self.need(Kind::CostDecoration, &other);
            return Err(vec![ConfigError::at("field_path", problem)]);
        }
        let names = |all: &Option<Vec<_>>| -> Vec<String> {
            all.iter().flatten().map(|name: &crate::model::field::Text<1, 256>| name.to_string()).collect()
        };
        let price = Price {
            add: one.add_value,
            multiply: one.mul_value,
            add_arguments: names(&one.add_arguments),
            multiply_arguments: names(&one.mul_arguments),
        };
        said.insert(path.to_owned(), (own.to_owned(), price));
        let decorations = &mut self.parts.decorations;
        decorations.said.insert_mut(service.into(), Arc::new(said));
        decorations.settle(service);
        Ok(())
    }
}
