//! Settings of a gateway, changed between two starts.

use std::fs;

use super::gateway::{Gateway, lay, yaml};

impl Gateway {
    /// Lays settings, as YAML, over those there were; what is `null` goes. In force from the next start on.
    #[track_caller]
    pub(crate) fn change_settings(&self, settings: &str) {
        let path = self.path("config.yaml");
        let mut all = yaml(&fs::read_to_string(&path).unwrap());
        lay(&mut all, yaml(settings));
        all.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        fs::write(path, serde_yaml_ng::to_string(&all).unwrap()).unwrap();
    }
}
