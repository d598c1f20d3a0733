//! The command line.

use std::future::Future;

use anyhow::Context;
use clap::{Parser, Subcommand};
use kembed_crds::{conditions, crd_yaml};
use kembed_runtime::{logging::LogArgs, shutdown, traces};
use kembed_scaling::Reason;
use tokio::runtime::Runtime;

use crate::{
    apikey::{self, ApiKeyArgs},
    controller, gateway, simulate,
};

/// Serves embedding models on Kubernetes: applies EmbeddingServices, and answers their requests.
#[derive(Parser, Debug)]
#[command(version, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Turn EmbeddingServices into pods, and keep their status true
    Controller(controller::ControllerArgs),
    /// Answer requests: find the service each is for and pass it to one of its pods
    Gateway(gateway::Args),
    /// Make an API key for an EmbeddingService: print it once, and what to write into spec.traffic.apiKeys
    Apikey(ApiKeyArgs),
    /// Try what an EmbeddingService would do under some traffic, and what other autoscalers would
    Simulate(Box<simulate::SimulateArgs>),
    /// Print the CustomResourceDefinition
    Crds,
    /// Print the documentation of conditions and their reasons
    Docs,
}

impl Cli {
    /// Runs the command until it is done or a signal ends it.
    ///
    /// # Errors
    /// Whatever the command could not handle.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Apikey(args) => print!("{}", apikey::run(&args)?),
            Command::Simulate(args) => simulate::run(&args, &mut std::io::stdout().lock())?,
            Command::Crds => print!("{}", crd_yaml()),
            Command::Docs => print!("{}", conditions_page()),
            Command::Controller(args) => {
                self.log.init()?;
                to_end(async {
                    controller::run(args, kube::Config::infer().await?, shutdown::on_signal()?).await
                })?;
            }
            Command::Gateway(args) => {
                self.log.init()?;
                let _traces = traces::start("kembed-gateway")?;
                to_end(async {
                    gateway::run(args, kube::Client::try_default().await?, shutdown::on_signal()?).await
                })?;
            }
        }
        Ok(())
    }
}

/// `docs/conditions.md`.
fn conditions_page() -> String {
    conditions::documentation(Reason::ALL.iter().map(|reason| (reason.as_str(), reason.meaning())))
}

/// Runs a part of the program that waits.
fn to_end(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    Runtime::new().context("failed to start threads")?.block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_lists_every_condition_and_reason() {
        let found = include_str!("../../docs/conditions.md");
        assert!(found == conditions_page(), "it is stale: run `make generate` and commit what it writes");
    }
}
