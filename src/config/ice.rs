//! STUN and TURN servers that clients are told to use.

use std::time::Duration;

use super::source::{Group, Sources};
use super::{ConfigError, Secret, parse};

/// Servers of one kind; a client asks all of them.
const URLS_MAX: usize = 16;
/// How long credentials of a shared secret are good for: longer than most calls, since relays ask for them again.
const TTL: Duration = Duration::from_secs(12 * 3600);
/// A month; what lives longer is no time limit.
const TTL_SECONDS_LIMIT: u64 = 31 * 86_400;

/// What clients are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ice {
    /// `stun:` and `stuns:` addresses; `None`: those that we ask ourselves.
    pub stun_urls: Option<Vec<String>>,
    /// `turn:` and `turns:` addresses.
    pub turn_urls: Vec<String>,
    /// What opens them.
    pub turn: Option<TurnCredentials>,
}

/// What opens a TURN server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TurnCredentials {
    /// The same for everybody, for ever.
    Static {
        /// The user.
        username: String,
        /// The password.
        password: Secret,
    },
    /// Made for each client, from a secret that the TURN server has too.
    Shared {
        /// The secret.
        secret: Secret,
        /// How long they are good for.
        ttl: Duration,
    },
}

#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub(super) struct Flags {
    /// STUN servers that clients are told to ask, comma list [env: STUN_URLS] [default: those of --stun-servers]
    #[arg(long, value_name = "URLS")]
    stun_urls: Option<String>,
    /// TURN servers that clients are told to use, comma list like turn:turn.example.org?transport=udp [env: TURN_URLS]
    #[arg(long, value_name = "URLS")]
    turn_urls: Option<String>,
    /// User of the TURN servers, the same for everybody [env: TURN_USERNAME]
    #[arg(long, value_name = "NAME")]
    turn_username: Option<String>,
    /// Password of that user [env: TURN_PASSWORD]
    #[arg(long, value_name = "PASSWORD")]
    turn_password: Option<String>,
    /// Secret shared with the TURN servers, from which each client gets credentials of its own that expire [env: TURN_SECRET]
    #[arg(long, value_name = "SECRET")]
    turn_secret: Option<String>,
    /// Seconds after which those expire [env: TURN_TTL] [default: 43200]
    #[arg(long, value_name = "SECONDS")]
    turn_ttl: Option<String>,
}

impl Group for Ice {
    type Flags = Flags;

    fn read(flags: &Flags, from: &mut Sources<'_>) -> Result<Self, ConfigError> {
        let mut ice = Self::default();
        if let Some(text) = from.first(&flags.stun_urls, "--stun-urls", &["STUN_URLS"]) {
            ice.stun_urls = Some(text.read(|s| urls(s, &["stun", "stuns"]))?);
        }
        let username = from.first(&flags.turn_username, "--turn-username", &["TURN_USERNAME"]);
        let password = from.first(&flags.turn_password, "--turn-password", &["TURN_PASSWORD"]);
        let secret = from.first(&flags.turn_secret, "--turn-secret", &["TURN_SECRET"]);
        let ttl = from.first(&flags.turn_ttl, "--turn-ttl", &["TURN_TTL"]);
        let ttl = ttl.map_or(Ok(TTL), |text| text.read(|s| parse::seconds(s, TTL_SECONDS_LIMIT)))?;
        ice.turn = match (username, password, secret) {
            (None, None, None) => None,
            (None, None, Some(secret)) => {
                Some(TurnCredentials::Shared { secret: Secret::from(secret.value.trim()), ttl })
            }
            (Some(username), Some(password), None) => {
                let password = Secret::from(password.value.trim());
                Some(TurnCredentials::Static { username: username.value.trim().to_owned(), password })
            }
            (_, _, None) => return Err(ConfigError("TURN_USERNAME and TURN_PASSWORD are needed both.".to_owned())),
            (_, _, Some(_)) => {
                let sentence = "TURN_SECRET makes credentials by itself: unset TURN_USERNAME and TURN_PASSWORD.";
                return Err(ConfigError(sentence.to_owned()));
            }
        };
        if let Some(text) = from.first(&flags.turn_urls, "--turn-urls", &["TURN_URLS"]) {
            ice.turn_urls = text.read(|s| urls(s, &["turn", "turns"]))?;
            if ice.turn.is_none() {
                let name = text.name;
                return Err(ConfigError(format!("{name} also needs TURN_SECRET, or TURN_USERNAME and TURN_PASSWORD.")));
            }
        }
        Ok(ice)
    }
}

/// RFC 7064 and RFC 7065: `scheme:host[:port][?transport=udp]`. Plain characters only: they are sent in headers.
fn urls(text: &str, schemes: &[&str]) -> Result<Vec<String>, String> {
    let is_url = |url: &&str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]?=".contains(c);
        url.split_once(':')
            .is_some_and(|(scheme, rest)| schemes.contains(&scheme) && !rest.is_empty() && rest.chars().all(plain))
    };
    let entries: Vec<&str> = text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
    if entries.is_empty() || entries.len() > URLS_MAX || !entries.iter().all(is_url) {
        let scheme = schemes.first().copied().unwrap_or_default();
        return Err(format!("a comma-separated list like {scheme}:{scheme}.example.org:3478"));
    }
    Ok(entries.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_servers_are_plain() {
        assert!(urls("turn:t.example?transport=udp, turns:[2001:db8::1]:5349", &["turn", "turns"]).is_ok());
        for bad in ["", "stun:s", "turn:", "turn:a b", "turn:a>;", "turn:a\"", "http://a"] {
            assert!(urls(bad, &["turn", "turns"]).is_err(), "{bad}");
        }
    }
}
