//! Proof that the media ports answer: real STUN checks through real sockets, until every worker has seen one.
//!
//! With a shared port the kernel spreads datagrams by address pair, so questions come from ever new source ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::net::UdpSocket;

use crate::proto::ice::LocalCredentials;
use crate::room::control::Control;
use crate::wire::stun::{BindingRequest, IceRole};
use crate::worker::command::Command;

/// Pause between two rounds of questions.
const ROUND: Duration = Duration::from_millis(50);
/// Rounds before the log says that something is wrong; the check goes on.
const ROUNDS_QUIET: u32 = 100;

/// Asks until [`Control::is_ready`]. `targets` are the media sockets as this machine reaches them.
pub async fn run(control: Arc<Control>, mut rng: StdRng, targets: Vec<SocketAddr>) {
    let credentials = LocalCredentials::generate(&mut rng);
    control.broadcast(&Command::SelfCheck(credentials.clone()));
    let mut rounds = 0u32;
    while control.unchecked_workers() > 0 {
        for target in &targets {
            ask(&mut rng, &credentials, *target).await;
        }
        tokio::time::sleep(ROUND).await;
        rounds += 1;
        if rounds == ROUNDS_QUIET {
            tracing::warn!(?targets, "the media port does not answer; is UDP blocked on this machine?");
        }
    }
    tracing::debug!(rounds, "every worker answers");
}

async fn ask(rng: &mut StdRng, credentials: &LocalCredentials, target: SocketAddr) {
    let any = if target.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let Ok(socket) = UdpSocket::bind((any, 0)).await else { return };
    let username = format!("{}:self", credentials.ufrag());
    let request = BindingRequest {
        transaction_id: rng.random(),
        username: Some(username.as_bytes()),
        priority: Some(1),
        role: Some(IceRole::Controlling(rng.random())),
        use_candidate: false,
        key: Some(credentials.key()),
        has_fingerprint: true,
    };
    let mut datagram = [0; 256];
    if let Some(len) = request.write_to(&mut datagram) {
        // A refused datagram shows as a worker that stays unchecked.
        let _ = socket.send_to(&datagram[..len], target).await;
    }
}
