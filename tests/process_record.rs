//! Recordings of the built program: what a publisher sends is what plays, whatever happens on the way.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod process_support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use process_support::clip::{self, Clip, Publisher};
use process_support::server::Server;
use process_support::wait_for;
use serde_json::Value;
use str0m::format::Codec;

/// What a duration may be wrong by.
const TOLERANCE_S: f64 = 0.05;

/// A directory of a test's own, empty.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tramline-record-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn records(&self) -> PathBuf {
        self.0.join("records")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn server(directory: &Directory, more: &[(&str, &str)]) -> Server {
    let records = directory.records();
    let settings = [("RECORD_ENABLED", "1"), ("RECORD_DIR", records.to_str().unwrap())];
    Server::with(&[&settings, more].concat())
}

/// The sidecar of a recording, once its recording is over.
fn sidecar(records: &Path, ending: &str) -> Value {
    wait_for("the end of a recording", || {
        let mut path = std::fs::read_dir(records).ok()?.flatten().map(|entry| entry.path());
        let path = path.find(|path| path.extension().is_some_and(|it| it == ending))?;
        let text: Value = serde_json::from_slice(&std::fs::read(path.with_extension("json")).ok()?).ok()?;
        (text["state"] != "recording").then_some(text)
    })
}

/// Publishes a clip and ends.
fn publish(server: &Server, clip: Clip, sound_lag: Duration) {
    let publisher = Publisher::start(server, "r", clip, sound_lag);
    publisher.done();
    assert_eq!(server.request("DELETE", &publisher.session, "", "").status, 200);
}

fn near(what: &str, found: f64, wanted: f64) {
    assert!((found - wanted).abs() <= TOLERANCE_S, "{what}: {found} s instead of {wanted} s");
}

#[test]
fn each_codec_is_recorded_as_it_was_sent() {
    for codec in [Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264] {
        let directory = Directory::new(&format!("{codec:?}"));
        let server = server(&directory, &[]);
        let clip = clip::make(&directory.0, codec, 2);
        let pictures = clip.pictures.len();
        publish(&server, clip, Duration::ZERO);
        let records = directory.records();
        let ending = if codec == Codec::H264 { "h264" } else { "ivf" };
        let facts = sidecar(&records, ending);
        assert_eq!((&facts["state"], &facts["frames"]), (&"ended".into(), &pictures.into()), "{facts}");
        assert_eq!(facts["sizes"][0]["width"], 320);
        let picture = clip::only(&records, ending);
        clip::play(&picture);
        let found = clip::probe(&picture);
        assert_eq!(found["streams"][0]["nb_read_packets"], pictures.to_string(), "{found}");
        if codec == Codec::H264 {
            // Its file has no times; the sidecar has.
            assert_eq!(facts["frameTimes"].as_array().unwrap().len(), pictures);
            near("pictures", facts["seconds"].as_f64().unwrap(), 2.0);
        } else {
            near("pictures", clip::duration(&picture), 2.0);
        }
        sidecar(&records, "ogg");
        let sound = clip::only(&records, "ogg");
        clip::play(&sound);
        near("sound", clip::duration(&sound), 2.0);
    }
}

#[test]
fn lost_packets_leave_the_length_as_it_was() {
    let directory = Directory::new("loss");
    let server = server(&directory, &[("TRAMLINE_IMPAIRMENTS", "1")]);
    let clip = clip::make(&directory.0, Codec::Vp8, 6);
    let publisher = Publisher::start(&server, "r", clip, Duration::ZERO);
    // Of what is lost before anything came nobody knows.
    publisher.sent(500);
    let peers = server.json("/debug/peers");
    let path = format!("/api/admin/impair/r/{}", peers[0]["peerId"].as_str().unwrap());
    let bad = server.request("PUT", &path, "Content-Type: application/json\r\n", r#"{"up":{"loss":0.05}}"#);
    assert_eq!(bad.status, 200, "{}", bad.body);
    publisher.done();
    assert_eq!(server.request("DELETE", &publisher.session, "", "").status, 200);
    // One in twenty of some four hundred.
    assert!(server.discards("impaired") > 5, "it was a bad network");
    for ending in ["ivf", "ogg"] {
        sidecar(&directory.records(), ending);
        let path = clip::only(&directory.records(), ending);
        clip::play(&path);
        near(ending, clip::duration(&path), 6.0);
    }
}

#[test]
fn a_webm_has_flash_and_beep_together() {
    let directory = Directory::new("webm");
    let mut server = server(&directory, &[("RECORD_WEBM", "1")]);
    let clip = clip::make(&directory.0, Codec::Vp8, 7);
    // By their arrivals they would be far apart; the publisher's reports tell.
    publish(&server, clip, Duration::from_millis(150));
    server.logged("a WebM is made");
    let webm = clip::only(&directory.records(), "webm");
    clip::play(&webm);
    near("both", clip::duration(&webm), 7.0);
    let file = webm.display();
    let flashes = clip::onsets(&format!("movie={file},signalstats"), "lavfi.signalstats.YAVG", 128.0);
    let level = "lavfi.astats.Overall.RMS_level";
    let measure = format!("amovie={file},asetnsamples=240,astats=metadata=1:reset=1");
    let beeps = clip::onsets(&measure, level, -30.0);
    assert_eq!((flashes.len(), beeps.len()), (7, 7), "{flashes:?} {beeps:?}");
    for (flash, beep) in flashes.iter().zip(&beeps) {
        let offset_ms = (flash - beep).abs() * 1000.0;
        println!("flash {flash} s, beep {beep} s: {offset_ms:.1} ms apart");
        assert!(offset_ms < 40.0, "{flash} s and {beep} s");
    }
}

#[test]
fn a_killed_server_leaves_all_but_the_last_moments() {
    // What it is about is the recorder; the machine may be busy otherwise at one time or another.
    let missing_ms = (0..3).map(|_| killed()).inspect(|missing| println!("{missing} ms are missing"));
    assert!({ missing_ms }.any(|missing| missing <= 250));
}

/// Milliseconds that are missing after a kill; after that the next server makes the files whole.
fn killed() -> u64 {
    let directory = Directory::new("kill");
    let clip = clip::make(&directory.0, Codec::Vp8, 5);
    let mut first = server(&directory, &[]);
    let publisher = Publisher::start(&first, "r", clip, Duration::ZERO);
    publisher.sent(3000);
    let sent_ms = publisher.sent_ms.load(std::sync::atomic::Ordering::SeqCst);
    first.signal("KILL");
    first.ended();
    let records = directory.records();
    let (picture, sound) = (clip::only(&records, "ivf"), clip::only(&records, "ogg"));
    // As they are.
    for path in [&picture, &sound] {
        assert!(clip::probe(path)["streams"][0]["nb_read_packets"].as_str().unwrap().parse::<u64>().unwrap() > 60);
    }
    let mut second = server(&directory, &[]);
    second.logged("is whole up to its end");
    for ending in ["ivf", "ogg"] {
        assert_eq!(sidecar(&records, ending)["state"], "recovered");
    }
    clip::play(&picture);
    clip::play(&sound);
    let written_ms = clip::duration(&picture).min(clip::duration(&sound)) * 1000.0;
    sent_ms.saturating_sub(written_ms as u64)
}

#[test]
fn a_full_disk_ends_the_recording_and_not_the_call() {
    let directory = Directory::new("full");
    // A file in the place of the directory.
    std::fs::write(directory.records(), b"").unwrap();
    let mut server = server(&directory, &[]);
    let clip = clip::make(&directory.0, Codec::Vp8, 3);
    let publisher = Publisher::start(&server, "r", clip, Duration::ZERO);
    server.logged("a recording has ended: it cannot be written");
    let state = wait_for("the state", || {
        let state = server.json("/api/admin/rooms/r/record");
        state["tracks"][0]["error"].is_string().then_some(state)
    });
    assert_eq!(state["recording"], true);
    publisher.done();
    assert_eq!(server.metric("gryt_sfu_peers_active"), 1);
}

#[test]
fn a_room_is_recorded_when_asked_and_listed() {
    let directory = Directory::new("rest");
    let server = server(&directory, &[("RECORD_ENABLED", "0"), ("ADMIN_TOKEN", "t")]);
    let clip = clip::make(&directory.0, Codec::Vp8, 4);
    let publisher = Publisher::start(&server, "r", clip, Duration::ZERO);
    let ask = |method: &str, path: &str| server.request(method, path, "Authorization: Bearer t\r\n", "");
    assert_eq!(server.request("POST", "/api/admin/rooms/r/record", "", "").status, 401);
    assert_eq!(ask("POST", "/api/admin/rooms/elsewhere/record").status, 404);
    assert_eq!(ask("POST", "/api/admin/rooms/r/record?webm=perhaps").status, 400);
    publisher.sent(1000);
    assert_eq!(server.json("/api/records"), Value::Array(Vec::new()));
    let begun = ask("POST", "/api/admin/rooms/r/record");
    assert!(begun.status == 200 && begun.body.contains("\"recording\":true"), "{}", begun.body);
    publisher.sent(3000);
    let ended = ask("DELETE", "/api/admin/rooms/r/record");
    assert!(ended.status == 200 && ended.body.contains("\"recording\":false"), "{}", ended.body);
    let facts = sidecar(&directory.records(), "ivf");
    assert_eq!(facts["state"], "ended");
    clip::play(&clip::only(&directory.records(), "ivf"));

    let list = server.json("/api/records");
    assert_eq!(list.as_array().unwrap().len(), 2, "{list}");
    let entry = list.as_array().unwrap().iter().find(|it| it["name"].as_str().unwrap().ends_with("ivf")).unwrap();
    let (name, url) = (entry["name"].as_str().unwrap(), entry["url"].as_str().unwrap());
    assert!(name.starts_with("r_t-") && url == format!("/records/{name}"), "{entry}");
    assert!(entry["modTime"].as_str().unwrap().ends_with('Z') && entry["size"].as_u64().unwrap() > 1000);
    let part = server.request("GET", url, "Range: bytes=0-3\r\n", "");
    assert_eq!((part.status, part.body.as_str()), (206, "DKIF"));
    for path in ["/records/", "/records/..%2fv.ivf", "/records/../v.ivf", "/records/x.ivf", "/records/%2e%2e/v.ivf"] {
        assert_eq!(server.get(path).0, 404, "{path}");
    }
    assert_eq!(server.get("/web/records.html").0, 200);
}
