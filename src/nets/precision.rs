//! How exactly an NVIDIA GPU computes.

use serde::{Deserialize, Serialize};

/// The numbers that convolutions and matrix products are made of. Sums, heatmaps and coordinates are f32 in all of
/// them. Other devices compute in f32 whatever is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Exact f32.
    F32,
    /// f32 in memory, factors rounded to 10 bits of fraction (tensor cores from sm_80 on; f32 before).
    #[default]
    Tf32,
    /// 10 bits of fraction, half the memory.
    F16,
    /// 7 bits of fraction, f32's range, half the memory (from sm_80 on).
    Bf16,
}

impl Precision {
    /// As the user writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// Bytes of an activation.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::Tf32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}
