//! A consumer: someone who sends requests, known by a credential.

use super::field::{ObjectId, PluginMap, Username};
use super::stored;

stored! {
    /// Someone who sends requests. Auth plugins in `plugins` hold credentials; others act on its requests.
    pub struct Consumer {
        /// Its name, which is its id.
        pub username: Username,
        /// The id of the consumer group whose plugins it shares.
        pub group_id: Option<ObjectId>,
        /// Plugins by name. Authentication plugins have what it proves itself with, others act on its requests.
        #[schemars(with = "Option<super::field::PluginMapForm>")]
        pub plugins: Option<PluginMap>,
    }
}
