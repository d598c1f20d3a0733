//! What is decided, and why.

use std::time::Duration;

/// The count that a service should have.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The count.
    pub replicas: u32,
    /// Why it is that.
    pub reason: Reason,
    /// What it was drawn from.
    pub terms: Terms,
    /// What one request alone takes, if that is longer than the target: then no count can keep the objective, and none is
    /// added for its sake.
    pub unattainable: Option<Duration>,
}

/// What each term asks for, in replicas, before bounds; for metrics and plots.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Terms {
    /// The fewest that keep the objective at the arriving work.
    pub rate: f64,
    /// Those that drain what will wait when a new pod could serve.
    pub backlog: f64,
    /// Those among which the waiting requests are the tolerated number for each.
    pub queue: f64,
    /// Those that bring the measured percentile back under its target.
    pub slo: f64,
}

impl Terms {
    /// What the term asks for that asks for most.
    pub fn most(&self) -> f64 {
        self.rate.max(self.backlog).max(self.queue).max(self.slo)
    }
}

macro_rules! reasons {
    ($($name:ident = $meaning:literal,)*) => {
        /// Why a count is what it is. It changes with the count, or when something stood in the way for a while, so that it can
        /// be written where others read it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $(#[doc = $meaning] $name,)*
        }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name, as it is written.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// Reads a name.
            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.as_str() == name)
            }

            /// One sentence for users.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }
        }
    };
}

impl Reason {
    /// Whether it tells why the count is not another one, rather than why it was changed.
    pub fn stands_in_the_way(self) -> bool {
        match self {
            Self::Measuring | Self::AtMaximum | Self::LoadUnknown | Self::CrashLooping | Self::NoCapacity => {
                true
            }
            Self::Steady
            | Self::Activated
            | Self::Burst
            | Self::MoreWork
            | Self::Expected
            | Self::Backlog
            | Self::QueueDepth
            | Self::Latency
            | Self::LessWork
            | Self::Idle
            | Self::Replacing
            | Self::Bounds => false,
        }
    }

    /// Whether a count is changed for it.
    pub fn changes_the_count(self) -> bool {
        self != Self::Steady && !self.stands_in_the_way()
    }
}

reasons! {
    Steady = "The count is right for the arriving work.",
    Activated = "Somebody asked for vectors while the service had no pod: one was asked for.",
    Burst = "Twice as much work or more came than the pods can take: the count was raised at once.",
    MoreWork = "More work arrives: the count was raised to keep the objective.",
    Expected = "More work is expected by the time that a pod takes to start, by how it grows or by what followed in the last hour: the count was raised.",
    Backlog = "Requests wait that the pods cannot drain in time: the count was raised.",
    QueueDepth = "More requests wait for each pod than spec.scaling.queueDepth: the count was raised.",
    Latency = "Answers take longer than the target, and fewer requests for each pod would shorten them: the count was raised.",
    LessWork = "Less work arrives, and fewer pods keep the objective: the count was lowered.",
    Idle = "Nobody asked for long enough: the last pod went.",
    Replacing = "A pod that was asked for does not come: one more was asked for in its place.",
    Bounds = "The count was outside minReplicas and maxReplicas.",
    Measuring = "The first pod of the service has not been measured yet, and nothing is changed until it is.",
    AtMaximum = "More pods are needed than spec.scaling.maxReplicas allows.",
    LoadUnknown = "A gateway is silent, so that the load is not known: the count is left.",
    CrashLooping = "More pods are needed, but the last one ends again and again: see the condition Ready.",
    NoCapacity = "More pods are needed, but no node can come for one: see the condition CapacityAvailable.",
}
