//! The certificate of pages, HTTP and WebSockets.

use std::path::PathBuf;

use super::ConfigError;
use super::source::{Group, Sources};

/// Where the certificate is; without it nothing is encrypted, and a proxy in front has to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The two files.
    pub files: Option<TlsFiles>,
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those that it was signed with.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub(super) struct Flags {
    /// PEM file with the certificate of pages, HTTP and WebSocket and its chain; read again when it changes [env: TLS_CERT_FILE] [default: no TLS]
    #[arg(long, value_name = "FILE")]
    tls_cert_file: Option<String>,
    /// PEM file with its key [env: TLS_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    tls_key_file: Option<String>,
}

impl Group for Tls {
    type Flags = Flags;

    fn read(flags: &Flags, from: &mut Sources<'_>) -> Result<Self, ConfigError> {
        let certificate = from.first(&flags.tls_cert_file, "--tls-cert-file", &["TLS_CERT_FILE"]);
        let key = from.first(&flags.tls_key_file, "--tls-key-file", &["TLS_KEY_FILE"]);
        let alone = |name: &str, other: &str| Err(ConfigError(format!("{name} is set, but TLS also needs {other}.")));
        match (certificate, key) {
            (None, None) => Ok(Self::default()),
            (Some(only), None) => alone(only.name, "TLS_KEY_FILE"),
            (None, Some(only)) => alone(only.name, "TLS_CERT_FILE"),
            (Some(certificate), Some(key)) => {
                let file = |text: &str| PathBuf::from(text.trim());
                Ok(Self { files: Some(TlsFiles { certificate: file(&certificate.value), key: file(&key.value) }) })
            }
        }
    }
}
