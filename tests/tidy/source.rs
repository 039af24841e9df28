//! Rust source as text: what is code, what is a comment, what only tests compile, where an item ends.
//!
//! Forbids: rules. This is no parser: it knows as much of the grammar as rules about names and lengths need.

use std::ops::Range;
use std::path::{Path, PathBuf};

/// A source file, ready to be looked through.
pub struct Source {
    /// From the root of the repository.
    pub path: String,
    pub text: String,
    /// The text with comments and literals blanked out, byte for byte as long.
    pub code: String,
    /// What only tests compile, as bytes of the text.
    pub tests: Vec<Range<usize>>,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        let code = blank(text);
        let is_test = ["_tests.rs", "/tests.rs"].iter().any(|end| path.ends_with(end)) || path.contains("/tests/");
        let tests = if is_test { std::iter::once(0..text.len()).collect() } else { test_parts(&code) };
        Self { path: path.to_owned(), text: text.to_owned(), code, tests }
    }

    pub fn line(&self, at: usize) -> usize {
        self.code[..at].matches('\n').count() + 1
    }

    pub fn is_test(&self, at: usize) -> bool {
        self.tests.iter().any(|part| part.contains(&at))
    }

    /// Where `word` stands in the code as a whole word.
    pub fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        self.code.match_indices(word).map(|(at, _)| at).filter(move |at| {
            !self.code[..*at].ends_with(is_name) && !self.code[at + word.len()..].starts_with(is_name)
        })
    }

    /// The module names from the crate's root to this file.
    pub fn module(&self) -> Vec<&str> {
        let path = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let mut names: Vec<&str> = path.split('/').collect();
        names.pop_if(|last| *last == "mod");
        names
    }
}

/// Our Rust files.
pub fn tree() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<PathBuf> = ["src", "tests", "benches", "perf"].map(|name| root.join(name)).to_vec();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(root).expect("a path below the root").to_string_lossy().into_owned();
            if path.is_dir() && !name.ends_with("node_modules") && !name.ends_with("target") {
                folders.push(path);
            } else if name.ends_with(".rs") {
                files.push(Source::new(&name, &std::fs::read_to_string(&path).expect("a source file is text")));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// Blanks comments, strings and characters, so that only code is left. Line breaks stay.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        match end {
            Some(end) => {
                code[at..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
                at = end;
            }
            None => at += 1,
        }
    }
    // What is left beyond ASCII are names, which nobody has.
    code.iter_mut().filter(|byte| !byte.is_ascii()).for_each(|byte| *byte = b' ');
    String::from_utf8(code).expect("ASCII only")
}

/// Where the comment or literal that begins at `at` ends; `None`: none begins there.
fn literal_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let find = |what: &[u8], from: usize| {
        let found = rest[from..].windows(what.len()).position(|part| part == what);
        found.map_or(bytes.len(), |found| at + from + found + what.len())
    };
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let follows_name = at > 0 && is_name(&bytes[at - 1]);
    match rest {
        [b'/', b'/', ..] => Some(find(b"\n", 0) - 1),
        [b'/', b'*', ..] => Some(find(b"*/", 2)),
        [b'r', b'"' | b'#', ..] if !follows_name => {
            let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
            let is_raw = rest.get(1 + hashes) == Some(&b'"');
            is_raw.then(|| find(&[&b"\""[..], &b"#".repeat(hashes)].concat(), 2 + hashes))
        }
        [b'"', ..] => Some(at + quoted(rest, b'"')),
        // A lifetime has no closing quote.
        [b'\'', b'\\', ..] => Some(at + quoted(rest, b'\'')),
        [b'\'', first, ..] => {
            let len = if first.is_ascii() { 1 } else { first.leading_ones() as usize };
            (rest.get(1 + len) == Some(&b'\'')).then_some(at + len + 2)
        }
        _ => None,
    }
}

/// Length of a quoted text with its quotes.
fn quoted(bytes: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// Items under `#[cfg(test)]`.
fn test_parts(code: &str) -> Vec<Range<usize>> {
    let starts = code.match_indices("#[cfg(test)]").map(|(at, _)| at);
    let item = |at: usize| {
        let end = body(code, at + "#[cfg(test)]".len()).map(|body| body.end);
        let semicolon = || code[at..].find(';').map(|len| at + len);
        at..end.or_else(semicolon).unwrap_or(code.len())
    };
    starts.map(item).collect()
}

/// The braces of the item that begins at `at`; `None` for one that ends with a semicolon.
pub fn body(code: &str, at: usize) -> Option<Range<usize>> {
    let mut depth = 0;
    let mut start = None;
    for (index, byte) in code.bytes().enumerate().skip(at) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' => {
                if depth == 0 && start.is_none() {
                    start = Some(index);
                }
                depth += 1;
            }
            b'}' => {
                depth -= 1;
                if depth == 0
                    && let Some(start) = start
                {
                    return Some(start..index + 1);
                }
            }
            b';' if depth == 0 => return None,
            _ => {}
        }
        if depth < 0 {
            return None;
        }
    }
    None
}
