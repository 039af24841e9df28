//! The header extensions of what a subscriber gets: its ids, our mid, the publisher's end-to-end values.
//!
//! Owns: what an m-line negotiated. Promises: the length is known without writing.
//! Forbids: extensions of one hop; `ingress` keeps the others only.

use super::streams::MlineConfig;
use crate::base::ids::Mid;
use crate::wire::rtp_ext::{Ext, ExtWriter, needs_two_byte};

/// Room for the extensions of one packet: those of the publisher, and our mid.
const EXT_BLOCK_BYTES_MAX: usize = 320;
/// Extension kinds that exist; index of the id tables.
const EXT_KINDS: usize = Ext::ALL.len();
/// Room for our mid alone: one byte before at most 16, in whole words.
const MID_BLOCK_BYTES_MAX: usize = 20;
/// RFC 3550 §5.3.1: profile and length.
const EXT_HEADER_BYTES: usize = 4;

/// Memory for the extensions of one packet, touched only when there are any.
#[derive(Debug, Default)]
pub struct ExtRoom(Option<[u8; EXT_BLOCK_BYTES_MAX]>);

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderExts {
    mid: Mid,
    /// Id by extension kind, 0 where not negotiated.
    ids: [u8; EXT_KINDS],
    has_two_byte: bool,
    /// What is written where the publisher has nothing to say: profile, length and bytes.
    alone: (u16, usize, [u8; MID_BLOCK_BYTES_MAX]),
}

impl HeaderExts {
    /// Those of an m-line; `has_two_byte` says whether the two-byte form is understood.
    pub fn new(mline: &MlineConfig, has_two_byte: bool) -> Self {
        let mut ids = [0; EXT_KINDS];
        for (id, ext) in &mline.exts {
            ids[*ext as usize] = *id;
        }
        let mut this = Self { mid: mline.mid, ids, has_two_byte, alone: (0, 0, [0; MID_BLOCK_BYTES_MAX]) };
        let mut block = [0; MID_BLOCK_BYTES_MAX];
        let (profile, len) = this.write_elements(&[], &mut block);
        this.alone = (profile, len, block);
        this
    }

    /// Our mid and `exts`, the (kind, length, value) triples of a packet, for `rtp::write_header`. `room` is used where
    /// they are not known beforehand. `None`: no extension at all.
    pub fn write<'a>(&'a self, exts: &[u8], room: &'a mut ExtRoom) -> Option<(u16, &'a [u8])> {
        let (profile, block) = if exts.is_empty() {
            (self.alone.0, &self.alone.2[..self.alone.1])
        } else {
            let block = room.0.get_or_insert([0; EXT_BLOCK_BYTES_MAX]);
            let (profile, len) = self.write_elements(exts, block);
            (profile, &block[..len])
        };
        (!block.is_empty()).then_some((profile, block))
    }

    /// Bytes that [`write`](Self::write) makes the header longer.
    pub fn len(&self, exts: &[u8]) -> usize {
        let len = if exts.is_empty() {
            self.alone.1
        } else {
            let is_two_byte = self.takes_two_byte(exts);
            let said = self.elements(exts).filter(|(id, value)| is_two_byte || !needs_two_byte(*id, value.len()));
            said.map(|(_, value)| 1 + usize::from(is_two_byte) + value.len()).sum()
        };
        if len == 0 { 0 } else { EXT_HEADER_BYTES + len.next_multiple_of(4) }
    }

    fn write_elements(&self, exts: &[u8], block: &mut [u8]) -> (u16, usize) {
        let is_two_byte = self.takes_two_byte(exts);
        let mut writer = if is_two_byte { ExtWriter::two_byte(block) } else { ExtWriter::one_byte(block) };
        for (id, value) in self.elements(exts) {
            // Not taken where it fits neither form: an extension is an extra, the media goes on without.
            writer.push(id, value);
        }
        writer.finish()
    }

    fn takes_two_byte(&self, exts: &[u8]) -> bool {
        self.has_two_byte && self.kept(exts).any(|(id, value)| needs_two_byte(id, value.len()))
    }

    fn elements<'a>(&'a self, exts: &'a [u8]) -> impl Iterator<Item = (u8, &'a [u8])> {
        let mid = (self.ids[Ext::Mid as usize], self.mid.as_bytes());
        std::iter::once(mid).filter(|(id, _)| *id != 0).chain(self.kept(exts))
    }

    /// What ingress kept, under the ids of this subscriber.
    fn kept<'a>(&'a self, mut exts: &'a [u8]) -> impl Iterator<Item = (u8, &'a [u8])> {
        let triples = std::iter::from_fn(move || {
            let (&[kind, len], rest) = exts.split_first_chunk::<2>()?;
            let (value, rest) = rest.split_at_checked(usize::from(len))?;
            exts = rest;
            Some((usize::from(kind) % EXT_KINDS, value))
        });
        triples.map(|(kind, value)| (self.ids[kind], value)).filter(|(id, _)| *id != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::format::MediaKind;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_length_is_that_of_what_is_written(
            ids in prop::collection::vec((1u8..20, 0..EXT_KINDS), 0..EXT_KINDS),
            values in prop::collection::vec((0..EXT_KINDS, prop::collection::vec(any::<u8>(), 0..40)), 0..4),
            has_two_byte in any::<bool>(),
        ) {
            let mline = MlineConfig {
                mid: Mid::new(b"12").unwrap(),
                kind: MediaKind::Video,
                exts: ids.into_iter().map(|(id, kind)| (id, Ext::ALL[kind])).collect(),
                payloads: Vec::new(),
                ingress: None,
                egress: None,
            };
            let triple = |(kind, value): (usize, Vec<u8>)| [&[kind as u8, value.len() as u8][..], &value].concat();
            let exts: Vec<u8> = values.into_iter().flat_map(triple).collect();
            let header = HeaderExts::new(&mline, has_two_byte);
            let mut room = ExtRoom::default();
            let written = header.write(&exts, &mut room).map_or(0, |(_, block)| EXT_HEADER_BYTES + block.len());
            prop_assert_eq!(header.len(&exts), written);
        }
    }
}
