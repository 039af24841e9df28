//! Which Gryt server owns which room, and its password.
//!
//! Owns: what came over control sockets. The first registration of a server id sets its password.
//! Promises: a room belongs to one server; bounded.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::client_token::{Claims, TokenError, same_secret, verify};

/// One SFU serves a handful of servers; more is somebody trying names.
const SERVERS_MAX: usize = 1024;
/// Channels of a server.
const ROOMS_PER_SERVER_MAX: usize = 16_384;
/// People of a room who hide others, and of whom that is remembered.
const HIDING_MAX: usize = 1024;
/// A room that nobody uses is forgotten then, once its server is not there either.
const UNUSED_MAX: Duration = Duration::from_secs(30 * 60);

/// Why a registration or a join was refused; the text is for the other side.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The server id has another password.
    #[error("invalid server password")]
    Password,
    /// Nobody registered this server id.
    #[error("server {0} is not registered")]
    UnknownServer(String),
    /// The room is another server's.
    #[error("room {0} does not belong to this server")]
    ForeignRoom(String),
    /// The room is a registered server's, and nothing says that it sent this client.
    #[error("a client token of the room's server is required")]
    TokenRequired,
    /// The token does not open this room to this user.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Too many servers or rooms.
    #[error("too many servers or rooms are registered")]
    Full,
}

/// Registered servers.
#[derive(Debug, Default)]
pub struct Registry {
    servers: Mutex<Servers>,
}

#[derive(Debug, Default)]
struct Servers {
    by_id: HashMap<String, Server>,
    owner_of_room: HashMap<String, String>,
}

#[derive(Debug)]
struct Server {
    password: String,
    rooms: HashMap<String, Channel>,
    /// Its control sockets.
    sockets: usize,
}

/// A room of a server.
#[derive(Debug, Default)]
struct Channel {
    unused_since: Option<Instant>,
    /// Whose media is withheld from whom; also of users who are not there now.
    hidden: HashMap<String, Vec<String>>,
}

impl Registry {
    /// Registers a room of a server.
    pub fn register(&self, server_id: &str, password: &str, room: &str) -> Result<(), Refusal> {
        let mut servers = self.lock();
        match servers.by_id.get(server_id) {
            Some(server) if !same_secret(&server.password, password) => return Err(Refusal::Password),
            Some(_) => {}
            None if servers.by_id.len() >= SERVERS_MAX => return Err(Refusal::Full),
            None => {
                let server = Server { password: password.to_owned(), rooms: HashMap::new(), sockets: 0 };
                servers.by_id.insert(server_id.to_owned(), server);
            }
        }
        servers.claim(server_id, room)
    }

    /// Whether the password is the server's.
    pub fn check(&self, server_id: &str, password: &str) -> Result<(), Refusal> {
        match self.lock().by_id.get(server_id) {
            None => Err(Refusal::UnknownServer(server_id.to_owned())),
            Some(server) if same_secret(&server.password, password) => Ok(()),
            Some(_) => Err(Refusal::Password),
        }
    }

    /// The password is the server's and the room is not another's.
    pub fn check_room(&self, server_id: &str, password: &str, room: &str) -> Result<(), Refusal> {
        self.check(server_id, password)?;
        match self.owner(room) {
            Some(owner) if owner != server_id => Err(Refusal::ForeignRoom(room.to_owned())),
            _ => Ok(()),
        }
    }

    /// Lets a client of a server into one of its rooms; the room is registered with it. `None`: no token was needed
    /// nor shown.
    pub fn admit(
        &self,
        wall: SystemTime,
        ticket: &Ticket<'_>,
        token_required: bool,
    ) -> Result<Option<Claims>, Refusal> {
        let mut servers = self.lock();
        let server = servers.by_id.get(ticket.server_id);
        let server = server.ok_or_else(|| Refusal::UnknownServer(ticket.server_id.to_owned()))?;
        let claims = match verify(wall, &server.password, ticket.token) {
            Ok(claims) => Some(claims),
            Err(error) if token_required => return Err(error.into()),
            // Without the requirement an unsigned token of an old server passes; a wrong password does not.
            Err(_) => match ticket.password {
                Some(password) if !same_secret(&server.password, password) => return Err(Refusal::Password),
                _ => None,
            },
        };
        if let Some(claims) = &claims {
            let user_differs = ticket.user_id.is_some_and(|user_id| user_id != claims.user_id);
            if claims.room != ticket.room || user_differs {
                return Err(TokenError::Mismatch.into());
            }
        }
        servers.claim(ticket.server_id, ticket.room)?;
        Ok(claims)
    }

    /// Lets a client of another dialect into a room: anybody, unless the room is a registered server's.
    pub fn admit_stranger(
        &self,
        wall: SystemTime,
        room: &str,
        user_id: Option<&str>,
        token: Option<&str>,
        token_required: bool,
    ) -> Result<Option<Claims>, Refusal> {
        let Some(owner) = self.owner(room).filter(|_| token_required) else { return Ok(None) };
        let token = token.ok_or(Refusal::TokenRequired)?;
        self.admit(wall, &Ticket { server_id: &owner, room, user_id, token, password: None }, true)
    }

    /// A server has one control socket more.
    pub fn connected(&self, server_id: &str) {
        if let Some(server) = self.lock().by_id.get_mut(server_id) {
            server.sockets += 1;
        }
    }

    /// One less.
    pub fn disconnected(&self, server_id: &str) {
        if let Some(server) = self.lock().by_id.get_mut(server_id) {
            server.sockets = server.sockets.saturating_sub(1);
        }
    }

    /// Remembers whose media a user of a room is not to get, for when he comes or comes back.
    pub fn hide(&self, room: &str, user_id: &str, hidden: &[String]) {
        let mut servers = self.lock();
        let Some(channel) = servers.channel(room) else { return };
        let has_room = channel.hidden.len() < HIDING_MAX || channel.hidden.contains_key(user_id);
        match hidden.is_empty() {
            true => drop(channel.hidden.remove(user_id)),
            false if has_room => drop(channel.hidden.insert(user_id.to_owned(), hidden.to_vec())),
            false => {}
        }
    }

    /// What [`Self::hide`] remembers.
    pub fn hidden_from(&self, room: &str, user_id: &str) -> Option<Vec<String>> {
        self.lock().channel(room)?.hidden.get(user_id).cloned()
    }

    /// Forgets rooms that nobody has used for long and whose server is not there; call now and then. Rooms of a server
    /// that is there stay closed to strangers.
    pub fn drop_unused(&self, now: Instant, occupied: &HashSet<&str>) {
        let Servers { by_id, owner_of_room } = &mut *self.lock();
        for server in by_id.values_mut() {
            let is_there = server.sockets > 0;
            server.rooms.retain(|room, channel| {
                if is_there || occupied.contains(room.as_str()) {
                    channel.unused_since = None;
                    return true;
                }
                let since = *channel.unused_since.get_or_insert(now);
                let is_kept = now.saturating_duration_since(since) < UNUSED_MAX;
                if !is_kept {
                    owner_of_room.remove(room);
                }
                is_kept
            });
        }
    }

    /// The server that registered the room.
    pub fn owner(&self, room: &str) -> Option<String> {
        self.lock().owner_of_room.get(room).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Servers> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a client shows at the door.
#[derive(Clone, Copy, Debug)]
pub struct Ticket<'a> {
    /// Which server sent it.
    pub server_id: &'a str,
    /// Where to.
    pub room: &'a str,
    /// Who it says it is.
    pub user_id: Option<&'a str>,
    /// The client token.
    pub token: &'a str,
    /// The server's password, which old clients carry.
    pub password: Option<&'a str>,
}

impl Servers {
    fn channel(&mut self, room: &str) -> Option<&mut Channel> {
        let owner = self.owner_of_room.get(room)?;
        self.by_id.get_mut(owner)?.rooms.get_mut(room)
    }

    fn claim(&mut self, server_id: &str, room: &str) -> Result<(), Refusal> {
        match self.owner_of_room.get(room) {
            Some(owner) if owner == server_id => return Ok(()),
            Some(_) => return Err(Refusal::ForeignRoom(room.to_owned())),
            None => {}
        }
        let server = self.by_id.get_mut(server_id);
        let server = server.ok_or_else(|| Refusal::UnknownServer(server_id.to_owned()))?;
        if server.rooms.len() >= ROOMS_PER_SERVER_MAX {
            return Err(Refusal::Full);
        }
        server.rooms.insert(room.to_owned(), Channel::default());
        self.owner_of_room.insert(room.to_owned(), server_id.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket<'a>(room: &'a str, password: Option<&'a str>) -> Ticket<'a> {
        Ticket { server_id: "acme", room, user_id: Some("u"), token: "unsigned", password }
    }

    fn registry() -> Registry {
        let registry = Registry::default();
        registry.register("acme", "pw", "acme_1").unwrap();
        registry
    }

    #[test]
    fn the_first_password_wins() {
        let registry = registry();
        assert_eq!(registry.register("acme", "other", "acme_2"), Err(Refusal::Password));
        assert_eq!(registry.register("acme", "pw", "acme_2"), Ok(()));
        assert_eq!(registry.check("acme", "other"), Err(Refusal::Password));
        assert_eq!(registry.check("nobody", "pw"), Err(Refusal::UnknownServer("nobody".into())));
    }

    #[test]
    fn a_room_belongs_to_one_server() {
        let registry = registry();
        assert_eq!(registry.register("other", "pw2", "acme_1"), Err(Refusal::ForeignRoom("acme_1".into())));
        assert_eq!(registry.check_room("other", "pw2", "acme_1"), Err(Refusal::ForeignRoom("acme_1".into())));
    }

    #[test]
    fn who_hides_whom_is_remembered_with_the_room() {
        let registry = registry();
        registry.hide("acme_1", "ana", &["eve".into()]);
        registry.hide("elsewhere", "ana", &["eve".into()]);
        assert_eq!(registry.hidden_from("acme_1", "ana"), Some(vec!["eve".into()]));
        assert_eq!(registry.hidden_from("elsewhere", "ana"), None);
        registry.hide("acme_1", "ana", &[]);
        assert_eq!(registry.hidden_from("acme_1", "ana"), None);
        for user in 0..HIDING_MAX + 9 {
            registry.hide("acme_1", &user.to_string(), &["eve".into()]);
        }
        assert_eq!(registry.lock().channel("acme_1").unwrap().hidden.len(), HIDING_MAX);
    }

    #[test]
    fn unused_rooms_of_absent_servers_are_forgotten() {
        let (registry, start) = (registry(), crate::runtime::clock::now());
        let owned = |occupied: &[&str], minutes: u32| {
            let occupied = occupied.iter().copied().collect();
            registry.drop_unused(start + Duration::from_secs(60) * minutes, &occupied);
            registry.owner("acme_1").is_some()
        };
        registry.connected("acme");
        assert!(owned(&[], 0) && owned(&[], 100), "its server is there");
        registry.disconnected("acme");
        assert!(owned(&["acme_1"], 200) && owned(&[], 201) && owned(&["acme_1"], 230), "it is used");
        assert!(owned(&[], 240) && owned(&[], 269));
        assert!(!owned(&[], 270));
        assert_eq!(registry.register("acme", "other", "acme_1"), Err(Refusal::Password), "the server is known");
        assert_eq!(registry.register("acme", "pw", "acme_1"), Ok(()));
    }

    #[test]
    fn an_unsigned_token_passes_only_where_tokens_are_not_required() {
        let registry = registry();
        let wall = SystemTime::UNIX_EPOCH;
        assert_eq!(registry.admit(wall, &ticket("acme_1", None), true), Err(TokenError::Malformed.into()));
        assert_eq!(registry.admit(wall, &ticket("acme_1", None), false), Ok(None));
        assert_eq!(registry.admit(wall, &ticket("acme_1", Some("pw")), false), Ok(None));
        assert_eq!(registry.admit(wall, &ticket("acme_1", Some("guess")), false), Err(Refusal::Password));
    }

    #[test]
    fn a_registered_room_is_closed_to_strangers() {
        let registry = registry();
        let wall = SystemTime::UNIX_EPOCH;
        assert_eq!(registry.admit_stranger(wall, "lobby", None, None, true), Ok(None));
        assert_eq!(registry.admit_stranger(wall, "acme_1", None, None, true), Err(Refusal::TokenRequired));
        assert_eq!(registry.admit_stranger(wall, "acme_1", None, None, false), Ok(None));
    }
}
