//! What peers may send.

use super::source::{Group, Sources};
use super::{ConfigError, parse};

/// More than any uplink carries; a larger value is a typing error, or counts bits.
const KBPS_LIMIT: usize = 10_000_000;

/// Limits of what one peer sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ingest {
    /// In kilobits per second, told to peers that take such wishes (REMB); `None`: as much as they can.
    pub max_kbps: Option<usize>,
}

impl Ingest {
    /// The same in bits per second.
    pub fn bps_max(&self) -> Option<u64> {
        self.max_kbps.map(|kbps| kbps as u64 * 1000)
    }
}

#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub(super) struct Flags {
    /// Kilobits per second that a peer may send at most, told to those that take REMB; 0: as much as they can [env: SFU_MAX_INGEST_KBPS] [default: 0]
    #[arg(long, value_name = "KBPS")]
    max_ingest_kbps: Option<String>,
}

impl Group for Ingest {
    type Flags = Flags;

    fn read(flags: &Flags, from: &mut Sources<'_>) -> Result<Self, ConfigError> {
        let text = from.first(&flags.max_ingest_kbps, "--max-ingest-kbps", &["SFU_MAX_INGEST_KBPS"]);
        let kbps = text.map(|text| text.read(|s| parse::count(s, 0, KBPS_LIMIT))).transpose()?;
        Ok(Self { max_kbps: kbps.filter(|kbps| *kbps > 0) })
    }
}
