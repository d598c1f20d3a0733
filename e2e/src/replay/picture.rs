//! A measured run and a simulated one over time, as SVG that is readable on light and dark pages.

use std::fmt::Write;

use kembed_scaling::simulate::Trace;

use super::run::Run;

const STYLE: &str = "
    svg { --back: #ffffff; --text: #1f2328; --faint: #59636e; --line: #d1d9e0; --real: #0969da; --made: #bc4c00; }
    @media (prefers-color-scheme: dark) {
      svg { --back: #0d1117; --text: #f0f6fc; --faint: #9198a1; --line: #3d444d; --real: #4493f8; --made: #f0883e; }
    }
    text { font: 14px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: var(--text); }
    .title { font-weight: 600; }
    .faint { fill: var(--faint); font-size: 12px; }
    .grid { stroke: var(--line); fill: none; }
    .came { fill: var(--faint); opacity: 0.45; stroke: none; }
    .real { stroke: var(--real); fill: none; stroke-width: 1.8; stroke-linejoin: round; }
    .starts { stroke: var(--real); fill: none; stroke-width: 1.2; stroke-dasharray: 2 2; }
    .made { stroke: var(--made); fill: none; stroke-width: 1.6; stroke-dasharray: 6 3; stroke-linejoin: round; }
";

/// Pixels of the whole picture, and of its panels from its left.
const WIDTH: f64 = 900.;
const LEFT: f64 = 72.;
const RIGHT: f64 = 872.;

/// Pixels of a panel, and from one to the next.
const HEIGHT: f64 = 110.;
const GAP: f64 = 54.;

/// Seconds of one point of a curve.
const STEP: f64 = 2.;

/// Seconds over which a percentile is taken.
const WINDOW: f64 = 6.;

/// One panel: what is between its top and its bottom.
struct Panel {
    top: f64,
    seconds: f64,
    /// Values at the bottom and at the top; logarithms of them where the first is not 0.
    range: (f64, f64),
}

impl Panel {
    fn x(&self, at: f64) -> f64 {
        LEFT + at / self.seconds * (RIGHT - LEFT)
    }

    fn y(&self, value: f64) -> f64 {
        let (low, high) = self.range;
        let share = match low {
            0. => value / high,
            _ => (value.max(low) / low).ln() / (high / low).ln(),
        };
        self.top + HEIGHT * (1. - share.clamp(0., 1.))
    }

    fn frame(&self, svg: &mut String, title: &str, ticks: &[(f64, String)]) {
        put(svg, &format!("<text x=\"{LEFT}\" y=\"{:.1}\" class=\"title\">{title}</text>", self.top - 12.));
        for (value, words) in ticks {
            let y = self.y(*value);
            put(svg, &format!("<path d=\"M{LEFT} {y:.1}H{RIGHT}\" class=\"grid\"/>"));
            let (x, base) = (LEFT - 8., y + 4.);
            put(
                svg,
                &format!(
                    "<text x=\"{x}\" y=\"{base:.1}\" class=\"faint\" text-anchor=\"end\">{words}</text>"
                ),
            );
        }
    }

    fn curve(&self, svg: &mut String, class: &str, points: impl Iterator<Item = (f64, Option<f64>)>) {
        let (mut path, mut is_down) = (String::new(), false);
        for (at, value) in points {
            let Some(value) = value else {
                is_down = false;
                continue;
            };
            let pen = if is_down { 'L' } else { 'M' };
            // Writing to a String cannot fail.
            let _ = write!(path, "{pen}{:.1} {:.1}", self.x(at), self.y(value));
            is_down = true;
        }
        put(svg, &format!("<path d=\"{path}\" class=\"{class}\"/>"));
    }

    /// A value that holds until the next.
    fn steps(&self, svg: &mut String, class: &str, run: &Run, value: impl Fn(&super::run::Count) -> u32) {
        let ends = run.counts.iter().skip(1).map(|count| count.at).chain([self.seconds]);
        let held = run.counts.iter().zip(ends);
        let points = held.flat_map(|(count, ends)| {
            let value = Some(f64::from(value(count)));
            [(count.at, value), (ends.min(self.seconds), value)]
        });
        self.curve(svg, class, points.filter(|(at, _)| *at <= self.seconds));
    }
}

/// The whole picture.
pub fn draw(title: &str, trace: &Trace, measured: &Run, simulated: &Run) -> String {
    let seconds = trace.seconds();
    let mut svg = String::new();
    let mut top = 96.;
    let mut panel = |range: (f64, f64)| {
        let panel = Panel { top, seconds, range };
        top += HEIGHT + GAP;
        panel
    };
    let moments = || (0..(seconds / STEP) as usize).map(|step| step as f64 * STEP);

    put(&mut svg, &format!("<text x=\"{LEFT}\" y=\"28\" class=\"title\">{title}</text>"));
    legend(&mut svg);
    came(&mut svg, &panel((0., 60.)), trace);

    let pods = panel((0., 4.));
    pods.frame(&mut svg, "Pods that answer, and those asked for (dots)", &ticks(&[0., 1., 2., 3., 4.]));
    pods.steps(&mut svg, "made", simulated, |count| count.ready);
    pods.steps(&mut svg, "starts", measured, |count| count.pods);
    pods.steps(&mut svg, "real", measured, |count| count.ready);
    reasons(&mut svg, &pods, measured);

    let most = |run: &Run| moments().map(|at| run.underway(at)).max().unwrap_or(0);
    let most = (most(measured).max(most(simulated)).max(10) as f64 / 10.).ceil() * 10.;
    let underway = panel((0., most));
    underway.frame(&mut svg, "Requests that wait or are computed", &ticks(&[0., most / 2., most]));
    for (class, run) in [("made", simulated), ("real", measured)] {
        underway.curve(&mut svg, class, moments().map(|at| (at, Some(run.underway(at) as f64))));
    }

    let latency = panel((0.03, 10.));
    let words = [(0.05, "50 ms"), (0.1, "100 ms"), (1., "1 s"), (10., "10 s")];
    let words = words.map(|(value, words)| (value, words.to_owned()));
    latency.frame(&mut svg, "Latency, 95th percentile of six seconds", &words);
    for (class, run) in [("made", simulated), ("real", measured)] {
        let window = |at: f64| run.quantile_in(0.95, at - WINDOW / 2., at + WINDOW / 2.);
        latency.curve(&mut svg, class, moments().map(|at| (at, window(at))));
    }
    let bottom = latency.top + HEIGHT;
    for minute in 0..=(seconds / 60.) as usize {
        let x = latency.x(minute as f64 * 60.);
        let words = format!("{minute} min");
        put(
            &mut svg,
            &format!(
                "<text x=\"{x:.1}\" y=\"{:.1}\" class=\"faint\" text-anchor=\"middle\">{words}</text>",
                bottom + 20.
            ),
        );
    }
    finish(title, &svg, bottom + 36.)
}

fn legend(svg: &mut String) {
    for (x, class, words) in [(LEFT, "real", "on the cluster"), (LEFT + 160., "made", "simulated")] {
        put(svg, &format!("<path d=\"M{x} 44H{}\" class=\"{class}\"/>", x + 28.));
        put(svg, &format!("<text x=\"{}\" y=\"48\" class=\"faint\">{words}</text>", x + 36.));
    }
}

/// What is sent, as an area.
fn came(svg: &mut String, panel: &Panel, trace: &Trace) {
    panel.frame(svg, "Requests a second", &ticks(&[0., 20., 40., 60.]));
    let mut path = format!("M{LEFT} {:.1}", panel.y(0.));
    for step in 0..(panel.seconds / STEP) as usize {
        let (from, to) = (step as f64 * STEP, (step + 1) as f64 * STEP);
        let count = trace.arrivals().iter().filter(|arrival| (from..to).contains(&arrival.at)).count();
        let y = panel.y(count as f64 / STEP);
        let _ = write!(path, "L{:.1} {y:.1}L{:.1} {y:.1}", panel.x(from), panel.x(to));
    }
    put(svg, &format!("<path d=\"{path}L{RIGHT} {:.1}Z\" class=\"came\"/>", panel.y(0.)));
}

/// Why the count became what it is, above the curve: where words would meet, lower and lower.
fn reasons(svg: &mut String, panel: &Panel, run: &Run) {
    let (mut last, mut row) = (f64::NEG_INFINITY, 0.);
    for (at, reason) in &run.reasons {
        let x = panel.x(*at);
        row = if x - last < 90. { row + 1. } else { 0. };
        last = x;
        put(
            svg,
            &format!(
                "<text x=\"{x:.1}\" y=\"{:.1}\" class=\"faint\">{reason}</text>",
                panel.top + 10. + row * 14.
            ),
        );
    }
}

fn ticks(values: &[f64]) -> Vec<(f64, String)> {
    values.iter().map(|value| (*value, value.to_string())).collect()
}

fn finish(title: &str, body: &str, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n  <title>{title}</title>\n  \
         <style>{STYLE}  </style>\n  <rect width=\"{WIDTH}\" height=\"{height}\" rx=\"6\" style=\"fill: var(--back)\"/>\n{body}</svg>\n"
    )
}

fn put(svg: &mut String, element: &str) {
    svg.push_str("  ");
    svg.push_str(element);
    svg.push('\n');
}
