//! Pages and WebSockets over TLS, and a certificate that is replaced while the server runs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod process_support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use process_support::server::{QUIET, Server, refused, with};
use process_support::{PATIENCE, wait_for};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio_tungstenite::tungstenite::{Message, client};

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A certificate and its key in files of their own.
struct Files {
    directory: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("tramline-tls-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Self { certificate: directory.join("cert.pem"), key: directory.join("key.pem"), directory }
    }

    fn write(&self, made: &CertifiedKey<KeyPair>) {
        put(&self.key, &made.signing_key.serialize_pem());
        put(&self.certificate, &made.cert.pem());
    }

    fn settings(&self) -> [(&'static str, &str); 2] {
        [("TLS_CERT_FILE", self.certificate.to_str().unwrap()), ("TLS_KEY_FILE", self.key.to_str().unwrap())]
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// As who renews certificates does it: the new file takes the old one's place.
fn put(path: &Path, text: &str) {
    let next = path.with_extension("next");
    std::fs::write(&next, text).unwrap();
    std::fs::rename(next, path).unwrap();
}

fn made() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

/// A connection that trusts these certificates only, once the handshake is done.
fn connect(server: &Server, trusted: &[&CertifiedKey<KeyPair>]) -> Result<Stream, std::io::Error> {
    let mut roots = RootCertStore::empty();
    trusted.iter().for_each(|made| roots.add(made.cert.der().clone()).unwrap());
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = TcpStream::connect(server.http)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut stream = StreamOwned::new(connection, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

fn shown(stream: &Stream) -> CertificateDer<'static> {
    stream.conn.peer_certificates().unwrap()[0].clone()
}

fn start(files: &Files) -> Server {
    Server::run(&with(&QUIET, &files.settings()), &[])
}

#[test]
fn pages_and_websockets_are_served_encrypted() {
    let (files, own) = (Files::new("served"), made());
    files.write(&own);
    let mut server = start(&files);
    server.logged("open https://");
    let mut stream = connect(&server, &[&own]).unwrap();
    write!(stream, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut page = Vec::new();
    stream.read_to_end(&mut page).unwrap();
    let page = String::from_utf8(page).unwrap();
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("<html"), "{page:.200}");
    let (mut socket, _) = client("wss://localhost/ws", connect(&server, &[&own]).unwrap()).unwrap();
    socket.send(Message::Text(r#"{"type":"join","roomId":"r"}"#.into())).unwrap();
    assert!(socket.read().unwrap().into_text().unwrap().contains("welcome"));
    // Who does not speak TLS gets nothing, and holds up nobody.
    let silent: Vec<TcpStream> = (0..600).map(|_| TcpStream::connect(server.http).unwrap()).collect();
    let mut plain = TcpStream::connect(server.http).unwrap();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"));
    assert!(connect(&server, &[&own]).is_ok());
    drop(silent);
    server.signal("TERM");
    assert_eq!(server.ended().code(), Some(0));
}

#[test]
fn a_new_certificate_is_taken_and_a_bad_one_is_not() {
    let (files, first, second) = (Files::new("reload"), made(), made());
    files.write(&first);
    let mut server = start(&files);
    let both = [&first, &second];
    let old = connect(&server, &both).unwrap();
    assert_eq!(&shown(&old), first.cert.der());
    // Rubbish, then a certificate whose key is not there yet.
    put(&files.certificate, "not a certificate");
    server.logged("cannot be used: the old one stays");
    assert_eq!(&shown(&connect(&server, &both).unwrap()), first.cert.der());
    put(&files.certificate, &second.cert.pem());
    server.logged("does not go with the certificate");
    assert_eq!(&shown(&connect(&server, &both).unwrap()), first.cert.der());
    put(&files.key, &second.signing_key.serialize_pem());
    server.logged("the new TLS certificate is in use");
    wait_for("the new certificate", || (&shown(&connect(&server, &both).unwrap()) == second.cert.der()).then_some(()));
    // Whoever was connected still is.
    let mut old = old;
    write!(old, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    old.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

#[test]
fn a_certificate_that_cannot_be_used_is_a_start_error_that_names_the_file() {
    let files = Files::new("refused");
    let said = refused(&with(&QUIET, &files.settings()));
    assert!(said.contains("TLS_CERT_FILE") && said.contains("cert.pem"), "{said}");
    files.write(&made());
    put(&files.key, &made().signing_key.serialize_pem());
    let said = refused(&with(&QUIET, &files.settings()));
    assert!(said.contains("TLS_KEY_FILE") && said.contains("does not go with"), "{said}");
}
