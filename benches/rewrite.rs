//! What renumbering costs for each forwarded packet: numbers, extensions, header; no payload, no cipher.
//!
//!   cargo bench --features sim --bench rewrite

#![allow(clippy::disallowed_methods, missing_docs)]

mod support;

use std::hint::black_box;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use support::{CpuTime, PT, SSRC, measure};
use tramline::base::format::Format;
use tramline::base::frame::FrameMarks;
use tramline::base::packet::PacketMeta;
use tramline::forward::rewrite::{Numbers, Rewriter, Shift};
use tramline::forward::select::Cut;
use tramline::wire::rtp::{Fixed, write_header};
use tramline::wire::rtp_ext::ExtWriter;

/// Packets of one run, far above the clock's own cost.
const PACKETS: usize = 10_000;

/// Extension elements, id and value.
type Elements = &'static [(u8, &'static [u8])];

/// What goes along with the mid: nothing, loudness as in audio, a dependency descriptor as in AV1.
const EXTS: [(&str, Elements); 3] = [
    ("mid", &[]),
    ("mid+level", &[(10, &[0x85])]),
    ("mid+level+descriptor", &[(10, &[0x85]), (12, &[0x80, 1, 2, 0x43])]),
];

struct Bench {
    now: Instant,
    rewriter: Rewriter,
    seq: u64,
    out: [u8; 1500],
}

impl Bench {
    fn numbers(&mut self) -> Numbers {
        self.seq += 1;
        self.rewriter.number(self.now, &meta(self.seq), Cut::NONE).expect("bound")
    }

    fn header(&mut self, numbers: Numbers, ext: Option<(u16, &[u8])>) {
        let fixed =
            Fixed { marker: false, pt: PT, seq: numbers.index as u16, timestamp: numbers.shift.timestamp, ssrc: SSRC };
        black_box(write_header(black_box(&mut self.out), &fixed, &[], ext)).expect("room");
    }
}

fn meta(seq: u64) -> PacketMeta {
    PacketMeta {
        seq,
        source: SSRC,
        timestamp: (seq * 90) as u32,
        marker: false,
        format: Format::Vp8,
        encoding: 0,
        marks: FrameMarks::default(),
    }
}

fn write_exts(block: &mut [u8], others: Elements) -> (u16, usize) {
    let mut exts = ExtWriter::one_byte(block);
    exts.push(4, b"0");
    for (id, value) in others {
        exts.push(*id, value);
    }
    exts.finish()
}

fn rewrite(criterion: &mut Criterion<CpuTime>) {
    let now = Instant::now();
    let mut rewriter = Rewriter::new(1, 2);
    rewriter.bind(now, &meta(0), None);
    let mut bench = Bench { now, rewriter, seq: 0, out: [0; 1500] };
    let mut group = support::group(criterion, "rewrite");
    let mut each = |id: BenchmarkId, one: &dyn Fn(&mut Bench)| {
        measure(&mut group, id, PACKETS, &mut bench, |_| {}, |bench| (0..PACKETS).for_each(|_| one(bench)));
    };
    each(BenchmarkId::from_parameter("numbers"), &|bench| {
        black_box(bench.numbers());
    });
    each(BenchmarkId::from_parameter("header"), &|bench| {
        bench.header(black_box(Numbers { index: 7, shift: Shift::default(), cut: Cut::NONE }), None)
    });
    for (name, exts) in EXTS {
        each(BenchmarkId::new("exts", name), &|_| {
            let mut block = [0; 320];
            black_box(write_exts(black_box(&mut block), black_box(exts)));
        });
        each(BenchmarkId::new("all", name), &|bench| {
            let numbers = bench.numbers();
            let mut block = [0; 320];
            let (profile, len) = write_exts(&mut block, black_box(exts));
            bench.header(numbers, Some((profile, &block[..len])));
        });
    }
    group.finish();
}

criterion_group! { name = benches; config = support::criterion(); targets = rewrite }
criterion_main!(benches);
