//! A running `tramline`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::Value;

use super::ws::Ws;
use super::{PATIENCE, wait_for};

/// Any free ports, loopback, no question to the outside: what most tests want.
pub const QUIET: [(&str, &str); 5] = [
    ("SFU_PORT", "0"),
    ("SFU_HOST", "127.0.0.1"),
    ("ICE_UDP_MUX_PORT", "0"),
    ("ICE_ADVERTISE_IP", "127.0.0.1"),
    ("TRAMLINE_WORKERS", "2"),
];

/// A process and what it logged; killed when dropped.
pub struct Server {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    directory: PathBuf,
    /// Where HTTP answers.
    pub http: SocketAddr,
    /// The first media port.
    pub media_port: u16,
}

/// The program with only these settings, in an empty directory, where no `.env` is.
pub fn command(settings: &[(&str, &str)], prefix: &[&str]) -> (Command, PathBuf) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("tramline-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let directory = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&directory).unwrap();
    let binary = env!("CARGO_BIN_EXE_tramline");
    let mut command = match prefix {
        [] => Command::new(binary),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(binary);
            command
        }
    };
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.envs(settings.iter().copied()).current_dir(&directory);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    (command, directory)
}

/// `base` with some settings replaced or added; an empty value unsets.
pub fn with<'a>(base: &[(&'a str, &'a str)], more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let kept = base.iter().filter(|(name, _)| more.iter().all(|(other, _)| other != name));
    kept.chain(more).copied().collect()
}

/// What a start that must fail says on standard error.
pub fn refused(settings: &[(&str, &str)]) -> String {
    let (mut command, directory) = command(settings, &[]);
    let mut child = command.spawn().unwrap();
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it started with {settings:?}");
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    };
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    std::fs::remove_dir_all(directory).unwrap();
    assert_eq!(status.code(), Some(1), "{text}");
    text
}

impl Server {
    /// Quiet settings.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Quiet settings and these.
    pub fn with(more: &[(&str, &str)]) -> Self {
        Self::run(&with(&QUIET, more), &[])
    }

    /// Exactly these settings; `prefix` is a command that runs ours.
    pub fn run(settings: &[(&str, &str)], prefix: &[&str]) -> Self {
        let (mut command, directory) = command(settings, prefix);
        let mut child = command.spawn().unwrap();
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let (lines, into) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&log));
        std::thread::spawn(move || {
            lines.lines().map_while(Result::ok).for_each(|line| into.lock().unwrap().push(line))
        });
        let http = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { child, log, directory, http, media_port: 0 };
        let line = server.logged("media_port");
        server.media_port = number_after(&line, "media_port");
        let line = server.logged("open http://");
        let (_, url) = line.split_once("open http://").unwrap();
        server.http.set_port(number_after(url, url.split_once(':').unwrap().0));
        server
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The first line with that text, once it is there.
    pub fn logged(&mut self, text: &str) -> String {
        wait_for(text, || {
            let found = self.log.lock().unwrap().iter().find(|line| line.contains(text)).cloned();
            if found.is_none()
                && let Some(status) = self.child.try_wait().unwrap()
            {
                panic!("ended with {status} and without \"{text}\": {:#?}", self.log());
            }
            found
        })
    }

    /// Every line so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Status and body of a GET.
    pub fn get(&self, path: &str) -> (u16, String) {
        get(TcpStream::connect(self.http).unwrap(), path)
    }

    /// The answer to any request.
    pub fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        request(TcpStream::connect(self.http).unwrap(), method, path, headers, body)
    }

    /// Body of a GET as JSON.
    pub fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Waits for 200 of `/health`.
    pub fn healthy(&self) {
        wait_for("a healthy server", || (self.get("/health").0 == 200).then_some(()));
    }

    /// One value of `/metrics`; 0 if it is not there.
    pub fn metric(&self, name: &str) -> u64 {
        let (_, text) = self.get("/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    /// Discards of one kind.
    pub fn discards(&self, reason: &str) -> u64 {
        self.metric(&format!("tramline_discards_total{{reason=\"{reason}\"}}"))
    }

    /// A WebSocket.
    pub fn ws(&self, path: &str) -> Ws {
        Ws::connect(TcpStream::connect(self.http).unwrap(), path)
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).unwrap();
        let signal = match name {
            "TERM" => rustix::process::Signal::TERM,
            "INT" => rustix::process::Signal::INT,
            "KILL" => rustix::process::Signal::KILL,
            _ => panic!("{name}"),
        };
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// How it ended, once it has.
    pub fn ended(&mut self) -> ExitStatus {
        wait_for("the end of the process", || self.child.try_wait().unwrap())
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
        if std::thread::panicking() {
            eprintln!("--- log of the server\n{}", self.log().join("\n"));
        }
    }
}

/// Status and body of a GET over an open connection.
pub fn get(stream: TcpStream, path: &str) -> (u16, String) {
    let answer = request(stream, "GET", path, "", "");
    (answer.status, answer.body)
}

/// An answer over HTTP.
pub struct Answer {
    pub status: u16,
    /// In lower case.
    head: String,
    pub body: String,
}

impl Answer {
    /// A header's value, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

fn request(mut stream: TcpStream, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {length}\r\n");
    write!(stream, "{head}{headers}\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Answer { status: head[9..12].parse().unwrap(), head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// The digits that follow a word and a separator or two.
fn number_after(line: &str, word: &str) -> u16 {
    let rest = &line[line.find(word).unwrap() + word.len()..];
    let digits: String = rest.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}
