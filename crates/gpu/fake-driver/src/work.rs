//! What streams do, as late as they may.

use std::sync::Arc;

use crate::graph::Graph;
use crate::state::{ILLEGAL_ADDRESS, INVALID_HANDLE, State, Status, UNKNOWN};

/// A side of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// An address of the GPU.
    Device(u64),
    /// An address of the host.
    Host(usize),
}

/// One thing to do.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    Kernel(String),
    Copy {
        to: Side,
        from: Side,
        bytes: usize,
    },
    Set {
        to: u64,
        value: u8,
        bytes: usize,
    },
    /// Bytes that were read from the host and are not on the GPU yet.
    Write {
        to: u64,
        content: Vec<u8>,
    },
    /// Bytes of pinned memory are copied to the GPU.
    Upload {
        to: u64,
        from: usize,
        /// What they were when it was asked for.
        content: Vec<u8>,
    },
    /// A graph, and what its copies find in pinned memory, by address, when it is launched.
    Graph(Arc<Graph>, Vec<(usize, Vec<u8>)>),
    /// What is behind it waits for an event as it was put into that stream.
    Wait {
        event: usize,
        recorded: u64,
        stream: usize,
    },
    /// An event passes, if it was not put elsewhere since.
    Pass {
        event: usize,
        recorded: u64,
    },
}

impl State {
    /// Puts work into a stream.
    pub(crate) fn enqueue(&mut self, stream: usize, work: Work) -> Result<(), Status> {
        if stream == 0 {
            self.streams.entry(0).or_default();
        }
        let Some(queue) = self.streams.get_mut(&stream) else {
            self.problem(format!("there is no stream {stream:#x}"));
            return Err(INVALID_HANDLE);
        };
        queue.push_back(work);
        Ok(())
    }

    /// Does all that is in a stream.
    pub(crate) fn drain(&mut self, stream: usize) -> Result<(), Status> {
        while let Some(work) = self.streams.get_mut(&stream).and_then(|queue| queue.pop_front()) {
            self.run(&work)?;
        }
        Ok(())
    }

    /// Does all that is in any stream, those made last first.
    pub(crate) fn drain_all(&mut self) -> Result<(), Status> {
        let streams: Vec<usize> = self.streams.keys().rev().copied().collect();
        streams.into_iter().try_for_each(|stream| self.drain(stream))
    }

    /// Does what is before an event.
    pub(crate) fn drain_to(&mut self, event: usize) -> Result<(), Status> {
        while let Some(stream) = self.events.get(&event).and_then(|e| e.stream) {
            let Some(work) = self.streams.get_mut(&stream).and_then(|queue| queue.pop_front()) else {
                break;
            };
            self.run(&work)?;
        }
        Ok(())
    }

    fn run(&mut self, work: &Work) -> Result<(), Status> {
        let done = self.try_run(work);
        if let Err(status) = done {
            self.failed = Some(status);
        }
        done
    }

    fn try_run(&mut self, work: &Work) -> Result<(), Status> {
        self.clock += 1;
        match work {
            Work::Kernel(name) => {
                self.kernels += 1;
                let now = Some(self.kernels);
                let fails = match () {
                    () if self.settings.illegal == now => ILLEGAL_ADDRESS,
                    () if self.settings.lost == now => UNKNOWN,
                    () => return Ok(()),
                };
                self.say(format!("(`{name}` fails)"));
                Err(fails)
            }
            Work::Set { to, value, bytes } => {
                self.bytes(*to, *bytes).ok_or(ILLEGAL_ADDRESS)?.fill(*value);
                Ok(())
            }
            Work::Write { to, content } => {
                self.bytes(*to, content.len()).ok_or(ILLEGAL_ADDRESS)?.copy_from_slice(content);
                Ok(())
            }
            Work::Copy { to, from, bytes } => {
                let content = self.load(*from, *bytes)?;
                self.store(*to, &content)
            }
            Work::Upload { to, from, content } => {
                self.unchanged(*from, content)?;
                let content = self.load(Side::Host(*from), content.len())?;
                self.store(Side::Device(*to), &content)
            }
            Work::Wait { event, recorded, stream } => {
                let passes = |work: &Work| matches!(work, Work::Pass { event: e, recorded: r } if (e, r) == (event, recorded));
                while self.streams.get(stream).is_some_and(|queue| queue.iter().any(passes)) {
                    let work = self.streams.get_mut(stream).and_then(|queue| queue.pop_front());
                    work.map_or(Ok(()), |work| self.run(&work))?;
                }
                Ok(())
            }
            Work::Graph(graph, given) => {
                self.take_time();
                given.iter().try_for_each(|(from, content)| self.unchanged(*from, content))?;
                graph.order().into_iter().try_for_each(|node| self.run(graph.work(node)))
            }
            Work::Pass { event, recorded } => {
                let clock = self.clock;
                if let Some(event) = self.events.get_mut(event)
                    && event.recorded == *recorded
                {
                    (event.stream, event.time) = (None, clock);
                }
                Ok(())
            }
        }
    }

    /// Notes a problem where pinned memory is not what it was when a copy of it was asked for.
    fn unchanged(&mut self, from: usize, content: &[u8]) -> Result<(), Status> {
        if self.load(Side::Host(from), content.len())? != content {
            self.problem(format!(
                "{} bytes of pinned memory changed before their copy had ended",
                content.len()
            ));
        }
        Ok(())
    }

    pub(crate) fn load(&mut self, from: Side, bytes: usize) -> Result<Vec<u8>, Status> {
        match from {
            Side::Device(address) => Ok(self.bytes(address, bytes).ok_or(ILLEGAL_ADDRESS)?.to_vec()),
            Side::Host(address) => {
                let pointer = self.pinned(address, bytes)?;
                // SAFETY: within memory that was allocated; who writes it at the same time has not
                // waited, which is what tests are to find.
                Ok(unsafe { std::slice::from_raw_parts(pointer, bytes) }.to_vec())
            }
        }
    }

    fn store(&mut self, to: Side, content: &[u8]) -> Result<(), Status> {
        match to {
            Side::Device(address) => {
                self.bytes(address, content.len()).ok_or(ILLEGAL_ADDRESS)?.copy_from_slice(content);
            }
            Side::Host(address) => {
                let pointer = self.pinned(address, content.len())?;
                // SAFETY: as above.
                unsafe { pointer.copy_from_nonoverlapping(content.as_ptr(), content.len()) };
            }
        }
        Ok(())
    }

    /// The address of these bytes of pinned memory, if they are in one allocation.
    pub(crate) fn pinned(&self, address: usize, bytes: usize) -> Result<*mut u8, Status> {
        let found = self.pinned.range(..=address).next_back();
        let inside = |(first, all): (&usize, &usize)| bytes <= *all && address - first <= all - bytes;
        if found.is_some_and(inside) {
            Ok(std::ptr::with_exposed_provenance_mut(address))
        } else {
            Err(ILLEGAL_ADDRESS)
        }
    }
}
