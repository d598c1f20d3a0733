//! A measured run beside simulated ones, as a table.

use std::fmt::Write;

use super::run::Run;

/// What is told of a run, and with how many digits.
type Row<'a> = (&'a str, &'a dyn Fn(&Run) -> f64, usize);

/// What the measured run came to, the median of the simulated ones and between what eight in ten of them are, and the ratio of
/// the first two; then the counts of the measured and of the [`typical`] one.
pub fn table(measured: &Run, simulated: &[Run], seconds: f64, target: f64) -> String {
    let mut text =
        "| | cluster | simulated: median (from to) | cluster / simulated |\n|---|---|---|---|\n".to_owned();
    let rows: [Row<'_>; 7] = [
        ("requests answered", &|run| run.answers.len() as f64, 0),
        ("replica-seconds", &|run| run.replica_seconds(seconds), 0),
        ("changes of the count", &changes, 0),
        ("median latency, ms", &|run| run.quantile(0.5) * 1e3, 0),
        ("95th percentile, ms", &|run| run.quantile(0.95) * 1e3, 0),
        ("99th percentile, ms", &|run| run.quantile(0.99) * 1e3, 0),
        ("later than the target, %", &|run| run.late(target) * 100., 2),
    ];
    for (what, of, digits) in rows {
        let mut theirs: Vec<f64> = simulated.iter().map(of).collect();
        theirs.sort_by(f64::total_cmp);
        let part = |tenths: usize| theirs[(theirs.len() - 1) * tenths / 10];
        let (ours, from, median, to) = (of(measured), part(1), part(5), part(9));
        let ratio = ours / median;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {what} | {ours:.digits$} | {median:.digits$} ({from:.digits$} to {to:.digits$}) | {ratio:.2} |"
        );
    }
    let _ = writeln!(text, "\n| the count becomes | cluster, s | simulated, s |\n|---|---|---|");
    let (ours, theirs) = (measured.changes(), typical(simulated, target).changes());
    for index in 1..ours.len().max(theirs.len()) {
        let of = |changes: &[(f64, u32)]| {
            changes.get(index).map_or_else(|| "-".to_owned(), |(at, to)| format!("{to} at {at:.1}"))
        };
        let _ = writeln!(text, "| change {index} | {} | {} |", of(&ours), of(&theirs));
    }
    text
}

/// The simulated run of which as many others have more late answers as have fewer.
///
/// # Panics
/// If there is none.
pub fn typical(simulated: &[Run], target: f64) -> &Run {
    let mut sorted: Vec<&Run> = simulated.iter().collect();
    sorted.sort_by(|a, b| a.late(target).total_cmp(&b.late(target)));
    sorted[(sorted.len() - 1) / 2]
}

fn changes(run: &Run) -> f64 {
    run.changes().len().saturating_sub(1) as f64
}
