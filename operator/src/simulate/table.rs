//! Results for people.

use crate::simulate::{
    league::{League, Standing, WEIGHT},
    service::Service,
};

const HEADS: [&str; 10] =
    ["policy", "replica-s", "missed", "p50", "p95", "p99", "cold", "changes", "cost", "settings"];

/// A table of one trace.
pub(super) fn draw(league: &League, service: &Service) -> String {
    let rows: Vec<[String; 10]> = league.standings.iter().map(|standing| row(league, standing)).collect();
    let width = |column: usize| {
        let texts = rows.iter().map(|row| row[column].as_str()).chain([HEADS[column]]);
        texts.map(|text| text.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEADS.len()).map(width).collect();
    let line = |row: &[String; 10]| {
        // Names stand left, numbers right.
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (text, &width))| match column {
            0 | 9 => format!("{text:width$}"),
            _ => format!("{text:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let requests = league.standings.first().map_or(0, |standing| standing.score.requests);
    let head = format!(
        "{}: {requests} requests in {} for {}, at most {} in {} replicas\n",
        league.name,
        time(league.seconds),
        service.name,
        time(service.target.as_secs_f64()),
        bounds(service),
    );
    let table: String = rows.iter().map(line).collect();
    let note = format!(
        "cost: replica-seconds in those of a schedule that knows the future ({:.0}), and {WEIGHT} for each request \
         of all that is missed\n",
        league.unit
    );
    format!("{head}{}{table}{note}", line(&HEADS.map(str::to_owned)))
}

fn bounds(service: &Service) -> String {
    format!("{}..{}", service.settings.min, service.settings.max)
}

fn row(league: &League, standing: &Standing) -> [String; 10] {
    let score = &standing.score;
    let tuned = if standing.tuned { ", tuned" } else { "" };
    [
        format!("{}{tuned}", standing.player.name()),
        format!("{:.0}", score.replica_seconds),
        format!("{:.2} %", 100. * score.miss_share()),
        time(score.quantile(0.5)),
        time(score.quantile(0.95)),
        time(score.quantile(0.99)),
        score.cold.to_string(),
        score.scale_events.to_string(),
        format!("{:.2}", league.cost(score)),
        standing.player.settings(),
    ]
}

/// A time as people write it.
pub(super) fn time(seconds: f64) -> String {
    match seconds {
        _ if seconds.is_infinite() => "never".into(),
        _ if seconds < 0.9995 => format!("{:.0} ms", seconds * 1e3),
        _ if seconds < 99.95 => format!("{} s", (seconds * 10.).round() / 10.),
        _ => format!("{seconds:.0} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_people_write_them() {
        for (seconds, text) in
            [(0.0123, "12 ms"), (0.9999, "1 s"), (2.34, "2.3 s"), (3600., "3600 s"), (f64::INFINITY, "never")]
        {
            assert_eq!(time(seconds), text);
        }
    }
}
