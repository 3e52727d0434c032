//! How the driver is called, by a library that stands in for it and checks that.

use std::sync::Arc;

use halfstep_fake_cuda::FakeDriver;
use halfstep_gpu::cuda::{
    CopyPlace, CudaContext, CudaError, CudaEvent, CudaGraphBuilder, CudaModule, Driver, KernelLaunch,
    LibraryError, PinnedMemory, Stream,
};

const CUBIN: &[u8] = include_bytes!("fixtures/scale.sm_90a.cubin");

fn context(fake: &FakeDriver) -> Arc<CudaContext> {
    let driver = Driver::open(fake.file()).unwrap();
    CudaContext::of(&driver, &driver.gpus().unwrap()[0]).unwrap()
}

/// What `scale` takes: a pointer and a number.
fn parameters(address: u64, n: i32) -> Vec<u8> {
    [&address.to_le_bytes()[..], &n.to_le_bytes()[..]].concat()
}

#[test]
fn gpus_are_listed_with_what_is_known_of_them() {
    let fake = FakeDriver::new("devices=2;capability=8.9;memory=24000000000;version=12080;name=NVIDIA L4");
    let driver = Driver::open(fake.file()).unwrap();
    assert_eq!(driver.version().to_string(), "12.8");
    let gpus = driver.gpus().unwrap();
    assert_eq!(gpus.len(), 2);
    assert_eq!((gpus[1].ordinal, gpus[1].name.as_str(), gpus[1].capability), (1, "NVIDIA L4", (8, 9)));
    assert_eq!((gpus[1].memory_bytes, gpus[1].multiprocessors), (24_000_000_000, 132));
    assert_eq!(gpus[1].uuid, "GPU-fafafafa-fafa-fafa-fafa-fafafafafa01");
}

#[test]
fn a_driver_without_gpus_opens_and_a_broken_one_says_why() {
    let none = FakeDriver::new("devices=0");
    assert_eq!(Driver::open(none.file()).unwrap().gpus(), Ok(Vec::new()));

    let error = Driver::open(FakeDriver::new("init=803").file()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cuInit failed: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (system has unsupported display driver / cuda driver \
         combination)"
    );
    let unknown = Driver::open(FakeDriver::new("init=12345").file()).unwrap_err();
    assert_eq!(unknown.to_string(), "cuInit failed: error 12345 (unknown to this driver)");

    let absent = Driver::open("/nowhere/libcuda.so.1").unwrap_err();
    assert!(matches!(absent, CudaError::Library(LibraryError::Open { .. })), "{absent}");
    let other = Driver::open("libc.so.6").unwrap_err();
    assert_eq!(
        other.to_string(),
        "libc.so.6: it has no function cuInit: it is another library, or older than what is needed"
    );
}

#[test]
fn memory_is_cleared_and_copies_stay_inside() {
    let fake = FakeDriver::new("");
    let context = context(&fake);
    let free = context.free_bytes().unwrap();
    let memory = context.allocate(1000).unwrap();
    assert_eq!(memory.address() % 256, 0);
    assert_eq!(context.free_bytes().unwrap(), free - 1000);
    let mut back = vec![1; 1000];
    context.clear(memory.address(), 1000).unwrap();
    context.read(memory.address(), &mut back).unwrap();
    assert_eq!(back, [0; 1000]);
    context.write(memory.address() + 10, &[7; 20]).unwrap();
    let mut back = vec![1; 22];
    context.read(memory.address() + 9, &mut back).unwrap();
    assert_eq!(back[0], 0);
    assert_eq!(back[1..21], [7; 20]);

    let range = |address, bytes| Err(CudaError::Range { address, bytes });
    let end = memory.address() + 990;
    assert_eq!(context.write(end, &[0; 11]), range(end, 11));
    assert_eq!(context.read(memory.address() - 1, &mut [0; 2]), range(memory.address() - 1, 2));
    assert_eq!(context.read(0, &mut []), Ok(()));
    let address = memory.address();
    drop(memory);
    assert_eq!(context.write(address, &[0]), range(address, 1));
    assert!(context.allocate(0).is_ok());
    let error = context.allocate(1 << 40).unwrap_err();
    assert!(error.is_out_of_memory(), "{error}");
    drop(context);
    assert_eq!(fake.problems(), [""; 0]);
}

/// Copies of a graph come in the reverse of the order in which they were added, and not before
/// somebody waits; so each needs its edge, and whoever reads the bytes has to wait.
#[test]
fn a_graph_copies_in_the_order_of_its_edges() {
    let fake = FakeDriver::new("");
    let context = context(&fake);
    let (a, b) = (context.allocate(64).unwrap(), context.allocate(64).unwrap());
    let (input, output) =
        (PinnedMemory::new(&context, 64).unwrap(), PinnedMemory::new(&context, 128).unwrap());
    let mut graph = CudaGraphBuilder::new(&context).unwrap();
    let up = graph.copy(CopyPlace::Device(a.address()), CopyPlace::Host(&input, 0), 64, &[]).unwrap();
    let over = graph.copy(CopyPlace::Device(b.address()), CopyPlace::Device(a.address()), 64, &[up]).unwrap();
    graph.copy(CopyPlace::Host(&output, 64), CopyPlace::Device(b.address()), 64, &[over]).unwrap();
    let mut graph = graph.finish().unwrap();
    let stream = Stream::new(&context).unwrap();
    for round in 1..4 {
        // Waits for the last launch, which reads these bytes.
        input.with(|bytes| bytes.fill(round)).unwrap();
        graph.launch(&stream).unwrap();
        let found = output.with(|bytes| bytes.to_vec()).unwrap();
        assert_eq!((found[..64].to_vec(), found[64..].to_vec()), (vec![0; 64], vec![round; 64]));
    }
    graph.launch(&stream).unwrap();
    graph.wait().unwrap();
    drop((graph, stream, input, output, a, b, context));
    assert_eq!(fake.problems(), [""; 0]);
}

/// Writing is done when it returns, though streams do not wait for each other; and it waits for
/// what was launched before.
#[test]
fn what_is_written_is_there_for_the_next_launch_and_not_for_the_last() {
    let fake = FakeDriver::new("");
    let context = context(&fake);
    let (memory, output) = (context.allocate(8).unwrap(), PinnedMemory::new(&context, 8).unwrap());
    let mut graph = CudaGraphBuilder::new(&context).unwrap();
    graph.copy(CopyPlace::Host(&output, 0), CopyPlace::Device(memory.address()), 8, &[]).unwrap();
    let mut graph = graph.finish().unwrap();
    let stream = Stream::new(&context).unwrap();
    context.write(memory.address(), &[1; 8]).unwrap();
    graph.launch(&stream).unwrap();
    context.write(memory.address(), &[2; 8]).unwrap();
    assert_eq!(output.with(|bytes| bytes.to_vec()).unwrap(), [1; 8]);
    graph.launch(&stream).unwrap();
    assert_eq!(output.with(|bytes| bytes.to_vec()).unwrap(), [2; 8]);
    drop((graph, stream, output, memory, context));
    assert_eq!(fake.problems(), [""; 0]);
}

/// The library that checks finds what is wrong: without this, no problems would mean nothing.
#[test]
fn an_edge_that_is_absent_is_found() {
    let fake = FakeDriver::new("");
    let context = context(&fake);
    let (a, b) = (context.allocate(64).unwrap(), context.allocate(64).unwrap());
    let mut graph = CudaGraphBuilder::new(&context).unwrap();
    let place = |memory: &halfstep_gpu::cuda::DeviceMemory| CopyPlace::Device(memory.address());
    graph.copy(place(&a), place(&b), 64, &[]).unwrap();
    graph.copy(place(&b), place(&a), 32, &[]).unwrap();
    drop(graph.finish().unwrap());
    let problem = "PROBLEM the copies 0 and 1 of a graph share bytes, and nothing orders them";
    assert_eq!(fake.problems(), [problem]);
    std::mem::forget(a);
    drop((b, context));
    // The context is held by what was forgotten, so it is not released either.
    assert_eq!(fake.problems(), [problem]);
}

#[test]
fn kernels_are_launched_with_the_parameters_that_they_have() {
    let fake = FakeDriver::new("");
    let context = context(&fake);
    let memory = context.allocate(1024).unwrap();
    let module = CudaModule::load(&context, "scale.cu", CUBIN).unwrap();
    let scale = module.function("scale", 0).unwrap();
    let shared = module.function("shared", 100 << 10).unwrap();
    let stream = Stream::new(&context).unwrap();
    let (right, short) = (parameters(memory.address(), 256), memory.address().to_le_bytes());
    let launch =
        KernelLaunch { function: &scale, grid: [2, 1, 1], block: 128, shared_bytes: 0, parameters: &right };

    let (before, after) = (CudaEvent::new(&context).unwrap(), CudaEvent::new(&context).unwrap());
    before.record(&stream).unwrap();
    stream.launch(launch).unwrap();
    stream
        .launch(KernelLaunch { function: &shared, shared_bytes: 100 << 10, parameters: &short, ..launch })
        .unwrap();
    after.record(&stream).unwrap();
    assert!(after.since(&before).is_err());
    stream.synchronize().unwrap();
    assert!(after.since(&before).unwrap().as_micros() > 0);

    let mut graph = CudaGraphBuilder::new(&context).unwrap();
    let first = graph.kernel(launch, &[]).unwrap();
    graph.kernel(launch, &[first]).unwrap();
    let mut graph = graph.finish().unwrap();
    // The module is dropped here, and lives on with what uses it.
    drop((module, scale.clone()));
    graph.launch(&stream).unwrap();
    stream.synchronize().unwrap();
    assert_eq!(fake.problems(), [""; 0]);
    assert!(
        fake.log()
            .iter()
            .any(|l| l == "cuGraphAddKernelNode_v2 scale [2, 1, 1] [128, 1, 1] 0 node 1 after [0]")
    );

    let refused = |launch: KernelLaunch<'_>, says: &str| {
        let error = stream.launch(launch).unwrap_err();
        assert!(error.to_string().starts_with("cuLaunchKernel failed: CUDA_ERROR_INVALID_VALUE"), "{error}");
        assert_eq!(fake.problems().pop().unwrap(), format!("PROBLEM `scale` {says}"));
    };
    refused(KernelLaunch { parameters: &short, ..launch }, "has 12 bytes of parameters and is given Some(8)");
    refused(KernelLaunch { grid: [0, 1, 1], ..launch }, "cannot have a grid of [0, 1, 1]");
    refused(KernelLaunch { block: 1025, ..launch }, "cannot have 1025 threads in a block");
    let asked = "asked for 49152 bytes of shared memory and gets 65536";
    refused(KernelLaunch { shared_bytes: 64 << 10, ..launch }, asked);
}

#[test]
fn code_for_other_gpus_is_refused_and_names_are_looked_up() {
    for (settings, says) in [
        ("capability=8.0", "cuModuleLoadData failed: CUDA_ERROR_NO_BINARY_FOR_GPU"),
        ("load=222", "cuModuleLoadData failed: CUDA_ERROR_UNSUPPORTED_PTX_VERSION"),
    ] {
        let fake = FakeDriver::new(settings);
        let error = CudaModule::load(&context(&fake), "scale.cu", CUBIN).unwrap_err();
        assert!(error.to_string().starts_with(says), "{error}");
        assert_eq!(fake.problems(), [""; 0]);
    }
    let fake = FakeDriver::new("");
    let context = context(&fake);
    let error = CudaModule::load(&context, "scale.cu", b"PTX").unwrap_err();
    assert_eq!(error.to_string(), "scale.cu: it is no cubin");
    let module = CudaModule::load(&context, "scale.cu", CUBIN).unwrap();
    let error = module.function("other", 0).unwrap_err();
    assert!(error.to_string().starts_with("cuModuleGetFunction failed: CUDA_ERROR_NOT_FOUND"), "{error}");
    assert!(module.function("a\0b", 0).is_err());
}

/// Whatever fails: everything is freed once, and nothing panics.
#[test]
fn after_a_kernel_has_failed_all_fails_and_all_is_freed() {
    for (settings, name) in [("illegal=2", "CUDA_ERROR_ILLEGAL_ADDRESS"), ("lost=2", "CUDA_ERROR_UNKNOWN")] {
        let fake = FakeDriver::new(settings);
        let context = context(&fake);
        let memory = context.allocate(1024).unwrap();
        let module = CudaModule::load(&context, "scale.cu", CUBIN).unwrap();
        let scale = module.function("scale", 0).unwrap();
        let (stream, bytes) = (Stream::new(&context).unwrap(), parameters(memory.address(), 256));
        let launch = KernelLaunch {
            function: &scale,
            grid: [2, 1, 1],
            block: 128,
            shared_bytes: 0,
            parameters: &bytes,
        };
        let pinned = PinnedMemory::new(&context, 8).unwrap();
        let mut graph = CudaGraphBuilder::new(&context).unwrap();
        let up =
            graph.copy(CopyPlace::Device(memory.address()), CopyPlace::Host(&pinned, 0), 8, &[]).unwrap();
        graph.kernel(launch, &[up]).unwrap();
        let mut graph = graph.finish().unwrap();
        graph.launch(&stream).unwrap();
        graph.wait().unwrap();
        graph.launch(&stream).unwrap();
        let errors = [
            graph.wait().unwrap_err(),
            stream.synchronize().unwrap_err(),
            pinned.with(|_| ()).unwrap_err(),
            context.write(memory.address(), &[1]).unwrap_err(),
            context.allocate(1).unwrap_err(),
        ];
        assert!(errors.iter().all(|e| e.to_string().contains(name)), "{errors:?}");
        drop((graph, scale, module, stream, pinned, memory, context));
        assert_eq!(fake.problems(), [""; 0]);
    }
}

#[test]
fn any_allocation_may_fail_and_nothing_leaks() {
    for n in 1..=4 {
        let fake = FakeDriver::new(&format!("no_memory={n}"));
        let context = context(&fake);
        let device = [context.allocate(10), context.allocate(20)];
        let pinned = [PinnedMemory::new(&context, 10), PinnedMemory::new(&context, 20)];
        let failed: Vec<bool> = device
            .iter()
            .map(|d| d.as_ref().err().is_some_and(CudaError::is_out_of_memory))
            .chain(pinned.iter().map(|p| p.as_ref().err().is_some_and(CudaError::is_out_of_memory)))
            .collect();
        assert_eq!(failed, (1..=4).map(|i| i == n).collect::<Vec<_>>());
        drop((device, pinned, context));
        assert_eq!(fake.problems(), [""; 0]);
    }
}

/// Contexts are current in one thread each: whichever calls, the functions make it current.
#[test]
fn any_thread_may_call() {
    let fake = FakeDriver::new("");
    let context = context(&fake);
    let memory = context.allocate(100).unwrap();
    std::thread::scope(|scope| {
        for i in 0..4 {
            let (context, memory) = (&context, &memory);
            scope.spawn(move || {
                let at = memory.address() + i * 25;
                context.write(at, &[i as u8; 25]).unwrap();
                let mut back = [9; 25];
                context.read(at, &mut back).unwrap();
                assert_eq!(back, [i as u8; 25]);
            });
        }
    });
    std::thread::spawn(move || drop((memory, context))).join().unwrap();
    assert_eq!(fake.problems(), [""; 0]);
}
