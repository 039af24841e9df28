//! The dependency descriptor (AV1 RTP specification, appendix A): what a frame is for, in a header extension.
//!
//! It comes with any codec and stays readable under end-to-end encryption. A keyframe brings a structure of templates, and
//! later frames name a template each. Owns: the structure of one encoding. Promises: any bytes get an answer; bounded, no
//! allocation. Forbids: deciding what to forward.

use super::ParseError;
use super::bits::{BitReader, BitWriter};
use crate::base::frame::{ActiveTargets, DECODE_TARGETS_MAX, DecodeTargets, FrameMarks, SIZES_MAX, Sizes};

/// §A.8.2.1: start, end, template id, frame number.
const MANDATORY_BYTES: usize = 3;
/// §A.8.2.3: frame_dependency_template_id has six bits.
const TEMPLATES_MAX: usize = 64;
/// Bytes that [`write`] may make a value longer: five flags and a mask.
pub const GROWTH_BYTES_MAX: usize = (5 + DECODE_TARGETS_MAX).div_ceil(8);

/// What a frame is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Template {
    spatial: u8,
    temporal: u8,
    /// Decode targets that the frame belongs to, and those that can be begun with it.
    targets: u32,
    switches: u32,
    /// It needs other frames.
    has_dependencies: bool,
}

/// What the keyframe said that holds until the next one. Default: nothing is known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Structure {
    /// Template id of the first template.
    first_template: u8,
    template_count: u8,
    chain_count: u8,
    templates: [Template; TEMPLATES_MAX],
    targets: DecodeTargets,
    sizes: Sizes,
    /// Number of the newest packet that told any of it.
    told_by: u64,
}

impl Default for Structure {
    fn default() -> Self {
        Self {
            first_template: 0,
            template_count: 0,
            chain_count: 0,
            templates: [Template::default(); TEMPLATES_MAX],
            targets: DecodeTargets::NONE,
            sizes: Sizes::default(),
            told_by: 0,
        }
    }
}

impl Structure {
    /// Completes what a packet's payload said about its frame by its descriptor, which goes before it; keeps what it says
    /// of the frames that follow. `seq` is the packet's number in its encoding. An error leaves the structure as it was;
    /// where the frame's part in it is unknown, the marks still learn what the first three bytes say.
    pub fn refine(&mut self, value: &[u8], seq: u64, marks: &mut FrameMarks) -> Result<(), ParseError> {
        let head = Head::parse(value).ok_or(ParseError::Truncated)?;
        marks.is_start = head.is_start;
        marks.is_end = head.is_end;
        marks.frame_number = Some(head.frame_number);
        let mut reader = head.rest(value).ok_or(ParseError::Truncated)?;
        let attached = if head.has_structure { Some(Self::parse(&mut reader, seq)?) } else { None };
        let structure = attached.as_ref().unwrap_or(self);
        let active = if head.has_active {
            let mask = reader.bits(u32::from(structure.targets.count)).ok_or(ParseError::Truncated)?;
            Some(mask)
        } else {
            None
        };
        let frame = structure.frame(&head, &mut reader)?;
        marks.spatial = frame.spatial;
        marks.temporal = frame.temporal;
        marks.targets = frame.targets;
        marks.switches = frame.switches;
        // §A.4: a structure comes with the first packet of a coded video sequence.
        marks.is_key = !frame.has_dependencies && (attached.is_some() || !head.is_start);
        marks.is_switch_up = marks.is_key;
        marks.needs_lower = frame.has_dependencies && frame.spatial > 0;
        marks.needs_earlier = frame.has_dependencies;
        self.learn(attached, active, seq);
        Ok(())
    }

    /// What can be asked for, once a keyframe has told.
    pub fn targets(&self) -> Option<&DecodeTargets> {
        (self.template_count > 0).then_some(&self.targets)
    }

    /// Sizes of the spatial layers, where told.
    pub fn sizes(&self) -> Option<Sizes> {
        (self.sizes.count > 0).then_some(self.sizes)
    }

    /// Late packets know nothing new.
    fn learn(&mut self, attached: Option<Self>, active: Option<u32>, seq: u64) {
        if seq < self.told_by {
            return;
        }
        if let Some(attached) = attached {
            *self = attached;
        }
        if let Some(mask) = active {
            self.targets.active = mask;
            self.told_by = seq;
        }
    }

    /// §A.8.2: template_dependency_structure().
    fn parse(reader: &mut BitReader<'_>, seq: u64) -> Result<Self, ParseError> {
        let mut this = Self { told_by: seq, ..Self::default() };
        this.first_template = reader.bits(6).ok_or(ParseError::Truncated)? as u8;
        this.targets.count = reader.bits(5).ok_or(ParseError::Truncated)? as u8 + 1;
        this.targets.active = this.targets.all();
        this.parse_layers(reader)?;
        this.parse_templates(reader).ok_or(ParseError::Truncated)?;
        this.parse_sizes(reader).ok_or(ParseError::Truncated)?;
        this.derive_targets();
        Ok(this)
    }

    /// template_layers(): each template's layers follow from those of the one before.
    fn parse_layers(&mut self, reader: &mut BitReader<'_>) -> Result<(), ParseError> {
        let (mut spatial, mut temporal) = (0u8, 0u8);
        loop {
            let template = self.templates.get_mut(usize::from(self.template_count)).ok_or(ParseError::Malformed)?;
            (template.spatial, template.temporal) = (spatial, temporal);
            self.template_count += 1;
            // next_layer_idc.
            match reader.bits(2).ok_or(ParseError::Truncated)? {
                0 => {}
                1 => temporal += 1,
                2 => (spatial, temporal) = (spatial + 1, 0),
                _ => break,
            }
        }
        // Their sizes would have no place; nobody has as many.
        if usize::from(spatial) < SIZES_MAX { Ok(()) } else { Err(ParseError::Unsupported) }
    }

    /// template_dtis(), template_fdiffs(), template_chains().
    fn parse_templates(&mut self, reader: &mut BitReader<'_>) -> Option<()> {
        let count = self.targets.count;
        let templates = &mut self.templates[..usize::from(self.template_count)];
        for template in templates.iter_mut() {
            (template.targets, template.switches) = indications(reader, count)?;
        }
        for template in templates.iter_mut() {
            while reader.bit()? {
                template.has_dependencies = true;
                reader.skip(4)?;
            }
        }
        self.chain_count = reader.ns(u32::from(count) + 1)? as u8;
        if self.chain_count > 0 {
            for _ in 0..count {
                // Which chain protects the target: receivers follow it, we pass the target whole.
                reader.ns(u32::from(self.chain_count))?;
            }
            reader.skip(4 * usize::from(self.chain_count) * templates.len())?;
        }
        Some(())
    }

    /// render_resolutions(), of every spatial layer.
    fn parse_sizes(&mut self, reader: &mut BitReader<'_>) -> Option<()> {
        if !reader.bit()? {
            return Some(());
        }
        // Templates are in the order of spatial layers.
        self.sizes.count = self.templates[..usize::from(self.template_count)].last()?.spatial + 1;
        for size in &mut self.sizes.layers[..usize::from(self.sizes.count)] {
            let mut side = || Some((reader.bits(16)? as u16).saturating_add(1));
            *size = (side()?, side()?);
        }
        Some(())
    }

    /// §A.4: a target's layers are the highest of its frames.
    fn derive_targets(&mut self) {
        let templates = &self.templates[..usize::from(self.template_count)];
        for target in 0..usize::from(self.targets.count) {
            let (mut layers, mut covers) = ((0, 0), self.targets.all());
            for template in templates {
                if template.targets >> target & 1 != 0 {
                    layers = (template.spatial.max(layers.0), template.temporal.max(layers.1));
                } else {
                    // Whoever has this frame is not a part of the target.
                    covers &= !template.targets;
                }
            }
            self.targets.layers[target] = layers;
            self.targets.covers[target] = covers;
        }
    }

    /// §A.8.2.3: frame_dependency_definition().
    fn frame(&self, head: &Head, reader: &mut BitReader<'_>) -> Result<Template, ParseError> {
        let at = usize::from(head.template.wrapping_sub(self.first_template)) % TEMPLATES_MAX;
        let templates = &self.templates[..usize::from(self.template_count)];
        let mut frame = *templates.get(at).ok_or(ParseError::Unsupported)?;
        if head.has_own_targets {
            (frame.targets, frame.switches) = indications(reader, self.targets.count).ok_or(ParseError::Truncated)?;
        }
        if head.has_own_dependencies {
            frame.has_dependencies = own_dependencies(reader).ok_or(ParseError::Truncated)?;
        }
        if head.has_own_chains {
            reader.skip(8 * usize::from(self.chain_count)).ok_or(ParseError::Truncated)?;
        }
        Ok(frame)
    }
}

/// Writes a value with its frame number raised, and with the decode targets that are left, where that is said. `None` where
/// `out` has no room; [`GROWTH_BYTES_MAX`] more than the value always do. What makes no sense stays as it is.
pub fn write(out: &mut [u8], value: &[u8], frame_number_shift: u16, active: Option<ActiveTargets>) -> Option<usize> {
    let masked = active.filter(|active| usize::from(active.count) <= DECODE_TARGETS_MAX);
    let written = masked.and_then(|active| Some((active, mask_place(value, active.count)?)));
    let len = match written {
        Some((active, place)) => write_mask(out, value, active, place)?,
        None => {
            out.get_mut(..value.len())?.copy_from_slice(value);
            value.len()
        }
    };
    if let Some(number) = out[..len].get_mut(1..MANDATORY_BYTES) {
        let shifted = u16::from_be_bytes([number[0], number[1]]).wrapping_add(frame_number_shift);
        number.copy_from_slice(&shifted.to_be_bytes());
    }
    Some(len)
}

/// Where the mask stands or is to stand, and bits that it takes there now.
fn mask_place(value: &[u8], count: u8) -> Option<(usize, usize)> {
    let head = Head::parse(value)?;
    let mut reader = head.rest(value)?;
    if head.has_structure && Structure::parse(&mut reader, 0).ok()?.targets.count != count {
        return None;
    }
    let taken = if head.has_active { usize::from(count) } else { 0 };
    let at = reader.at();
    reader.skip(taken)?;
    Some((at, taken))
}

fn write_mask(out: &mut [u8], value: &[u8], active: ActiveTargets, (at, taken): (usize, usize)) -> Option<usize> {
    let mut reader = BitReader::new(value);
    let mut writer = BitWriter::new(out);
    let flags_at = MANDATORY_BYTES * 8;
    writer.copy(&mut reader, flags_at)?;
    // template_dependency_structure_present_flag, then active_decode_targets_present_flag.
    let flags = if value.len() > MANDATORY_BYTES { reader.bits(5)? } else { 0 };
    writer.bits(flags | 0x08, 5)?;
    if value.len() > MANDATORY_BYTES {
        writer.copy(&mut reader, at - flags_at - 5)?;
        reader.skip(taken)?;
    }
    writer.bits(active.mask, u32::from(active.count))?;
    let left = value.len() * 8 - reader.at();
    writer.copy(&mut reader, left)?;
    writer.finish()
}

/// Mandatory fields and flags.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    is_start: bool,
    is_end: bool,
    template: u8,
    frame_number: u16,
    has_structure: bool,
    has_active: bool,
    has_own_targets: bool,
    has_own_dependencies: bool,
    has_own_chains: bool,
}

impl Head {
    fn parse(value: &[u8]) -> Option<Self> {
        let [first, high, low] = *value.first_chunk()?;
        // §A.8.2.2: flags stand in longer values only.
        let flags = value.get(MANDATORY_BYTES).copied().unwrap_or(0);
        Some(Self {
            is_start: first & 0x80 != 0,
            is_end: first & 0x40 != 0,
            template: first & 0x3f,
            frame_number: u16::from_be_bytes([high, low]),
            has_structure: flags & 0x80 != 0,
            has_active: flags & 0x40 != 0,
            has_own_targets: flags & 0x20 != 0,
            has_own_dependencies: flags & 0x10 != 0,
            has_own_chains: flags & 0x08 != 0,
        })
    }

    /// What follows.
    fn rest<'a>(&self, value: &'a [u8]) -> Option<BitReader<'a>> {
        let mut reader = BitReader::new(value);
        reader.skip(MANDATORY_BYTES * 8 + if value.len() > MANDATORY_BYTES { 5 } else { 0 })?;
        Some(reader)
    }
}

/// Decode target indications of a frame: the targets it belongs to, and those that can be begun with it.
fn indications(reader: &mut BitReader<'_>, count: u8) -> Option<(u32, u32)> {
    let (mut targets, mut switches) = (0, 0);
    for target in 0..count {
        // §A.4: not present, discardable, switch, required.
        let indication = reader.bits(2)?;
        targets |= u32::from(indication != 0) << target;
        switches |= u32::from(indication == 2) << target;
    }
    Some((targets, switches))
}

/// frame_fdiffs(): whether there is any.
fn own_dependencies(reader: &mut BitReader<'_>) -> Option<bool> {
    let mut has_any = false;
    loop {
        // next_fdiff_size, in units of four bits.
        match reader.bits(2)? {
            0 => return Some(has_any),
            size => reader.skip(4 * size as usize)?,
        }
        has_any = true;
    }
}

/// Fuzz body: any bytes as a descriptor, by a structure that is known or by none.
#[doc(hidden)]
pub fn fuzz_dependency(bytes: &[u8], known: &mut Structure) {
    for structure in [known, &mut Structure::default()] {
        let mut marks = FrameMarks::default();
        let before = structure.clone();
        let is_read = structure.refine(bytes, structure.told_by, &mut marks).is_ok();
        assert!(is_read || *structure == before, "an error changes nothing");
        let targets = structure.targets().copied().unwrap_or(DecodeTargets::NONE);
        assert!(!is_read || marks.targets & !targets.all() == 0 && marks.switches & !marks.targets == 0);
        let active = ActiveTargets { mask: 0x5555_5555 & targets.all(), count: targets.count };
        let mut out = [0; 512];
        let bytes = &bytes[..bytes.len().min(out.len() - GROWTH_BYTES_MAX)];
        let len = write(&mut out, bytes, 3, Some(active)).expect("room");
        assert!(len <= bytes.len() + GROWTH_BYTES_MAX);
        let mut again = FrameMarks::default();
        let mut copy = structure.clone();
        if is_read && len > bytes.len() {
            assert_eq!(copy.refine(&out[..len], structure.told_by, &mut again), Ok(()));
            let number = marks.frame_number.map(|number| number.wrapping_add(3));
            assert_eq!(again, FrameMarks { frame_number: number, ..marks });
            assert_eq!(copy.targets.active, active.mask);
        }
    }
}

#[cfg(test)]
#[path = "dependency_tests.rs"]
mod tests;
