//! What the program says of GPUs: a library stands in for NVIDIA's driver.

use std::process::Command;

use crate::common::{Place, TINY, both};

/// The program with a driver of these settings, and no compiler but one that is not there.
fn with_driver(place: &Place, settings: &str, args: &[&str]) -> Command {
    let mut command = place.command(args);
    command
        .env("HALFSTEP_CUDA_DRIVER", halfstep_fake_cuda::library())
        .env("HALFSTEP_FAKE_CUDA", settings)
        .env("HALFSTEP_NVRTC", "/nowhere/libnvrtc.so.13")
        .env_remove("CUDA_VISIBLE_DEVICES");
    command
}

/// What it prints to stderr, on one line, and its exit code.
fn refused(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).replace(['│', '×', '╰', '─', '▶'], " ");
    (output.status.code().unwrap(), text.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[test]
fn info_shows_driver_gpus_and_the_compiler() {
    let place = Place::new();
    let settings = "devices=2;capability=8.6;memory=25769803776;name=NVIDIA RTX A5000;version=12080";
    let output = with_driver(&place, settings, &["info"]).output().unwrap();
    assert!(output.status.success(), "{}", both(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let gpus = text.split("GPUs\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let lines: Vec<&str> = gpus.lines().map(str::trim).collect();
    assert!(lines[0].starts_with("driver      CUDA 12.8 (/"), "{gpus}");
    let gpu = "NVIDIA RTX A5000, compute capability 8.6, 25.8 GB, GPU-fafafafa-fafa-fafa-fafa-fafafafafa0";
    assert_eq!(lines[1], format!("cuda:0      {gpu}0"));
    assert_eq!(lines[2], format!("cuda:1      {gpu}1"));
    assert!(
        lines[3].starts_with("compiler    NVIDIA's compiler of kernels, NVRTC, cannot be used: /nowhere/")
    );
    assert!(lines[4].starts_with("auto        computing on the CPU: NVIDIA's compiler of kernels"), "{gpus}");

    let output = with_driver(&place, settings, &["info", "--json"]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["gpu"]["driver"]["cuda"], "12.8");
    assert_eq!(json["gpu"]["devices"][1]["ordinal"], 1);
    assert_eq!(json["gpu"]["devices"][1]["supported"], true);
    assert_eq!((&json["gpu"]["auto"]["device"], &json["device"]["kind"]), (&"cpu".into(), &"CPU".into()));
    assert!(json["gpu"]["compiler"]["error"].as_str().unwrap().contains("cannot be used"));
}

#[test]
fn info_names_what_is_wrong_with_a_driver() {
    let place = Place::new();
    let info = |settings: &str| {
        let output = with_driver(&place, settings, &["info"]).output().unwrap();
        assert!(output.status.success(), "{}", both(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        text.split("GPUs\n").nth(1).unwrap().split("\n\n").next().unwrap().to_string()
    };
    let none = info("devices=0;version=13000");
    assert!(none.starts_with("  none        NVIDIA's driver (CUDA 13.0) shows no GPU"), "{none}");
    for (settings, says) in [
        ("init=34", "take its folder off LD_LIBRARY_PATH"),
        ("init=803", "of different versions: restart the machine, or give the container the library"),
        ("init=804", "take the folder `compat` off LD_LIBRARY_PATH"),
        ("init=999", "`nvidia-smi` may say more"),
    ] {
        assert!(info(settings).contains(says), "{settings}: {}", info(settings));
    }
    assert!(info("version=11040").contains("knows CUDA 11.4 and older, and CUDA 12.0 is needed"));
    let old = info("capability=7.5;name=Tesla T4");
    assert!(old.contains("Tesla T4 has compute capability 7.5; GPUs from 8.0 on are supported"), "{old}");

    let mut hidden = with_driver(&place, "devices=2", &["info"]);
    let output = hidden.env("CUDA_VISIBLE_DEVICES", "-1").output().unwrap();
    assert!(both(&output).contains("shows no GPU: CUDA_VISIBLE_DEVICES is `-1`"), "{}", both(&output));
}

#[test]
fn a_gpu_that_cannot_be_used_is_refused_with_what_there_is() {
    let place = Place::new();
    let settings = "devices=2;name=NVIDIA L4;capability=8.9";
    let step = |device: &'static str| ["bench", "step", "--model", "mlp", "--device", device];
    let bench = |settings: &str, device| refused(&mut with_driver(&place, settings, &step(device)));
    for device in ["cuda", "cuda:1", "GPU-fafafafa-fafa-fafa-fafa-fafafafafa01"] {
        let (code, says) = bench(settings, device);
        let compiler = "NVIDIA's compiler of kernels, NVRTC, cannot be used: /nowhere/libnvrtc.so.13: ";
        assert!(code == 2 && says.starts_with(compiler), "{device}: {code} {says}");
    }
    let (code, says) = bench(settings, "cuda:2");
    assert!(code == 2 && says.starts_with("there is no GPU `cuda:2`; there are: 0 NVIDIA L4 GPU-"), "{says}");
    let (code, says) = bench(settings, "GPU-fa");
    assert!(code == 2 && says.starts_with("several GPUs begin with `GPU-fa`: "), "{says}");
    let (code, says) = bench("capability=7.0", "cuda");
    assert!(code == 2 && says.contains("has compute capability 7.0; GPUs from 8.0 on"), "{says}");
    let (code, says) = bench("devices=0", "cuda");
    assert!(code == 2 && says.starts_with("NVIDIA's driver (CUDA 13.0) shows no GPU"), "{says}");
    let mut absent = place.command(&step("cuda"));
    let (code, says) = refused(absent.env("HALFSTEP_CUDA_DRIVER", "/nowhere/libcuda.so.1"));
    assert!(
        code == 2 && says.starts_with("NVIDIA's driver cannot be used: /nowhere/libcuda.so.1: "),
        "{says}"
    );
    assert!(says.contains("HALFSTEP_CUDA_DRIVER names the library: without it"), "{says}");
    assert!(
        says.contains("`halfstep info` shows what is found") && says.contains("`--device cpu`"),
        "{says}"
    );
}

/// Without NVRTC the package of PyPI is named whose code the driver runs.
#[test]
fn info_names_the_package_that_has_the_compiler() {
    let place = Place::new();
    for (version, package) in [(12_080, "nvidia-cuda-nvrtc-cu12"), (13_000, "nvidia-cuda-nvrtc")] {
        let mut info = with_driver(&place, &format!("version={version}"), &["info"]);
        info.env_remove("HALFSTEP_NVRTC").env_remove("LD_LIBRARY_PATH").env("PATH", "/nowhere");
        let text = both(&info.output().unwrap());
        let line = text.lines().find(|line| line.trim_start().starts_with("compiler ")).unwrap();
        // Where a toolkit is installed it is found.
        let found = line.contains("NVRTC 1") && !line.contains("was not found");
        assert!(found || line.contains(&format!("`pip install {package}`")), "{text}");
    }
}

/// A GPU that is there and not used is not passed over in silence; nor is a broken driver.
#[test]
fn auto_says_once_why_it_is_the_cpu() {
    let place = Place::new();
    place.write(
        "r.toml",
        "[data]\nkind = \"bundled\"\nname = \"digits\"\nlimit_train = 64\nlimit_test = 16\n\
         [model]\nkind = \"mlp\"\nhidden = [8]\n[train]\nsteps = 2\nbatch = 8\n",
    );
    let train = |settings: &str, device: &str, out: &str| {
        let args = ["train", "r.toml", "--device", device, "--out", out];
        let output = with_driver(&place, settings, &args).output().unwrap();
        assert!(output.status.success(), "{}", both(&output));
        String::from_utf8(output.stderr).unwrap()
    };
    for (settings, reason) in [
        ("", "NVIDIA's compiler of kernels, NVRTC, cannot be used: /nowhere/libnvrtc.so.13: "),
        ("init=803", "NVIDIA's driver cannot be used: "),
        ("version=11040", "NVIDIA's driver knows CUDA 11.4 and older"),
        ("devices=0", "NVIDIA's driver (CUDA 13.0) shows no GPU"),
        ("capability=7.5", "Fake GPU has compute capability 7.5"),
    ] {
        let says = format!("note: computing on the CPU: {reason}");
        assert_eq!(train(settings, "auto", &format!("auto-{settings}")).matches(&says).count(), 1, "{says}");
    }
    assert!(!train("", "cpu", "c").contains("computing on the CPU"));
}

/// What a GPU would be asked to do is shown without one.
#[test]
fn explain_shows_the_commands_for_an_architecture() {
    let place = Place::new();
    place.write("r.toml", TINY);
    let explain = |more: &[&str]| {
        place.ok(&[&["explain", "r.toml", "--precision", "bf16", "--stage", "device"], more].concat())
    };
    let text = explain(&["--device", "sm_90a"]);
    assert!(text.starts_with("bf16 on GPU sm_90a, no GPU at hand: "), "{text}");
    for words in
        ["input x", "for layers.0", "grid ", "reads arena ", "writes slots ", "waits for ", "TypeA=bf16"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");

    let json: serde_json::Value = serde_json::from_str(&explain(&["--device", "sm_80", "--json"])).unwrap();
    let commands = json["commands"].as_array().unwrap();
    let footprint = &json["footprint"];
    let mut waiting = 0;
    for command in commands {
        let number = command["number"].as_u64().unwrap();
        let after = command["after"].as_array().unwrap();
        assert!(after.iter().all(|before| before.as_u64().unwrap() < number), "{command}");
        waiting += after.len();
        let spans = [&command["reads"], &command["writes"]].map(|spans| spans.as_array().unwrap());
        for span in spans.into_iter().flatten() {
            let region = span["region"].as_str().unwrap();
            let bytes = footprint[if region == "slots" { "state" } else { region }].as_u64().unwrap();
            assert!(span["offset"].as_u64().unwrap() + span["bytes"].as_u64().unwrap() <= bytes, "{command}");
        }
    }
    assert!(waiting > commands.len() / 2 && commands[0]["shared_bytes"].is_number(), "{}", commands[0]);
    // The driver alone is asked for a GPU, and its compiler is not.
    let there = ["explain", "r.toml", "--stage", "device", "--device", "cuda"];
    let output = with_driver(&place, "name=Card", &there).output().unwrap();
    assert!(both(&output).contains("on GPU sm_90a, Card: "), "{}", both(&output));
    let none = place.fails(2, &["explain", "r.toml", "--stage", "device", "--device", "cpu"]);
    assert!(none.contains("--device sm_90a"), "{none}");
    assert!(place.fails(2, &["train", "r.toml", "--device", "sm_90a"]).contains("no device to compute on"));
    assert!(place.fails(2, &["explain", "r.toml", "--stage", "plan", "--json"]).contains("--stage device"));
}

#[test]
fn a_limit_of_a_gpus_memory_is_none_of_the_cpu() {
    let place = Place::new();
    place.write("r.toml", TINY);
    let limited = ["train", "r.toml", "--device-memory", "50%"];
    assert!(place.fails(2, &[&limited[..], &["--device", "cpu"]].concat()).contains("--device is cpu"));
    assert!(place.fails(2, &["train", "r.toml", "--device-memory", "0%"]).contains("neither a number of"));
    let output = with_driver(&place, "devices=0", &limited).output().unwrap();
    assert!(output.status.success() && both(&output).contains("on the CPU it limits nothing"));
}

#[test]
fn the_cache_shows_compiled_kernels_and_removes_them() {
    let place = Place::new();
    let key = halfstep::gpu::cache::KernelKey::of(["a kernel"]);
    let kernels = halfstep::kernel_cache(place.cache.path());
    kernels.write(&key, &[1; 68]).unwrap();
    assert!(place.ok(&["cache"]).contains("compiled kernels  1, 100 B"));
    let json = place.json(&["cache", "--json"]);
    assert_eq!(json["kernels"], serde_json::json!({ "modules": 1, "bytes": 100, "removed": 0 }));
    assert!(place.ok(&["cache", "--clear"]).contains("0 runs, 1 kernels"));
    assert_eq!(kernels.read(&key), None);
}

/// Where somebody keeps the cache beside what they train, or in what is no folder.
#[test]
fn the_cache_leaves_alone_what_is_not_its_own() {
    let place = Place::new();
    let (runs, kernels) = (place.cache.path().join("runs"), place.cache.path().join("kernels"));
    let (own, named) = (runs.join("0123456789abcdef".repeat(2)), "fedcba9876543210".repeat(2));
    for folder in [&own, &runs.join("digits-1"), &kernels.join("b.kernel")] {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("model.safetensors"), "mine").unwrap();
    }
    std::fs::write(runs.join("notes.txt"), "mine").unwrap();
    std::fs::write(runs.join(&named), "a file").unwrap();
    assert_eq!(place.json(&["cache", "--json"])["unfinished"], 1);
    assert_eq!(place.json(&["cache", "--clear", "--json"])["removed"], 1);
    assert!(!own.exists() && runs.join("digits-1/model.safetensors").exists());
    assert!(runs.join("notes.txt").exists() && runs.join(&named).exists());
    assert!(kernels.join("b.kernel/model.safetensors").exists());
    place.write("file", "no folder");
    for arguments in [&["cache"][..], &["cache", "--clear"]] {
        let output = place.command(arguments).env("HALFSTEP_CACHE", "file").output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(both(&output).contains("the cache file cannot be read"), "{output:?}");
    }
}
