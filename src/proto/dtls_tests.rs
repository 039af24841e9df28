//! Handshakes in virtual time: with the library itself, with an independent client, with loss, disorder and noise.

use std::collections::VecDeque;

use dtls::config::{Config as ClientConfig, ExtendedMasterSecretType};
use dtls::conn::DTLSConn;
use dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use webrtc_util::KeyingMaterialExporter;
use webrtc_util::conn::{Conn, conn_pipe};

use super::*;
use crate::crypto::srtp::tests::hex;
use crate::runtime::clock;

/// One end and what it has told so far.
struct End {
    dtls: Dtls,
    keys: Option<SrtpKeys>,
    failed: Option<DtlsFailure>,
    closed: bool,
}

impl End {
    fn new(now: Instant, config: &DtlsConfig, role: DtlsRole, peer: &DtlsConfig) -> Self {
        let expected = peer.certificate().fingerprint_sha256();
        Self { dtls: Dtls::new(now, config, role, expected), keys: None, failed: None, closed: false }
    }

    fn flight(&mut self) -> Vec<Vec<u8>> {
        let mut flight = Vec::new();
        let mut out = [0; DTLS_MTU];
        while let Some(output) = self.dtls.poll(&mut out) {
            match output {
                DtlsOutput::Datagram(len) => flight.push(out[..len].to_vec()),
                DtlsOutput::Connected(keys) => assert!(self.keys.replace(keys).is_none(), "told twice"),
                DtlsOutput::Failed(failure) => assert!(self.failed.replace(failure).is_none(), "told twice"),
                DtlsOutput::Closed => self.closed = true,
            }
        }
        flight
    }
}

/// What the network does with a flight, the n-th in its direction; `true` is towards the server.
type Network<'a> = dyn FnMut(bool, usize, Vec<Vec<u8>>) -> Vec<Vec<u8>> + 'a;

struct Pair {
    now: Instant,
    client: End,
    server: End,
}

impl Pair {
    fn new() -> Self {
        let (now, one, other) = (clock::now(), config(), config());
        let client = End::new(now, &one, DtlsRole::Client, &other);
        let server = End::new(now, &other, DtlsRole::Server, &one);
        Self { now, client, server }
    }

    /// Runs until both have keys or failed, or a virtual minute has passed.
    fn run(&mut self, network: &mut Network<'_>) -> Duration {
        let start = self.now;
        let (mut up, mut down) = (0, 0);
        while self.now - start < Duration::from_secs(60) {
            let mut quiet = true;
            for (to_server, count) in [(true, &mut up), (false, &mut down)] {
                let (from, to) =
                    if to_server { (&mut self.client, &mut self.server) } else { (&mut self.server, &mut self.client) };
                let flight = from.flight();
                if !flight.is_empty() {
                    quiet = false;
                    let arrived: VecDeque<_> = network(to_server, *count, flight).into();
                    *count += 1;
                    for datagram in arrived {
                        to.dtls.handle_datagram(self.now, &datagram);
                    }
                }
            }
            if quiet {
                let settled = |end: &End| end.keys.is_some() || end.failed.is_some();
                let due = [self.client.dtls.next_timeout(), self.server.dtls.next_timeout()];
                let Some(due) = due.into_iter().flatten().min() else { break };
                if settled(&self.client) && settled(&self.server) {
                    break;
                }
                self.now = self.now.max(due);
                self.client.dtls.handle_timeout(self.now);
                self.server.dtls.handle_timeout(self.now);
            }
        }
        self.now - start
    }

    fn assert_connected(&self) {
        let (client, server) = (self.client.keys.as_ref().expect("client"), self.server.keys.as_ref().expect("server"));
        assert_eq!(client.suite, SrtpSuite::AeadAes256Gcm);
        assert_eq!((client.client.key(), client.client.salt()), (server.client.key(), server.client.salt()));
        assert_eq!((client.server.key(), client.server.salt()), (server.server.key(), server.server.salt()));
        assert_ne!(client.client.key(), client.server.key());
        assert!(self.client.dtls.is_connected() && self.server.dtls.is_connected());
    }
}

fn config() -> DtlsConfig {
    DtlsConfig::new(Arc::new(Certificate::generate().unwrap())).unwrap()
}

fn faithful(_: bool, _: usize, flight: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    flight
}

#[test]
fn both_roles_end_with_the_same_keys_and_gcm() {
    let mut pair = Pair::new();
    assert_eq!(pair.run(&mut faithful), Duration::ZERO);
    pair.assert_connected();
}

#[test]
fn a_close_is_heard() {
    let mut pair = Pair::new();
    pair.run(&mut faithful);
    pair.server.dtls.close();
    for datagram in pair.server.flight() {
        pair.client.dtls.handle_datagram(pair.now, &datagram);
    }
    pair.client.flight();
    assert!(pair.client.closed);
    assert!(!pair.client.dtls.is_connected());
    pair.client.dtls.handle_datagram(pair.now, b"anything");
    assert!(pair.client.flight().is_empty());
}

#[test]
fn each_lost_flight_is_sent_again() {
    for lost in [(true, 0), (false, 0), (true, 1), (false, 1)] {
        let mut pair = Pair::new();
        let took = pair.run(&mut |up, n, flight| if (up, n) == lost { Vec::new() } else { flight });
        assert!(took > Duration::ZERO && took < Duration::from_secs(3), "{lost:?} took {took:?}");
        pair.assert_connected();
    }
}

#[test]
fn a_reordered_and_doubled_handshake_succeeds() {
    let mut pair = Pair::new();
    pair.run(&mut |_, _, mut flight| {
        flight.reverse();
        let again = flight.clone();
        flight.extend(again);
        flight
    });
    pair.assert_connected();
}

/// Cuts the one handshake message of a plaintext record into two records (RFC 6347 §4.2.3).
fn split_handshake(datagram: &[u8]) -> [Vec<u8>; 2] {
    let (record, body) = (&datagram[..13], &datagram[25..]);
    let cut = body.len() / 2;
    let part = |from: usize, to: usize, sequence: u8| {
        let mut out = record[..11].to_vec();
        out[10] += sequence;
        out.extend(((12 + to - from) as u16).to_be_bytes());
        out.extend(&datagram[13..19]);
        out.extend(&(from as u32).to_be_bytes()[1..]);
        out.extend(&((to - from) as u32).to_be_bytes()[1..]);
        out.extend(&body[from..to]);
        out
    };
    [part(0, cut, 0), part(cut, body.len(), 1)]
}

#[test]
fn a_fragmented_client_hello_is_joined_in_either_order() {
    for reversed in [false, true] {
        let mut pair = Pair::new();
        let took = pair.run(&mut |up, n, flight| {
            if !up || n > 0 {
                return flight;
            }
            assert_eq!(flight.len(), 1);
            let mut parts = split_handshake(&flight[0]).to_vec();
            if reversed {
                parts.reverse();
            }
            parts
        });
        assert_eq!(took, Duration::ZERO, "no retransmission was needed");
        pair.assert_connected();
    }
}

#[test]
fn random_loss_is_survived_in_most_seeds() {
    let mut connected = 0;
    for seed in 0..20 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut pair = Pair::new();
        pair.run(&mut |_, _, flight| flight.into_iter().filter(|_| rng.random_bool(0.7)).collect());
        connected += u32::from(pair.client.keys.is_some() && pair.server.keys.is_some());
    }
    assert!(connected >= 15, "{connected} of 20");
}

#[test]
fn a_last_flight_lost_after_we_connected_is_sent_again() {
    let mut pair = Pair::new();
    // The server connects on the client's second flight; its answer is lost twice.
    pair.run(&mut |up, n, flight| if !up && (n == 1 || n == 2) { Vec::new() } else { flight });
    pair.assert_connected();
}

#[test]
fn another_certificate_than_announced_ends_it() {
    for wrong_for_client in [true, false] {
        let mut pair = Pair::new();
        let wrong = config().certificate().fingerprint_sha256();
        let end = if wrong_for_client { &mut pair.client } else { &mut pair.server };
        end.dtls.expected = wrong;
        pair.run(&mut faithful);
        let (deceived, other) =
            if wrong_for_client { (&pair.client, &pair.server) } else { (&pair.server, &pair.client) };
        assert_eq!(deceived.failed, Some(DtlsFailure::FingerprintMismatch));
        assert!(deceived.keys.is_none() && other.keys.is_none());
        assert_eq!(other.failed, Some(DtlsFailure::TimedOut));
        assert!(!deceived.dtls.is_connected());
    }
}

#[test]
fn a_silent_peer_is_given_up() {
    let mut pair = Pair::new();
    let took = pair.run(&mut |_, _, _| Vec::new());
    assert_eq!(pair.client.failed, Some(DtlsFailure::TimedOut));
    assert!(took >= Duration::from_secs(20) && took <= HANDSHAKE_TIMEOUT, "{took:?}");
    assert_eq!(pair.server.failed, None, "nothing ever came");
}

#[test]
fn garbage_before_and_during_the_handshake_does_not_stop_it() {
    // A ClientHello with a broken extension block that makes another implementation panic.
    let broken = hex("16fefd0000000000000001003d010000310000000000000031fefd
         0707070707070707070707070707070707070707070707070707070707070707 00000002c02b010000050017000000");
    assert_eq!(broken.len(), 74);
    let mut rng = SmallRng::seed_from_u64(5);
    let mut pair = Pair::new();
    pair.run(&mut |up, n, flight| {
        // A well-formed forged message takes the place of the genuine one in any DTLS, so only the server's first is
        // preceded by one; ICE keeps strangers from sending it.
        let mut mixed = if up && n == 0 { vec![broken.clone()] } else { Vec::new() };
        for datagram in flight {
            let mut noise = vec![0; rng.random_range(1..200)];
            rng.fill_bytes(&mut noise);
            noise[0] = rng.random_range(20..64);
            mixed.push(noise);
            mixed.push(datagram[..datagram.len() / 2].to_vec());
            mixed.push(datagram);
        }
        mixed
    });
    pair.assert_connected();
}

#[test]
fn a_flood_without_a_handshake_is_cut_off() {
    let mut pair = Pair::new();
    let mut rng = SmallRng::seed_from_u64(6);
    for _ in 0..=HANDSHAKE_DATAGRAMS_MAX {
        let mut noise = [0; 60];
        rng.fill_bytes(&mut noise);
        pair.server.dtls.handle_datagram(pair.now, &noise);
        pair.server.flight();
    }
    assert_eq!(pair.server.failed, Some(DtlsFailure::TooManyDatagrams));
}

#[test]
fn mutated_handshakes_end_without_a_panic() {
    for seed in 0..300 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut pair = Pair::new();
        pair.run(&mut |_, _, mut flight| {
            for datagram in &mut flight {
                if rng.random_bool(0.3) {
                    let at = rng.random_range(0..datagram.len());
                    datagram[at] ^= rng.random_range(1..=255u8);
                }
            }
            flight
        });
        for end in [&pair.client, &pair.server] {
            assert!(end.keys.is_none() || end.failed.is_none() || !end.dtls.is_connected());
        }
    }
}

#[test]
fn application_data_is_discarded_and_harmless() {
    let now = clock::now();
    let (ours, theirs) = (config(), config());
    let mut server = End::new(now, &ours, DtlsRole::Server, &theirs);
    let mut client = dimpl::Dtls::new_12(Arc::clone(&theirs.inner), theirs.certificate.to_dimpl(), now);
    client.set_active(true);
    client.handle_timeout(now).unwrap();
    let mut sent_data = false;
    for _ in 0..10 {
        let mut buffer = [0; 4000];
        loop {
            match client.poll_output(&mut buffer) {
                Output::Packet(datagram) => server.dtls.handle_datagram(now, datagram),
                Output::Timeout(_) => break,
                _ => {}
            }
        }
        for datagram in server.flight() {
            client.handle_packet(&datagram).unwrap();
        }
        if server.keys.is_some() && !sent_data {
            sent_data = true;
            client.send_application_data(&[7; 3000]).unwrap();
            client.send_application_data(b"hello").unwrap();
        }
    }
    assert!(sent_data && server.dtls.is_connected() && server.failed.is_none());
    server.dtls.close();
    assert_eq!(server.flight().len(), 1, "a close_notify");
    assert!(!server.dtls.is_connected() && server.dtls.next_timeout().is_none());
}

#[test]
fn an_independent_client_gets_gcm_although_it_offers_it_last() {
    // Its TLS library has two sets of ciphers in a test build, and asks which. Whoever comes second finds the first's.
    let _ = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (near, far) = conn_pipe::pipe();
        let certificate = dtls::crypto::Certificate::generate_self_signed(vec!["client".to_owned()]).unwrap();
        let expected = Fingerprint::of(
            crate::wire::sdp::HashFunction::Sha256,
            certificate.certificate.first().expect("one certificate"),
        );
        let client_config = ClientConfig {
            certificates: vec![certificate],
            srtp_protection_profiles: vec![
                SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
                SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
            ],
            extended_master_secret: ExtendedMasterSecretType::Require,
            insecure_skip_verify: true,
            ..Default::default()
        };
        let client = tokio::spawn(async move {
            let client = DTLSConn::new(Arc::new(far), client_config, true, None).await.unwrap();
            assert_eq!(client.selected_srtpprotection_profile(), SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm);
            let state = client.connection_state().await;
            state.export_keying_material("EXTRACTOR-dtls_srtp", &[], 56).await.unwrap()
        });

        let dtls = Dtls::new(clock::now(), &config(), DtlsRole::Server, expected);
        let mut server = End { dtls, keys: None, failed: None, closed: false };
        let mut buffer = [0; 2000];
        while server.keys.is_none() {
            let received = tokio::time::timeout(Duration::from_secs(20), near.recv(&mut buffer)).await;
            server.dtls.handle_datagram(clock::now(), &buffer[..received.expect("in time").unwrap()]);
            for datagram in server.flight() {
                near.send(&datagram).await.unwrap();
            }
            assert_eq!(server.failed, None);
        }
        let keys = server.keys.unwrap();
        let material = client.await.unwrap();
        assert_eq!(keys.suite, SrtpSuite::AeadAes128Gcm);
        let exported = SrtpKeys::from_exporter(keys.suite, &material).unwrap();
        assert_eq!((keys.client.key(), keys.server.key()), (exported.client.key(), exported.server.key()));
        assert_eq!((keys.client.salt(), keys.server.salt()), (exported.client.salt(), exported.server.salt()));
    });
}
