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
    Graph(Arc<Graph>),
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
            Work::Graph(graph) => graph.order().into_iter().try_for_each(|node| self.run(graph.work(node))),
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

    fn load(&mut self, from: Side, bytes: usize) -> Result<Vec<u8>, Status> {
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
