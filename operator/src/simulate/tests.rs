//! The command from its flags to what it prints.

use std::{fs, path::Path};

use clap::Parser;
use serde_json::Value;

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: SimulateArgs,
}

const SERVICE: &str = "
apiVersion: kembed.dev/v1alpha1
kind: EmbeddingService
metadata: {name: minilm}
spec:
  model: {uri: hf://sentence-transformers/all-MiniLM-L6-v2}
  scaling: {maxReplicas: 10, latency: {target: 200ms}}
";

/// A folder with a service and a trace of a quiet minute and a busy one.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("service.yaml"), SERVICE).expect("it is written");
    let lines = (0..120).flat_map(|second| {
        let requests = if second < 60 { 1 } else { 100 };
        (0..requests).map(move |index| format!("{},800\n", f64::from(second) + f64::from(index) / 100.))
    });
    let trace = ["seconds,tokens\n".to_owned()].into_iter().chain(lines).collect::<String>();
    fs::write(folder.path().join("busy.csv"), trace).expect("it is written");
    folder
}

fn simulated(folder: &Path, flags: &[&str]) -> Result<String, String> {
    let path = |name: &str| folder.join(name).display().to_string();
    let flags = flags.iter().map(|flag| {
        if flag.contains('.') && !flag.starts_with("0.") { path(flag) } else { flag.to_string() }
    });
    let all = ["simulate".to_owned(), "--service".to_owned(), path("service.yaml")].into_iter().chain(flags);
    let cli = Cli::try_parse_from(all).map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    run(&cli.args, &mut out).map_err(|error| format!("{error:#}"))?;
    Ok(String::from_utf8(out).expect("text"))
}

#[test]
fn json_is_a_list_of_policies_with_the_documented_keys() {
    let folder = folder();
    let told = simulated(folder.path(), &["--trace", "busy.csv", "--json"]).expect("results");
    let rows: Vec<serde_json::Map<String, Value>> = serde_json::from_str(&told).expect("a list");
    let names: Vec<(&str, bool)> = rows
        .iter()
        .map(|row| (row["policy"].as_str().expect("a name"), row["tuned"].as_bool().expect("a flag")))
        .collect();
    let mut expected = vec![("kembed", false)];
    for peer in ["kpa", "hpa-utilisation", "hpa-queue", "keda", "kubeai"] {
        expected.extend([(peer, false), (peer, true)]);
    }
    expected.push(("clairvoyant", false));
    assert_eq!(names, expected);
    let keys = [
        "cold_requests",
        "p50_ms",
        "p95_ms",
        "p99_ms",
        "policy",
        "replica_seconds",
        "scale_events",
        "slo_miss_fraction",
        "tuned",
    ];
    for row in &rows {
        let mut found: Vec<&str> = row.keys().map(String::as_str).collect();
        found.sort_unstable();
        assert_eq!(found, keys);
        let number = |key: &str| row[key].as_f64().expect("a number");
        assert!((0. ..=1.).contains(&number("slo_miss_fraction")) && number("replica_seconds") > 0.);
        assert!(number("p50_ms") <= number("p95_ms") && number("p95_ms") <= number("p99_ms"));
    }
}

#[test]
fn the_same_command_prints_the_same() {
    let folder = folder();
    let flags = ["--trace", "sparse", "--policy", "kembed,keda", "--seed", "7", "--json"];
    let once = || simulated(folder.path(), &flags).expect("results");
    assert_eq!(once(), once());
    let other = ["--trace", "sparse", "--policy", "kembed,keda", "--seed", "8", "--json"];
    assert_ne!(once(), simulated(folder.path(), &other).expect("results"));
}

#[test]
fn the_table_tells_of_each_trace_and_of_those_who_were_asked_for() {
    let folder = folder();
    let flags = ["--trace", "busy.csv", "--trace", "sparse", "--policy", "kembed,kpa", "--no-tuning"];
    let told = simulated(folder.path(), &flags).expect("results");
    assert!(
        told.starts_with("busy: 6060 requests in 120 s for minilm, at most 200 ms in 0..10 replicas\n"),
        "{told}"
    );
    assert!(told.contains("\nsparse: "), "{told}");
    let firsts: Vec<&str> = told.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(
        firsts,
        ["busy:", "policy", "kembed", "kpa", "cost:", "sparse:", "policy", "kembed", "kpa", "cost:"]
    );
}

#[test]
fn json_of_several_traces_names_them() {
    let folder = folder();
    let flags = ["--trace", "busy.csv", "--trace", "sparse", "--policy", "kembed", "--json"];
    let rows: Vec<Value> =
        serde_json::from_str(&simulated(folder.path(), &flags).expect("results")).expect("a list");
    assert_eq!((&rows[0]["trace"], &rows[1]["trace"]), (&"busy".into(), &"sparse".into()));
}

#[test]
fn a_picture_of_each_trace_is_written() {
    let folder = folder();
    let out = folder.path().join("pictures");
    let out = out.display().to_string();
    let all =
        ["simulate", "--trace", "sparse", "--policy", "kembed,keda,clairvoyant", "--out", &out, "--service"];
    let service = folder.path().join("service.yaml").display().to_string();
    let cli = Cli::try_parse_from(all.into_iter().chain([service.as_str()])).expect("good flags");
    run(&cli.args, &mut Vec::new()).expect("results");
    let svg = fs::read_to_string(Path::new(&out).join("sparse.svg")).expect("a picture");
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
    for words in
        ["requests a second", "target 200 ms", ">kembed<", ">keda, tuned<", "prefers-color-scheme: dark"]
    {
        assert!(svg.contains(words), "{words}");
    }
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "all numbers are numbers");
}

#[test]
fn nodes_and_slower_pods_cost() {
    let folder = folder();
    let told = |flags: &[&str], number: &str| {
        let all = [&["--trace", "busy.csv", "--policy", "kembed", "--json"], flags].concat();
        let rows: Vec<Value> =
            serde_json::from_str(&simulated(folder.path(), &all).expect("results")).expect("a list");
        rows[0][number].as_f64().expect("a number")
    };
    // What is more work, of many who do not all come at once, costs pods.
    for (number, flags) in [
        ("slo_miss_fraction", ["--node-lead", "1m"]),
        ("slo_miss_fraction", ["--pod-rate", "20000"]),
        ("slo_miss_fraction", ["--startup", "20s"]),
        ("replica_seconds", ["--rate", "2"]),
        ("slo_miss_fraction", ["--length", "3"]),
    ] {
        let (usual, with) = (told(&[], number), told(&flags, number));
        assert!(with > usual, "{number} with {flags:?}: {with} and {usual}");
    }
}

#[test]
fn what_cannot_be_simulated_is_told() {
    let folder = folder();
    fs::write(folder.path().join("bad.csv"), "0,1\n1,many\n").expect("it is written");
    fs::write(folder.path().join("empty.csv"), "").expect("it is written");
    fs::write(folder.path().join("binary.csv"), [0xff, 0xfe, 0x00]).expect("it is written");
    for (flags, reason) in [
        (&["--trace", "none.csv"][..], "No such file"),
        (&["--trace", "stready"], "what is no file is one of steady, step, spike"),
        (&["--trace", "bad.csv"], "line 2: the tokens are no whole number: expected"),
        (&["--trace", "empty.csv"], "the trace has no requests"),
        (&["--trace", "binary.csv"], "valid UTF-8"),
        (
            &["--trace", "busy.csv", "--rate", "0"],
            "failed to scale the trace \"busy\": \"rate\" must be a number above 0",
        ),
        (&["--trace", "busy.csv", "--length", "-1"], "unexpected argument"),
        (&["--trace", "busy.csv", "--length=-1"], "\"length\" must be a number above 0"),
        (&["--trace", "busy.csv", "--rate", "1e9"], "100000000 are the most"),
        (&["--trace", "busy.csv", "--policy", "vpa"], "choose from kembed, kpa"),
        (&["--trace", "busy.csv", "--startup", "fast"], "write numbers with units"),
        (&["--trace", "busy.csv", "--pod-rate", "0"], "--pod-rate must be above 0"),
        (&["--trace", "busy.csv", "--pods-per-node", "0"], "0 is not in 1.."),
        (&[], "--trace"),
    ] {
        let error = simulated(folder.path(), flags).expect_err("it makes no sense");
        assert!(error.contains(reason), "{flags:?}: {error}");
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_told() {
    let folder = folder();
    let flags = ["--trace", "busy.csv", "--policy", "kembed", "--out", "busy.csv"];
    let error = simulated(folder.path(), &flags).expect_err("it is a file");
    assert!(error.contains("failed to make the folder"), "{error}");
}
