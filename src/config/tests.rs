//! What the settings mean, from whichever source.

use std::net::IpAddr;
use std::time::Duration;

use clap::Parser;

use super::peers::AUDIO_LOUDEST;
use super::*;
use crate::base::train::TrainLimits;

fn read(env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    read_with(&[], env)
}

fn read_with(args: &[&str], env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let flags = Flags::try_parse_from(std::iter::once("tramline").chain(args.iter().copied()))
        .map_err(|error| ConfigError(first_line(&error.to_string())))?;
    let lookup = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    Config::resolve(&flags, &lookup, 4)
}

fn refusal(env: &[(&str, &str)]) -> String {
    read(env).unwrap_err().to_string()
}

#[test]
fn nothing_set_gives_gryts_defaults() {
    let config = read(&[]).unwrap();
    assert_eq!(config, Config { workers: 4, ..Config::defaults() });
    assert_eq!(config.http_port, 5005);
    assert_eq!(config.media_ports, MediaPorts::Single(3478));
    assert_eq!(config.stun_servers, [StunServer { host: "stun.l.google.com".into(), port: 19302 }]);
}

#[test]
fn sfu_port_wins_over_port_and_both_over_http_addr() {
    let all = [("SFU_PORT", "1"), ("PORT", "2"), ("HTTP_ADDR", "127.0.0.1:3")];
    let config = read(&all).unwrap();
    assert_eq!(config.http_port, 1);
    assert_eq!(config.notes, ["HTTP port from SFU_PORT=1, over PORT, HTTP_ADDR."]);
    assert_eq!(read(&all[1..]).unwrap().http_port, 2);
    let config = read(&all[2..]).unwrap();
    assert_eq!((config.http_host, config.http_port), (Some("127.0.0.1".parse().unwrap()), 3));
    assert_eq!(read_with(&["--port", "9"], &all).unwrap().http_port, 9);
}

#[test]
fn an_empty_variable_is_unset() {
    assert_eq!(read(&[("SFU_PORT", " "), ("PORT", "7"), ("LOG_LEVEL", "")]).unwrap().http_port, 7);
}

#[test]
fn a_bad_value_is_one_sentence_with_name_value_and_what_is_allowed() {
    assert_eq!(refusal(&[("PORT", "70000")]), "PORT is `70000`, but must be a port number from 0 to 65535.");
    let text = read_with(&["--workers", "0"], &[]).unwrap_err().to_string();
    assert_eq!(text, "--workers is `0`, but must be a whole number from 1 to 64.");
    assert_eq!(
        refusal(&[("LOG_LEVEL", "loud")]),
        "LOG_LEVEL is `loud`, but must be error, warn, info, debug or trace."
    );
    assert_eq!(refusal(&[("DISABLE_STUN", "maybe")]), "DISABLE_STUN is `maybe`, but must be true or false.");
    assert!(refusal(&[("ICE_UDP_MUX_PORT", "-1")]).starts_with("ICE_UDP_MUX_PORT is `-1`"));
    let text = read_with(&["--nonsense"], &[]).unwrap_err().to_string();
    assert_eq!(text, "unexpected argument '--nonsense' found (see --help).");
}

#[test]
fn a_range_and_a_single_port_exclude_each_other() {
    let range = [("ICE_UDP_PORT_MIN", "40000"), ("ICE_UDP_PORT_MAX", "40003"), ("ICE_UDP_MUX_PORT", "3478")];
    assert_eq!(read(&range[..2]).unwrap().media_ports, MediaPorts::Range { min: 40000, max: 40003 });
    assert!(refusal(&range).contains("only one of"));
    assert!(refusal(&range[..1]).contains("also needs ICE_UDP_PORT_MAX"));
    assert!(refusal(&[("ICE_UDP_PORT_MIN", "9"), ("ICE_UDP_PORT_MAX", "8")]).starts_with("ICE_UDP_PORT_MAX is `8`"));
}

#[test]
fn advertised_addresses_are_exact_and_turn_stun_off() {
    let config = read(&[("ICE_ADVERTISE_IP", "203.0.113.5, host.example ,2001:db8::5")]).unwrap();
    assert_eq!(config.advertise_ips, ["203.0.113.5".parse::<IpAddr>().unwrap(), "2001:db8::5".parse().unwrap()]);
    assert_eq!(config.warnings.len(), 1);
    assert!(config.stun_servers.is_empty());
    assert!(!read(&[("ICE_ADVERTISE_IP", "203.0.113.5"), ("DISABLE_STUN", "false")]).unwrap().stun_servers.is_empty());
    assert!(refusal(&[("ICE_ADVERTISE_IP", "a,b")]).contains("at least one IP address"));
}

#[test]
fn the_driver_is_chosen_by_name() {
    assert_eq!(read_with(&["--io", "uring"], &[("TRAMLINE_IO", "mmsg")]).unwrap().io, IoDriver::Uring);
    assert_eq!(read(&[("TRAMLINE_IO", "MMSG")]).unwrap().io, IoDriver::Mmsg);
    assert_eq!(refusal(&[("TRAMLINE_IO", "epoll")]), "TRAMLINE_IO is `epoll`, but must be auto, uring or mmsg.");
}

#[test]
fn everybody_may_be_heard() {
    assert_eq!(read(&[]).unwrap().audio_loudest, AUDIO_LOUDEST);
    assert_eq!(read_with(&["--audio-loudest", "0"], &[("AUDIO_LOUDEST", "3")]).unwrap().audio_loudest, 0);
    assert!(refusal(&[("AUDIO_LOUDEST", "65")]).starts_with("AUDIO_LOUDEST is `65`"));
}

#[test]
fn trains_may_be_made_to_cost_nothing() {
    let config = read(&[("TRAMLINE_TRAIN_PADDING", "0"), ("TRAMLINE_TRAIN_HOLD", "0")]).unwrap();
    assert_eq!(config.trains, TrainLimits { padding_percent_max: 0, hold_max: Duration::ZERO });
    let config = read_with(&["--train-padding", "3", "--train-hold", "100"], &[]).unwrap();
    assert_eq!(config.trains, TrainLimits { padding_percent_max: 3, hold_max: Duration::from_micros(100) });
    let text = refusal(&[("TRAMLINE_TRAIN_PADDING", "26")]);
    assert_eq!(text, "TRAMLINE_TRAIN_PADDING is `26`, but must be a whole number from 0 to 25.");
}

#[test]
fn max_peers_wins_over_max_connections() {
    assert_eq!(read(&[("MAX_PEERS", "5"), ("MAX_CONNECTIONS", "6")]).unwrap().max_connections, 5);
}

#[test]
fn the_pong_timeout_is_at_least_two_intervals() {
    let config = read(&[("SFU_PING_INTERVAL", "60"), ("SFU_PONG_TIMEOUT", "10")]).unwrap();
    assert_eq!(config.pong_timeout, Duration::from_secs(120));
}

#[test]
fn an_unreadable_token_switch_keeps_the_door_closed() {
    assert!(read(&[("SFU_REQUIRE_CLIENT_TOKEN", "nope?")]).unwrap().require_client_token);
    assert!(!read(&[("SFU_REQUIRE_CLIENT_TOKEN", "false")]).unwrap().require_client_token);
}

#[test]
fn a_room_takes_as_many_viewers_as_it_is_told() {
    let viewers = |env: &[(&str, &str)]| read(env).unwrap().broadcast.viewers_max;
    assert_eq!((viewers(&[]), viewers(&[("MAX_SUBS_PER_ROOM", "0")])), (None, None));
    assert_eq!(viewers(&[("MAX_SUBS_PER_ROOM", "3")]), Some(3));
    assert!(refusal(&[("MAX_SUBS_PER_ROOM", "many")]).starts_with("MAX_SUBS_PER_ROOM is `many`"));
}

#[test]
fn verbose_log_means_debug_unless_a_level_is_set() {
    assert_eq!(read(&[("VERBOSE_LOG", "true")]).unwrap().log_level, LogLevel::Debug);
    assert_eq!(read(&[("DEBUG", "app:*")]).unwrap().log_level, LogLevel::Info);
    assert_eq!(read(&[("DEBUG", "1"), ("LOG_LEVEL", "warn")]).unwrap().log_level, LogLevel::Warn);
}

#[test]
fn the_help_is_well_formed() {
    use clap::CommandFactory;
    Flags::command().debug_assert();
}

#[test]
fn secrets_are_said_nowhere() {
    let key = "0123456789abcdef0123456789abcdef";
    let env = [("AUTH_TOKEN", "hush1"), ("ADMIN_TOKEN", "hush2"), ("ROOM_TOKENS", "r:hush3"), ("JWT_SECRET", key)];
    let config = read(&env).unwrap();
    assert!(config.auth.token.as_ref().unwrap().is("hush1") && config.admin_token.as_ref().unwrap().is("hush2"));
    let shown = format!("{config:?}");
    assert!(!shown.contains("hush") && !shown.contains(key), "{shown}");
    assert!(!refusal(&[("ROOM_TOKENS", "hush")]).contains("hush"));
    assert!(!refusal(&[("JWT_SECRET", "hush")]).contains("hush"));
}

#[test]
fn what_peers_send_is_capped_only_by_a_number_above_zero() {
    let capped = |value| read(&[("SFU_MAX_INGEST_KBPS", value)]).unwrap().ingest.max_kbps;
    assert_eq!((capped("2500"), capped("0"), capped("")), (Some(2500), None, None));
    assert!(refusal(&[("SFU_MAX_INGEST_KBPS", "2.5M")]).starts_with("SFU_MAX_INGEST_KBPS is `2.5M`"));
}
