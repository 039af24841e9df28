//! The JSON file beside a recording: what it is of, and how its times map to the publisher's clock.
//!
//! `reports` are the publisher's sender reports: second `at` of the file is NTP time `ntp` of the publisher, whose tracks
//! share that clock, so that files can be put together exactly. Owns: plain values and their form.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::timeline::ntp_seconds_between;

/// Reports that are kept one by one; later ones are kept at [`REPORT_STEP_S`].
const REPORTS_MIN: usize = 10;
/// Seconds between later reports: they differ by drift alone, which is slow.
const REPORT_STEP_S: f64 = 10.0;
/// Entries of one list; a day has fewer.
const ENTRIES_MAX: usize = 10_000;

/// How a recording is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// It goes on, or the server ended before it could say more.
    Recording,
    /// The track or the recording ended.
    Ended,
    /// It ended early; `error` says why.
    Failed,
    /// The server ended before it did; it is whole up to then.
    Recovered,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sidecar {
    /// Name of the recording's file; empty where nothing could be recorded.
    pub file: String,
    /// How it is doing.
    pub state: State,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// Room id.
    pub room: String,
    /// Track id.
    pub track: String,
    /// Audio or video.
    pub kind: String,
    /// User id of the publisher.
    pub user: String,
    /// The publisher in its server's life: recordings with the same one belong together.
    pub publisher: String,
    /// They are to be put together into one file.
    pub muxed: bool,
    /// That is done, and the upload begun, where there is one.
    pub settled: bool,
    /// Codec by its name in SDP.
    pub codec: String,
    /// Ticks of the RTP clock in a second.
    pub clock_rate: u32,
    /// Server's wall clock when the first packet came.
    pub started_at: String,
    /// The same in seconds since 1970.
    pub started_unix: f64,
    /// Length by now.
    pub seconds: f64,
    /// Frames or packets written.
    pub frames: u64,
    /// Sources, each from where on: their timestamps count from different beginnings.
    pub sources: Vec<SourceEntry>,
    /// The publisher's clock.
    pub reports: Vec<ReportEntry>,
    /// What is missing.
    pub gaps: Vec<GapEntry>,
    /// Picture sizes, each from where on.
    pub sizes: Vec<SizeEntry>,
    /// For H.264, whose file has no times: that of each frame, in 1/90,000 s.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub frame_times: Vec<u64>,
}

/// From here on timestamps are of this source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceEntry {
    /// Second of the file.
    pub at: f64,
    /// Source.
    pub ssrc: u32,
    /// RTP timestamp of that second.
    pub rtp: u32,
    /// Index of the simulcast stream.
    pub encoding: u8,
}

/// A sender report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportEntry {
    /// Second of the file that it is about.
    pub at: f64,
    /// Source.
    pub ssrc: u32,
    /// RTP timestamp.
    pub rtp: u32,
    /// NTP time of the publisher (32.32).
    pub ntp: u64,
    /// Server's wall clock when it came, in seconds since 1970.
    pub heard: f64,
}

/// Packets that never came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GapEntry {
    /// Second of the file where they are missing.
    pub at: f64,
    /// How many.
    pub packets: u64,
}

/// From here on pictures are so large.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SizeEntry {
    /// Second of the file.
    pub at: f64,
    /// Pixels.
    pub width: u16,
    /// Pixels.
    pub height: u16,
}

/// Seconds since 1970.
pub fn unix_seconds(wall: SystemTime) -> f64 {
    wall.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

impl Sidecar {
    /// Adds a report, unless there is one that says nearly the same.
    pub fn add_report(&mut self, report: ReportEntry) {
        let is_new = self.reports.last().is_none_or(|last| {
            let goes_on = (ntp_seconds_between(last.ntp, report.ntp) - (report.at - last.at)).abs() < 0.1;
            !goes_on || report.at - last.at >= REPORT_STEP_S
        });
        if (is_new || self.reports.len() < REPORTS_MIN) && self.reports.len() < ENTRIES_MAX {
            self.reports.push(report);
        }
    }

    /// Adds a gap; those of the same moment are one.
    pub fn add_gap(&mut self, at: f64, packets: u64) {
        if let Some(last) = self.gaps.last_mut().filter(|last| last.at == at) {
            last.packets += packets;
        } else if self.gaps.len() < ENTRIES_MAX {
            self.gaps.push(GapEntry { at, packets });
        }
    }

    /// Adds a source.
    pub fn add_source(&mut self, source: SourceEntry) {
        if self.sources.len() < ENTRIES_MAX {
            self.sources.push(source);
        }
    }

    /// Adds a picture size where it is another than before.
    pub fn add_size(&mut self, at: f64, (width, height): (u16, u16)) {
        let is_same = self.sizes.last().is_some_and(|last| (last.width, last.height) == (width, height));
        if !is_same && self.sizes.len() < ENTRIES_MAX {
            self.sizes.push(SizeEntry { at, width, height });
        }
    }

    /// The publisher's NTP time at the file's beginning, in seconds since `epoch`; `None` where it sent no reports. The
    /// file's times follow the reports, so that they differ by jitter alone: their median tells.
    pub fn publisher_start(&self, epoch: u64) -> Option<f64> {
        let mut starts: Vec<f64> =
            self.reports.iter().map(|report| ntp_seconds_between(epoch, report.ntp) - report.at).collect();
        starts.sort_by(f64::total_cmp);
        starts.get(starts.len() / 2).copied()
    }

    /// As it stands in the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A sidecar of nothing.
    pub(crate) fn sidecar() -> Sidecar {
        Sidecar {
            file: "r_t-0-0_1.ivf".into(),
            state: State::Recording,
            error: None,
            room: "r".into(),
            track: "t-0-0".into(),
            kind: "video".into(),
            user: "u".into(),
            publisher: "1".into(),
            muxed: false,
            settled: false,
            codec: "VP8".into(),
            clock_rate: 90_000,
            started_at: String::new(),
            started_unix: 0.0,
            seconds: 0.0,
            frames: 0,
            sources: Vec::new(),
            reports: Vec::new(),
            gaps: Vec::new(),
            sizes: Vec::new(),
            frame_times: Vec::new(),
        }
    }

    #[test]
    fn a_day_of_reports_is_a_small_file_that_reads_back() {
        let mut sidecar = sidecar();
        for second in 0..86_400u32 {
            let ntp = u64::from(second) << 32;
            sidecar.add_report(ReportEntry { at: second.into(), ssrc: 1, rtp: 0, ntp, heard: 0.0 });
            sidecar.add_size(second.into(), (640, 360));
            sidecar.add_gap(5.0, 1);
        }
        assert_eq!(sidecar.reports[..3].iter().map(|report| report.at).collect::<Vec<_>>(), [0.0, 1.0, 2.0]);
        assert!((8_600..8_700).contains(&sidecar.reports.len()));
        assert_eq!((sidecar.sizes.len(), sidecar.gaps.len(), sidecar.gaps[0].packets), (1, 1, 86_400));
        assert_eq!(serde_json::from_slice::<Sidecar>(&sidecar.to_bytes()).unwrap(), sidecar);
    }

    #[test]
    fn the_reports_tell_the_publishers_time() {
        let mut sidecar = sidecar();
        assert_eq!(sidecar.publisher_start(0), None);
        for (at, ntp) in [(1.0, 103u64), (2.0, 104), (3.0, 106), (4.0, 9000), (5.0, 107)] {
            sidecar.add_report(ReportEntry { at, ssrc: 1, rtp: 0, ntp: ntp << 32, heard: 0.0 });
        }
        assert_eq!(sidecar.publisher_start(100 << 32), Some(2.0));
    }
}
