//! Uploads to a small storage that is not always in the mood.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::{Path as UrlPath, Query, State};
use axum::http::{HeaderMap, Method};
use axum::response::IntoResponse;
use tokio::sync::mpsc;

use super::*;

/// What the storage has.
#[derive(Clone, Default)]
struct Storage(Arc<Inner>);

#[derive(Default)]
struct Inner {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    parts: Mutex<BTreeMap<u16, Vec<u8>>>,
    /// Requests that are still refused.
    refuses: AtomicU32,
    /// Parts that ever came.
    parts_taken: AtomicU32,
    /// After so many parts it is out of order.
    breaks_after: AtomicU32,
}

impl Storage {
    fn object(&self, key: &str) -> Option<Vec<u8>> {
        self.0.objects.lock().unwrap().get(key).cloned()
    }
}

async fn answer(
    State(storage): State<Storage>,
    UrlPath(key): UrlPath<String>,
    Query(query): Query<HashMap<String, String>>,
    method: Method,
    body: Bytes,
) -> axum::response::Response {
    let Storage(inner) = storage;
    assert!(query.contains_key("X-Amz-Signature"), "signed");
    if inner.refuses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
        let text = "<Error><Code>SlowDown</Code></Error>";
        return (axum::http::StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";
    match (method, query.get("partNumber"), query.get("uploadId"), query.contains_key("uploads")) {
        (Method::POST, _, _, true) => format!(
            "<InitiateMultipartUploadResult xmlns=\"{NAMESPACE}\"><Bucket>b</Bucket><Key>{key}</Key>\
             <UploadId>u-1</UploadId></InitiateMultipartUploadResult>"
        )
        .into_response(),
        (Method::PUT, Some(number), Some(_), _) => {
            if inner.parts_taken.load(Ordering::SeqCst) == inner.breaks_after.load(Ordering::SeqCst) {
                return (axum::http::StatusCode::INTERNAL_SERVER_ERROR, "").into_response();
            }
            inner.parts_taken.fetch_add(1, Ordering::SeqCst);
            inner.parts.lock().unwrap().insert(number.parse().unwrap(), body.to_vec());
            let headers = HeaderMap::from_iter([(axum::http::header::ETAG, format!("\"e{number}\"").parse().unwrap())]);
            headers.into_response()
        }
        (Method::POST, _, Some(_), _) => {
            let text = String::from_utf8(body.to_vec()).unwrap();
            let parts = std::mem::take(&mut *inner.parts.lock().unwrap());
            for number in parts.keys() {
                assert!(text.contains(&format!("e{number}")), "{text}");
            }
            inner.objects.lock().unwrap().insert(key, parts.into_values().flatten().collect());
            format!(
                "<CompleteMultipartUploadResult xmlns=\"{NAMESPACE}\"><ETag>e</ETag></CompleteMultipartUploadResult>"
            )
            .into_response()
        }
        (Method::PUT, ..) => {
            inner.objects.lock().unwrap().insert(key, body.to_vec());
            ().into_response()
        }
        _ => axum::http::StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

/// A storage, and how to reach it.
async fn storage() -> (Storage, S3Config) {
    let storage = Storage::default();
    storage.0.breaks_after.store(u32::MAX, Ordering::SeqCst);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new()
        .route("/calls/{*key}", axum::routing::any(answer))
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(storage.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let config = S3Config {
        endpoint,
        region: "us-east-1".into(),
        bucket: "calls".into(),
        access_key: "key".into(),
        secret_key: "secret".into(),
        is_path_style: true,
        prefix: "day/".into(),
        deletes: false,
    };
    (storage, config)
}

/// An empty directory.
fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("tramline-upload-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// Uploads what is noted, once through.
async fn upload_all(config: &S3Config, directory: &Path) {
    let (sender, names) = mpsc::unbounded_channel();
    drop(sender);
    Uploader::new(config.clone(), directory.to_owned()).unwrap().run(names).await;
}

#[tokio::test]
async fn a_file_arrives_though_the_storage_refuses_at_first() {
    let ((storage, config), directory) = (storage().await, directory("small"));
    storage.0.refuses.store(2, Ordering::SeqCst);
    std::fs::write(directory.join("r_t_1.ogg"), b"sound").unwrap();
    note(&directory, "r_t_1.ogg").unwrap();
    note(&directory, "gone.ogg").unwrap();
    upload_all(&config, &directory).await;
    assert_eq!(storage.object("day/r_t_1.ogg").as_deref(), Some(&b"sound"[..]));
    assert!(directory.join("r_t_1.ogg").exists() && pending(&directory).is_empty());
    let deletes = S3Config { deletes: true, ..config };
    note(&directory, "r_t_1.ogg").unwrap();
    upload_all(&deletes, &directory).await;
    assert!(!directory.join("r_t_1.ogg").exists());
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_large_file_goes_on_where_the_last_run_ended() {
    let ((storage, config), directory) = (storage().await, directory("large"));
    let bytes: Vec<u8> = (0..(2 * PART_BYTES + 1000) / 8).flat_map(|number: u64| number.to_be_bytes()).collect();
    std::fs::write(directory.join("r_t_1.ivf"), &bytes).unwrap();
    note(&directory, "r_t_1.ivf").unwrap();
    storage.0.breaks_after.store(1, Ordering::SeqCst);
    let uploader = Uploader::new(config.clone(), directory.clone()).unwrap();
    let error = uploader.upload("r_t_1.ivf").await.unwrap_err().to_string();
    assert!(error.contains("500") && !error.contains("Signature"), "{error}");
    storage.0.breaks_after.store(u32::MAX, Ordering::SeqCst);
    upload_all(&config, &directory).await;
    assert_eq!(storage.0.parts_taken.load(Ordering::SeqCst), 3, "no part twice");
    assert!(storage.object("day/r_t_1.ivf").as_deref() == Some(&bytes[..]));
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn settings_that_cannot_be_are_refused_in_words() {
    let config = |endpoint: &str| S3Config {
        endpoint: endpoint.into(),
        region: String::new(),
        bucket: "b".into(),
        access_key: String::new(),
        secret_key: "".into(),
        is_path_style: true,
        prefix: String::new(),
        deletes: false,
    };
    let refusal = |endpoint| Uploader::new(config(endpoint), PathBuf::new()).err().unwrap();
    assert!(refusal("http://").starts_with("S3_ENDPOINT"));
    assert!(refusal("mailto:x").starts_with("S3_ENDPOINT"));
}
