//! WHIP and WHEP.

use super::source::{Group, Sources};
use super::{ConfigError, parse};

/// More viewers than one process can serve; a larger value is a typing error.
const VIEWERS_LIMIT: usize = 1_000_000;

/// What WHIP publishers and WHEP viewers may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Broadcast {
    /// WHEP viewers that one room takes; `None`: as many as there are seats.
    pub viewers_max: Option<usize>,
}

#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub(super) struct Flags {
    /// WHEP viewers that one room takes; 0: as many as there are seats [env: MAX_SUBS_PER_ROOM] [default: 0]
    #[arg(long, value_name = "N")]
    max_viewers_per_room: Option<String>,
}

impl Group for Broadcast {
    type Flags = Flags;

    fn read(flags: &Flags, from: &mut Sources<'_>) -> Result<Self, ConfigError> {
        let viewers = from.first(&flags.max_viewers_per_room, "--max-viewers-per-room", &["MAX_SUBS_PER_ROOM"]);
        let viewers = viewers.map_or(Ok(0), |text| text.read(|s| parse::count(s, 0, VIEWERS_LIMIT)))?;
        Ok(Self { viewers_max: (viewers > 0).then_some(viewers) })
    }
}
