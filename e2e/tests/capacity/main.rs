//! Nodes come with the pods that need them and go with them: Karpenter buys them, though they only pretend to be there. These
//! tests are a group of their own, for while Karpenter runs it has a word on every pod that finds no node.

mod drained;
mod load;
mod patience;
mod refused;

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::{TempNamespace, node_pool::NodePool, wait::DEADLINE};
use tokio::time::sleep;

/// Between two looks at the nodes.
const PERIOD: Duration = Duration::from_millis(500);

/// Where requests go.
fn base(ns: &TempNamespace) -> String {
    format!("http://minilm.{}.svc", ns.name)
}

/// Waits for so many nodes; for longer than for anything else, for Karpenter takes most of a minute to find that it can do
/// without some.
async fn await_nodes(pool: &NodePool, count: usize) -> anyhow::Result<Vec<String>> {
    let deadline = Instant::now() + 3 * DEADLINE;
    loop {
        let nodes = pool.nodes().await?;
        if nodes.len() == count {
            return Ok(nodes);
        }
        ensure!(Instant::now() < deadline, "waited too long for {count} nodes; there are {nodes:?}");
        sleep(PERIOD).await;
    }
}
