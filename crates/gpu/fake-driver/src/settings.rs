//! What GPUs there are, and what fails.

/// Settings, as text: `name=value`, separated by semicolons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `devices`: how many GPUs there are; with none the driver says so when it is initialised.
    pub(crate) devices: u32,
    /// `version`: what the driver knows of CUDA; 13000 is 13.0.
    pub(crate) version: i32,
    /// `capability`: of each GPU, such as `9.0`.
    pub(crate) capability: (i32, i32),
    /// `memory`: bytes of each GPU.
    pub(crate) memory: usize,
    /// `name` of each GPU.
    pub(crate) name: String,
    /// `init`: what initialising returns.
    pub(crate) init: u32,
    /// `load`: what loading code returns, such as 222, for code of a newer compiler.
    pub(crate) load: u32,
    /// `no_memory`: which allocation fails, from 1, pinned ones included.
    pub(crate) no_memory: Option<u64>,
    /// `illegal`: which kernel that runs reads where nothing is, from 1.
    pub(crate) illegal: Option<u64>,
    /// `lost`: at which kernel that runs the GPU is lost, from 1.
    pub(crate) lost: Option<u64>,
    /// `graph_ms`: how long a graph takes, from when somebody waits for it.
    pub(crate) graph_ms: u64,
    /// `graphs_at_once`: how many graphs of different streams run at a time.
    pub(crate) graphs_at_once: usize,
    /// `log`: the file that calls and problems are appended to.
    pub(crate) log: Option<String>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            devices: 1,
            version: 13_000,
            capability: (9, 0),
            memory: 1 << 30,
            name: "Fake GPU".into(),
            init: 0,
            load: 0,
            no_memory: None,
            illegal: None,
            lost: None,
            graph_ms: 0,
            graphs_at_once: 1,
            log: None,
        }
    }
}

impl Settings {
    /// Reads settings.
    ///
    /// # Panics
    /// One is not known: a test that means another fault than it gets would prove nothing.
    pub(crate) fn parse(text: &str) -> Settings {
        let mut settings = Settings::default();
        for entry in text.split(';').filter(|entry| !entry.is_empty()) {
            settings.set(entry).unwrap_or_else(|| panic!("`{entry}` is no setting of the fake driver"));
        }
        settings
    }

    fn set(&mut self, entry: &str) -> Option<()> {
        let (name, value) = entry.split_once('=')?;
        let number = || value.parse::<u64>().ok();
        match name {
            "devices" => self.devices = value.parse().ok()?,
            "version" => self.version = value.parse().ok()?,
            "capability" => {
                let (major, minor) = value.split_once('.')?;
                self.capability = (major.parse().ok()?, minor.parse().ok()?);
            }
            "memory" => self.memory = value.parse().ok()?,
            "name" => self.name = value.into(),
            "init" => self.init = value.parse().ok()?,
            "load" => self.load = value.parse().ok()?,
            "no_memory" => self.no_memory = Some(number()?),
            "illegal" => self.illegal = Some(number()?),
            "lost" => self.lost = Some(number()?),
            "graph_ms" => self.graph_ms = number()?,
            "graphs_at_once" => self.graphs_at_once = value.parse().ok().filter(|n| *n > 0)?,
            "log" => self.log = Some(value.into()),
            _ => return None,
        }
        Some(())
    }
}
