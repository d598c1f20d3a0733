//! What happened over time.

use kembed_scaling::simulate::timeline::Moment;

use super::{
    LEFT, RIGHT,
    canvas::{Anchor, Canvas},
    chart::{self, Scale},
    frontier::look,
};
use crate::simulate::{
    league::{League, Standing},
    service::Service,
    table::time,
};

/// Pixels of a panel, of what is above it, and of what is below the last.
const HEIGHT: f64 = 120.;
const HEAD: f64 = 44.;
const FOOT: f64 = 30.;

/// Pixels of a wide letter.
const WIDE: f64 = 9.5;

/// Draws what is between the top of a panel and its foot.
type Panel<'a> = &'a dyn Fn(&mut Canvas, (f64, f64));

/// Draws the three panels from the top of the picture, and answers where they end.
pub(super) fn draw(canvas: &mut Canvas, league: &League, service: &Service) -> f64 {
    let across = Across::new(league.seconds);
    let panels: [Panel<'_>; 3] = [
        &|canvas, ends| arrivals(canvas, league, &across, ends),
        &|canvas, ends| replicas(canvas, league, &across, ends),
        &|canvas, ends| latencies(canvas, league, service, &across, ends),
    ];
    let mut top = 10.;
    for draw in panels {
        let ends = (top + HEAD, top + HEAD + HEIGHT);
        chart::columns(canvas, &across.scale, ends, |_| String::new());
        draw(canvas, ends);
        top = ends.1;
    }
    chart::columns(canvas, &across.scale, (top, top), |at| format!("{at} {}", across.unit));
    top + FOOT
}

/// Time, from left to right.
struct Across {
    scale: Scale,
    seconds: f64,
    unit: &'static str,
}

impl Across {
    /// In minutes, unless there are few.
    fn new(seconds: f64) -> Self {
        let (unit_seconds, unit) = if seconds < 180. { (1., "s") } else { (60., "min") };
        let to = (seconds / unit_seconds).max(1e-3);
        let scale = Scale { from: 0., to, is_logarithmic: false, pixels: (LEFT, RIGHT) };
        Self { scale, seconds: unit_seconds, unit }
    }

    /// Where a time is, in seconds.
    fn at(&self, seconds: f64) -> f64 {
        self.scale.at(seconds / self.seconds)
    }
}

fn title(canvas: &mut Canvas, top: f64, title: &str) {
    canvas.text((LEFT, top - 14.), "title", Anchor::Start, title);
}

/// Of whose plays the title tells, in their colours, from right to left.
fn legend(canvas: &mut Canvas, top: f64, shown: &[&Standing]) {
    let mut right = RIGHT;
    for standing in shown.iter().rev() {
        let tuned = if standing.tuned { ", tuned" } else { "" };
        let name = format!("{}{tuned}", standing.player.name());
        // Wide enough for any letters, so that no line touches a name.
        right -= WIDE * name.chars().count() as f64;
        canvas.text((right, top - 14.), "", Anchor::Start, &name);
        let y = top - 19.;
        let line = [Some((right - 30., y)), Some((right - 8., y))];
        canvas.curve("curve", Some(look(standing.player.name()).0), &line);
        right -= 46.;
    }
}

fn arrivals(canvas: &mut Canvas, league: &League, across: &Across, (top, foot): (f64, f64)) {
    title(canvas, top, "requests a second");
    let Some((_, timeline)) = league.timelines.first() else { return };
    let rates: Vec<f64> =
        timeline.moments.iter().map(|moment| moment.requests as f64 / timeline.step).collect();
    let most = rates.iter().copied().fold(0., f64::max).max(1e-3);
    let up = Scale { from: 0., to: most * 1.05, is_logarithmic: false, pixels: (foot, top) };
    let steps = rates.iter().enumerate().flat_map(|(index, rate)| {
        let x = |index: usize| across.at(index as f64 * timeline.step);
        [(x(index), up.at(*rate)), (x(index + 1), up.at(*rate))]
    });
    let outline: Vec<(f64, f64)> = [(LEFT, foot)].into_iter().chain(steps).chain([(RIGHT, foot)]).collect();
    canvas.area("area", &outline);
    chart::rows(canvas, &up, |rate| format!("{rate}"));
}

fn replicas(canvas: &mut Canvas, league: &League, across: &Across, (top, foot): (f64, f64)) {
    title(canvas, top, "replicas, those that start among them");
    let moments = || league.timelines.iter().flat_map(|(_, timeline)| &timeline.moments);
    let most = moments().map(|moment| moment.pods).max().unwrap_or(0).max(1);
    let up = Scale { from: 0., to: f64::from(most) * 1.05, is_logarithmic: false, pixels: (foot, top) };
    chart::rows(canvas, &up, |pods| if pods.fract() == 0. { format!("{pods}") } else { String::new() });
    curves(canvas, league, top, |index, step, moment| {
        let y = up.at(f64::from(moment.pods));
        let x = |index: usize| across.at(index as f64 * step);
        [Some((x(index), y)), Some((x(index + 1), y))]
    });
}

fn latencies(
    canvas: &mut Canvas,
    league: &League,
    service: &Service,
    across: &Across,
    (top, foot): (f64, f64),
) {
    title(canvas, top, "latency of 95 % of the requests that came");
    let target = service.target.as_secs_f64();
    let all = league.timelines.iter().flat_map(|(_, timeline)| &timeline.moments);
    let (least, most) = all
        .filter_map(|moment| moment.quantile(0.95))
        .fold((target / 2., target * 2.), |(least, most), seconds| (least.min(seconds), most.max(seconds)));
    let up = Scale { from: least, to: most * 1.1, is_logarithmic: true, pixels: (foot, top) };
    chart::rows(canvas, &up, time);
    let y = up.at(target);
    canvas.curve("goal", None, &[Some((LEFT, y)), Some((RIGHT, y))]);
    canvas.text((RIGHT, y - 5.), "faint", Anchor::End, &format!("target {}", time(target)));
    curves(canvas, league, top, |index, step, moment| {
        let x = across.at((index as f64 + 0.5) * step);
        [moment.quantile(0.95).map(|seconds| (x, up.at(seconds)))]
    });
}

/// The curves of all that are shown, ours above the others, and who they are.
fn curves<const N: usize>(
    canvas: &mut Canvas,
    league: &League,
    top: f64,
    points: impl Fn(usize, f64, &Moment) -> [Option<(f64, f64)>; N],
) {
    for (standing, timeline) in league.timelines.iter().rev() {
        let moments = timeline.moments.iter().enumerate();
        let points: Vec<_> =
            moments.flat_map(|(index, moment)| points(index, timeline.step, moment)).collect();
        canvas.curve("curve", Some(look(standing.player.name()).0), &points);
    }
    let shown: Vec<&Standing> = league.timelines.iter().map(|(standing, _)| standing).collect();
    legend(canvas, top, &shown);
}
