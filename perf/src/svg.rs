//! A picture as SVG text: shapes with a class each, readable on light and on dark pages.
//!
//! Owns: the style. Colours keep apart for eyes that see no red or green, and differ in lightness too.
//! Promises: whatever stands in a text is escaped; the page's colour scheme is obeyed also inside an `<img>`.

use std::fmt::Write as _;

/// Plain rules first and the dark ones over them: renderers without media queries show the light picture.
const STYLE: &str = "\
text{font:13px system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;fill:#24292f}\
.page{fill:#ffffff}.title{font-size:16px;font-weight:600}.head{font-weight:600}.quiet{fill:#57606a;font-size:12px}\
.warn{fill:#b42318;font-weight:600}.grid{stroke:#d8dee4;stroke-width:1}.axis{stroke:#8c959f;stroke-width:1}\
.main{fill:#1f6feb}.main-line{stroke:#1f6feb}.side{fill:#a5c8ff}.second{fill:#bc6c00}.second-line{stroke:#bc6c00}\
.third{fill:#6e40aa}.third-line{stroke:#6e40aa}.line{fill:none;stroke-width:2}\
.mark{stroke:#24292f;stroke-width:1.5}.dashed{stroke-dasharray:5 4}\
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.page{fill:#0d1117}.quiet{fill:#9da7b1}.warn{fill:#ff8f85}\
.grid{stroke:#2d333b}.axis{stroke:#768390}.main{fill:#58a6ff}.main-line{stroke:#58a6ff}.side{fill:#244a7c}\
.second{fill:#e8a33d}.second-line{stroke:#e8a33d}.third{fill:#bc9cff}.third-line{stroke:#bc9cff}.mark{stroke:#e6edf3}}";

/// Where a text stands relative to its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// It begins there.
    Start,
    /// Its middle is there.
    Middle,
    /// It ends there.
    End,
}

/// A picture being drawn. Coordinates are pixels from the upper left corner.
#[derive(Debug)]
pub struct Svg {
    width: f64,
    height: f64,
    title: String,
    body: String,
}

impl Svg {
    /// An empty page.
    pub fn new(width: f64, height: f64, title: &str) -> Self {
        let mut svg = Self { width, height, title: escaped(title), body: String::new() };
        svg.rect("page", [0.0, 0.0], [width, height]);
        svg
    }

    /// A filled rectangle by its upper left corner and size.
    pub fn rect(&mut self, class: &str, [x, y]: [f64; 2], [width, height]: [f64; 2]) {
        let _ = writeln!(
            self.body,
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"/>"#
        );
    }

    /// A line.
    pub fn line(&mut self, class: &str, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2]) {
        let _ = writeln!(self.body, r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#);
    }

    /// A line through all points.
    pub fn polyline(&mut self, class: &str, points: &[[f64; 2]]) {
        let points: Vec<String> = points.iter().map(|[x, y]| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(self.body, r#"<polyline class="{class}" points="{}"/>"#, points.join(" "));
    }

    /// A dot.
    pub fn dot(&mut self, class: &str, [x, y]: [f64; 2]) {
        let _ = writeln!(self.body, r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="3.5"/>"#);
    }

    /// A text on a baseline.
    pub fn text(&mut self, class: &str, anchor: Anchor, [x, y]: [f64; 2], text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escaped(text);
        let _ =
            writeln!(self.body, r#"<text class="{class}" text-anchor="{anchor}" x="{x:.1}" y="{y:.1}">{text}</text>"#);
    }

    /// The whole file.
    pub fn finish(self) -> String {
        let Self { width, height, title, body } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\">\n<title>{title}</title>\n<style>{STYLE}</style>\n{body}</svg>\n"
        )
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_cannot_become_markup() {
        let mut svg = Svg::new(10.0, 10.0, "a<b");
        svg.text("quiet", Anchor::Start, [1.0, 2.0], "\"x\" & </text>\u{0}");
        let file = svg.finish();
        assert!(file.contains("<title>a&lt;b</title>"));
        assert!(file.contains("&quot;x&quot; &amp; &lt;/text&gt; </text>"));
    }
}
