//! Short texts that go together, copied as one: the names of a route or consumer in an exchange.
//!
//! Copying some sixty bytes is cheaper than counting a reference that all cores share.

/// `N` texts in one buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels<const N: usize> {
    text: String,
    ends: [u32; N],
}

impl<const N: usize> Default for Labels<N> {
    fn default() -> Self {
        Self { text: String::new(), ends: [0; N] }
    }
}

impl<const N: usize> Labels<N> {
    /// Joins the texts.
    pub fn new(texts: [&str; N]) -> Self {
        let mut labels = Self::default();
        for (at, text) in texts.into_iter().enumerate() {
            labels.text.push_str(text);
            labels.ends[at] = labels.text.len() as u32;
        }
        labels
    }

    /// Takes over the texts of another, keeping this one's memory.
    pub fn copy_from(&mut self, other: &Self) {
        self.text.clear();
        self.text.push_str(&other.text);
        self.ends = other.ends;
    }

    /// Holds the texts in no more memory than they need.
    fn compact(&mut self) {
        self.text.shrink_to_fit();
    }

    /// All texts empty.
    pub fn clear(&mut self) {
        self.text.clear();
        self.ends = [0; N];
    }

    /// The text at place `at`.
    pub fn get(&self, at: usize) -> &str {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.text[start as usize..self.ends[at] as usize]
    }

    /// Appends what tells two sets of labels apart.
    pub fn write_key(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.ends.map(u32::to_ne_bytes).as_flattened());
        out.extend_from_slice(self.text.as_bytes());
    }
}

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident, $count:literal: $($at:literal $field:ident),*) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name(Labels<$count>);

        impl $name {
            /// Joins the texts, in the order of the accessors.
            #[allow(clippy::too_many_arguments)]
            pub fn new($($field: &str),*) -> Self {
                Self(Labels::new([$($field),*]))
            }

            $(#[doc = concat!("The `", stringify!($field), "`; empty when there is none.")]
            pub fn $field(&self) -> &str { self.0.get($at) })*

            /// Takes over the texts of another, keeping this one's memory.
            pub fn copy_from(&mut self, other: &Self) { self.0.copy_from(&other.0); }

            pub(super) fn compact(&mut self) { self.0.compact(); }

            /// All texts empty.
            pub fn clear(&mut self) { self.0.clear(); }

            /// Whether nothing is named.
            pub fn is_empty(&self) -> bool { self.0.text.is_empty() }

            /// Appends what tells them from others: different bytes where any text differs.
            pub fn write_key(&self, out: &mut Vec<u8>) { self.0.write_key(out); }
        }
    };
}

labels!(
    /// What a matched route is called.
    RouteLabels, 6: 0 route_id, 1 route_name, 2 service_id, 3 service_name, 4 matched_uri, 5 matched_host
);

labels!(
    /// Who a request comes from.
    ConsumerLabels, 4: 0 name, 1 group_id, 2 credential_id, 3 custom_id
);

impl RouteLabels {
    /// Fills in what of the route matched: its last two texts.
    pub fn set_matched(&mut self, uri: &str, host: &str) {
        let labels = &mut self.0;
        labels.text.truncate(labels.ends[3] as usize);
        labels.text.push_str(uri);
        labels.ends[4] = labels.text.len() as u32;
        labels.text.push_str(host);
        labels.ends[5] = labels.text.len() as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::{ConsumerLabels, RouteLabels};

    #[test]
    fn what_matched_replaces_only_the_last_two_labels() {
        let mut route = RouteLabels::new("1", "name", "", "svc", "old", "older");
        route.set_matched("/a*", "*.b");
        assert_eq!(
            (route.route_id(), route.service_name(), route.matched_uri(), route.matched_host()),
            ("1", "svc", "/a*", "*.b")
        );
    }

    #[test]
    fn each_label_is_found_again_after_copying() {
        let jack = ConsumerLabels::new("jack", "", "cred-1", "77");
        let mut copy = ConsumerLabels::new("somebody", "with", "longer", "texts");
        copy.copy_from(&jack);
        assert_eq!(
            (copy.name(), copy.group_id(), copy.credential_id(), copy.custom_id()),
            ("jack", "", "cred-1", "77")
        );
        copy.clear();
        assert!(copy.is_empty());
    }
}
