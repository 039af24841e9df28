//! Recordings on their way to S3-compatible storage.
//!
//! Beside each file that is to be uploaded lies `{name}.upload`, a JSON text of how far that has got; it goes when the
//! storage has all. So a restart goes on where the server ended. Owns: the queue and these texts. Promises: what fails is
//! tried again, less and less often, for as long as the file is there; others have their turn meanwhile. Forbids: reading
//! a whole file into memory.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Client, Response, StatusCode};
use rusty_s3::actions::{CreateMultipartUpload, S3Action};
use rusty_s3::{Bucket, Credentials, UrlStyle};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::config::record::S3Config;
use crate::runtime::clock;

/// Ending of the texts that say what is to be uploaded.
pub const ENDING: &str = "upload";
/// Bytes of a part; a file that is smaller goes in one piece. S3 takes no smaller parts than 5 MiB.
const PART_BYTES: u64 = 8 << 20;
/// S3 takes 10,000 parts.
const PARTS_MAX: u64 = 9_000;
/// How long a signed request may be under way.
const SIGNED_FOR: Duration = Duration::from_secs(3600);
/// The pause after a failure, and after many.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// A storage that is silent for so long does not answer.
const ANSWER_MAX: Duration = Duration::from_secs(120);
/// The same for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// How far an upload has got.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Progress {
    /// The storage's name for an upload in parts, once begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    upload_id: Option<String>,
    /// Bytes of each part but the last.
    part_bytes: u64,
    /// What the storage said of each part it has.
    etags: Vec<String>,
}

/// Why an upload did not get on.
#[derive(Debug, thiserror::Error)]
enum UploadError {
    #[error("the file cannot be read: {0}")]
    File(#[from] io::Error),
    /// Without the URL, as that has the signature in it.
    #[error("the storage cannot be reached: {0}")]
    Http(reqwest::Error),
    #[error("the storage answered {0}: {1}")]
    Refused(StatusCode, String),
    #[error("the storage's answer makes no sense")]
    Answer,
}

impl From<reqwest::Error> for UploadError {
    fn from(error: reqwest::Error) -> Self {
        Self::Http(error.without_url())
    }
}

/// See the module.
pub struct Uploader {
    config: S3Config,
    directory: PathBuf,
    bucket: Bucket,
    credentials: Credentials,
    client: Client,
}

/// Says that a file is to be uploaded; before anybody is told, so that a crash forgets nothing.
pub fn note(directory: &Path, name: &str) -> io::Result<()> {
    save(directory, name, &Progress::default())
}

fn save(directory: &Path, name: &str, progress: &Progress) -> io::Result<()> {
    let (path, temporary) =
        (directory.join(format!("{name}.{ENDING}")), directory.join(format!("{name}.{ENDING}.part")));
    std::fs::write(&temporary, serde_json::to_vec(progress)?)?;
    std::fs::rename(temporary, path)
}

impl Uploader {
    /// Of files in a directory. The error says what is wrong with the settings.
    pub fn new(config: S3Config, directory: PathBuf) -> Result<Self, String> {
        let style = if config.is_path_style { UrlStyle::Path } else { UrlStyle::VirtualHost };
        let endpoint = config.endpoint.parse().map_err(|error| format!("S3_ENDPOINT is no URL: {error}"))?;
        let bucket = Bucket::new(endpoint, style, config.bucket.clone(), config.region.clone())
            .map_err(|error| format!("S3_ENDPOINT and S3_BUCKET cannot be used: {error}"))?;
        let credentials = Credentials::new(config.access_key.clone(), config.secret_key.reveal().to_owned());
        let client = Client::builder().connect_timeout(CONNECT_MAX).read_timeout(ANSWER_MAX).build();
        let client = client.map_err(|error| format!("no HTTP client for uploads: {error}"))?;
        Ok(Self { config, directory, bucket, credentials, client })
    }

    /// Uploads what was left by the last run, and then what comes, until nobody is left who could send more.
    pub async fn run(self, mut names: UnboundedReceiver<String>) {
        let mut queue: VecDeque<String> = pending(&self.directory).into();
        let mut failures = 0u32;
        loop {
            while let Ok(name) = names.try_recv() {
                queue.push_back(name);
            }
            let Some(name) = queue.pop_front() else {
                match names.recv().await {
                    Some(name) => queue.push_back(name),
                    None => return,
                }
                continue;
            };
            match self.upload(&name).await {
                Ok(()) => failures = 0,
                Err(error) => {
                    tracing::warn!(%name, "an upload has failed and is tried again: {error}");
                    queue.push_back(name);
                    let pause = PAUSE_MIN * 2u32.saturating_pow(failures.min(16));
                    failures += 1;
                    tokio::time::sleep(pause.min(PAUSE_MAX)).await;
                }
            }
        }
    }

    async fn upload(&self, name: &str) -> Result<(), UploadError> {
        let path = self.directory.join(name);
        let state = self.directory.join(format!("{name}.{ENDING}"));
        let size = match tokio::fs::metadata(&path).await {
            Ok(facts) => facts.len(),
            // Somebody took it away.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(tokio::fs::remove_file(state).await?),
            Err(error) => return Err(error.into()),
        };
        let progress = tokio::fs::read(&state).await.ok().and_then(|text| serde_json::from_slice(&text).ok());
        let key = format!("{}{name}", self.config.prefix);
        if size <= PART_BYTES {
            let url = self.signed(&self.bucket.put_object(Some(&self.credentials), &key));
            let body = tokio::fs::read(&path).await?;
            accepted(self.client.put(url).body(body).send().await?).await?;
        } else {
            self.upload_parts(name, &key, size, progress.unwrap_or_default()).await?;
        }
        tracing::info!(%key, bytes = size, "a recording is uploaded");
        if self.config.deletes {
            tokio::fs::remove_file(&path).await?;
        }
        Ok(tokio::fs::remove_file(state).await?)
    }

    async fn upload_parts(&self, name: &str, key: &str, size: u64, mut progress: Progress) -> Result<(), UploadError> {
        let upload_id = match progress.upload_id.clone() {
            Some(upload_id) => upload_id,
            None => {
                let url = self.signed(&self.bucket.create_multipart_upload(Some(&self.credentials), key));
                let answer = accepted(self.client.post(url).send().await?).await?.text().await?;
                let answer = CreateMultipartUpload::parse_response(&answer).map_err(|_| UploadError::Answer)?;
                let upload_id = answer.upload_id().to_owned();
                let part_bytes = PART_BYTES.max(size.div_ceil(PARTS_MAX));
                progress = Progress { upload_id: Some(upload_id.clone()), part_bytes, etags: Vec::new() };
                save(&self.directory, name, &progress)?;
                upload_id
            }
        };
        let sent = self.send_parts(name, key, &upload_id, size, &mut progress).await;
        if let Err(UploadError::Refused(StatusCode::NOT_FOUND, _)) = &sent {
            // The storage has forgotten it: from the beginning next time.
            save(&self.directory, name, &Progress::default())?;
        }
        sent
    }

    async fn send_parts(
        &self,
        name: &str,
        key: &str,
        upload_id: &str,
        size: u64,
        progress: &mut Progress,
    ) -> Result<(), UploadError> {
        let part_bytes = progress.part_bytes.max(PART_BYTES);
        let path = self.directory.join(name);
        for index in progress.etags.len() as u64..size.div_ceil(part_bytes) {
            let at = index * part_bytes;
            let body = read_part(path.clone(), at, part_bytes.min(size - at)).await?;
            let number = index as u16 + 1;
            let url = self.signed(&self.bucket.upload_part(Some(&self.credentials), key, number, upload_id));
            let answer = accepted(self.client.put(url).body(body).send().await?).await?;
            let etag = answer.headers().get("etag").and_then(|etag| etag.to_str().ok()).ok_or(UploadError::Answer)?;
            progress.etags.push(etag.trim_matches('"').to_owned());
            save(&self.directory, name, progress)?;
        }
        let etags = progress.etags.iter().map(String::as_str);
        let action = self.bucket.complete_multipart_upload(Some(&self.credentials), key, upload_id, etags);
        let url = self.signed(&action);
        let answer = accepted(self.client.post(url).body(action.body()).send().await?).await?.text().await?;
        // "200 OK" comes before the storage knows; its text tells.
        if answer.contains("<Error>") { Err(UploadError::Answer) } else { Ok(()) }
    }

    fn signed<'a>(&self, action: &impl S3Action<'a>) -> reqwest::Url {
        let now = jiff::Timestamp::try_from(clock::wall()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        action.sign_with_time(SIGNED_FOR, &now)
    }
}

async fn read_part(path: PathBuf, at: u64, len: u64) -> io::Result<Vec<u8>> {
    use tokio::io::{AsyncReadExt, AsyncSeekExt};
    let mut file = tokio::fs::File::open(path).await?;
    file.seek(io::SeekFrom::Start(at)).await?;
    let mut bytes = vec![0; len as usize];
    file.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// The answer, if it is a yes; else the code that S3 gives in its text.
async fn accepted(answer: Response) -> Result<Response, UploadError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let text = answer.text().await.unwrap_or_default();
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map_or("", |(code, _)| code);
    Err(UploadError::Refused(status, code.chars().take(80).collect()))
}

/// Names of files whose upload was not over when the server ended.
fn pending(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> =
        names.filter_map(|name| Some(name.strip_suffix(ENDING)?.strip_suffix('.')?.to_owned())).collect();
    names.sort();
    names
}

#[cfg(test)]
#[path = "upload_tests.rs"]
mod tests;
