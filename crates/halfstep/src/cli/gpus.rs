//! What is said of GPUs: the driver, what it shows, and the compiler of kernels.

use halfstep::evidence::units;
use halfstep::gpu::compile::CompileProgress;
use halfstep::gpu::cuda::{CudaVersion, Gpu};
use halfstep::gpu::find::{self, FindError};
use halfstep::gpu::survey::{self, DriverError, DriverFound};
use halfstep::gpu::{Architecture, GpuChoice, GpuEngine};
use halfstep::graph::engine::Engine;
use halfstep::{DeviceRequest, EngineRequest, Taken};
use serde_json::{Value, json};

use super::output;

/// Says that kernels are compiled, once for each program that has new ones.
pub fn compiling(progress: CompileProgress) {
    match progress {
        CompileProgress::Compiled { done: 0, of } => output::note(format!(
            "compiling {of} {} for the GPU, which are kept for later runs",
            if of == 1 { "kernel module" } else { "kernel modules" }
        )),
        CompileProgress::Compiled { .. } => {}
        CompileProgress::NotKept(why) => output::warning(why),
    }
}

/// Says what `--device auto` took, and why.
pub fn say(taken: &Taken) {
    taken.why.iter().for_each(output::note);
    if taken.request.device_memory.is_some() && taken.request.device == DeviceRequest::Cpu {
        output::note("--device-memory limits what is taken of a GPU: on the CPU it limits nothing");
    }
}

/// Whether an engine computes on a GPU, which has memory of its own.
pub fn is_gpu(engine: &dyn Engine) -> bool {
    engine.device().kind == GpuEngine::KIND
}

/// What was found.
pub struct Gpus {
    driver: Result<DriverFound, DriverError>,
    /// Looked for only where there is a GPU.
    compiler: Option<Result<(CudaVersion, String), FindError>>,
    /// What `--device auto` takes.
    auto: Taken,
}

impl Gpus {
    /// Looks for the driver, its GPUs and the compiler.
    pub fn find() -> Gpus {
        let driver = survey::driver();
        let compiler = driver.as_ref().ok().map(|found| {
            let nvrtc = find::nvrtc(Some(found.driver.version().major))?;
            Ok((nvrtc.version(), nvrtc.file().display().to_string()))
        });
        let auto = EngineRequest::default().taken();
        Gpus { driver, compiler, auto }
    }

    /// Lines of two columns.
    pub fn lines(&self) -> Vec<(String, String)> {
        let found = match &self.driver {
            Ok(found) => found,
            Err(error) => return vec![("none".into(), error.to_string())],
        };
        let driver = format!("CUDA {} ({})", found.driver.version(), found.driver.file().display());
        let mut lines = vec![("driver".into(), driver)];
        lines.extend(found.gpus.iter().map(|gpu| (format!("cuda:{}", gpu.ordinal), describe(gpu))));
        let compiler = match &self.compiler {
            Some(Ok((version, file))) => format!("NVRTC {version} ({file})"),
            Some(Err(error)) => error.to_string(),
            None => return lines,
        };
        lines.push(("compiler".into(), compiler));
        lines.extend(self.auto.why.iter().map(|why| ("auto".into(), why.clone())));
        lines
    }

    /// The same as JSON.
    pub fn json(&self) -> Value {
        let error = |e: &dyn std::error::Error| json!({ "error": e.to_string() });
        let (driver, gpus) = match &self.driver {
            Ok(found) => {
                let file = found.driver.file().display().to_string();
                let version = found.driver.version().to_string();
                (json!({ "cuda": version, "file": file }), found.gpus.iter().map(object).collect())
            }
            Err(e) => (error(e), Vec::new()),
        };
        let compiler = match &self.compiler {
            Some(Ok((version, file))) => json!({ "nvrtc": version.to_string(), "file": file }),
            Some(Err(e)) => error(e),
            None => Value::Null,
        };
        let auto = json!({ "device": self.auto.request.device.to_string(), "why": self.auto.why });
        json!({ "driver": driver, "devices": gpus, "compiler": compiler, "auto": auto })
    }
}

fn describe(gpu: &Gpu) -> String {
    let (major, minor) = gpu.capability;
    let memory = units::bytes(gpu.memory_bytes);
    // Its own sentence where it cannot be used.
    let name = match GpuChoice::Any.of(std::slice::from_ref(gpu)) {
        Ok(_) => format!("{}, compute capability {major}.{minor}", gpu.name),
        Err(error) => error.to_string(),
    };
    format!("{name}, {memory}, {}", gpu.uuid)
}

fn object(gpu: &Gpu) -> Value {
    let least = (Architecture::MINIMUM.major, Architecture::MINIMUM.minor);
    json!({
        "ordinal": gpu.ordinal,
        "name": gpu.name,
        "uuid": gpu.uuid,
        "capability": format!("{}.{}", gpu.capability.0, gpu.capability.1),
        "supported": gpu.capability >= least,
        "memory_bytes": gpu.memory_bytes,
        "multiprocessors": gpu.multiprocessors,
        "shared_bytes": gpu.shared_bytes,
        "l2_bytes": gpu.l2_bytes,
    })
}
