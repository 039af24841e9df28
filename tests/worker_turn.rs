//! A worker with its queues, turn by turn.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use crossbeam_channel::bounded;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tramline::base::batch::{Path, RxDatagram, TxBatch};
use tramline::base::ids::{PeerId, SessionKey, WorkerId};
use tramline::crypto::cert::Certificate;
use tramline::forward::plan::Plan;
use tramline::proto::dtls::DtlsConfig;
use tramline::proto::ice::LocalCredentials;
use tramline::runtime::clock;
use tramline::runtime::run::Turn as _;
use tramline::runtime::worker::Worker;
use tramline::wire::stun::BindingRequest;
use tramline::worker::command::{Command, Ticket};
use tramline::worker::core::WorkerCore;
use tramline::worker::lane::Lanes;

#[test]
fn a_check_that_overtakes_its_session_is_answered() {
    let dtls = Arc::new(DtlsConfig::new(Arc::new(Certificate::generate().unwrap())).unwrap());
    let lanes = Lanes::mesh(1).pop().unwrap();
    let core = WorkerCore::new(WorkerId(0), StdRng::seed_from_u64(1), dtls, Plan::default().shared(), lanes);
    let ((commands, queue), (events, _told)) = (bounded(8), bounded(8));
    let mut worker = Worker::new(WorkerId(0), core, queue, events);
    let (now, mut tx) = (clock::now(), TxBatch::with_capacity(8));
    worker.handle_commands(now, &mut tx);

    let credentials = LocalCredentials::generate(&mut StdRng::seed_from_u64(2));
    let ticket = Arc::new(Ticket::new(SessionKey { index: 0, epoch: 0 }, PeerId(1)));
    commands.send(Command::Open { ticket, credentials: credentials.clone() }).unwrap();
    let username = format!("{}:peer", credentials.ufrag());
    let check = BindingRequest {
        transaction_id: [1; 12],
        username: Some(username.as_bytes()),
        key: Some(credentials.key()),
        has_fingerprint: true,
        ..BindingRequest::default()
    };
    let mut bytes = [0; 256];
    let len = check.write_to(&mut bytes).unwrap();
    let path = Path { remote: ([192, 0, 2, 9], 9).into(), local: [192, 0, 2, 1].into() };
    worker.handle_datagram(now, RxDatagram::fresh(path, &mut bytes[..len]), &mut tx);
    let answers: Vec<_> = tx.entries().iter().map(|entry| &tx.bytes(entry)[..2]).collect();
    assert_eq!(answers, [[1, 1]], "a success response (RFC 8489 §5)");
}
