//! What a viewer is shown of a room, and which layer it chooses of that.
//!
//! Owns: the names of layers. Promises: cheap enough to be asked once a second by every viewer; what is chosen of a picture
//! ends with the picture.

use super::api::RequestError;
use super::hub::Hub;
use super::peer::{Peer, Track};
use crate::base::format::MediaKind;
use crate::base::frame::Layer;
use crate::base::ids::{PeerId, Rid, TrackKey};
use crate::session::stats::LayerReport;

/// What a viewer is shown; up to a second old.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Showing {
    /// Somebody publishes.
    pub is_active: bool,
    /// Who watches the room and does nothing else, this viewer with them.
    pub viewers: usize,
    /// The layers that come in of each picture, by the viewer's m-line.
    pub pictures: Vec<(u16, Vec<ShownLayer>)>,
}

/// A layer that can be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownLayer {
    /// Name of the encoding; `None` where there is only one and it has none.
    pub rid: Option<String>,
    /// Spatial layer.
    pub spatial: u8,
    /// Temporal layer.
    pub temporal: u8,
    /// What it costs with all below it, in bits per second.
    pub bps: u64,
    /// Width and height.
    pub size: Option<(u16, u16)>,
}

/// Which picture a wish is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Picture<'a> {
    /// The first one.
    First,
    /// What is on that m-line of the viewer: its index, or its mid.
    Media(&'a str),
    /// A track, by our id or its publisher's.
    Track(&'a str),
}

/// A choice of layers; what is not said is without a limit, and nothing at all leaves it to us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerWish {
    /// This encoding, by its rid, or by its number where it has none.
    pub rid: Option<String>,
    /// Spatial layer, the best that is given.
    pub spatial: Option<u8>,
    /// Temporal layer, the best that is given.
    pub temporal: Option<u8>,
    /// No larger pictures, in pixels; the other one follows from what is usual where only one is said.
    pub width_max: Option<u16>,
    /// See above.
    pub height_max: Option<u16>,
}

/// Why a layer cannot be chosen; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayerError {
    /// The peer is gone.
    #[error(transparent)]
    Gone(#[from] RequestError),
    /// There is no such m-line or track.
    #[error("there is no picture {0:?} here")]
    NoPicture(String),
    /// Nobody is seen there.
    #[error("nothing is shown there now; choose again when somebody publishes")]
    NothingShown,
    /// The picture has no such encoding.
    #[error("the picture has no encoding {wanted:?}; it has: {has}")]
    NoEncoding {
        /// What was asked for.
        wanted: String,
        /// What there is.
        has: String,
    },
}

impl Hub {
    /// What a viewer is shown now. `None`: it is gone.
    pub fn showing(&self, id: PeerId) -> Option<Showing> {
        let me = self.peers.get(&id)?;
        let pictures = me.bound.iter().filter_map(|(key, mline)| Some((*mline, self.shown_layers(*key)?)));
        Some(Showing {
            // What a viewer could get, be it that its m-lines are of the other kind.
            is_active: me.negotiation.wanted_count() > 0,
            viewers: self.rooms.get(&me.room).map_or(0, |room| room.viewers),
            pictures: pictures.collect(),
        })
    }

    /// Chooses among the layers of a picture that the peer receives, or leaves it to us again.
    pub fn choose_layer(&mut self, id: PeerId, of: Picture<'_>, wish: &LayerWish) -> Result<(), LayerError> {
        let me = self.peers.get(&id).ok_or(RequestError::Gone)?;
        let (key, names) = self.chosen(me, of)?;
        let encoding = match &wish.rid {
            None => u8::MAX,
            Some(rid) => match names.iter().position(|name| name.as_ref() == Some(rid)) {
                Some(at) => at as u8,
                None => {
                    let has = names.into_iter().flatten().collect::<Vec<_>>().join(", ");
                    let has = if has.is_empty() { "only one, without a name".to_owned() } else { has };
                    return Err(LayerError::NoEncoding { wanted: rid.clone(), has });
                }
            },
        };
        let is_named = wish.rid.is_some() || wish.spatial.is_some();
        let layer = Layer { encoding, spatial: wish.spatial.unwrap_or(u8::MAX), temporal: u8::MAX };
        let Some(me) = self.peers.get_mut(&id) else { return Err(RequestError::Gone.into()) };
        let demand = me.demands.entry(key).or_default();
        let before = *demand;
        demand.layer = is_named.then_some(layer);
        demand.temporal_max = wish.temporal;
        demand.size_max = size_max(wish);
        if *demand != before {
            self.configure(id);
        }
        Ok(())
    }

    /// The track that is meant, with the names of its encodings.
    fn chosen(&self, me: &Peer, of: Picture<'_>) -> Result<(TrackKey, Vec<Option<String>>), LayerError> {
        let is_picture = |key: &TrackKey| self.track(*key).is_some_and(|(_, track)| track.kind == MediaKind::Video);
        let mut shown = me.bound.iter().filter(|(key, _)| is_picture(key));
        let found = match of {
            Picture::First => shown.next(),
            Picture::Media(name) => {
                let mline = me.negotiation.picture_mline(name);
                let mline = mline.ok_or_else(|| LayerError::NoPicture(name.to_owned()))?;
                shown.find(|(_, at)| usize::from(*at) == mline)
            }
            Picture::Track(name) => {
                let is_meant = |track: &Track| track.id == name || track.track_id == name;
                let meant = shown.find(|(key, _)| self.track(*key).is_some_and(|(_, track)| is_meant(track)));
                Some(meant.ok_or_else(|| LayerError::NoPicture(name.to_owned()))?)
            }
        };
        let (key, _) = *found.ok_or(LayerError::NothingShown)?;
        Ok((key, self.encoding_names(key)))
    }

    fn shown_layers(&self, key: TrackKey) -> Option<Vec<ShownLayer>> {
        let (publisher, track) = self.track(key)?;
        let report = self.session_report(publisher).filter(|_| track.kind == MediaKind::Video)?;
        let names = self.encoding_names(key);
        let shown = |layer: &LayerReport| ShownLayer {
            rid: names.get(usize::from(layer.offer.layer.encoding)).cloned().flatten(),
            spatial: layer.offer.layer.spatial,
            temporal: layer.offer.layer.temporal,
            bps: layer.offer.bps,
            size: layer.size,
        };
        Some(report.layers.iter().filter(|layer| layer.track == key).map(shown).collect())
    }

    /// By rid. A simulcast by ssrcs has no names: there the number is one.
    pub(super) fn encoding_names(&self, key: TrackKey) -> Vec<Option<String>> {
        let Some((publisher, mline)) = self.publishers.get(&key) else { return Vec::new() };
        let rids = self.peers.get(publisher).map(|publisher| publisher.negotiation.rids(*mline)).unwrap_or_default();
        let is_alone = rids.len() < 2;
        let name = |(index, rid): (usize, &Option<Rid>)| match rid {
            None => (!is_alone).then(|| index.to_string()),
            Some(rid) => Some(rid.as_str().to_owned()),
        };
        rids.iter().enumerate().map(name).collect()
    }
}

/// Where only one side is bounded the other is that of 16:9, which cameras and screens mostly are.
fn size_max(wish: &LayerWish) -> Option<(u16, u16)> {
    let of = |side: u16, numerator: u32, denominator: u32| {
        u16::try_from((u32::from(side) * numerator).div_ceil(denominator)).unwrap_or(u16::MAX)
    };
    match (wish.width_max, wish.height_max) {
        (None, None) => None,
        (Some(width), Some(height)) => Some((width, height)),
        (Some(width), None) => Some((width, of(width, 9, 16))),
        (None, Some(height)) => Some((of(height, 16, 9), height)),
    }
}
