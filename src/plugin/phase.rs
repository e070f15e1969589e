//! When a hook runs.

/// The phases of an exchange, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Of streams only, before a node is chosen; they have no other but [`Self::Log`].
    Preread,
    Rewrite,
    Access,
    BeforeProxy,
    HeaderFilter,
    BodyFilter,
    Log,
}

impl Phase {
    /// APISIX's word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Preread => "preread",
            Self::Rewrite => "rewrite",
            Self::Access => "access",
            Self::BeforeProxy => "before_proxy",
            Self::HeaderFilter => "header_filter",
            Self::BodyFilter => "body_filter",
            Self::Log => "log",
        }
    }
}

/// How many there are.
pub const PHASES: usize = 7;

/// A set of phases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases(u8);

impl Phases {
    /// No phase.
    pub const NONE: Self = Self(0);

    /// All phases.
    pub const ALL: Self = Self(u8::MAX);

    /// The phases that are in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// With one phase more, if `hooked`.
    #[must_use]
    pub const fn with(self, phase: Phase, hooked: bool) -> Self {
        if hooked { Self(self.0 | 1 << phase as u8) } else { self }
    }

    /// Whether the phase is in the set.
    pub const fn contains(self, phase: Phase) -> bool {
        self.0 & (1 << phase as u8) != 0
    }
}
