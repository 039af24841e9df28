//! RTCP that a session sends: reports, NACKs, transport-cc feedback, keyframe requests.
//!
//! Owns: nothing. Writes plain packets, reduced-size where no report is due (RFC 5506).

use std::time::{Duration, Instant};

use super::egress::Egress;
use super::ingress::Ingress;
use super::track::Tracks;
use crate::base::ids::Ssrc;
use crate::wire::rtcp::{self, FirEntry, ReportBlock};

/// Our canonical name (RFC 7022): one endpoint, one name.
pub const CNAME: &str = "tramline";
/// Round trip to a publisher before it is measured; a missing packet is asked for again after it.
const ROUND_TRIP_ASSUMED: Duration = Duration::from_millis(100);
/// Missing packets asked for at once, per stream.
const NACKS_MAX: usize = 64;
/// Report blocks in one packet: sources of a session that live at once.
const BLOCKS_MAX: usize = 16;

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

/// Sender reports of what we send, a receiver report of what we get, and our name (RFC 3550 §6.1: a compound packet
/// begins with a report and carries a CNAME).
pub fn write_reports(
    out: &mut [u8],
    used: &mut usize,
    now: Instant,
    sender: Ssrc,
    ingress: &mut Ingress,
    egress: &mut Egress,
    tracks: &Tracks,
) {
    let mut blocks = [ReportBlock {
        ssrc: Ssrc(0),
        fraction_lost: 0,
        cumulative_lost: 0,
        highest_seq: 0,
        jitter: 0,
        lsr: 0,
        dlsr: 0,
    }; BLOCKS_MAX];
    let mut count = 0;
    let reports = ingress.streams().filter_map(|stream| stream.stats.report_block(now, stream.ssrc));
    for (block, report) in blocks.iter_mut().zip(reports) {
        *block = report;
        count += 1;
    }
    let mut write = |write: &mut dyn FnMut(&mut [u8]) -> Option<usize>| {
        *used += out.get_mut(*used..).and_then(write).unwrap_or(0);
    };
    write(&mut |out| rtcp::write_receiver_report(out, sender, &blocks[..count]));
    for info in egress.sender_infos(now, |track| tracks.track(track)) {
        write(&mut |out| rtcp::write_sender_report(out, &info, &[]));
    }
    write(&mut |out| rtcp::write_sdes_cname(out, sender, CNAME));
}
