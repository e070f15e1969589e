//! A credential: one of several ways to be known as a consumer.

use super::field::PluginMap;
use super::stored;

stored! {
    /// What proves a request to be a consumer's. In files it stands among the consumers, with the id
    /// `USER/credentials/ID`.
    pub struct Credential {
        /// At most one plugin, an authentication plugin, with what the consumer proves itself with.
        #[schemars(extend("maxProperties" = 1), with = "Option<super::field::PluginMapForm>")]
        pub plugins: Option<PluginMap>,
    }
}
