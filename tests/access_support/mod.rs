//! Tokens signed without the library under test, and an identity provider whose keys change and that goes away.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use aws_lc_rs::{hmac, signature};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, HandshakeError, Message, WebSocket, client};

use crate::process_support::PATIENCE;
use crate::process_support::server::Server;

/// Key of HS256 tokens.
pub const SECRET: &str = "a-shared-secret-of-more-than-32-bytes";
/// Who tokens are for.
pub const AUDIENCE: &str = "calls.example";

/// A signer of one kind.
pub enum Signer {
    Hmac(&'static str),
    Rsa(String, RsaKeyPair),
    Ec(String, EcdsaKeyPair),
    Ed(String, Ed25519KeyPair),
}

impl Signer {
    pub fn rsa(id: &str) -> Self {
        Self::Rsa(id.to_owned(), RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    pub fn ec(id: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self::Ec(id.to_owned(), key)
    }

    pub fn ed(id: &str) -> Self {
        Self::Ed(id.to_owned(), Ed25519KeyPair::generate().unwrap())
    }

    /// A token with these claims, and what every good one has.
    pub fn token(&self, claims: Value) -> String {
        let header = match self {
            Self::Hmac(_) => json!({"alg": "HS256", "typ": "JWT"}),
            Self::Rsa(id, _) => json!({"alg": "RS256", "kid": id}),
            Self::Ec(id, _) => json!({"alg": "ES256", "kid": id}),
            Self::Ed(id, _) => json!({"alg": "EdDSA", "kid": id}),
        };
        self.sign(&header, claims)
    }

    /// The same under any header.
    pub fn sign(&self, header: &Value, claims: Value) -> String {
        let mut all = json!({"exp": now_s() + 600, "aud": AUDIENCE});
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(header), encode(&all));
        let signature: Vec<u8> = match self {
            Self::Hmac(key) => {
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), message.as_bytes()).as_ref().to_vec()
            }
            Self::Rsa(_, key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
                signature
            }
            Self::Ec(_, key) => key.sign(&SystemRandom::new(), message.as_bytes()).unwrap().as_ref().to_vec(),
            Self::Ed(_, key) => key.sign(message.as_bytes()).as_ref().to_vec(),
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The public key as an issuer publishes it.
    pub fn jwk(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Hmac(_) => panic!("a shared secret is not published"),
            Self::Rsa(id, key) => {
                let public: &signature::RsaSubjectPublicKey = key.public_key();
                let (n, e) = (public.modulus(), public.exponent());
                let (n, e) = (n.big_endian_without_leading_zero(), e.big_endian_without_leading_zero());
                json!({"kty": "RSA", "kid": id, "use": "sig", "alg": "RS256", "n": encode(n), "e": encode(e)})
            }
            Self::Ec(id, key) => {
                // SEC 1 §2.3.3: 4, x, y.
                let point = key.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "kid": id, "x": encode(&point[1..33]), "y": encode(&point[33..])})
            }
            Self::Ed(id, key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": encode(key.public_key().as_ref())})
            }
        }
    }
}

pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Serves a set of keys until it is ended.
pub struct Provider {
    pub address: SocketAddr,
    set: Arc<Mutex<Value>>,
    fetches: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Provider {
    pub fn start(signers: &[&Signer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (set, fetches, ends) = (Arc::<Mutex<Value>>::default(), Arc::<AtomicU64>::default(), Arc::default());
        let thread = std::thread::spawn({
            let (set, fetches, ends) = (Arc::clone(&set), Arc::clone(&fetches), Arc::<AtomicBool>::clone(&ends));
            move || {
                for stream in listener.incoming() {
                    if ends.load(Ordering::SeqCst) {
                        return;
                    }
                    fetches.fetch_add(1, Ordering::SeqCst);
                    let _ = answer(stream.unwrap(), &set.lock().unwrap().to_string());
                }
            }
        });
        let provider = Self { address, set, fetches, ends, thread: Some(thread) };
        provider.publish(signers);
        provider
    }

    pub fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }

    /// From now on these are its keys.
    pub fn publish(&self, signers: &[&Signer]) {
        *self.set.lock().unwrap() = json!({"keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>()});
    }

    pub fn fetches(&self) -> u64 {
        self.fetches.load(Ordering::SeqCst)
    }

    /// Nothing listens there any more.
    pub fn end(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        self.thread.take().unwrap().join().unwrap();
        assert!(TcpStream::connect(self.address).is_err());
    }
}

fn answer(mut stream: TcpStream, body: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut asked = Vec::new();
    let mut part = [0; 1024];
    while !asked.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut part)? {
            0 => return Ok(()),
            length => asked.extend_from_slice(&part[..length]),
        }
    }
    let length = body.len();
    write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// A WebSocket that may be refused: status and body then.
pub fn upgrade(stream: TcpStream, path: &str, headers: &[(&'static str, &str)]) -> Result<Socket, (u16, String)> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut request = format!("ws://{}{path}", stream.peer_addr().unwrap()).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    match client(request, stream) {
        Ok((socket, _)) => Ok(Socket(socket)),
        Err(HandshakeError::Failure(Error::Http(answer))) => {
            let body = answer.body().as_deref().unwrap_or_default();
            Err((answer.status().as_u16(), String::from_utf8_lossy(body).into_owned()))
        }
        Err(error) => panic!("{error}"),
    }
}

/// One that was not.
pub struct Socket(pub WebSocket<TcpStream>);

impl Socket {
    /// Says something and hears the answer.
    pub fn ask(&mut self, message: &Value) -> Value {
        self.0.send(Message::Text(message.to_string().into())).unwrap();
        loop {
            if let Message::Text(text) = self.0.read().unwrap() {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }
}

/// How a request that was refused was refused: its status and sentence.
pub type Outcome = Result<(), (u16, String)>;

/// Publishes, or watches, by one POST; a session that begins ends at once.
pub fn post(server: &Server, path: &str, headers: &str, offer: &str) -> Outcome {
    let headers = format!("Content-Type: application/sdp\r\n{headers}");
    let answer = server.request("POST", path, &headers, offer);
    if answer.status != 201 {
        return Err((answer.status, answer.body));
    }
    let session = answer.header("location").unwrap().to_owned();
    let gone = server.request("DELETE", &session, &headers["Content-Type: application/sdp\r\n".len()..], "");
    assert_eq!(gone.status, 200, "{}", gone.body);
    Ok(())
}

/// Joins by a message of the documented dialect.
pub fn join(socket: &mut Socket, room: &str, token: Option<&str>) -> Outcome {
    let answer = socket.ask(&json!({"event": "join", "data": {"roomId": room, "token": token}}));
    match (answer["event"].as_str(), answer["data"]["code"].as_str()) {
        (Some("joined"), _) => Ok(()),
        (_, Some("unauthorized")) => Err((401, answer["data"]["message"].to_string())),
        (_, Some("forbidden")) => Err((403, answer["data"]["message"].to_string())),
        _ => panic!("{answer}"),
    }
}

/// Joins by a message of SFU-Go.
pub fn join_sfu_go(socket: &mut Socket, room: &str, token: Option<&str>) -> Outcome {
    let answer = socket.ask(&json!({"type": "join", "data": {"roomId": room, "token": token}}));
    match (answer["type"].as_str(), answer["data"]["code"].as_u64()) {
        (Some("join"), _) => Ok(()),
        (_, Some(code)) => Err((code as u16, answer["data"]["message"].to_string())),
        _ => panic!("{answer}"),
    }
}

/// Joins by a message of Switchboard, whose errors are sentences only.
pub fn join_switchboard(socket: &mut Socket, room: &str, token: Option<&str>) -> Result<(), String> {
    let answer = socket.ask(&json!({"type": "join", "roomId": room, "token": token}));
    match answer["type"].as_str() {
        Some("welcome") => Ok(()),
        Some("error") => Err(answer["message"].to_string()),
        _ => panic!("{answer}"),
    }
}
