//! RTCP that a session sends: reports, NACKs, transport-cc feedback, keyframe requests.
//!
//! Owns: nothing. Writes plain packets, reduced-size where no report is due (RFC 5506).

use std::time::{Duration, Instant};

use super::ingress::Ingress;
use crate::base::ids::Ssrc;
use crate::wire::rtcp::{self, FirEntry, ReportBlock, SenderInfo};

/// Our canonical name (RFC 7022): one endpoint, one name.
pub const CNAME: &str = "tramline";
/// Round trip to a publisher before it is measured; a missing packet is asked for again after it.
const ROUND_TRIP_ASSUMED: Duration = Duration::from_millis(100);
/// Missing packets asked for at once, per stream.
const NACKS_MAX: usize = 64;
/// Report blocks in one compound packet; with [`INFOS_MAX`] it stays below 1200 bytes.
pub const BLOCKS_MAX: usize = 16;
/// Sender reports in one compound packet, of 28 bytes each.
pub const INFOS_MAX: usize = 26;

/// Copies what was composed elsewhere into a slot of the batch.
pub fn copy(slot: &mut [u8], bytes: &[u8]) -> Option<usize> {
    slot.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(bytes.len())
}

/// PLI (RFC 4585 §6.3.1), or FIR (RFC 5104 §4.3.1) for publishers without it.
pub fn write_keyframe_request(out: &mut [u8], sender: Ssrc, media: Ssrc, takes_pli: bool, count: u8) -> Option<usize> {
    if takes_pli {
        return rtcp::write_pli(out, sender, media);
    }
    rtcp::write_fir(out, sender, &[FirEntry { ssrc: media, seq_nr: count }])
}

/// Asks for what is missing. Returns how many NACK packets were written at `used`.
pub fn write_nacks(out: &mut [u8], used: &mut usize, now: Instant, sender: Ssrc, ingress: &mut Ingress) -> u64 {
    let mut nacks = 0;
    for stream in ingress.streams() {
        let mut missing = [0; NACKS_MAX];
        let count = stream.nack.poll_nack(now, ROUND_TRIP_ASSUMED, &mut missing);
        if count == 0 || !stream.takes_nack {
            continue;
        }
        let rest = out.get_mut(*used..).unwrap_or_default();
        if let Some(len) = rtcp::write_nack(rest, sender, stream.ssrc, missing[..count].iter().copied()) {
            *used += len;
            nacks += 1;
        }
    }
    nacks
}

/// One transport-cc feedback packet, if one is due.
pub fn write_twcc(out: &mut [u8], now: Instant, sender: Ssrc, ingress: &mut Ingress) -> Option<usize> {
    // Probes may come before any stream; a register that is due must be emptied all the same.
    let media = ingress.streams().next().map_or(Ssrc(0), |stream| stream.ssrc);
    ingress.twcc.poll_feedback(now, sender, media, out)
}

/// Report blocks on what the peer sends.
pub fn report_blocks(now: Instant, ingress: &mut Ingress) -> impl Iterator<Item = ReportBlock> {
    ingress.streams().filter_map(move |stream| stream.stats.report_block(now, stream.ssrc))
}

/// A receiver report of the next [`BLOCKS_MAX`] `blocks`, sender reports of the next [`INFOS_MAX`] `infos`, and our name
/// (RFC 3550 §6.1: a compound packet begins with a report and carries a CNAME). Returns its length; what found no place
/// is still to come from the iterators.
pub fn write_reports(
    out: &mut [u8],
    sender: Ssrc,
    blocks: &mut impl Iterator<Item = ReportBlock>,
    infos: &mut impl Iterator<Item = SenderInfo>,
) -> Option<usize> {
    let (mut next, mut count) = ([ReportBlock::default(); BLOCKS_MAX], 0);
    for (place, block) in next.iter_mut().zip(blocks) {
        *place = block;
        count += 1;
    }
    let mut used = rtcp::write_receiver_report(out, sender, &next[..count])?;
    for info in infos.take(INFOS_MAX) {
        used += rtcp::write_sender_report(out.get_mut(used..)?, &info, &[])?;
    }
    used += rtcp::write_sdes_cname(out.get_mut(used..)?, sender, CNAME)?;
    Some(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_report_fits_a_datagram_and_the_rest_comes_in_the_next() {
        let info = SenderInfo { ssrc: Ssrc(0), ntp: 0, rtp_ts: 0, packets: 0, octets: 0 };
        let mut blocks = std::iter::repeat_n(ReportBlock::default(), BLOCKS_MAX + 1);
        let mut infos = std::iter::repeat_n(info, INFOS_MAX + 2);
        let len = write_reports(&mut [0; 1500], Ssrc(1), &mut blocks, &mut infos);
        assert!(len.is_some_and(|len| len <= 1200), "{len:?}");
        assert_eq!((blocks.count(), infos.count()), (1, 2));
    }
}
