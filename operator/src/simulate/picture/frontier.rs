//! What replica-seconds buy: everybody, at every setting that was tried.

use super::{
    LEFT, RIGHT,
    canvas::{Anchor, Canvas, Mark},
    chart::{self, LETTER, Scale},
};
use crate::simulate::{args::OURS, league::League};
use kembed_scaling::simulate::peers::Peer;

const HEIGHT: f64 = 330.;
const HEAD: f64 = 74.;
const FOOT: f64 = 56.;

/// The smallest share of misses, in per cent, that is told from none.
const LEAST: f64 = 0.01;

/// The colour and the mark of a policy.
pub(super) fn look(name: &str) -> (&'static str, Mark) {
    const COLOURS: [&str; 5] = ["p0", "p1", "p2", "p3", "p4"];
    const MARKS: [Mark; 5] = [Mark::Square, Mark::Up, Mark::Diamond, Mark::Down, Mark::Cross];
    match Peer::NAMES.iter().position(|peer| *peer == name) {
        Some(peer) => (COLOURS[peer], MARKS[peer]),
        None if name == OURS => ("ours", Mark::Star),
        None => ("known", Mark::Circle),
    }
}

/// Draws it below `top`, and answers where it ends.
pub(super) fn draw(canvas: &mut Canvas, league: &League, top: f64) -> f64 {
    let (top, foot) = (top + HEAD, top + HEAD + HEIGHT);
    canvas.text(
        (LEFT, top - 48.),
        "title",
        Anchor::Start,
        "requests over the target, in per cent, against replica-seconds: left and below is better",
    );
    let seconds = || league.tried.iter().map(|standing| standing.score.replica_seconds.max(1.));
    let (least, most) =
        seconds().fold((f64::INFINITY, 1_f64), |(least, most), x| (least.min(x), most.max(x)));
    let across =
        Scale { from: least.min(most) / 1.1, to: most * 1.1, is_logarithmic: true, pixels: (LEFT, RIGHT) };
    let up = Scale { from: LEAST, to: 100., is_logarithmic: true, pixels: (foot, top) };
    chart::rows(canvas, &up, |percent| if percent <= LEAST { "none".into() } else { format!("{percent}") });
    chart::columns(canvas, &across, (top, foot), |seconds| format!("{seconds}"));
    legend(canvas, league, top);
    let mut mark = |standing: &crate::simulate::league::Standing, class: &str, size: f64| {
        let (colour, mark) = look(standing.player.name());
        let score = &standing.score;
        let at = (across.at(score.replica_seconds), up.at((100. * score.miss_share()).max(LEAST)));
        let settings = standing.player.settings();
        let hint = format!("{} {settings}", standing.player.name());
        canvas.mark(at, mark, size, class, colour, if class == "tried" { "" } else { hint.trim() });
    };
    // What is told in the table stands out, ours above all.
    league.tried.iter().for_each(|standing| mark(standing, "tried", 2.6));
    league.standings.iter().rev().for_each(|standing| {
        mark(standing, "mark", if standing.player.name() == OURS { 8. } else { 6. });
    });
    foot + FOOT
}

fn legend(canvas: &mut Canvas, league: &League, top: f64) {
    let mut names: Vec<&str> = league.standings.iter().map(|standing| standing.player.name()).collect();
    names.dedup();
    let mut left = LEFT + 8.;
    for name in names {
        let (colour, mark) = look(name);
        canvas.mark((left, top - 23.), mark, 6., "mark", colour, "");
        canvas.text((left + 12., top - 18.), "", Anchor::Start, name);
        left += LETTER * name.chars().count() as f64 + 36.;
    }
    canvas.text(
        (RIGHT, top + HEIGHT + 40.),
        "faint",
        Anchor::End,
        "small: each setting that was tried; large: defaults and the best",
    );
}
