//! Source descriptions and goodbyes (RFC 3550 §6.5, §6.6).

use super::super::ParseError;
use super::super::be::{Put, u32_at};
use super::{PT_BYE, PT_SDES, finish, put_header};
use crate::base::ids::Ssrc;

const ITEM_END: u8 = 0;
const ITEM_CNAME: u8 = 1;

/// A source description.
#[derive(Clone, Copy, Debug)]
pub struct Sdes<'a> {
    body: &'a [u8],
}

/// What a source description says about one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SdesChunk<'a> {
    /// The source described.
    pub ssrc: Ssrc,
    /// Its canonical name: the same for all streams of one peer that are played together.
    pub cname: Option<&'a [u8]>,
}

impl<'a> Sdes<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { body }
    }

    /// The chunks; a truncated one ends the iteration quietly.
    pub fn chunks(&self) -> impl Iterator<Item = SdesChunk<'a>> + 'a {
        let mut rest = self.body;
        std::iter::from_fn(move || {
            let (chunk, len) = read_chunk(rest)?;
            rest = rest.get(len..).unwrap_or(&[]);
            Some(chunk)
        })
    }
}

/// A goodbye.
#[derive(Clone, Copy, Debug)]
pub struct Bye<'a> {
    ssrcs: &'a [u8],
}

impl<'a> Bye<'a> {
    pub(super) fn parse(body: &'a [u8], count: u8) -> Result<Self, ParseError> {
        // The reason for leaving, which may follow, is of no use to us.
        let ssrcs = body.get(..4 * usize::from(count)).ok_or(ParseError::Truncated)?;
        Ok(Self { ssrcs })
    }

    /// The sources that leave.
    pub fn ssrcs(&self) -> impl Iterator<Item = Ssrc> + 'a {
        self.ssrcs.chunks_exact(4).filter_map(|ssrc| u32_at(ssrc, 0).map(Ssrc))
    }
}

/// Writes a source description of one source with its canonical name, at most 255 bytes.
pub fn write_sdes_cname(out: &mut [u8], ssrc: Ssrc, cname: &str) -> Option<usize> {
    let mut put = Put::new(out);
    put_header(&mut put, 1, PT_SDES)?;
    put.u32(ssrc.0)?;
    put.u8(ITEM_CNAME)?;
    put.u8(u8::try_from(cname.len()).ok()?)?;
    put.bytes(cname.as_bytes())?;
    // RFC 3550 §6.5: the list of items ends with one or more null octets, up to the next 32-bit boundary.
    put.u8(ITEM_END)?;
    while !put.len().is_multiple_of(4) {
        put.u8(ITEM_END)?;
    }
    finish(put)
}

/// Writes a goodbye for up to 31 sources.
pub fn write_bye(out: &mut [u8], ssrcs: &[Ssrc]) -> Option<usize> {
    let count = u8::try_from(ssrcs.len()).ok().filter(|&count| count <= 31)?;
    let mut put = Put::new(out);
    put_header(&mut put, count, PT_BYE)?;
    ssrcs.iter().try_for_each(|ssrc| put.u32(ssrc.0))?;
    finish(put)
}

/// The chunk at the start of `bytes` and its length.
fn read_chunk(bytes: &[u8]) -> Option<(SdesChunk<'_>, usize)> {
    let ssrc = Ssrc(u32_at(bytes, 0)?);
    let mut cname = None;
    let mut at = 4;
    loop {
        let &kind = bytes.get(at)?;
        if kind == ITEM_END {
            return Some((SdesChunk { ssrc, cname }, (at + 1).next_multiple_of(4)));
        }
        let len = usize::from(*bytes.get(at + 1)?);
        let text = bytes.get(at + 2..at + 2 + len)?;
        if kind == ITEM_CNAME {
            cname = Some(text);
        }
        at += 2 + len;
    }
}
