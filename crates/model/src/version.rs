//! The name of an architecture, as a handle: compared and written, never taken apart.

use std::hash::{Hash, Hasher};

use serde::{Serialize, Serializer};

/// A released architecture.
///
/// A handle: it has names for people and files, and a row that says what it consists of ([`Version::architecture`]). What a model does
/// is asked of its [`crate::Mechanisms`]; nobody can match on versions, so that none is taken for its neighbour.
#[derive(Clone, Copy)]
pub struct Version(pub(crate) Id);

/// What a handle stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Id {
    V4,
    V5_0,
    V5_1,
    V5_2,
    V6,
    V7,
    V7a,
    V7b,
    QRwkv6,
    ARwkv7,
}

impl Version {
    /// RWKV-4 ("Dove"): scalar state (aa, bb, pp) per channel.
    pub const V4: Self = Self(Id::V4);
    /// RWKV-5.0: matrix state, one decay a head, no gate.
    pub const V5_0: Self = Self(Id::V5_0);
    /// RWKV-5.1: 5.0 with a gate.
    pub const V5_1: Self = Self(Id::V5_1);
    /// RWKV-5.2 ("Eagle"): 5.1 with a decay a channel.
    pub const V5_2: Self = Self(Id::V5_2);
    /// RWKV-6 ("Finch", x060): data-dependent decay and token shift.
    pub const V6: Self = Self(Id::V6);
    /// RWKV-7 ("Goose", x070): generalised delta rule.
    pub const V7: Self = Self(Id::V7);
    /// RWKV-7a: 7 with tables in the channel mix, of which each token takes a row (DeepEmbed).
    #[allow(non_upper_case_globals, reason = "the name of the version")]
    pub const V7a: Self = Self(Id::V7a);
    /// RWKV-7b: 7a with an attention over all earlier tokens beside the time mix (DEA).
    #[allow(non_upper_case_globals, reason = "the name of the version")]
    pub const V7b: Self = Self(Id::V7b);
    /// QRWKV6: the body of Qwen 2 (RMS norm, SwiGLU) with a gated linear attention after RWKV-6.
    #[allow(non_upper_case_globals, reason = "the name of the architecture")]
    pub const QRwkv6: Self = Self(Id::QRwkv6);
    /// ARWKV: the body of Qwen 2.5 with the time mix of RWKV-7.
    #[allow(non_upper_case_globals, reason = "the name of the architecture")]
    pub const ARwkv7: Self = Self(Id::ARwkv7);

    /// All versions of RWKV itself, oldest first.
    pub const ALL: [Self; 8] = [Self::V4, Self::V5_0, Self::V5_1, Self::V5_2, Self::V6, Self::V7, Self::V7a, Self::V7b];

    /// The hybrids with Qwen.
    pub const HYBRIDS: [Self; 2] = [Self::QRwkv6, Self::ARwkv7];

    /// `4`, `5.0`, `5.1`, `5.2`, `6`, `7`, `7a` or `7b`; for hybrids llama.cpp's name of the architecture.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Id::V4 => "4",
            Id::V5_0 => "5.0",
            Id::V5_1 => "5.1",
            Id::V5_2 => "5.2",
            Id::V6 => "6",
            Id::V7 => "7",
            Id::V7a => "7a",
            Id::V7b => "7b",
            Id::QRwkv6 => "rwkv6qwen2",
            Id::ARwkv7 => "arwkv7",
        }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Id::QRwkv6 => f.write_str("QRWKV6"),
            Id::ARwkv7 => f.write_str("ARWKV"),
            Id::V4 | Id::V5_0 | Id::V5_1 | Id::V5_2 | Id::V6 | Id::V7 | Id::V7a | Id::V7b => write!(f, "RWKV-{}", self.name()),
        }
    }
}

impl std::fmt::Debug for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

// By hand: constants of a type with a derived equality could be patterns.
impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl Hash for Version {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
