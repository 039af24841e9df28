//! The house rules a compiler does not know, held against the source: who may import whom, how long things may get,
//! where `unsafe` and clocks may stand, and words that mark unfinished work.
//!
//! Owns: the import table and the lists of exceptions. Each exception has a reason, and one that is no longer needed
//! fails, too, so the lists only shrink.

use std::fmt;

mod source;

use source::{Source, body, tree};

/// Who may import whom, from the bottom up: a row may only name rows above it, so there are no cycles. Every module may
/// import itself. Code that only tests compile may also read `runtime::clock`, which is where they take their first
/// moment from.
const IMPORTS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("config", &["base"]),
    ("wire", &["base"]),
    ("net", &["base"]),
    ("crypto", &["base", "wire"]),
    ("proto", &["base", "wire", "crypto"]),
    // Never session: what a subscriber gets is decided without knowing how it is sent.
    ("forward", &["base", "wire"]),
    ("session", &["base", "wire", "crypto", "proto", "forward"]),
    ("worker", &["base", "wire", "crypto", "proto", "forward", "session"]),
    ("runtime", &["base", "net", "worker"]),
    // Packets come by the tap alone, and are never asked whose session they are of.
    ("record", &["base", "config", "wire", "worker::command", "worker::tap", "runtime::clock"]),
    ("telemetry", &["base", "config"]),
    // The packet path is reached through commands only. `telemetry`: a room fills in the snapshot that metrics show.
    // `proto::ice`, `session::feedback`: credentials and CNAME are made where the session is opened. `proto::link`: what
    // an administrator may do to a peer's network.
    (
        "room",
        &[
            "base",
            "wire::sdp",
            "proto::ice",
            "proto::link",
            "forward",
            "session::negotiate",
            "session::feedback",
            "session::stats",
            "session::streams",
            "worker::command",
            "telemetry",
        ],
    ),
    // `record::recorder`: what is recorded now.
    (
        "signaling",
        &[
            "base",
            "config",
            "wire::sdp",
            "session::negotiate",
            "runtime::clock",
            "telemetry",
            "room",
            "record::recorder",
        ],
    ),
    ("self_check", &["base", "wire", "proto", "worker::command", "room"]),
    (
        "server",
        &[
            "base",
            "config",
            "net",
            "crypto",
            "proto",
            "worker",
            "runtime",
            "telemetry",
            "record",
            "room",
            "signaling",
            "self_check",
        ],
    ),
    ("sim", &["base", "wire", "crypto", "proto", "forward", "session", "worker", "runtime::clock", "room"]),
    ("lib", &[]),
    ("main", &["config", "server", "telemetry"]),
];

/// Single files that import more than their module may: file, path, why.
const IMPORT_EXCEPTIONS: &[(&str, &str, &str)] = &[
    (
        "src/room/control.rs",
        "runtime::clock",
        "the one door to the rooms: it tells them the time, so that they need no clock",
    ),
    ("src/room/control.rs", "crypto", "in its tests: a certificate to open rooms with"),
    ("src/room/hub_tests.rs", "crypto", "a certificate to open rooms with, and a suite that a worker reports"),
];

/// Lines of a file that are not tests.
const FILE_LINES_MAX: usize = 500;
/// Files that may be longer, and why.
const LONG_FILES: &[(&str, &str)] = &[];

/// Lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Functions that may be longer (`file: name`), and why.
const LONG_FUNCTIONS: &[(&str, &str)] = &[];

/// Words that mark unfinished work, in code and comments.
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "TODO", "FIXME", "XXX", "#[ignore"];

#[test]
fn the_tree_is_tidy() {
    let files = tree();
    assert!(files.len() > 100, "the source was not found");
    let mut used = Vec::new();
    let faults: Vec<Fault> = files.iter().flat_map(|file| faults(file, &mut used)).collect();
    let lines: Vec<String> = faults.iter().map(Fault::to_string).chain(needless(&used)).collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

#[test]
fn the_import_table_has_no_cycle() {
    for (row, (module, allowed)) in IMPORTS.iter().enumerate() {
        for path in *allowed {
            let name = path.split("::").next().unwrap();
            let above = IMPORTS[..row].iter().any(|(module, _)| *module == name);
            assert!(above, "{module} names {name}, which does not stand above it");
        }
    }
}

/// One broken rule.
#[derive(Debug)]
struct Fault {
    path: String,
    line: usize,
    what: String,
}

impl Source {
    fn fault(&self, at: usize, what: impl Into<String>) -> Fault {
        Fault { path: self.path.clone(), line: self.line(at), what: what.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// All faults of a file. `used` collects the exceptions that were needed.
fn faults(file: &Source, used: &mut Vec<String>) -> Vec<Fault> {
    let mut faults = Vec::new();
    if !file.text.starts_with("//!") {
        faults.push(file.fault(0, "a file opens with //! and says what it is"));
    }
    for word in UNFINISHED {
        // This file names them.
        let found = file.text.match_indices(word).filter(|_| file.path != "tests/tidy/main.rs");
        faults.extend(found.map(|(at, _)| file.fault(at, format!("{word} marks unfinished work"))));
    }
    faults.extend(too_long(file, used));
    if file.path.starts_with("src/") {
        faults.extend(unsafe_places(file));
        faults.extend(clocks(file));
        faults.extend(imports(file, used));
    }
    faults
}

fn too_long(file: &Source, used: &mut Vec<String>) -> Vec<Fault> {
    let mut faults = Vec::new();
    let test_lines: usize = file.tests.iter().map(|part| file.text[part.clone()].lines().count()).sum();
    let lines = file.text.lines().count() - test_lines;
    if lines > FILE_LINES_MAX && !excused(LONG_FILES, &file.path, used) {
        faults.push(file.fault(0, format!("{lines} lines without tests; {FILE_LINES_MAX} are the limit")));
    }
    for at in file.words("fn") {
        let name: String = file.code[at + 2..].trim_start().chars().take_while(|c| *c != '(' && *c != '<').collect();
        let Some(body) = body(&file.code, at) else { continue };
        let lines = file.line(body.end) - file.line(at) + 1;
        if lines > FUNCTION_LINES_MAX && !excused(LONG_FUNCTIONS, &format!("{}: {name}", file.path), used) {
            let what = format!("{name} has {lines} lines; {FUNCTION_LINES_MAX} are the limit");
            faults.push(file.fault(at, what));
        }
    }
    faults
}

fn unsafe_places(file: &Source) -> Vec<Fault> {
    let mut faults = Vec::new();
    let lines: Vec<&str> = file.text.lines().collect();
    for at in file.words("unsafe") {
        if !file.path.starts_with("src/net/") {
            faults.push(file.fault(at, "unsafe stands in net only"));
        }
        let above = lines[..file.line(at) - 1].iter().rev().map(|line| line.trim());
        let mut comment = above.take_while(|line| line.starts_with("//") || line.starts_with("#["));
        if !comment.any(|line| line.contains("SAFETY:") || line.contains("# Safety")) {
            faults.push(file.fault(at, "unsafe without a SAFETY comment right above"));
        }
    }
    faults
}

fn clocks(file: &Source) -> Vec<Fault> {
    let calls = ["Instant::now", "SystemTime::now"].into_iter().flat_map(|call| file.words(call));
    let calls = calls.filter(|_| file.path != "src/runtime/clock.rs");
    calls.map(|at| file.fault(at, "only runtime/clock.rs reads the clock")).collect()
}

fn imports(file: &Source, used: &mut Vec<String>) -> Vec<Fault> {
    let module = file.module();
    let Some((name, allowed)) = IMPORTS.iter().find(|(name, _)| *name == module[0]) else {
        return vec![file.fault(0, format!("{} has no row in the import table of tests/tidy/main.rs", module[0]))];
    };
    let mut faults = Vec::new();
    for (at, path) in paths(file) {
        let is_within = |allowed: &str| path == allowed || path.starts_with(&format!("{allowed}::"));
        let is_clock = is_within("runtime::clock") && file.is_test(at);
        if is_within(name) || is_clock || allowed.iter().any(|allowed| is_within(allowed)) {
            continue;
        }
        let exception = IMPORT_EXCEPTIONS.iter().find(|(user, what, _)| *user == file.path && is_within(what));
        match exception {
            Some((user, what, _)) => used.push(format!("{user}: {what}")),
            None => faults.push(file.fault(at, format!("{name} may not import {path}"))),
        }
    }
    faults
}

/// Every path of the file that starts at the crate's root, without `crate::`; groups are taken apart.
fn paths(file: &Source) -> Vec<(usize, String)> {
    let mut paths = Vec::new();
    // The binary sees the library by its name.
    let root = if file.path == "src/main.rs" { "tramline" } else { "crate" };
    for at in file.words(root) {
        if let Some(rest) = file.code[at + root.len()..].strip_prefix("::") {
            read_use_tree(rest, "", &mut |path| paths.push((at, path)));
        }
    }
    let depth = file.module().len();
    for at in file.words("super") {
        if file.code[..at].ends_with("super::") {
            continue;
        }
        let mut rest = &file.code[at..];
        let mut climbed = 0;
        while let Some(next) = rest.strip_prefix("super::") {
            (rest, climbed) = (next, climbed + 1);
        }
        // Tests lie in a module of their own, one deeper; `tests.rs` is that module.
        let is_own_module = file.path.ends_with("/tests.rs") || file.path.contains("/tests/");
        let deeper = usize::from(file.is_test(at) && !is_own_module);
        if climbed >= depth + deeper {
            read_use_tree(rest, "", &mut |path| paths.push((at, path)));
        }
    }
    paths
}

/// `a::{b, c::d}` as `a::b` and `a::c::d`. Returns what follows.
fn read_use_tree<'a>(text: &'a str, prefix: &str, found: &mut dyn FnMut(String)) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start().trim_start_matches(',').trim_start();
            if rest.is_empty() {
                return rest;
            }
            if let Some(end) = rest.strip_prefix('}') {
                return end;
            }
            let before = rest.len();
            rest = read_use_tree(rest, prefix, found);
            if rest.len() == before {
                // Not a path (`*`, `as`): on to the next one.
                rest = rest.trim_start_matches(|c| c != ',' && c != '}');
            }
        }
    }
    let len = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(len);
    if name.is_empty() {
        return text;
    }
    let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}::{name}") };
    match rest.strip_prefix("::") {
        Some(rest) if !rest.starts_with(['<', '*']) => read_use_tree(rest, &path, found),
        _ => {
            found(path);
            rest
        }
    }
}

/// Whether the list excuses `what`; notes that it was asked to.
fn excused(list: &[(&str, &str)], what: &str, used: &mut Vec<String>) -> bool {
    let is_excused = list.iter().any(|(name, _)| *name == what);
    if is_excused {
        used.push(what.to_owned());
    }
    is_excused
}

/// Exceptions nobody needs any more.
fn needless(used: &[String]) -> Vec<String> {
    let lists = LONG_FILES.iter().chain(LONG_FUNCTIONS).map(|(name, _)| (*name).to_owned());
    let all = lists.chain(IMPORT_EXCEPTIONS.iter().map(|(user, what, _)| format!("{user}: {what}")));
    all.filter(|name| !used.contains(name))
        .map(|name| format!("{name}: the exception is not needed any more"))
        .collect()
}

/// What the rules say about a file of that name and text, in order.
fn verdicts(path: &str, text: &str) -> Vec<String> {
    let text = format!("//! Says what it is.\n{text}");
    faults(&Source::new(path, &text), &mut Vec::new()).iter().map(Fault::to_string).collect()
}

#[test]
fn imports_are_seen_however_they_are_written() {
    let select = |text: &str| verdicts("src/forward/select.rs", text);
    let refused = ["src/forward/select.rs:2: forward may not import session::peer::Session"];
    assert_eq!(select("use crate::session::peer::Session;"), refused);
    assert_eq!(select("fn f(s: &crate::session::peer::Session) {}"), refused);
    assert_eq!(select("use super::super::session::peer::Session;"), refused);
    assert_eq!(select("use crate::{base, wire::{rtp, sdp}, session::peer::Session};"), refused);
    assert_eq!(select("use crate::session::{\n    peer::Session,\n};"), refused);
    let twice = select("use crate::session::{track::*, streams::{self, Payload}};");
    assert_eq!(twice.len(), 3, "{twice:?}");
    assert_eq!(select("// crate::session::peer\nconst S: &str = \"crate::session\";"), [""; 0]);
    assert_eq!(select("use crate::forward::table::Route;\nuse super::plan::Plan;"), [""; 0]);
    assert_eq!(select("use crate::runtime::clock;").len(), 1);
    assert_eq!(select("#[cfg(test)]\nmod tests {\n    use crate::runtime::clock;\n}"), [""; 0]);
    assert_eq!(select("#[cfg(test)]\nmod tests {\n    use crate::session::peer;\n}").len(), 1);
    assert_eq!(verdicts("src/room/x.rs", "use crate::worker::{command::Command, core::WorkerCore};").len(), 1);
    assert_eq!(verdicts("src/elsewhere/x.rs", "").len(), 1);
}

#[test]
fn unfinished_work_is_seen() {
    for text in ["fn f() { todo!() }", "fn f() { unimplemented!() }", "// FIXME", "// XXX", "#[ignore]\nfn f() {}"] {
        assert_eq!(verdicts("src/wire/x.rs", text).len(), 1, "{text}");
    }
}

#[test]
fn unsafe_is_seen() {
    let text = "fn f() {\n    // SAFETY: it is.\n    unsafe { g() }\n}";
    assert_eq!(verdicts("src/net/x.rs", text), [""; 0]);
    assert_eq!(verdicts("src/wire/x.rs", text), ["src/wire/x.rs:4: unsafe stands in net only"]);
    let text = "fn f() {\n    unsafe { g() }\n}";
    assert_eq!(verdicts("src/net/x.rs", text), ["src/net/x.rs:3: unsafe without a SAFETY comment right above"]);
}

#[test]
fn clocks_are_seen() {
    let text = "fn f() { let now = std::time::Instant::now(); }";
    assert_eq!(verdicts("src/wire/x.rs", text), ["src/wire/x.rs:2: only runtime/clock.rs reads the clock"]);
    assert_eq!(verdicts("src/runtime/clock.rs", text), [""; 0]);
}

#[test]
fn a_file_says_what_it_is() {
    let file = Source::new("src/wire/x.rs", "use std::fmt;\n");
    assert_eq!(faults(&file, &mut Vec::new()).len(), 1);
}

#[test]
fn length_is_seen() {
    let lines = |count: usize| "    f();\n".repeat(count);
    let function = |count: usize| format!("fn long(a: [u8; 2]) {{\n{}}}\n", lines(count));
    assert_eq!(verdicts("src/wire/x.rs", &function(68)), [""; 0]);
    assert_eq!(verdicts("src/wire/x.rs", &function(69)), ["src/wire/x.rs:2: long has 71 lines; 70 are the limit"]);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function(60).repeat(20));
    assert_eq!(verdicts("src/wire/x.rs", &tests), [""; 0]);
    let file = function(60).repeat(9);
    assert_eq!(verdicts("src/wire/x.rs", &file), ["src/wire/x.rs:1: 559 lines without tests; 500 are the limit"]);
}
