//! TLS of pages, HTTP and WebSockets: the certificate, and its next one.
//!
//! Promises: a file that changes is read again within seconds; one that cannot be used changes nothing and is said once.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

use crate::config::tls::TlsFiles;

/// How often the files are looked at: a look is two system calls.
const LOOK: Duration = Duration::from_secs(1);

/// The certificate in use.
#[derive(Debug)]
pub struct Certificate {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<CertifiedKey>,
}

/// How the two files looked: when each was written, and how long it is.
type Look = [Option<(SystemTime, u64)>; 2];

impl Certificate {
    /// Reads the files; the error is a sentence.
    pub fn open(files: &TlsFiles) -> Result<Arc<Self>, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let first = read(files, &provider)?;
        Ok(Arc::new(Self { files: files.clone(), provider, current: ArcSwap::from_pointee(first) }))
    }

    /// What answers handshakes, always with the newest certificate.
    pub fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, String> {
        let config = ServerConfig::builder_with_provider(Arc::clone(&self.provider));
        let config = config.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let mut config =
            config.with_no_client_auth().with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Reads the files again whenever they change, for as long as it is polled.
    pub async fn follow(&self) {
        let mut seen = look(&self.files);
        loop {
            tokio::time::sleep(LOOK).await;
            let now = look(&self.files);
            if now == seen {
                continue;
            }
            seen = now;
            match read(&self.files, &self.provider) {
                Ok(next) => {
                    self.current.store(Arc::new(next));
                    tracing::info!("the new TLS certificate is in use");
                }
                Err(error) => tracing::error!(error, "the new TLS certificate cannot be used: the old one stays"),
            }
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn look(files: &TlsFiles) -> Look {
    [&files.certificate, &files.key].map(|file| {
        let facts = fs::metadata(file).ok()?;
        Some((facts.modified().ok()?, facts.len()))
    })
}

fn read(files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let name = files.certificate.display();
    let chain = CertificateDer::pem_file_iter(&files.certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| format!("{name} (TLS_CERT_FILE) cannot be read: {error}"))?;
    if chain.is_empty() {
        return Err(format!("{name} (TLS_CERT_FILE) has no certificate"));
    }
    let name = files.key.display();
    let key = PrivateKeyDer::from_pem_file(&files.key);
    let key = key.map_err(|error| format!("{name} (TLS_KEY_FILE) cannot be read: {error}"))?;
    CertifiedKey::from_der(chain, key, provider)
        .map_err(|error| format!("{name} (TLS_KEY_FILE) does not go with the certificate: {error}"))
}
