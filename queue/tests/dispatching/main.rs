//! What always holds of a dispatcher, whatever happens to it.

mod arrive;
mod hedging;
mod model;
mod moving;
mod properties;
mod waiting;

use std::time::Duration;

use kembed_queue::wire::Lane;
use kembed_queue::{Ask, Config, LineBounds};

const ROOM: usize = 12;
const QUEUE_TIMEOUT: Duration = Duration::from_secs(60);
const CONFIG: Config =
    Config { bounds: LineBounds { requests: ROOM, bytes: 40_000 }, queue_timeout: QUEUE_TIMEOUT };

fn ask(lane: Lane) -> Ask {
    Ask { bytes: 1000, lane, deadline: None }
}
