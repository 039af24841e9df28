//! Wiring and shutdown: settings to running parts, and back to nothing in good order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use crossbeam_channel::{Receiver, Sender, bounded};
use rand::rngs::{StdRng, SysRng};
use rand::{RngExt, SeedableRng};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, UnboundedReceiver};

use crate::base::ids::WorkerId;
use crate::config::{Config, IoDriver, MediaPorts, addresses};
use crate::crypto::cert::Certificate;
use crate::net::{self, BindAddresses, DriverKind, IoLimits, WakeSource, WorkerSockets};
use crate::proto::dtls::DtlsConfig;
use crate::record::upload::Uploader;
use crate::record::{self, Recording};
use crate::room::control::{COMMANDS_MAX, Control, WorkerLink};
use crate::room::hub::{Hub, HubConfig};
use crate::room::record::RecordWish;
use crate::runtime::interfaces;
use crate::runtime::spawn::{Seat, SpawnOptions, Workers, spawn_workers};
use crate::runtime::worker::Worker;
use crate::self_check;
use crate::signaling::{self, AppState};
use crate::worker::command::{Command, Event};
use crate::worker::core::WorkerCore;
use crate::worker::lane::Lanes;
use crate::worker::tap::{self, RecorderThread};

/// Events that may wait for control, from all workers.
const EVENTS_MAX: usize = 8192;
/// What a recording may take to be written when the server stops.
const RECORD_WAIT: Duration = Duration::from_secs(3);
/// Connections the kernel keeps for us while we accept.
const BACKLOG: u32 = 1024;

/// Serves until SIGTERM or SIGINT, or until a worker ends by itself, which is an error.
pub fn run(config: Config) -> Result<()> {
    let driver = choose_driver(config.io)?;
    let sockets = bind_media(&config)?;
    let addresses = advertised(&config, &sockets)?;
    let Running { control, workers, events, recording, names } =
        start_workers(&config, driver, sockets, addresses.clone())?;
    let control_thread = std::thread::Builder::new().name("tramline-control".into()).spawn({
        let control = Arc::clone(&control);
        move || control.run(&events)
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("tramline-http").enable_all().build()?;
    if let Some(s3) = config.record.upload.clone() {
        let uploader = Uploader::new(s3, config.record.directory.clone()).map_err(|error| anyhow!(error))?;
        runtime.spawn(uploader.run(names));
    }
    let state = AppState::new(Arc::clone(&control), Arc::new(config)).with_recordings(Arc::clone(&recording.board));
    let served = runtime.block_on(serve(state, driver, &addresses, Arc::clone(&workers.ended)));
    control.stop();
    let mut worked = Ok(());
    for thread in workers.threads {
        let ended = match thread.join() {
            Ok(ended) => ended.context("a worker could no longer send or receive"),
            Err(_) => Err(anyhow!("a worker thread panicked")),
        };
        worked = worked.and(ended);
    }
    // The workers are gone and with them the senders of events.
    let _ = control_thread.join();
    recording.wait(RECORD_WAIT);
    runtime.shutdown_timeout(Duration::from_secs(1));
    tracing::info!("stopped");
    worked.and(served)
}

/// What carries media: as asked for, or the best there is.
fn choose_driver(asked: IoDriver) -> Result<DriverKind> {
    if asked == IoDriver::Mmsg {
        return Ok(DriverKind::Mmsg);
    }
    match net::features::probe(IoLimits::default()) {
        Ok(()) => Ok(DriverKind::Uring),
        Err(refused) if asked == IoDriver::Auto => {
            tracing::warn!(
                "{refused}; until then media goes through sendmmsg and recvmmsg, which costs more per packet"
            );
            Ok(DriverKind::Mmsg)
        }
        Err(refused) => Err(refused.into()),
    }
}

fn bind_media(config: &Config) -> Result<Vec<WorkerSockets>> {
    let mut addresses = BindAddresses::default();
    if !config.media_hosts.is_empty() {
        addresses = BindAddresses { v4: None, v6: None };
        for host in &config.media_hosts {
            match host {
                IpAddr::V4(host) => addresses.v4 = Some(*host),
                IpAddr::V6(host) => addresses.v6 = Some(*host),
            }
        }
    }
    let sockets = match config.media_ports {
        MediaPorts::Single(port) => net::bind_group(addresses, port, config.workers)?,
        MediaPorts::Range { min, max } => net::bind_range(addresses, min..=max, config.workers)?,
    };
    if sockets.len() < config.workers {
        tracing::info!(
            workers = sockets.len(),
            wanted = config.workers,
            "each worker needs a port: the range is small"
        );
    }
    Ok(sockets)
}

/// What peers are told: exactly `ICE_ADVERTISE_IP`, or the addresses of the interfaces. One list for a shared port, one
/// for each worker where each has its own.
fn advertised(config: &Config, sockets: &[WorkerSockets]) -> Result<Vec<Vec<SocketAddr>>> {
    let ips = if config.advertise_ips.is_empty() { own_addresses(config)? } else { config.advertise_ips.clone() };
    let reachable = |sockets: &WorkerSockets, ip: &IpAddr| match ip {
        IpAddr::V4(_) => sockets.has_v4(),
        IpAddr::V6(_) => sockets.has_v6(),
    };
    let list = |sockets: &WorkerSockets| -> Vec<SocketAddr> {
        ips.iter().filter(|ip| reachable(sockets, ip)).map(|ip| SocketAddr::new(*ip, sockets.port)).collect()
    };
    let lists: Vec<_> = match config.media_ports {
        MediaPorts::Single(_) => sockets.first().map(list).into_iter().collect(),
        MediaPorts::Range { .. } => sockets.iter().map(list).collect(),
    };
    if lists.iter().any(Vec::is_empty) {
        bail!("no address to announce: set ICE_ADVERTISE_IP to the address that clients reach this machine by");
    }
    Ok(lists)
}

/// The certain addresses that media is bound to, and those of the interfaces for each family where it is bound to all.
fn own_addresses(config: &Config) -> Result<Vec<IpAddr>> {
    if config.media_hosts.is_empty() {
        return Ok(interfaces::real_addresses()?);
    }
    let mut own = Vec::new();
    for host in &config.media_hosts {
        match host.is_unspecified() {
            true => own.extend(interfaces::real_addresses()?.into_iter().filter(|ip| ip.is_ipv4() == host.is_ipv4())),
            false => own.push(*host),
        }
    }
    Ok(own)
}

/// Where a program on this machine reaches the media sockets.
fn self_check_targets(config: &Config, ports: &[u16]) -> Vec<SocketAddr> {
    let loopback = |host: &IpAddr| match host {
        host if !host.is_unspecified() => *host,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    let all = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let hosts = if config.media_hosts.is_empty() { &all[..] } else { &config.media_hosts };
    ports.iter().flat_map(|port| hosts.iter().map(|host| SocketAddr::new(loopback(host), *port))).collect()
}

fn os_rng() -> Result<StdRng> {
    StdRng::try_from_rng(&mut SysRng).context("the operating system gives no randomness")
}

/// What runs besides HTTP.
struct Running {
    control: Arc<Control>,
    workers: Workers,
    events: Receiver<(WorkerId, Event)>,
    recording: Recording,
    /// Files to upload.
    names: UnboundedReceiver<String>,
}

fn start_workers(
    config: &Config,
    driver: DriverKind,
    sockets: Vec<WorkerSockets>,
    addresses: Vec<Vec<SocketAddr>>,
) -> Result<Running> {
    let certificate = Arc::new(Certificate::generate().context("no DTLS certificate")?);
    let dtls = Arc::new(DtlsConfig::new(Arc::clone(&certificate)).context("DTLS cannot be set up")?);
    let fingerprint = certificate.fingerprint_sha256();
    let count = sockets.len();
    let hub_config = HubConfig { seats: config.max_connections, workers: count, addresses, fingerprint };
    let mut hub = Hub::new(hub_config, os_rng()?);
    hub.set_room_limits(signaling::rest::limits(config));
    let record = &config.record;
    hub.record_rooms(record.is_enabled.then_some(RecordWish { is_muxed: record.is_muxed }));
    let (events, events_out): (Sender<(WorkerId, Event)>, _) = bounded(EVENTS_MAX);
    let (mut links, mut seats) = (Vec::new(), Vec::new());
    let (recorder, mut outlets, mut to_workers) = (RecorderThread::default(), Vec::new(), Vec::new());
    for (sockets, lanes) in sockets.into_iter().zip(Lanes::mesh(count)) {
        let (commands, commands_out) = bounded(COMMANDS_MAX);
        let wake = WakeSource::new()?;
        let waker = wake.waker();
        to_workers.push((commands.clone(), wake.waker()));
        let (tap, outlet) = tap::tap(Arc::clone(&recorder));
        outlets.push(outlet);
        links.push(WorkerLink { commands, wake: Box::new(move || waker.wake()) });
        let (rng, dtls, table, events) = (os_rng()?, Arc::clone(&dtls), hub.table(), events.clone());
        let (trains, loudest) = (config.trains, config.audio_loudest);
        let ingest_cap = config.ingest.bps_max();
        let build = move |id| {
            let mut core = WorkerCore::new(id, rng, dtls, table, lanes);
            core.set_train_limits(trains);
            core.set_voices_heard(loudest);
            core.set_ingest_cap(ingest_cap);
            core.set_tap(tap);
            Worker::new(id, core, commands_out, events)
        };
        seats.push(Seat { sockets, wake, build });
    }
    let workers = spawn_workers(seats, SpawnOptions { driver, limits: IoLimits::default(), is_pinned: true })?;
    let ask = move |WorkerId(worker), command| {
        let Some((commands, waker)) = to_workers.get(usize::from(worker)) else { return };
        // A worker that takes none has other worries; the recorder asks again.
        if commands.try_send(command).is_ok() {
            waker.wake();
        }
    };
    let (uploads, names) = mpsc::unbounded_channel();
    let uploads = record.upload.is_some().then_some(uploads);
    let recording = record::start(outlets, &recorder, &record.directory, ask, uploads)?;
    Ok(Running { control: Arc::new(Control::new(hub, links)), workers, events: events_out, recording, names })
}

async fn serve(
    state: AppState,
    driver: DriverKind,
    addresses: &[Vec<SocketAddr>],
    worker_ended: Arc<Notify>,
) -> Result<()> {
    let (config, control) = (Arc::clone(&state.config), Arc::clone(&state.control));
    let listener = listen(&config.http_addresses(), "SFU_PORT", "SFU_HOST")?;
    let beside = listen_beside(&config)?;
    let http = listener.local_addr()?;
    let mut rng = os_rng()?;
    let ports: Vec<u16> = addresses.iter().filter_map(|list| Some(list.first()?.port())).collect();
    tokio::spawn(self_check::run(Arc::clone(&control), os_rng()?, self_check_targets(&config, &ports)));
    ask_public_address(&config, &control, &mut rng);
    let host = match http.ip() {
        ip if ip.is_unspecified() => "localhost".to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let announced: Vec<String> = addresses.iter().flatten().map(SocketAddr::to_string).collect();
    let media_port = ports.first().copied().unwrap_or_default();
    tracing::info!(media_port, candidates = announced.join(" "), io = driver.as_str(), "media is served");
    let scheme = if config.tls.files.is_some() { "https" } else { "http" };
    tracing::info!("open {scheme}://{host}:{} in a browser", http.port());
    if let Some(listener) = beside.control {
        tokio::spawn(signaling::serve_beside(listener, state.clone(), signaling::control_router(state.clone())));
    }
    if let Some(listener) = beside.metrics {
        tokio::spawn(signaling::serve_beside(listener, state.clone(), signaling::metrics_router(state.clone())));
    }
    let stop = async move {
        tokio::select! {
            () = stop_signal() => {}
            // Its peers hear nothing any more: whoever started us shall see that and start us again.
            () = worker_ended.notified() => tracing::error!("a worker has ended: stopping"),
        }
    };
    signaling::serve(listener, state, stop).await?;
    Ok(())
}

/// Ports beside the main one.
struct Beside {
    control: Option<TcpListener>,
    metrics: Option<TcpListener>,
}

fn listen_beside(config: &Config) -> Result<Beside> {
    let settings = &config.dialects;
    let control = settings.control_port.map(|port| addresses(settings.control_host, port));
    let metrics = settings.metrics_port.filter(|_| settings.metrics).map(|port| addresses(settings.metrics_host, port));
    Ok(Beside {
        control: control.map(|at| listen(&at, "SFU_CONTROL_PORT", "SFU_CONTROL_HOST")).transpose()?,
        metrics: metrics.map(|at| listen(&at, "SFU_METRICS_PORT", "SFU_METRICS_HOST")).transpose()?,
    })
}

fn listen(addresses: &[SocketAddr], port_name: &str, host_name: &str) -> Result<TcpListener> {
    let mut last = None;
    for &address in addresses {
        match listen_on(address) {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => bail!(
                "TCP port {} is taken: stop the program that has it, or set {port_name} to another port",
                address.port()
            ),
            Err(error) => last = Some((address, error)),
        }
    }
    match last {
        Some((address, error)) => Err(error).with_context(|| format!("cannot listen on {address}; see {host_name}")),
        None => bail!("no address to listen on"),
    }
}

fn listen_on(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    // A restart must not wait for old connections to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Asks the STUN servers how they see our media port. The start does not wait for it.
fn ask_public_address(config: &Config, control: &Arc<Control>, rng: &mut StdRng) {
    if config.stun_servers.is_empty() || !matches!(config.media_ports, MediaPorts::Single(_)) {
        return;
    }
    let (servers, control, transaction) = (config.stun_servers.clone(), Arc::clone(control), rng.random());
    tokio::spawn(async move {
        let mut found = Vec::new();
        for server in servers {
            match tokio::net::lookup_host((server.host.as_str(), server.port)).await {
                Ok(addresses) => found.extend(addresses.take(2)),
                Err(error) => tracing::info!(
                    server = %server.host, %error,
                    "STUN server not found; if clients come from outside, set ICE_ADVERTISE_IP"
                ),
            }
        }
        if !found.is_empty() {
            control.broadcast(&Command::AskPublicAddress { transaction, servers: found.into() });
        }
    });
}

async fn stop_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be watched; stop the server by SIGKILL");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
    }
}
