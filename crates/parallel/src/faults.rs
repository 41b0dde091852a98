//! Mistakes that tests plant into the arithmetic, to show that a comparison notices them.
//!
//! Without the feature `planted-faults` nothing can plant one, and every question for one is the constant `false`.

/// A mistake that implementations of RWKV really make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "planted-faults"), allow(dead_code, reason = "asked for everywhere, made only by tests"))]
#[cfg_attr(not(feature = "planted-faults"), allow(unreachable_pub, reason = "public with the feature"))]
pub enum Fault {
    /// None: only the arithmetic for other devices, which every planted fault selects, runs on the CPU.
    OtherDevice,
    /// The time mix and the channel mix see the current token in place of the previous one.
    DroppedTokenShift,
    /// exp(-exp(-x)) for exp(-exp(x)); in RWKV-7 the logistic function of the negative argument.
    DecaySign,
    /// RWKV-7: the direction to remove is taken from the key after its update.
    KeyAfterUpdate,
    /// RWKV-7: the key is never updated.
    KeyNotUpdated,
    /// RWKV-5 to RWKV-7: the start state is read with key and value swapped.
    TransposedState,
    /// RWKV-7: the bonus is added before the group norm.
    BonusBeforeGroupNorm,
    /// What one chunk hands to the next has been decayed over one token less than the chunk has.
    ChunkCarry,
    /// The coefficients of the token shift weigh the other of the two tokens.
    LerpOrder,
    /// One power of the decay too many between two tokens of a chunk.
    DecayPower,
    /// RWKV-7: layer 1 overwrites the values that later layers mix in.
    ValueFromLayer1,
    /// RWKV-5 to RWKV-7: channels of the receptance are dealt out to heads in turn.
    HeadOrder,
    /// RWKV-5 to RWKV-7: the epsilon of the group norm is a 64th of what it should be.
    GroupNormEpsilon,
    /// The bonus of the current token (`time_first`, `time_faaaa`, `r_k`) is missing.
    MissingBonus,
    /// Layer norm 0 is skipped.
    SkippedLn0,
    /// The channel mix does not square.
    ReluNotSquared,
    /// A start state is taken for zero.
    StartStateIgnored,
    /// The state remembers the last token but one for the token shift.
    StaleShift,
    /// Layer norms divide by n - 1.
    UnbiasedVariance,
    /// RWKV-7: the direction to remove is not normalised.
    DirectionNotNormalised,
    /// RWKV-6: the low-rank parts of key and value are swapped.
    MixSwapped,
    /// RWKV-5.1 to RWKV-7: the gate has no effect.
    MissingGate,
    /// RWKV-7: the learning rate of the delta rule is 1.
    MissingLearningRate,
    /// RWKV-7a and 7b: a row of a table is taken for all of what a token looks up.
    TableAlone,
    /// RWKV-7b: scores are the products of queries and keys themselves.
    UnboundedScores,
}

impl Fault {
    /// All of them.
    #[cfg(feature = "planted-faults")]
    pub const ALL: [Self; 24] = [
        Self::DroppedTokenShift,
        Self::DecaySign,
        Self::KeyAfterUpdate,
        Self::KeyNotUpdated,
        Self::TransposedState,
        Self::BonusBeforeGroupNorm,
        Self::ChunkCarry,
        Self::LerpOrder,
        Self::DecayPower,
        Self::ValueFromLayer1,
        Self::HeadOrder,
        Self::GroupNormEpsilon,
        Self::MissingBonus,
        Self::SkippedLn0,
        Self::ReluNotSquared,
        Self::StartStateIgnored,
        Self::StaleShift,
        Self::UnbiasedVariance,
        Self::DirectionNotNormalised,
        Self::MixSwapped,
        Self::MissingGate,
        Self::MissingLearningRate,
        Self::TableAlone,
        Self::UnboundedScores,
    ];

    /// Whether the fault can change anything in a model of these mechanisms.
    #[cfg(feature = "planted-faults")]
    #[must_use]
    pub fn concerns(self, mechanisms: &rwkv_forge_model::Mechanisms) -> bool {
        use rwkv_forge_model::TimeMix;
        let time_mix = mechanisms.time_mix;
        match self {
            Self::KeyAfterUpdate
            | Self::KeyNotUpdated
            | Self::BonusBeforeGroupNorm
            | Self::ValueFromLayer1
            | Self::DirectionNotNormalised
            | Self::MissingLearningRate => match time_mix {
                TimeMix::Wkv7 { .. } => true,
                TimeMix::Wkv4 | TimeMix::Wkv5 { .. } | TimeMix::Wkv6 { .. } | TimeMix::Qrwkv6 { .. } => false,
            },
            Self::MixSwapped => match time_mix {
                TimeMix::Wkv6 { .. } => true,
                TimeMix::Wkv4 | TimeMix::Wkv5 { .. } | TimeMix::Wkv7 { .. } | TimeMix::Qrwkv6 { .. } => false,
            },
            Self::TransposedState | Self::HeadOrder => match time_mix {
                TimeMix::Wkv4 => false,
                TimeMix::Wkv5 { .. } | TimeMix::Wkv6 { .. } | TimeMix::Wkv7 { .. } | TimeMix::Qrwkv6 { .. } => true,
            },
            Self::TableAlone => mechanisms.looks_tokens_up(),
            Self::UnboundedScores => mechanisms.remembers_tokens(),
            Self::GroupNormEpsilon => mechanisms.norms.group,
            Self::MissingGate => match time_mix {
                TimeMix::Wkv4 => false,
                TimeMix::Wkv5 { gate, .. } => gate,
                TimeMix::Wkv7 { gate, .. } => gate.is_some(),
                TimeMix::Wkv6 { .. } | TimeMix::Qrwkv6 { .. } => true,
            },
            Self::OtherDevice
            | Self::DroppedTokenShift
            | Self::DecaySign
            | Self::ChunkCarry
            | Self::LerpOrder
            | Self::DecayPower
            | Self::MissingBonus
            | Self::SkippedLn0
            | Self::ReluNotSquared
            | Self::StartStateIgnored
            | Self::StaleShift
            | Self::UnbiasedVariance => true,
        }
    }
}

/// The fault that was planted, if any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Planted {
    #[cfg(feature = "planted-faults")]
    fault: Option<Fault>,
}

impl Planted {
    #[cfg(feature = "planted-faults")]
    pub(crate) fn new(fault: Fault) -> Self {
        Self { fault: Some(fault) }
    }

    /// True when this fault was planted.
    pub(crate) fn is(self, fault: Fault) -> bool {
        #[cfg(feature = "planted-faults")]
        return self.fault == Some(fault);
        #[cfg(not(feature = "planted-faults"))]
        {
            let _ = fault;
            false
        }
    }
}
