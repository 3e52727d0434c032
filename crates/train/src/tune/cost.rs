//! What lowering one contraction saves: in time, measured on this machine, or in bytes, by the
//! memory plan.

use std::collections::HashMap;
use std::time::Duration;

use halfstep_graph::{Graph, Group, Plan};

use super::sensitivity::Point;
use crate::checkpoint::host_slice;
use crate::session::{Session, TrainError};

/// Steps that a profile is the median of.
const STEPS: usize = 5;

/// How long each group of a step's program takes, by what it does to which formats.
pub struct Profile(HashMap<String, Times>);

#[derive(Clone, Copy, Default)]
struct Times {
    /// Groups of this kind in the program.
    count: usize,
    seconds: f64,
}

impl Profile {
    /// Measures `session` at `point`: medians of a few steps, after one to warm up.
    ///
    /// # Errors
    /// The step failed.
    pub fn of(session: &mut Session<'_>, point: &Point) -> Result<Profile, TrainError> {
        point.restore(session)?;
        session.measure();
        let mut before: Vec<Duration> = Vec::new();
        let mut steps: Vec<Vec<f64>> = Vec::new();
        for i in 0..STEPS + 1 {
            let batch = &point.batches[i % point.batches.len()];
            session.step(host_slice(&batch.x), &batch.labels, point.lr)?;
            let now = session.group_times().to_vec();
            let since = |(j, t): (usize, &Duration)| {
                t.saturating_sub(before.get(j).copied().unwrap_or_default()).as_secs_f64()
            };
            if i > 0 {
                steps.push(now.iter().enumerate().map(since).collect());
            }
            before = now;
        }
        let Plan { graph, groups, .. } = session.plan();
        let mut times: HashMap<String, Times> = HashMap::new();
        for (i, group) in groups.steps.iter().enumerate() {
            let mut each: Vec<f64> = steps.iter().filter_map(|s| s.get(i).copied()).collect();
            each.sort_by(f64::total_cmp);
            let entry = times.entry(signature(graph, group)).or_default();
            entry.count += 1;
            entry.seconds += each.get(each.len() / 2).copied().unwrap_or(0.0);
        }
        Ok(Profile(times))
    }

    /// Seconds that a step of `other` takes less than one of this: of the groups that differ, so
    /// that the others' noise is left out.
    pub fn seconds_saved_by(&self, other: &Profile) -> f64 {
        let only = |a: &Profile, b: &Profile| -> f64 {
            let differs = |(s, t): &(&String, &Times)| b.0.get(*s).is_none_or(|u| u.count != t.count);
            a.0.iter().filter(differs).map(|(_, t)| t.seconds).sum()
        };
        only(self, other) - only(other, self)
    }
}

/// What a group does, to values of which formats.
fn signature(graph: &Graph, group: &Group) -> String {
    let mut text = String::new();
    for &n in &group.nodes {
        let node = graph.node(n);
        text += &format!("{} {}", node.name, node.op.name());
        for &v in node.inputs.iter().chain(&node.outputs) {
            text += &format!(" {}", graph.value(v).ty);
        }
        text.push(';');
    }
    text
}
