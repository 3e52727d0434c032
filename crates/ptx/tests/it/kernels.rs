//! Kernels that NVRTC compiled, against sums in f64.

use halfstep_ptx::{
    Argument, Arrival, Cause, Fault, Launch, LaunchError, Module, Options, Region, Simulator,
};

fn load(name: &str) -> Module {
    let path = format!("{}/tests/kernels/{name}.ptx", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    Module::load(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

const COLUMNS: usize = 333;
const ROWS: usize = 3;

/// Rows of softmax, and the results.
fn softmax(name: &str, options: Options) -> Result<Vec<f32>, LaunchError> {
    let module = load(name);
    let mut gpu = Simulator::new(options);
    let x: Vec<u8> =
        (0..ROWS * COLUMNS).flat_map(|i| bf16((i as f32 * 0.37).sin() * 5.0).to_le_bytes()).collect();
    let x = gpu.allocate_from(&x).unwrap();
    let y = gpu.allocate(ROWS * COLUMNS * 4).unwrap();
    let launch = Launch::new("softmax", [ROWS as u32, 1, 1], [128, 1, 1])
        .input(x)
        .output(y)
        .argument(Argument::I32(COLUMNS as i32));
    gpu.launch(&module, &launch)?;
    Ok(floats(&gpu.bytes(y).unwrap()))
}

fn fault(result: Result<Vec<f32>, LaunchError>) -> Fault {
    match result {
        Err(LaunchError::Fault(fault)) => *fault,
        other => panic!("no fault: {other:?}"),
    }
}

#[test]
fn softmax_is_that_of_f64() {
    let y = softmax("softmax", Options::default()).unwrap();
    for row in 0..ROWS {
        let x = |i: usize| {
            f64::from(f32::from_bits(u32::from(bf16(((row * COLUMNS + i) as f32 * 0.37).sin() * 5.0)) << 16))
        };
        let sum: f64 = (0..COLUMNS).map(|i| x(i).exp()).sum();
        for i in 0..COLUMNS {
            let exact = x(i).exp() / sum;
            // The exponent, of at most 15, is rounded three times: 15 · 3 · 2^-24 relative; the sum
            // of 333 adds less than 2^-17, the product 2^-23.
            let got = f64::from(y[row * COLUMNS + i]);
            assert!((got - exact).abs() <= exact * 2f64.powi(-16), "row {row}, {i}: {got} for {exact}");
        }
    }
}

#[test]
fn seeds_and_arrival_do_not_change_softmax() {
    let first = softmax("softmax", Options::default()).unwrap();
    for seed in 0..8 {
        let options = Options { seed: Some(seed), arrival: Arrival::Early, ..Options::default() };
        assert_eq!(softmax("softmax", options).unwrap(), first);
    }
}

#[test]
fn planted_faults_of_softmax_are_named() {
    let fault_of = |name: &str| fault(softmax(name, Options::default()));
    let found = fault_of("softmax.no_barrier");
    assert!(matches!(found.cause, Cause::Race { .. } | Cause::NeverWritten { .. }), "{found}");
    let found = fault_of("softmax.absent_lanes");
    assert!(matches!(found.cause, Cause::AbsentLanes { .. }), "{found}");
    let found = fault_of("softmax.divergent_barrier");
    assert!(matches!(found.cause, Cause::DivergentBarrier { .. }), "{found}");
    let found = fault_of("softmax.uninitialised");
    assert!(matches!(found.cause, Cause::NeverWritten { .. }), "{found}");
    assert!(found.place.instruction.contains("ld.shared"), "{found}");
}

/// C = A·Bᵀ by Tensor Cores.
fn gemm(name: &str, options: Options, [m, n, k]: [usize; 3]) -> Result<Vec<f32>, LaunchError> {
    let module = load(name);
    let mut gpu = Simulator::new(options);
    let matrix = |count: usize, step: f32| -> Vec<u8> {
        (0..count).flat_map(|i| bf16((i as f32 * step).sin()).to_le_bytes()).collect()
    };
    let a = gpu.allocate_from(&matrix(m * k, 0.7)).unwrap();
    let b = gpu.allocate_from(&matrix(n * k, 0.3)).unwrap();
    let c: Region = gpu.allocate(m * n * 4).unwrap();
    let launch = Launch::new("gemm_mma", [n.div_ceil(64) as u32, m.div_ceil(64) as u32, 1], [128, 1, 1])
        .shared(3 * 2 * 64 * 64)
        .input(a)
        .input(b)
        .output(c)
        .argument(Argument::I32(m as i32))
        .argument(Argument::I32(n as i32))
        .argument(Argument::I32(2 * k as i32));
    let counts = gpu.launch(&module, &launch)?;
    assert_eq!(counts.bank_conflicts, 0, "{counts}");
    Ok(floats(&gpu.bytes(c).unwrap()))
}

#[test]
fn a_product_of_tensor_cores_is_that_of_f64() {
    let [m, n, k] = [100, 72, 136];
    let element =
        |i: usize, step: f32| f64::from(f32::from_bits(u32::from(bf16((i as f32 * step).sin())) << 16));
    for seed in [None, Some(1), Some(2)] {
        let options = Options { seed, ..Options::default() };
        let c = gemm("gemm_mma", options, [m, n, k]).unwrap();
        for row in 0..m {
            for column in 0..n {
                let exact: f64 =
                    (0..k).map(|i| element(row * k + i, 0.7) * element(column * k + i, 0.3)).sum();
                // Each of 136 / 8 steps truncates a sum of at most 136, at 24 bits below the
                // greatest term: less than 17 · 136 · 2^-23.
                let got = f64::from(c[row * n + column]);
                assert!((got - exact).abs() < 1e-3, "{row}, {column}: {got} for {exact}");
            }
        }
    }
}

#[test]
fn planted_faults_of_the_product_are_named() {
    for (name, cause) in
        [("no_barrier", "race"), ("no_wait", "race"), ("short_wait", "race"), ("unguarded", "bounds")]
    {
        let found = fault(gemm(&format!("gemm_mma.{name}"), Options::default(), [100, 72, 136]));
        let named = match found.cause {
            Cause::Race { .. } | Cause::NeverWritten { .. } => "race",
            Cause::OutOfBounds { .. } => "bounds",
            _ => "another",
        };
        assert_eq!(named, cause, "{name}: {found}");
    }
}
