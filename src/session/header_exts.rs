//! The header extensions of what a subscriber gets: its ids, our mid and stamps, the publisher's end-to-end values.
//!
//! Owns: what an m-line negotiated. Promises: the length is known without writing.
//! Forbids: extensions of one hop; `ingress` keeps the others only.

use super::streams::MlineConfig;
use crate::base::frame::{ActiveTargets, DECODE_TARGETS_MAX};
use crate::base::ids::Mid;
use crate::wire::dependency;
use crate::wire::rtp_ext::{AbsSendTime, Ext, ExtWriter, ONE_BYTE_PROFILE, needs_two_byte};

/// Extension kinds that exist; index of the id tables.
const EXT_KINDS: usize = Ext::ALL.len();
/// What is ours: mid and two stamps.
const OWN_KINDS: usize = 3;
/// Room for what is ours alone: a mid of at most 16 bytes, two bytes and three, each with its head of one, in whole words.
const OWN_BLOCK_BYTES_MAX: usize = 24;
/// A dependency descriptor, as long as an extension's value may be, with what we add.
const DESCRIPTOR_BYTES_MAX: usize = 255 + dependency::GROWTH_BYTES_MAX;
/// RFC 3550 §5.3.1: profile and length.
const EXT_HEADER_BYTES: usize = 4;

/// Where the values of the stamps stand in a block, 0 where they do not: first there is the head of an element in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct StampPlaces {
    twcc: u8,
    send_time: u8,
}

/// What is different in each datagram, even if the packet is the same.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// Transport-wide sequence number.
    pub twcc: u16,
    /// When it leaves.
    pub send_time: AbsSendTime,
    /// What becomes of the dependency descriptor.
    pub descriptor: DescriptorChange,
}

/// How a dependency descriptor differs from the publisher's.
#[derive(Clone, Copy, Debug, Default)]
pub struct DescriptorChange {
    /// Added to the frame number.
    pub frame_number_shift: u16,
    /// Decode targets that are left.
    pub active: Option<ActiveTargets>,
}

impl DescriptorChange {
    /// None makes a descriptor longer.
    pub const MOST: Self =
        Self { frame_number_shift: 0, active: Some(ActiveTargets { count: DECODE_TARGETS_MAX as u8, mask: u32::MAX }) };
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderExts {
    mid: Mid,
    /// Id by extension kind, 0 where not negotiated.
    ids: [u8; EXT_KINDS],
    has_two_byte: bool,
    /// What is ours in the one-byte form, the stamps still zero, behind its extension header. As it stands it is written where
    /// the publisher has nothing to say.
    own: [u8; EXT_HEADER_BYTES + OWN_BLOCK_BYTES_MAX],
    /// Bytes of its elements, and how many there are.
    own_len: usize,
    own_count: usize,
    /// In the one-byte form and in the other.
    places: [StampPlaces; 2],
}

impl HeaderExts {
    /// Those of an m-line; `has_two_byte` says whether the two-byte form is understood, `is_stamped` whether datagrams may
    /// differ when they are sent again.
    pub fn new(mline: &MlineConfig, has_two_byte: bool, is_stamped: bool) -> Self {
        let mut ids = [0; EXT_KINDS];
        for (id, ext) in &mline.exts {
            // Ours are written in either form.
            let is_own = matches!(ext, Ext::Mid | Ext::TransportCc | Ext::AbsSendTime);
            let is_fit = !is_own || !needs_two_byte(*id, 1) && (*ext == Ext::Mid || is_stamped);
            ids[*ext as usize] = if is_fit { *id } else { 0 };
        }
        let (own, places) = ([0; EXT_HEADER_BYTES + OWN_BLOCK_BYTES_MAX], [StampPlaces::default(); 2]);
        let mut this = Self { mid: mline.mid, ids, has_two_byte, own, own_len: 0, own_count: 0, places };
        let mut block = [0; OWN_BLOCK_BYTES_MAX];
        let mut writer = ExtWriter::one_byte(&mut block);
        for (_, id, value) in this.own_elements() {
            writer.push(id, value);
        }
        (this.own_len, this.own_count) =
            this.own_elements().fold((0, 0), |(len, count), (_, _, value)| (len + 1 + value.len(), count + 1));
        let (profile, len) = writer.finish();
        this.own[..EXT_HEADER_BYTES].copy_from_slice(&ext_header(profile, len));
        this.own[EXT_HEADER_BYTES..].copy_from_slice(&block);
        this.places = [1, 2].map(|head| this.stamp_places(head));
        this
    }

    /// Where the stamps stand when each element has a head of so many bytes.
    fn stamp_places(&self, head: u8) -> StampPlaces {
        let (mut places, mut at) = (StampPlaces::default(), 0);
        for (kind, _, value) in self.own_elements() {
            match kind {
                kind if kind == Ext::TransportCc as usize => places.twcc = at + head,
                kind if kind == Ext::AbsSendTime as usize => places.send_time = at + head,
                _ => {}
            }
            at += head + value.len() as u8;
        }
        places
    }

    /// Whether packets carry a transport-wide number.
    pub fn has_twcc(&self) -> bool {
        self.ids[Ext::TransportCc as usize] != 0
    }

    /// Whether packets carry the time they leave.
    pub fn has_send_time(&self) -> bool {
        self.ids[Ext::AbsSendTime as usize] != 0
    }

    /// Writes the header extension with what is ours and `exts`, the (kind, length, value) triples of a packet, to the front
    /// of `out`; how many bytes it has, 0 where there is nothing to say. `None`: there is no room.
    pub fn write(&self, exts: &[u8], stamp: &Stamp, out: &mut [u8]) -> Option<usize> {
        if exts.is_empty() {
            // What is copied beyond its end is written over by the payload, or not sent.
            *out.first_chunk_mut()? = self.own;
            self.stamp(self.places[0], stamp, out.get_mut(EXT_HEADER_BYTES..)?);
            return Some(self.own_len_padded());
        }
        let (head, block) = out.split_first_chunk_mut()?;
        let (profile, len) = self.write_elements(exts, stamp.descriptor, block)?;
        let is_two_byte = profile != ONE_BYTE_PROFILE;
        self.stamp(self.places[usize::from(is_two_byte)], stamp, block);
        *head = ext_header(profile, len);
        Some(if len == 0 { 0 } else { EXT_HEADER_BYTES + len })
    }

    /// Bytes that [`write`](Self::write) makes the header longer.
    pub fn len(&self, exts: &[u8], change: DescriptorChange) -> usize {
        if exts.is_empty() {
            return self.own_len_padded();
        }
        let is_two_byte = self.takes_two_byte(exts, change);
        let mut room = None;
        let len = |(kind, id, value)| (id, changed((kind, id), value, change, is_two_byte, &mut room).len());
        let said = self.kept(exts).map(len).filter(|(id, len)| is_two_byte || !needs_two_byte(*id, *len));
        let kept: usize = said.map(|(_, len)| 1 + usize::from(is_two_byte) + len).sum();
        padded(self.own_len + if is_two_byte { self.own_count } else { 0 } + kept)
    }

    /// No less than [`len`](Self::len) says, whatever becomes of a descriptor, at a glance.
    pub fn len_max(&self, exts: &[u8]) -> usize {
        // A triple has two bytes before its value, which no form exceeds; ours get one more in the longer form.
        let len = self.own_len + OWN_KINDS + exts.len() + dependency::GROWTH_BYTES_MAX;
        EXT_HEADER_BYTES + len.next_multiple_of(4)
    }

    fn own_len_padded(&self) -> usize {
        padded(self.own_len)
    }

    /// Not taken is what fits neither form: an extension is an extra, the media goes on without.
    fn write_elements(&self, exts: &[u8], change: DescriptorChange, block: &mut [u8]) -> Option<(u16, usize)> {
        let is_two_byte = self.takes_two_byte(exts, change);
        let mut room = None;
        let mut writer;
        if is_two_byte {
            writer = ExtWriter::two_byte(block);
            for (_, id, value) in self.own_elements() {
                writer.push(id, value);
            }
        } else {
            let own = self.own.last_chunk::<OWN_BLOCK_BYTES_MAX>()?;
            *block.first_chunk_mut()? = *own;
            writer = ExtWriter::one_byte_after(block, self.own_len);
        }
        for (kind, id, value) in self.kept(exts) {
            writer.push(id, changed((kind, id), value, change, is_two_byte, &mut room));
        }
        Some(writer.finish())
    }

    /// Writes the stamps into their places.
    fn stamp(&self, places: StampPlaces, stamp: &Stamp, block: &mut [u8]) {
        if places.twcc != 0
            && let Some(place) = block.get_mut(usize::from(places.twcc)..).and_then(<[u8]>::first_chunk_mut)
        {
            *place = stamp.twcc.to_be_bytes();
        }
        if places.send_time != 0
            && let Some(place) = block.get_mut(usize::from(places.send_time)..).and_then(<[u8]>::first_chunk_mut)
        {
            *place = stamp.send_time.to_bytes();
        }
    }

    fn takes_two_byte(&self, exts: &[u8], change: DescriptorChange) -> bool {
        // A keyframe's descriptor with its structure is long already.
        let growth = |kind: usize| {
            let grows = kind == Ext::DependencyDescriptor as usize && change.active.is_some();
            if grows { dependency::GROWTH_BYTES_MAX } else { 0 }
        };
        self.has_two_byte && self.kept(exts).any(|(kind, id, value)| needs_two_byte(id, value.len() + growth(kind)))
    }

    /// What is ours, the stamps still zero.
    fn own_elements(&self) -> impl Iterator<Item = (usize, u8, &[u8])> {
        let own: [(Ext, &[u8]); OWN_KINDS] =
            [(Ext::Mid, self.mid.as_bytes()), (Ext::TransportCc, &[0; 2]), (Ext::AbsSendTime, &[0; 3])];
        let own = own.into_iter().map(|(ext, value)| (ext as usize, self.ids[ext as usize], value));
        own.filter(|(_, id, _)| *id != 0)
    }

    /// What ingress kept, under the ids of this subscriber.
    fn kept<'a>(&'a self, exts: &'a [u8]) -> impl Iterator<Item = (usize, u8, &'a [u8])> {
        triples(exts).map(|(kind, value)| (kind, self.ids[kind], value)).filter(|(_, id, _)| *id != 0)
    }
}

/// RFC 3550 §5.3.1: profile, and the length in words.
fn ext_header(profile: u16, len: usize) -> [u8; EXT_HEADER_BYTES] {
    let ([high, low], [words_high, words_low]) = (profile.to_be_bytes(), ((len / 4) as u16).to_be_bytes());
    [high, low, words_high, words_low]
}

/// Bytes of a header extension with elements of so many; none where there are none.
fn padded(len: usize) -> usize {
    if len == 0 { 0 } else { EXT_HEADER_BYTES + len.next_multiple_of(4) }
}

/// The dependency descriptor among the (kind, length, value) triples of a packet.
pub fn descriptor(exts: &[u8]) -> Option<&[u8]> {
    triples(exts).find(|(kind, _)| *kind == Ext::DependencyDescriptor as usize).map(|(_, value)| value)
}

fn triples(mut exts: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    std::iter::from_fn(move || {
        let (&[kind, len], rest) = exts.split_first_chunk::<2>()?;
        let (value, rest) = rest.split_at_checked(usize::from(len))?;
        exts = rest;
        Some((usize::from(kind) % EXT_KINDS, value))
    })
}

/// A value as the subscriber gets it. Where it would become too long for its form, the decode targets that are left are
/// not said: without its descriptor a keyframe begins nothing.
fn changed<'a>(
    (kind, id): (usize, u8),
    value: &'a [u8],
    change: DescriptorChange,
    is_two_byte: bool,
    room: &'a mut Option<[u8; DESCRIPTOR_BYTES_MAX]>,
) -> &'a [u8] {
    let is_changed = change.frame_number_shift != 0 || change.active.is_some();
    if kind != Ext::DependencyDescriptor as usize || !is_changed {
        return value;
    }
    let room = room.get_or_insert([0; DESCRIPTOR_BYTES_MAX]);
    let number_shift = change.frame_number_shift;
    let len = match dependency::write(room, value, number_shift, change.active) {
        Some(len) if !is_two_byte && needs_two_byte(id, len) => dependency::write(room, value, number_shift, None),
        len => len,
    };
    match len {
        Some(len) => &room[..len],
        None => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::format::MediaKind;
    use crate::wire::rtp_ext::find;
    use proptest::prelude::*;

    /// Profile and elements of a header extension.
    fn read(ext: &[u8]) -> (u16, &[u8]) {
        let (header, block) = ext.split_first_chunk::<EXT_HEADER_BYTES>().expect("a header");
        let [high, low, words_high, words_low] = *header;
        assert_eq!(usize::from(u16::from_be_bytes([words_high, words_low])) * 4, block.len());
        (u16::from_be_bytes([high, low]), block)
    }

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
            let header = HeaderExts::new(&mline, has_two_byte, true);
            let stamp = Stamp { twcc: 0x1234, send_time: AbsSendTime(0x0056_789a), descriptor: DescriptorChange::default() };
            let mut out = [0xff; 1500];
            let len = header.write(&exts, &stamp, &mut out).unwrap();
            prop_assert_eq!(header.len(&exts, stamp.descriptor), len);
            prop_assert!(header.len(&exts, DescriptorChange::MOST) <= header.len_max(&exts));
            let (profile, block) = if len == 0 { (ONE_BYTE_PROFILE, &[][..]) } else { read(&out[..len]) };
            for (ext, value) in [(Ext::TransportCc, &[0x12, 0x34][..]), (Ext::AbsSendTime, &[0x56, 0x78, 0x9a])] {
                let id = header.ids[ext as usize];
                let is_alone = header.ids.iter().filter(|other| **other == id).count() == 1;
                if id != 0 && is_alone {
                    prop_assert_eq!(find(profile, block, id), Some(value));
                }
            }
        }
    }

    #[test]
    fn a_descriptor_that_grows_goes_out_in_either_form() {
        let mline = |exts| MlineConfig {
            mid: Mid::new(b"1").unwrap(),
            kind: MediaKind::Video,
            exts,
            payloads: Vec::new(),
            ingress: None,
            egress: None,
        };
        // As long as the one-byte form takes; with the mask it is longer.
        let mut value = [0; 16];
        value[0] = 0xc0;
        let exts = [&[Ext::DependencyDescriptor as u8, 16][..], &value].concat();
        let active = Some(ActiveTargets { count: 8, mask: 1 });
        for has_two_byte in [true, false] {
            let header = HeaderExts::new(&mline(vec![(3, Ext::DependencyDescriptor)]), has_two_byte, true);
            let descriptor = DescriptorChange { frame_number_shift: 7, active };
            let stamp = Stamp { twcc: 0, send_time: AbsSendTime(0), descriptor };
            let mut out = [0xff; 1500];
            let len = header.write(&exts, &stamp, &mut out).expect("room");
            let (profile, block) = read(&out[..len]);
            let sent = find(profile, block, 3).expect("the descriptor");
            assert_eq!((sent.len(), &sent[..3]), (16 + usize::from(has_two_byte), &[0xc0, 0, 7][..]));
            assert_eq!(header.len(&exts, descriptor), EXT_HEADER_BYTES + block.len());
        }
    }
}
