//! `operator apikey`: makes a key for a service.

use std::fmt::Write;

use anyhow::anyhow;
use ring::rand::{SecureRandom, SystemRandom};

use crate::gateway::{keys::KeyHash, name};

/// What keys begin with, so that who finds one knows what it opens.
const PREFIX: &str = "kembed-";

/// Bytes of randomness in a key: nobody guesses it, so that a fast hash of it tells nobody anything.
const RANDOM: usize = 32;

/// Flags of `operator apikey`.
#[derive(clap::Args, Clone, Debug)]
pub struct ApiKeyArgs {
    /// Whose key it is: what metrics and logs call it
    #[arg(long, default_value = "default", value_parser = key_name)]
    name: String,

    /// Requests a second that may be sent with it; any number unless told
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    requests_per_second: Option<i32>,

    /// Tokens a minute that may be sent with it; any number unless told
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    tokens_per_minute: Option<i64>,
}

fn key_name(text: &str) -> Result<String, String> {
    let hint = || "it is made of at most 63 lower-case letters, digits and '-' in between".to_owned();
    name::is_label(text).then(|| text.to_owned()).ok_or_else(hint)
}

/// A new key, and what to write into the spec of a service that takes it.
///
/// # Errors
/// If the system has no randomness to give.
pub fn run(args: &ApiKeyArgs) -> anyhow::Result<String> {
    let mut random = [0; RANDOM];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| anyhow!("failed to draw random bytes from the system"))?;
    Ok(text(args, random))
}

fn text(args: &ApiKeyArgs, random: [u8; RANDOM]) -> String {
    let key = random.iter().fold(PREFIX.to_owned(), |key, byte| key + &format!("{byte:02x}"));
    let ApiKeyArgs { name, requests_per_second, tokens_per_minute } = args;
    let mut text = format!(
        "{key}\n\n\
         This is the key; it is kept nowhere. What the EmbeddingService needs of it:\n\n\
         spec:\n  traffic:\n    apiKeys:\n    - name: {name}\n      sha256: {}\n",
        KeyHash::of(key.as_bytes())
    );
    for (field, limit) in
        [("requestsPerSecond", requests_per_second.map(i64::from)), ("tokensPerMinute", *tokens_per_minute)]
    {
        if let Some(limit) = limit {
            writeln!(text, "      {field}: {limit}").expect("a String takes all");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use kembed_crds::ApiKey;
    use serde::Deserialize;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: ApiKeyArgs,
    }

    fn args(flags: &[&str]) -> Result<ApiKeyArgs, clap::Error> {
        Cli::try_parse_from([&["apikey"], flags].concat()).map(|cli| cli.args)
    }

    /// The part of an EmbeddingService that is printed.
    #[derive(Deserialize)]
    struct Snippet {
        spec: Spec,
    }

    #[derive(Deserialize)]
    struct Spec {
        traffic: kembed_crds::Traffic,
    }

    fn made(flags: &[&str]) -> (String, ApiKey) {
        let text = run(&args(flags).expect("good flags")).expect("a system with randomness");
        let key = text.lines().next().expect("a key").to_owned();
        let snippet = &text[text.find("spec:").expect("a snippet")..];
        assert!(!snippet.contains(&key), "it must not be pasted");
        let snippet: Snippet = serde_saphyr::from_str(snippet).expect("YAML");
        let [listed] = snippet.spec.traffic.api_keys.try_into().expect("one key");
        (key, listed)
    }

    #[test]
    fn what_is_pasted_is_the_hash_of_the_key() {
        let flags = ["--name", "search", "--requests-per-second", "10", "--tokens-per-minute", "6000000000"];
        let (key, listed) = made(&flags);
        let sha256 = KeyHash::of(key.as_bytes()).to_string();
        let (requests_per_second, tokens_per_minute) = (Some(10), Some(6_000_000_000));
        assert_eq!(
            listed,
            ApiKey { name: "search".to_owned(), sha256, requests_per_second, tokens_per_minute }
        );
        assert_eq!(key.len(), "kembed-".len() + 64);
    }

    #[test]
    fn without_flags_nothing_is_limited_and_no_two_keys_are_alike() {
        let ((one, listed), (other, _)) = (made(&[]), made(&[]));
        assert_eq!(
            (listed.name.as_str(), listed.requests_per_second, listed.tokens_per_minute),
            ("default", None, None)
        );
        assert_ne!(one, other);
    }

    #[test]
    fn what_the_api_server_would_refuse_is_refused() {
        for flags in
            [["--name", "A"], ["--name", ""], ["--requests-per-second", "0"], ["--tokens-per-minute", "-1"]]
        {
            assert!(args(&flags).is_err(), "{flags:?}");
        }
    }
}
