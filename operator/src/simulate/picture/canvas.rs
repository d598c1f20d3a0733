//! Lines, marks and words in SVG.

use std::fmt::Write;

/// Colours follow the reader's. The background is the picture's own, for not every page follows them. Each policy has a mark of its
/// own beside its colour, for not everybody can tell all colours.
const STYLE: &str = "
    svg { --back: #ffffff; --text: #1f2328; --faint: #59636e; --line: #d1d9e0;
      --ours: #0969da; --p0: #bc4c00; --p1: #1a7f37; --p2: #8250df; --p3: #bf3989; --p4: #9a6700; --known: #1f2328; }
    @media (prefers-color-scheme: dark) {
      svg { --back: #0d1117; --text: #f0f6fc; --faint: #9198a1; --line: #3d444d;
        --ours: #4493f8; --p0: #f0883e; --p1: #3fb950; --p2: #ab7df8; --p3: #f778ba; --p4: #d29922; --known: #f0f6fc; }
    }
    text { font: 14px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: var(--text); }
    .title { font-weight: 600; }
    .faint { fill: var(--faint); font-size: 12px; }
    .grid { stroke: var(--line); fill: none; }
    .goal { stroke: var(--faint); stroke-dasharray: 4 3; fill: none; }
    .curve { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
    .area { fill: var(--faint); opacity: 0.45; stroke: none; }
    .tried { opacity: 0.35; }
    .mark { stroke: var(--back); stroke-width: 1; }
";

/// What is drawn.
#[derive(Default)]
pub(super) struct Canvas(String);

/// The shape of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Circle,
    Square,
    Diamond,
    Up,
    Down,
    Cross,
    Star,
}

/// Where words stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Canvas {
    /// Words with their base line at a point.
    pub(super) fn text(&mut self, (x, y): (f64, f64), class: &str, anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escaped(text);
        self.put(&format!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    /// A line through points, interrupted where there is none. Its colour is a variable of the style, or the class's.
    pub(super) fn curve(&mut self, class: &str, colour: Option<&str>, points: &[Option<(f64, f64)>]) {
        let (mut path, mut is_down) = (String::new(), false);
        for point in points {
            let Some((x, y)) = point else {
                is_down = false;
                continue;
            };
            write!(path, "{}{x:.1} {y:.1}", if is_down { 'L' } else { 'M' }).expect("a String takes all");
            is_down = true;
        }
        let colour = colour.map(|colour| format!(" style=\"stroke: var(--{colour})\"")).unwrap_or_default();
        self.put(&format!("<path d=\"{path}\" class=\"{class}\"{colour}/>"));
    }

    /// An area, by its outline.
    pub(super) fn area(&mut self, class: &str, points: &[(f64, f64)]) {
        let mut path = String::new();
        for (index, (x, y)) in points.iter().enumerate() {
            write!(path, "{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' }).expect("a String takes all");
        }
        self.put(&format!("<path d=\"{path}Z\" class=\"{class}\"/>"));
    }

    /// A mark of so many pixels from its middle, with words for who points at it.
    pub(super) fn mark(
        &mut self,
        (x, y): (f64, f64),
        mark: Mark,
        size: f64,
        class: &str,
        colour: &str,
        hint: &str,
    ) {
        let style = format!("class=\"{class}\" style=\"fill: var(--{colour})\"");
        let shape = match mark.corners() {
            None => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{size:.1}\" {style}"),
            Some(corners) => {
                let corners: Vec<String> = corners
                    .iter()
                    .map(|(dx, dy)| format!("{:.1},{:.1}", x + dx * size, y + dy * size))
                    .collect();
                format!("<polygon points=\"{}\" {style}", corners.join(" "))
            }
        };
        match hint {
            "" => self.put(&format!("{shape}/>")),
            _ => self.put(&format!(
                "{shape}><title>{}</title></{}>",
                escaped(hint),
                if mark == Mark::Circle { "circle" } else { "polygon" }
            )),
        }
    }

    /// The picture.
    pub(super) fn finish(self, title: &str, width: f64, height: f64) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n  \
             <title>{}</title>\n  <style>{STYLE}  </style>\n  \
             <rect width=\"{width}\" height=\"{height}\" rx=\"6\" style=\"fill: var(--back)\"/>\n{}</svg>\n",
            escaped(title),
            self.0
        )
    }

    fn put(&mut self, element: &str) {
        self.0.push_str("  ");
        self.0.push_str(element);
        self.0.push('\n');
    }
}

impl Mark {
    /// Its outline around zero; a circle has none.
    fn corners(self) -> Option<Vec<(f64, f64)>> {
        let around = |corners: usize, radius: fn(usize) -> f64, turn: f64| {
            let angle = std::f64::consts::TAU / corners as f64;
            let corner = |index: usize| {
                let angle = (index as f64 + turn) * angle - std::f64::consts::FRAC_PI_2;
                (radius(index) * angle.cos(), radius(index) * angle.sin())
            };
            Some((0..corners).map(corner).collect())
        };
        match self {
            Self::Circle => None,
            Self::Square => around(4, |_| 1.25, 0.5),
            Self::Diamond => around(4, |_| 1.3, 0.),
            Self::Up => around(3, |_| 1.35, 0.),
            Self::Down => around(3, |_| 1.35, 0.5),
            Self::Cross => {
                let arm = 0.4;
                let quarter = [(arm, -arm), (1.3, -arm), (1.3, arm), (arm, arm)];
                let turned = |turn: usize| {
                    quarter.map(|(x, y)| match turn {
                        0 => (x, y),
                        1 => (-y, x),
                        2 => (-x, -y),
                        _ => (y, -x),
                    })
                };
                Some((0..4).flat_map(turned).collect())
            }
            Self::Star => around(10, |index| if index.is_multiple_of(2) { 1.6 } else { 0.7 }, 0.),
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_cannot_draw() {
        let mut canvas = Canvas::default();
        canvas.text((0., 0.), "faint", Anchor::Start, "</text><script>&");
        let svg = canvas.finish("\"<", 10., 10.);
        assert!(
            svg.contains(">&lt;/text&gt;&lt;script&gt;&amp;<") && svg.contains("<title>&quot;&lt;</title>")
        );
    }

    #[test]
    fn a_curve_is_interrupted_where_nothing_is_known() {
        let mut canvas = Canvas::default();
        canvas.curve("curve", Some("ours"), &[Some((0., 1.)), Some((1., 2.)), None, Some((3., 4.))]);
        assert!(canvas.0.contains("d=\"M0.0 1.0L1.0 2.0M3.0 4.0\""), "{}", canvas.0);
    }
}
