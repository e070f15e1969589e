//! A cost decoration: the price of a field of GraphQL, for what `graphql-limit-count` counts on the routes of a service.

use super::field::{FieldPath, ObjectId, Text};
use super::stored;

stored! {
    /// The price of a field of GraphQL. In files it stands among the services, with the id
    /// `SERVICE/graphql_cost_decorations/ID`.
    pub struct CostDecoration {
        /// The service it belongs to. The Admin API takes it from the path.
        pub service_id: Option<ObjectId>,
        /// A type, with the names of fields that lead from it: `Query.products`.
        pub field_path: FieldPath,
        /// What the field itself costs. Absent: 1, or 0 for a type.
        #[schemars(extend("minimum" = 0))]
        pub add_value: Option<f64>,
        /// What is multiplied with what stands in it. Absent: 1.
        #[schemars(extend("minimum" = 0))]
        pub mul_value: Option<f64>,
        /// Arguments whose values are added.
        pub add_arguments: Option<Vec<Text<1, 256>>>,
        /// Arguments whose values multiply: how many it is asked for.
        pub mul_arguments: Option<Vec<Text<1, 256>>>,
    }
}
