//! A measured run beside a simulated one, as a table.

use std::fmt::Write;

use super::run::Run;

/// What both came to, and the ratio.
pub fn table(measured: &Run, simulated: &Run, seconds: f64, target: f64) -> String {
    let mut text = "| | cluster | simulated | cluster / simulated |\n|---|---|---|---|\n".to_owned();
    let ms = |run: &Run, share| run.quantile(share) * 1e3;
    let rows: [(&str, f64, f64, usize); 7] = [
        ("requests answered", measured.answers.len() as f64, simulated.answers.len() as f64, 0),
        ("replica-seconds", measured.replica_seconds(seconds), simulated.replica_seconds(seconds), 0),
        ("changes of the count", changes(measured), changes(simulated), 0),
        ("median latency, ms", ms(measured, 0.5), ms(simulated, 0.5), 0),
        ("95th percentile, ms", ms(measured, 0.95), ms(simulated, 0.95), 0),
        ("99th percentile, ms", ms(measured, 0.99), ms(simulated, 0.99), 0),
        ("later than the target, %", measured.late(target) * 100., simulated.late(target) * 100., 2),
    ];
    for (what, ours, theirs, digits) in rows {
        let ratio = ours / theirs;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| {what} | {ours:.digits$} | {theirs:.digits$} | {ratio:.2} |");
    }
    let _ = writeln!(text, "\n| the count becomes | cluster, s | simulated, s |\n|---|---|---|");
    let (ours, theirs) = (measured.changes(), simulated.changes());
    for index in 1..ours.len().max(theirs.len()) {
        let of = |changes: &[(f64, u32)]| {
            changes.get(index).map_or_else(|| "-".to_owned(), |(at, to)| format!("{to} at {at:.1}"))
        };
        let _ = writeln!(text, "| change {index} | {} | {} |", of(&ours), of(&theirs));
    }
    text
}

fn changes(run: &Run) -> f64 {
    run.changes().len().saturating_sub(1) as f64
}
