//! The pods of the world, and the nodes they are on.

use crate::simulate::meter::Meter;

/// Nodes are bought when no other has place, and given back when they are empty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nodes {
    /// Seconds from when a pod waits for a node until the node takes it.
    pub lead: f64,
    /// Pods that have place on one.
    pub pods: u32,
    /// Seconds that an empty one is kept.
    pub idle: f64,
}

/// What a pod has in hand: a range of the trace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Batch {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) tokens: u64,
    pub(crate) began: f64,
}

/// One pod.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    asked: f64,
    node: usize,
    /// It answers.
    pub(crate) is_ready: bool,
    /// It goes when it has nothing in hand.
    is_leaving: bool,
    pub(crate) batch: Option<Batch>,
}

#[derive(Clone, Debug)]
struct Node {
    ready_at: f64,
    pods: u32,
    empty_since: f64,
}

/// All pods.
#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    start: f64,
    nodes: Option<Nodes>,
    bought: Vec<Node>,
    pub(crate) pods: Vec<Pod>,
    /// When each pod becomes ready or has done its batch, and never of one that has nothing to do: what is read at each event
    /// lies together.
    due: Vec<f64>,
    /// The first of these.
    pub(crate) next: f64,
    /// The pod that is due first.
    first: usize,
    /// Pods that have nothing to do.
    idle: u32,
    /// Pods that answer and stay.
    pub(crate) ready: u32,
}

impl Fleet {
    /// So many that are ready from the beginning.
    pub(crate) fn new(start: f64, nodes: Option<Nodes>, ready: u32) -> Self {
        let mut fleet = Self {
            start,
            nodes,
            bought: Vec::new(),
            pods: Vec::new(),
            due: Vec::new(),
            next: f64::INFINITY,
            first: 0,
            idle: 0,
            ready: 0,
        };
        (0..ready).for_each(|_| {
            fleet.add(f64::NEG_INFINITY);
        });
        for pod in &mut fleet.pods {
            (pod.asked, pod.is_ready) = (0., true);
        }
        fleet.due.fill(f64::INFINITY);
        fleet.count();
        fleet
    }

    /// When each pod was asked for that does not answer yet, the oldest first.
    pub(crate) fn starting(&self) -> impl Iterator<Item = f64> {
        self.pods.iter().filter(|pod| !pod.is_ready).map(|pod| pod.asked)
    }

    /// Brings the count to `wanted`: what does not answer yet goes first, then who has nothing in hand, then the youngest.
    pub(crate) fn resize(&mut self, wanted: u32, now: f64) {
        let staying = self.pods.iter().filter(|pod| !pod.is_leaving).count() as u32;
        (staying..wanted).for_each(|_| self.add(now));
        (wanted..staying).for_each(|_| self.remove(now));
        self.count();
    }

    fn add(&mut self, now: f64) {
        let node = self.place(now);
        let ready_at = self.bought.get(node).map_or(now, |node| node.ready_at.max(now)) + self.start;
        self.pods.push(Pod { asked: now, node, is_ready: false, is_leaving: false, batch: None });
        self.due.push(ready_at);
    }

    /// The node that has place and is there first, or a new one.
    fn place(&mut self, now: f64) -> usize {
        let Some(nodes) = self.nodes else { return usize::MAX };
        let is_there = |node: &Node| node.pods > 0 || now - node.empty_since < nodes.idle;
        let free =
            self.bought.iter().enumerate().filter(|(_, node)| node.pods < nodes.pods && is_there(node));
        let first = free.min_by(|(_, a), (_, b)| a.ready_at.total_cmp(&b.ready_at)).map(|(index, _)| index);
        let node = first.unwrap_or_else(|| {
            self.bought.push(Node { ready_at: now + nodes.lead, pods: 0, empty_since: now });
            self.bought.len() - 1
        });
        self.bought[node].pods += 1;
        node
    }

    fn remove(&mut self, now: f64) {
        // Ranked by how little is lost; of equals the last, which is the youngest.
        let rank = |pod: &Pod| match (pod.is_ready, pod.batch) {
            (false, _) => 2,
            (true, None) => 1,
            (true, Some(_)) => 0,
        };
        let staying = self.pods.iter().enumerate().filter(|(_, pod)| !pod.is_leaving);
        let Some((index, _)) = staying.max_by_key(|(index, pod)| (rank(pod), *index)) else { return };
        self.pods[index].is_leaving = true;
        self.clear(index, now);
    }

    /// A pod that leaves and has nothing in hand is gone. Pods after it move up.
    fn clear(&mut self, index: usize, now: f64) {
        let pod = &self.pods[index];
        if pod.is_leaving && pod.batch.is_none() {
            if let Some(node) = self.bought.get_mut(pod.node) {
                node.pods -= 1;
                node.empty_since = now;
            }
            self.pods.remove(index);
            self.due.remove(index);
        }
    }

    /// A pod that can take a batch.
    pub(crate) fn idle(&self) -> Option<usize> {
        if self.idle == 0 {
            return None;
        }
        self.due.iter().position(|&due| due == f64::INFINITY)
    }

    /// It gets one, which it will have done at `ends`.
    pub(crate) fn give(&mut self, index: usize, batch: Batch, ends: f64) {
        self.pods[index].batch = Some(batch);
        self.due[index] = ends;
        self.idle -= 1;
        if (ends, index) < (self.next, self.first) {
            (self.next, self.first) = (ends, index);
        }
    }

    /// Lets happen what happens at `next`: a pod becomes ready, and `meter` hears how long that took, or a batch is done,
    /// which is the answer.
    pub(crate) fn happen(
        &mut self,
        now: f64,
        meter: &mut Meter,
        pod_model: &super::PodModel,
    ) -> Option<Batch> {
        let index = self.first;
        let pod = self.pods.get_mut(index)?;
        let done = pod.batch.take();
        self.due[index] = f64::INFINITY;
        if done.is_some() && !pod.is_leaving {
            self.idle += 1;
            self.plan();
            return done;
        }
        if done.is_none() {
            pod.is_ready = true;
            meter.started(pod_model, now - pod.asked);
        }
        self.clear(index, now);
        self.count();
        done
    }

    /// Looks for what happens next. Of what happens at the same time, what happens to the oldest pod comes first.
    fn plan(&mut self) {
        (self.next, self.first) = (f64::INFINITY, 0);
        for (index, &due) in self.due.iter().enumerate() {
            if due < self.next {
                (self.next, self.first) = (due, index);
            }
        }
    }

    /// Counts anew, after pods came or went.
    fn count(&mut self) {
        self.plan();
        self.idle = self.due.iter().filter(|due| due.is_infinite()).count() as u32;
        self.ready = self.pods.iter().filter(|pod| pod.is_ready && !pod.is_leaving).count() as u32;
    }
}
