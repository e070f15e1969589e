//! What the loop learns of the world beside the objects: addresses of names, values of secrets, nodes of services.

use super::discovery::Told;
use super::names::News;
use super::{Control, log};
use crate::base::clock::Moment;

impl Control {
    /// Takes in newer addresses of nodes that are known by name.
    pub(super) fn on_names(&mut self, news: News, now: Moment) {
        if let Some(outcome) = self.compiler.learn(news) {
            log::info("addresses of nodes have changed");
            self.take_over(outcome, now);
        }
    }

    /// Takes in what stores of secrets say.
    pub(super) fn look_at_secrets(&mut self, now: Moment) {
        let Some(answers) = self.secrets.advance(now, &self.compiler) else { return };
        if let Some(outcome) = self.compiler.learn_secrets(answers) {
            log::info("values of secrets have changed");
            self.take_over(outcome, now);
        }
    }

    /// Takes in what a registry tells.
    pub(super) fn on_told(&mut self, told: Told, now: Moment) {
        let Some((service, nodes)) = self.discovery.take(told) else { return };
        let count = nodes.len();
        if let Some(outcome) = self.compiler.learn_services(vec![(service.clone(), nodes)]) {
            log::info(format!("{service}: {count} healthy instance(s)"));
            self.take_over(outcome, now);
        }
    }
}
