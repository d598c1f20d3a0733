//! A picture of one trace: what came, how many replicas there were, how long requests took, and what everybody's
//! replica-seconds bought. SVG, readable on light and dark pages.

mod canvas;
mod chart;
mod frontier;
mod panels;

use canvas::Canvas;

use crate::simulate::{league::League, service::Service};

/// Pixels of the whole picture, and of its parts from its left.
const WIDTH: f64 = 900.;
const LEFT: f64 = 72.;
const RIGHT: f64 = 872.;

/// The whole picture.
pub(super) fn draw(league: &League, service: &Service) -> String {
    let mut canvas = Canvas::default();
    let mut top = panels::draw(&mut canvas, league, service);
    top = frontier::draw(&mut canvas, league, top);
    let title = format!("Traffic \"{}\": replicas, latency and what they cost", league.name);
    canvas.finish(&title, WIDTH, top)
}
