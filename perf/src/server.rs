//! A Tramline of our own, on free ports, for the length of a run.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Longest wait until the server is healthy.
const START_TRIES: usize = 100;
const START_PAUSE: Duration = Duration::from_millis(100);

/// The child; dropped, it is ended.
pub struct Server {
    child: Child,
    address: String,
}

impl Server {
    /// Starts `binary` with as many workers and seats, and waits until it is healthy.
    pub fn start(binary: &Path, workers: usize, seats: usize, extra: &[String]) -> Result<Self> {
        let http = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let media = UdpSocket::bind("0.0.0.0:0")?.local_addr()?.port();
        let child = Command::new(binary)
            .args(["--port", &http.to_string(), "--bind", "127.0.0.1", "--media-port", &media.to_string()])
            .args(["--advertise-ip", "127.0.0.1", "--workers", &workers.to_string()])
            .args(["--max-connections", &seats.to_string(), "--require-client-token", "false"])
            .args(extra)
            // Settings files of the present directory are not for this server.
            .current_dir("/")
            .env("LOG_LEVEL", std::env::var("LOG_LEVEL").unwrap_or_else(|_| "warn".to_owned()))
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        let mut server = Self { child, address: format!("127.0.0.1:{http}") };
        for _ in 0..START_TRIES {
            if let Some(status) = server.child.try_wait()? {
                bail!("the server ended at once: {status}");
            }
            if is_healthy(&server.address) {
                return Ok(server);
            }
            std::thread::sleep(START_PAUSE);
        }
        bail!("the server did not become healthy")
    }

    /// Of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `host:port` of its HTTP listener.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_healthy(address: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(START_PAUSE * 10))?;
        write!(stream, "GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(head.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}
