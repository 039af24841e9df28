//! Settings of recordings: whether, where, and where they are taken afterwards.

use std::path::PathBuf;

use super::source::{Group, Sources};
use super::{ConfigError, Secret, parse};

/// go-live's directory.
const DIRECTORY: &str = "records";
/// What S3-compatible servers call their only region.
const REGION: &str = "us-east-1";

/// What is recorded, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordConfig {
    /// Every room is recorded from its beginning.
    pub is_enabled: bool,
    /// Where recordings are.
    pub directory: PathBuf,
    /// Also one WebM for each publisher.
    pub is_muxed: bool,
    /// Where they are uploaded to; `None`: they stay.
    pub upload: Option<S3Config>,
}

/// A bucket of an S3-compatible storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Config {
    /// URL of the service.
    pub endpoint: String,
    /// Region, as signatures name it.
    pub region: String,
    /// Bucket.
    pub bucket: String,
    /// Access key.
    pub access_key: String,
    /// Secret key.
    pub secret_key: Secret,
    /// The bucket is named in the path, not in the host.
    pub is_path_style: bool,
    /// Put before each name; empty or with a slash at its end.
    pub prefix: String,
    /// What is uploaded is deleted here.
    pub deletes: bool,
}

impl Default for RecordConfig {
    fn default() -> Self {
        Self { is_enabled: false, directory: PathBuf::from(DIRECTORY), is_muxed: false, upload: None }
    }
}

#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub(super) struct Flags {
    /// Record every room: true or false; single rooms by POST /api/admin/rooms/{room}/record [env: RECORD_ENABLED] [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    record: Option<String>,
    /// Directory of recordings [env: RECORD_DIR] [default: records]
    #[arg(long, value_name = "PATH")]
    record_dir: Option<String>,
    /// Also make one WebM of all that a publisher sends: true or false [env: RECORD_WEBM] [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    record_webm: Option<String>,
    /// Upload recordings that are over to S3-compatible storage: true or false [env: UPLOAD_RECORDINGS] [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    upload_recordings: Option<String>,
    /// Delete here what was uploaded: true or false [env: DELETE_RECORDING_AFTER_UPLOAD] [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    delete_uploaded: Option<String>,
    /// URL or host:port of the storage [env: S3_ENDPOINT] [default: that of AWS in the region]
    #[arg(long, value_name = "URL")]
    s3_endpoint: Option<String>,
    /// Region of the bucket [env: S3_REGION] [default: us-east-1]
    #[arg(long, value_name = "NAME")]
    s3_region: Option<String>,
    /// Bucket [env: S3_BUCKET]
    #[arg(long, value_name = "NAME")]
    s3_bucket: Option<String>,
    /// Access key of the bucket [env: S3_ACCESS_KEY]
    #[arg(long, value_name = "KEY")]
    s3_access_key: Option<String>,
    /// Secret key of the bucket; better by the environment, as others see flags [env: S3_SECRET_KEY]
    #[arg(long, value_name = "KEY")]
    s3_secret_key: Option<String>,
    /// HTTPS to an endpoint without a scheme: true or false [env: S3_USE_SSL] [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    s3_use_ssl: Option<String>,
    /// The bucket is named in the path: true or false [env: S3_PATH_STYLE] [default: true with an endpoint]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    s3_path_style: Option<String>,
    /// Put before the names of uploads [env: S3_PREFIX]
    #[arg(long, value_name = "PREFIX")]
    s3_prefix: Option<String>,
}

impl Group for RecordConfig {
    type Flags = Flags;

    fn read(flags: &Flags, from: &mut Sources<'_>) -> Result<Self, ConfigError> {
        read(flags, from)
    }
}

fn read(flags: &Flags, from: &Sources<'_>) -> Result<RecordConfig, ConfigError> {
    let is_set = |flag: &Option<String>, name: &'static str, variable: &'static str, default: bool| match from
        .first(flag, name, &[variable])
    {
        Some(text) => text.read(parse::boolean),
        None => Ok(default),
    };
    let mut config = RecordConfig {
        is_enabled: is_set(&flags.record, "--record", "RECORD_ENABLED", false)?,
        is_muxed: is_set(&flags.record_webm, "--record-webm", "RECORD_WEBM", false)?,
        ..RecordConfig::default()
    };
    if let Some(text) = from.first(&flags.record_dir, "--record-dir", &["RECORD_DIR"]) {
        config.directory = PathBuf::from(text.value);
    }
    if !is_set(&flags.upload_recordings, "--upload-recordings", "UPLOAD_RECORDINGS", false)? {
        return Ok(config);
    }
    let text = |flag: &Option<String>, name: &'static str, variable: &'static str| {
        from.first(flag, name, &[variable]).map(|text| text.value.trim().to_owned())
    };
    let needed = |value: Option<String>, variable: &str| {
        value.ok_or_else(|| ConfigError(format!("UPLOAD_RECORDINGS is set, but then {variable} must be, too.")))
    };
    let region = text(&flags.s3_region, "--s3-region", "S3_REGION").unwrap_or_else(|| REGION.to_owned());
    let endpoint = text(&flags.s3_endpoint, "--s3-endpoint", "S3_ENDPOINT");
    let is_path_style = is_set(&flags.s3_path_style, "--s3-path-style", "S3_PATH_STYLE", endpoint.is_some())?;
    let scheme = if is_set(&flags.s3_use_ssl, "--s3-use-ssl", "S3_USE_SSL", true)? { "https" } else { "http" };
    let endpoint = match endpoint {
        Some(url) if url.contains("://") => url,
        Some(host) => format!("{scheme}://{host}"),
        None => format!("https://s3.{region}.amazonaws.com"),
    };
    let prefix = text(&flags.s3_prefix, "--s3-prefix", "S3_PREFIX").unwrap_or_default();
    let prefix = prefix.trim_matches('/');
    config.upload = Some(S3Config {
        endpoint,
        region,
        bucket: needed(text(&flags.s3_bucket, "--s3-bucket", "S3_BUCKET"), "S3_BUCKET")?,
        access_key: needed(text(&flags.s3_access_key, "--s3-access-key", "S3_ACCESS_KEY"), "S3_ACCESS_KEY")?,
        secret_key: needed(text(&flags.s3_secret_key, "--s3-secret-key", "S3_SECRET_KEY"), "S3_SECRET_KEY")?.into(),
        is_path_style,
        prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
        deletes: is_set(&flags.delete_uploaded, "--delete-uploaded", "DELETE_RECORDING_AFTER_UPLOAD", false)?,
    });
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_env(env: &[(&str, &str)]) -> Result<RecordConfig, ConfigError> {
        let lookup = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        read(&Flags::default(), &Sources::new(&lookup))
    }

    #[test]
    fn nothing_is_recorded_unless_asked_for() {
        assert_eq!(read_env(&[]), Ok(RecordConfig::default()));
        let config = read_env(&[("RECORD_ENABLED", "1"), ("RECORD_DIR", "/srv/r"), ("RECORD_WEBM", "yes")]).unwrap();
        assert_eq!((config.is_enabled, config.is_muxed), (true, true));
        assert_eq!(config.directory, PathBuf::from("/srv/r"));
        assert!(read_env(&[("RECORD_ENABLED", "perhaps")]).is_err());
    }

    #[test]
    fn an_upload_needs_a_bucket_and_keys() {
        let mut env = vec![("UPLOAD_RECORDINGS", "1"), ("S3_ACCESS_KEY", "a"), ("S3_SECRET_KEY", "b")];
        let refusal = read_env(&env).unwrap_err().to_string();
        assert_eq!(refusal, "UPLOAD_RECORDINGS is set, but then S3_BUCKET must be, too.");
        env.push(("S3_BUCKET", "calls"));
        let s3 = read_env(&env).unwrap().upload.unwrap();
        assert_eq!((s3.endpoint.as_str(), s3.is_path_style), ("https://s3.us-east-1.amazonaws.com", false));
        env.extend([("S3_ENDPOINT", "minio:9000"), ("S3_USE_SSL", "0"), ("S3_PREFIX", "/a/b/")]);
        let s3 = read_env(&env).unwrap().upload.unwrap();
        assert_eq!((s3.endpoint.as_str(), s3.is_path_style, s3.prefix.as_str()), ("http://minio:9000", true, "a/b/"));
        assert!(!format!("{s3:?}").contains("\"b\""), "the secret is not shown");
    }
}
