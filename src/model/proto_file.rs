//! A proto: protobuf definitions for plugins that speak gRPC.

use super::field::Text;
use super::stored;

/// Largest definition, as APISIX has it.
const CONTENT_CHARS_MAX: usize = 1024 * 1024;

stored! {
    /// Protobuf definitions, for plugins that speak gRPC.
    pub struct ProtoFile {
        /// The text of a `.proto` file, or a FileDescriptorSet in base64. A text may import `google/protobuf/*.proto`, nothing else.
        pub content: Text<1, CONTENT_CHARS_MAX>,
    }
}
