//! Modules: PTX text, ready to run.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::capability::Capability;
use crate::decode::{Layout, layout, program};
use crate::fault::LoadError;
use crate::op::Program;
use crate::syntax::parse;

/// The kernels and variables of a PTX text.
#[derive(Clone, Debug)]
pub struct Module {
    pub(crate) programs: Vec<Program>,
    pub(crate) layout: Layout,
    /// Tells its variables on a device from those of other modules.
    pub(crate) number: u64,
    target: String,
}

static NUMBER: AtomicU64 = AtomicU64::new(0);

impl Module {
    /// Loads a module, all of its kernels.
    ///
    /// # Errors
    ///
    /// The text is no PTX, or has instructions or declarations that are not simulated; the line is
    /// named.
    pub fn load(text: &str) -> Result<Module, LoadError> {
        let text = parse(text)?;
        let layout = layout(&text)?;
        let kernels = text.functions.iter().filter(|function| function.entry);
        let programs = kernels.map(|kernel| program(&text, kernel, &layout)).collect::<Result<_, _>>()?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let target = text.target.first().cloned().unwrap_or_default();
        Ok(Module { programs, layout, number, target })
    }

    /// The names of its kernels.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.programs.iter().map(|program| program.name.as_str())
    }

    /// What the text says it is for, such as `sm_90a`.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The compute capability of the target; 8.0 if the target names none.
    pub fn capability(&self) -> Capability {
        let digits: String = self.target.chars().filter(char::is_ascii_digit).collect();
        Capability(digits.parse().unwrap_or(80))
    }

    /// Instructions of a kernel, as they are in the text; functions count at each call.
    pub fn instructions(&self, kernel: &str) -> Option<usize> {
        Some(self.programs.iter().find(|program| program.name == kernel)?.code.len())
    }

    /// The texts of a kernel's instructions, by the numbers that a [`Watch`](crate::Watch) is
    /// given.
    pub fn texts(&self, kernel: &str) -> Option<impl Iterator<Item = &str>> {
        let program = self.programs.iter().find(|program| program.name == kernel)?;
        Some(program.sources.iter().map(|(text, _)| text.as_str()))
    }
}
