//! Parsed field types: each has its `Deserialize`, its JSON schema and its message once, so that no object and
//! no plugin repeats them. A value of one of these types has already been checked.
//!
//! In the schema of each stands `x-expected`, the words a fault uses: `expected <x-expected>, got …`.

mod list;
mod number;
mod text;

pub use list::{NonEmpty, Unique};
pub use number::{InRange, Percent, Port, Seconds, SecondsOrOff, Weight};
pub(super) use text::is_address_range;
pub use text::{
    AddressRange, CookieName, FieldPath, HeaderName, HostPattern, HttpMethod, LabelText, ObjectId, Secret,
    ShortText, TemplateText, Text, UriPattern, Username,
};

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Plugin configurations by plugin name, each an object in that plugin's own form.
pub type PluginMap = Map<String, Value>;

/// What a [`PluginMap`] looks like to a schema: `#[schemars(with = "PluginMapForm")]`.
pub type PluginMapForm = BTreeMap<String, Map<String, Value>>;

#[cfg(test)]
mod tests;
