//! The results as a picture: SVG, readable on light and dark pages.

use std::fmt::Write;

use super::report::{Arrivals, Open, Report, Row};

const WIDTH: f64 = 900.;
const MARGIN: f64 = 24.;
/// Where scales begin and end. Names stand before them, and numbers after.
const LEFT: f64 = 310.;
const RIGHT: f64 = 690.;
/// From one line to the next.
const LINE: f64 = 24.;
/// Above the lines of a panel: its title.
const TITLE: f64 = 34.;
/// Below them: the numbers of its scale.
const FOOT: f64 = 46.;

/// Colours follow the reader's. The background is the picture's own, for not every page follows them.
const STYLE: &str = "
    svg { --back: #ffffff; --text: #1f2328; --faint: #59636e; --line: #d1d9e0; --one: #0969da; --two: #bc4c00; }
    @media (prefers-color-scheme: dark) {
      svg { --back: #0d1117; --text: #f0f6fc; --faint: #9198a1; --line: #3d444d; --one: #4493f8; --two: #f0883e; }
    }
    text { font: 14px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: var(--text); }
    .title { font-weight: 600; }
    .faint { fill: var(--faint); font-size: 12px; }
    .grid { stroke: var(--line); }
    .goal { stroke: var(--faint); stroke-dasharray: 4 3; }
    .one { fill: var(--one); stroke: var(--one); }
    .two { fill: var(--two); stroke: var(--two); }
    .thin { opacity: 0.45; }
";

/// What lines of one scale show.
struct Panel {
    title: String,
    scale: Scale,
    /// Numbers at the scale, as written.
    ticks: Vec<(f64, String)>,
    /// What should be reached.
    goals: Vec<(f64, &'static str)>,
    lines: Vec<Line>,
}

struct Scale {
    from: f64,
    to: f64,
    logarithmic: bool,
}

struct Line {
    name: String,
    marks: Marks,
    colour: &'static str,
    text: String,
}

enum Marks {
    /// The second one is thinner.
    Bars([f64; 2]),
    Dots(Vec<f64>),
}

/// The whole picture.
pub fn draw(report: &Report) -> String {
    let panels: Vec<_> = [ratios(report), times(report), latencies(report)].into();
    let panels: Vec<_> = panels.into_iter().filter(|panel| !panel.lines.is_empty()).collect();
    let height = MARGIN + panels.iter().map(Panel::height).sum::<f64>();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n  \
         <title>How fast kembed's inference pod is on a CPU</title>\n  <style>{STYLE}  </style>\n  \
         <rect width=\"{WIDTH}\" height=\"{height}\" rx=\"6\" style=\"fill: var(--back)\"/>\n"
    );
    let mut top = MARGIN;
    for panel in &panels {
        panel.draw(&mut svg, top);
        top += panel.height();
    }
    svg.push_str("</svg>\n");
    svg
}

fn ratios(report: &Report) -> Panel {
    let percent = |part: f64| format!("{:.0} %", 100. * part);
    let line = |row: &Row| Line {
        name: row.name.to_owned(),
        marks: Marks::Bars([row.ratio(), row.ratio_by_cpu()]),
        colour: "one",
        text: format!("{}, by CPU time {}", percent(row.ratio()), percent(row.ratio_by_cpu())),
    };
    let lines: Vec<_> = report.rows.iter().map(line).collect();
    Panel {
        title: format!("float32: the part of bare ONNX Runtime's speed on {} cores", report.threads),
        scale: Scale { from: 0., to: reach(1.2, 0.2, &lines), logarithmic: false },
        ticks: [0., 0.2, 0.4, 0.6, 0.8, 1.].map(|part| (part, percent(part))).into(),
        goals: vec![(0.9, "goal")],
        lines,
    }
}

fn times(report: &Report) -> Panel {
    let line = |row: &Row| Line {
        name: row.name.to_owned(),
        marks: Marks::Bars([row.times(), row.times_by_cpu()]),
        colour: "two",
        text: format!("{:.2}, by CPU time {:.2}", row.times(), row.times_by_cpu()),
    };
    let lines: Vec<_> = report.rows.iter().map(line).collect();
    Panel {
        title: "int8: times as fast as float32".to_owned(),
        scale: Scale { from: 0., to: reach(2.5, 0.5, &lines), logarithmic: false },
        ticks: [0., 0.5, 1., 1.5, 2., 2.5].map(|times| (times, format!("{times}"))).into(),
        goals: vec![(2., "goal")],
        lines,
    }
}

fn latencies(report: &Report) -> Panel {
    let lines: Vec<_> = report.rows.iter().flat_map(lines_of_latency).collect();
    let most = most(&lines);
    let to = [0.01, 0.1, 1., 10.].into_iter().find(|to| most <= *to).unwrap_or(100.);
    let ticks = [0.001, 0.01, 0.1, 1., 10., 100.].into_iter().filter(|tick| *tick <= to);
    let name = |tick: f64| if tick < 1. { format!("{:.0} ms", tick * 1e3) } else { format!("{tick:.0} s") };
    Panel {
        title: "latency: p50, p95 and, where requests come by chance, p99, in ms".to_owned(),
        scale: Scale { from: 1e-3, to, logarithmic: true },
        ticks: ticks.map(|tick| (tick, name(tick))).collect(),
        goals: Vec::new(),
        lines,
    }
}

/// Where a scale ends: at so much, or as many steps further on as its lines need.
fn reach(to: f64, step: f64, lines: &[Line]) -> f64 {
    to.max((most(lines) / step).ceil() * step)
}

fn most(lines: &[Line]) -> f64 {
    let values = lines.iter().flat_map(|line| line.marks.values()).filter(|value| value.is_finite());
    values.fold(0., |most, value| value.max(most))
}

fn lines_of_latency(row: &Row) -> Vec<Line> {
    let line = |name: String, colour, times: Vec<f64>| Line {
        name,
        colour,
        text: times.iter().map(|time| format!("{:.1}", time * 1e3)).collect::<Vec<_>>().join(" / "),
        marks: Marks::Dots(times),
    };
    let mut lines = Vec::new();
    if let Some(after_pause) = row.after_pause() {
        lines.push(line("bare run".into(), "one", vec![row.median(|r| r.bare.run)]));
        lines.push(line("bare run after a pause".into(), "one", vec![after_pause.idle]));
    }
    let float = vec![row.median(|r| r.float.p50), row.median(|r| r.float.p95)];
    let int8 = vec![row.median(|r| r.int8.p50), row.median(|r| r.int8.p95)];
    lines.push(line(row.name.to_owned(), "one", float));
    lines.push(line("the same in int8".into(), "two", int8));
    for (i, part) in row.parts().into_iter().enumerate() {
        let of = |open: fn(&Arrivals) -> &Open| {
            let median = |value: fn(&Open) -> f64| row.median(|r| value(open(&r.arrivals[i])));
            vec![median(|o| o.p50), median(|o| o.p95), median(|o| o.p99)]
        };
        let name = format!("by chance, at {:.0} % of that rate", 100. * part);
        lines.push(line(name, "one", of(|a| &a.float)));
        lines.push(line("the same in int8, of its rate".into(), "two", of(|a| &a.int8)));
    }
    lines
}

impl Panel {
    fn height(&self) -> f64 {
        TITLE + LINE * self.lines.len() as f64 + FOOT
    }

    fn draw(&self, svg: &mut String, top: f64) {
        let (first, end) = (top + TITLE, top + self.height() - FOOT);
        let text = |x: f64, y: f64, class: &str, anchor: &str, text: &str| {
            format!(
                "  <text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\" text-anchor=\"{anchor}\">{text}</text>\n"
            )
        };
        let upright =
            |x: f64, class: &str| format!("  <path d=\"M{x:.1} {first:.1}V{end:.1}\" class=\"{class}\"/>\n");
        svg.push_str(&text(MARGIN, top + 16., "title", "start", &self.title));
        for (value, name) in &self.ticks {
            let x = self.scale.place(*value);
            svg.push_str(&upright(x, "grid"));
            svg.push_str(&text(x, end + 16., "faint", "middle", name));
        }
        for (i, line) in self.lines.iter().enumerate() {
            let middle = first + LINE * (i as f64 + 0.5);
            svg.push_str(&text(LEFT - 12., middle + 5., "", "end", &line.name));
            self.scale.draw(svg, middle, line);
            svg.push_str(&text(RIGHT + 12., middle + 5., "", "start", &line.text));
        }
        for (value, name) in &self.goals {
            let x = self.scale.place(*value);
            svg.push_str(&upright(x, "goal"));
            svg.push_str(&text(x, first - 4., "faint", "middle", name));
        }
    }
}

impl Scale {
    /// Where a value is, from left to right. What is off the scale is at its end.
    fn place(&self, value: f64) -> f64 {
        let part = if self.logarithmic {
            (value / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        // What could not be measured is at the beginning.
        LEFT + (RIGHT - LEFT) * if part.is_nan() { 0. } else { part.clamp(0., 1.) }
    }

    fn draw(&self, svg: &mut String, middle: f64, line: &Line) {
        let colour = line.colour;
        match &line.marks {
            Marks::Bars([thick, thin]) => {
                for (value, y, height, class) in [(thick, -8., 10., ""), (thin, 4., 4., " thin")] {
                    let (y, width) = (middle + y, self.place(*value) - LEFT);
                    let _ = writeln!(
                        svg,
                        "  <rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height}\" style=\"stroke: none\" class=\"{colour}{class}\"/>"
                    );
                }
            }
            Marks::Dots(values) => {
                let places: Vec<_> = values.iter().map(|value| self.place(*value)).collect();
                if let (Some(first), Some(last)) = (places.first(), places.last()) {
                    let _ = writeln!(
                        svg,
                        "  <path d=\"M{first:.1} {middle:.1}H{last:.1}\" stroke-width=\"2\" class=\"{colour}\"/>"
                    );
                }
                for (x, radius) in places.iter().zip([5., 4., 3.]) {
                    let _ = writeln!(
                        svg,
                        "  <circle cx=\"{x:.1}\" cy=\"{middle:.1}\" r=\"{radius}\" class=\"{colour}\"/>"
                    );
                }
            }
        }
    }
}

impl Marks {
    fn values(&self) -> &[f64] {
        match self {
            Self::Bars(values) => values,
            Self::Dots(values) => values,
        }
    }
}
