//! What an SFU-Go client knows of tracks: those that others publish, and which of them it gets.
//!
//! Owns: what it was told, so that each thing is told once. Bounded by what the room has.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::sfu_go_frame::frame;
use crate::room::api::{PublishedTrack, Source, TrackInfo};

/// See the module.
#[derive(Debug)]
pub struct Tracks {
    /// The peer that receives them.
    me: String,
    /// Publisher's peer id by the track's; for those that were told and have not ended.
    published: HashMap<String, String>,
    /// The same for those that it gets.
    received: HashMap<String, String>,
}

impl Tracks {
    /// Nothing was told yet.
    pub fn new(me: String) -> Self {
        Self { me, published: HashMap::new(), received: HashMap::new() }
    }

    /// Somebody publishes.
    pub fn publish(&mut self, track: &PublishedTrack) -> Vec<String> {
        let known = self.published.insert(track.track_id.clone(), track.wire_id.clone());
        if known.is_some() {
            return Vec::new();
        }
        let track_id = self.name(&track.track_id);
        let data = json!({
            "trackId": track_id,
            "peerId": track.wire_id,
            "userId": track.user_id,
            "kind": track.kind.as_str(),
            "mediaType": media_type(track.source),
        });
        let mut messages = vec![frame("track-published", &data)];
        if !track.layers.is_empty() {
            messages.push(frame("layer-available", &json!({"trackId": track_id, "layers": track.layers})));
        }
        messages
    }

    /// A track has ended.
    pub fn end(&mut self, track_id: &str) -> Vec<String> {
        let publisher = self.published.remove(track_id);
        let is_received = self.received.remove(track_id).is_some();
        // One that it got was told when it went.
        match publisher.filter(|_| !is_received) {
            Some(publisher) => vec![self.removed(track_id, &publisher)],
            None => Vec::new(),
        }
    }

    /// What it gets now.
    pub fn receive(&mut self, tracks: &[TrackInfo]) -> Vec<String> {
        let is_there = |id: &str| tracks.iter().any(|track| track.track_id == id);
        let gone: Vec<_> = self.received.extract_if(|id, _| !is_there(id)).collect();
        let mut messages: Vec<String> = gone.iter().map(|(id, publisher)| self.removed(id, publisher)).collect();
        for (id, _) in gone {
            // It may have ended, or is only not received: either way it is told as removed just once.
            self.published.remove(&id);
        }
        for track in tracks {
            if self.received.insert(track.track_id.clone(), track.wire_id.clone()).is_none() {
                messages.push(frame("track-added", &self.added(track)));
            }
        }
        messages
    }

    /// What the client calls a track, as the room calls it.
    pub fn meant<'a>(&self, track_id: &'a str) -> &'a str {
        track_id.strip_suffix(&format!("_to_{}", self.me)).unwrap_or(track_id)
    }

    fn name(&self, track_id: &str) -> String {
        format!("{track_id}_to_{}", self.me)
    }

    fn added(&self, track: &TrackInfo) -> Value {
        json!({
            "trackId": self.name(&track.track_id),
            "peerId": track.wire_id,
            "userId": track.user_id,
            "streamId": track.wire_id,
            "kind": track.kind.as_str(),
            "mediaType": media_type(track.source),
            "mid": track.mid,
        })
    }

    fn removed(&self, track_id: &str, publisher: &str) -> String {
        frame("track-removed", &json!({"trackId": self.name(track_id), "peerId": publisher}))
    }
}

fn media_type(source: Source) -> &'static str {
    match source {
        Source::Screen | Source::ScreenAudio => "screen",
        _ => "user",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::format::MediaKind;

    fn published(layers: &[&str]) -> PublishedTrack {
        PublishedTrack {
            track_id: "t-1-0".into(),
            kind: MediaKind::Video,
            source: Source::Unknown,
            wire_id: "p-2".into(),
            user_id: "bo".into(),
            layers: layers.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    fn received() -> TrackInfo {
        TrackInfo {
            mid: "3".into(),
            kind: MediaKind::Video,
            source: Source::Screen,
            wire_id: "p-2".into(),
            user_id: "bo".into(),
            stream_id: "s".into(),
            track_id: "t-1-0".into(),
        }
    }

    fn kinds(messages: &[String]) -> Vec<(String, Value)> {
        let read = messages.iter().map(|text| serde_json::from_str::<Value>(text).unwrap());
        read.map(|message| (message["type"].as_str().unwrap().to_owned(), message["data"]["trackId"].clone())).collect()
    }

    #[test]
    fn a_track_is_told_once_from_its_beginning_to_its_end() {
        let mut tracks = Tracks::new("p-1".into());
        let id = json!("t-1-0_to_p-1");
        let told = kinds(&tracks.publish(&published(&["l", "h"])));
        assert_eq!(told, [("track-published".into(), id.clone()), ("layer-available".into(), id.clone())]);
        assert!(tracks.publish(&published(&["l", "h"])).is_empty());
        assert_eq!(kinds(&tracks.receive(&[received()])), [("track-added".into(), id.clone())]);
        assert!(tracks.receive(&[received()]).is_empty());
        assert_eq!(kinds(&tracks.receive(&[])), [("track-removed".into(), id.clone())]);
        assert!(tracks.end("t-1-0").is_empty());
        tracks.publish(&published(&[]));
        assert_eq!(kinds(&tracks.end("t-1-0")), [("track-removed".into(), id)], "though it was never received");
    }

    #[test]
    fn the_client_may_name_a_track_either_way() {
        let tracks = Tracks::new("p-1".into());
        for name in ["t-1-0", "t-1-0_to_p-1"] {
            assert_eq!(tracks.meant(name), "t-1-0");
        }
    }
}
