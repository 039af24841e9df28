//! Whatever a peer reports: no panic, and an estimate within its bounds.

use std::time::{Duration, Instant};

use super::bench::Random;
use crate::base::ids::Ssrc;
use crate::proto::bwe::control::Control;
use crate::proto::bwe::{ESTIMATE_MAX_BPS, ESTIMATE_MIN_BPS, Estimator, Sending};
use crate::wire::be::hostile::Mutator;
use crate::wire::rtcp::{RtcpView, TwccHeader, packets, write_twcc};

fn header(base_seq: u16, reference_time: u32, feedback_count: u8) -> TwccHeader {
    let (sender, media) = (Ssrc(1), Ssrc(2));
    TwccHeader { sender, media, base_seq, status_count: 0, reference_time, feedback_count }
}

fn report(estimator: &mut Estimator, now: Instant, header: &TwccHeader, statuses: &[Option<i16>]) {
    let mut out = [0; 1500];
    let len = write_twcc(&mut out, header, statuses).expect("it fits");
    deliver(estimator, now, &out[..len]);
}

fn deliver(estimator: &mut Estimator, now: Instant, bytes: &[u8]) {
    for packet in packets(bytes).flatten() {
        if let RtcpView::Twcc(feedback) = packet {
            estimator.handle_twcc(now, &feedback);
        }
    }
}

fn assert_sane(estimator: &Estimator) {
    let state = estimator.state();
    let bounds = ESTIMATE_MIN_BPS as u64..=ESTIMATE_MAX_BPS as u64;
    assert!(bounds.contains(&state.estimate_bps), "{state:?}");
    assert!(state.inherent_loss.is_finite() && state.loss.is_finite(), "{state:?}");
    assert!(estimator.pacing_bps().is_none_or(|bps| bps <= 3 * ESTIMATE_MAX_BPS as u64), "{state:?}");
}

#[test]
fn any_feedback_at_any_time_leaves_it_sane() {
    for seed in 0..30 {
        let mut random = Random(seed);
        let mut now = crate::runtime::clock::now();
        let mut estimator = Estimator::new(now, random.0 << 60);
        let mut seq = 0u16;
        for _ in 0..4_000 {
            now += Duration::from_micros((random.share().powi(8) * 3e6) as u64);
            let any = (random.share() * 65_536.0) as u16;
            match any % 8 {
                0..=3 => {
                    seq = seq.wrapping_add(if any > 65_000 { any } else { 1 });
                    let probe = estimator.poll_probe(now).map(|probe| probe.id);
                    estimator.handle_sent(now, seq, usize::from(any), Sending::Media, probe);
                }
                4 | 5 => {
                    let statuses: Vec<_> = (0..any % 50)
                        .map(|_| (random.share() < 0.8).then(|| (random.share() * 65_536.0 - 32_768.0) as i16))
                        .collect();
                    let base = if any < 50_000 { seq.wrapping_sub(any % 60) } else { any };
                    let reference = (random.share().powi(4) * 16_777_216.0) as u32;
                    if !statuses.is_empty() {
                        report(&mut estimator, now, &header(base, reference, any as u8), &statuses);
                    }
                }
                6 => {
                    estimator.set_wanted(now, u64::from(any) * 100, u64::MAX >> (any % 64));
                    estimator.handle_remb(now, u64::MAX >> (any % 64));
                    let loss = [f32::NAN, f32::INFINITY, -1.0, 0.3][usize::from(any / 8 % 4)];
                    estimator.handle_report(now, loss, Some(Duration::from_micros(u64::from(any))));
                }
                _ => {
                    estimator.handle_pacer(now, any > 30_000);
                    estimator.handle_timeout(now);
                    let _ = (estimator.next_timeout(), estimator.rtt(), estimator.is_app_limited());
                }
            }
            assert_sane(&estimator);
        }
    }
}

#[test]
fn mutated_feedback_leaves_it_sane() {
    let mut out = [0; 1500];
    let statuses: Vec<_> = (0..40).map(|at| [Some(4), None, Some(-3), Some(300)][at % 4]).collect();
    let len = write_twcc(&mut out, &header(0, 77, 1), &statuses).expect("it fits");
    let seeds = vec![out[..len].to_vec()];
    let mut mutator = Mutator::new(0x6277_6500);
    let mut now = crate::runtime::clock::now();
    let mut estimator = Estimator::new(now, 1_000_000);
    for round in 0..20_000u32 {
        now += Duration::from_millis(1);
        estimator.handle_sent(now, (round % 64) as u16, 1200, Sending::Media, None);
        deliver(&mut estimator, now, &mutator.next(&seeds));
        assert_sane(&estimator);
    }
}

#[test]
fn whoever_claims_that_all_arrives_at_once_gets_no_more_than_the_bound() {
    let mut now = crate::runtime::clock::now();
    let mut estimator = Estimator::new(now, 1_000_000);
    let mut seq = 0u16;
    for feedback in 0..600u32 {
        let base = seq;
        for _ in 0..20 {
            now += Duration::from_millis(5);
            estimator.set_wanted(now, 2_000_000, 3_000_000);
            let probe = estimator.poll_probe(now).map(|probe| probe.id);
            estimator.handle_sent(now, seq, 1200, Sending::Media, probe);
            estimator.handle_pacer(now, true);
            seq = seq.wrapping_add(1);
        }
        // A clock that runs ten times too slow: all of it seems to come ten times as fast.
        report(&mut estimator, now, &header(base, feedback * 100 / 64 / 10, feedback as u8), &[Some(2); 20]);
        assert_sane(&estimator);
    }
    // What is claimed to get through is not more than what was sent.
    assert!(estimator.estimate_bps() < 6_000_000, "{:?}", estimator.state());
}

#[test]
fn forged_numbers_do_nothing() {
    let now = crate::runtime::clock::now();
    let mut estimator = Estimator::new(now, 1_000_000);
    report(&mut estimator, now, &header(0, 1, 0), &[Some(1); 5]);
    assert_eq!((estimator.pacing_bps(), estimator.estimate_bps()), (None, 1_000_000));
    estimator.handle_sent(now, 100, 1200, Sending::Media, None);
    report(&mut estimator, now, &header(30_000, 1, 0), &[Some(1); 500]);
    assert_eq!((estimator.rtt(), estimator.state().acked_bps), (None, None));
}

#[test]
fn who_sends_nothing_costs_nothing() {
    assert!(size_of::<Estimator>() <= 192, "{}", size_of::<Estimator>());
    assert!(size_of::<Control>() <= 4096, "{}", size_of::<Control>());
}
