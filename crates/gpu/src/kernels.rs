//! The kernels' sources, and the modules that a program needs of them.

use halfstep_float::blocks::DynamicMap;
use halfstep_graph::DType;

use crate::command::Kernel;
use crate::module::Module;

/// A file of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Attention,
    AttentionDelta,
    AttentionGrad,
    AttentionTensor,
    AttentionTensorGrad,
    Columns,
    Conv,
    MatMul,
    Move,
    Norm,
    Norms,
    Parts,
    Pool,
    Quantise,
    Reduce,
    Rows,
    Scatter,
    Update,
}

/// What the files include.
const HEADERS: &[(&str, &str)] = &[
    ("after.cuh", include_str!("../kernels/after.cuh")),
    ("asynchronous.cuh", include_str!("../kernels/asynchronous.cuh")),
    ("attention.cuh", include_str!("../kernels/attention.cuh")),
    ("attention_squares.cuh", include_str!("../kernels/attention_squares.cuh")),
    ("attention_tiles.cuh", include_str!("../kernels/attention_tiles.cuh")),
    ("base.cuh", include_str!("../kernels/base.cuh")),
    ("block.cuh", include_str!("../kernels/block.cuh")),
    ("columns.cuh", include_str!("../kernels/columns.cuh")),
    ("elementwise.cuh", include_str!("../kernels/elementwise.cuh")),
    ("formats.cuh", include_str!("../kernels/formats.cuh")),
    ("kept.cuh", include_str!("../kernels/kept.cuh")),
    ("math.cuh", include_str!("../kernels/math.cuh")),
    ("operand.cuh", include_str!("../kernels/operand.cuh")),
    ("philox.cuh", include_str!("../kernels/philox.cuh")),
    ("product.cuh", include_str!("../kernels/product.cuh")),
    ("rows.cuh", include_str!("../kernels/rows.cuh")),
    ("table.cuh", include_str!("../kernels/table.cuh")),
    ("tensor.cuh", include_str!("../kernels/tensor.cuh")),
    ("tensor_product.cuh", include_str!("../kernels/tensor_product.cuh")),
];

/// The macros of products: types, which product it is, and its scheme.
const PRODUCT: [&str; 19] = [
    "TypeA",
    "TypeB",
    "TypeY",
    "PASS",
    "UNIT_STRIDE",
    "TA",
    "TB",
    "HALF",
    "BYTES",
    "LEFT",
    "RIGHT",
    "PLANES",
    "TILE_M",
    "TILE_N",
    "DEPTH",
    "STAGES",
    "WHOLE_LEFT",
    "WHOLE_RIGHT",
    "WIDE",
];

impl Source {
    /// Every file.
    pub const ALL: [Source; 18] = [
        Source::Attention,
        Source::AttentionDelta,
        Source::AttentionGrad,
        Source::AttentionTensor,
        Source::AttentionTensorGrad,
        Source::Columns,
        Source::Conv,
        Source::MatMul,
        Source::Move,
        Source::Norm,
        Source::Norms,
        Source::Parts,
        Source::Pool,
        Source::Quantise,
        Source::Reduce,
        Source::Rows,
        Source::Scatter,
        Source::Update,
    ];

    /// Its name, its text, and the macros that name types in it: `float` where nothing else is
    /// asked for.
    fn file(self) -> (&'static str, &'static str, &'static [&'static str]) {
        macro_rules! file {
            ($name:literal, $macros:expr) => {
                ($name, include_str!(concat!("../kernels/", $name)), &$macros)
            };
        }
        match self {
            Source::Attention => file!("attention.cu", ["TypeX", "TypeY"]),
            Source::AttentionDelta => file!("attention_delta.cu", ["TypeY"]),
            Source::AttentionGrad => file!("attention_grad.cu", ["TypeX", "TypeY"]),
            Source::AttentionTensor => file!("attention_tensor.cu", ["HALF", "WIDTH"]),
            Source::AttentionTensorGrad => file!("attention_tensor_grad.cu", ["HALF", "WIDTH"]),
            Source::Columns => file!("columns.cu", ["TypeX", "TypeY", "TypeG", "TypeD", "WIDE"]),
            Source::Conv => file!("conv.cu", PRODUCT),
            Source::MatMul => file!("matmul.cu", PRODUCT),
            Source::Move => file!("move.cu", ["Element"]),
            Source::Norm => file!("norm.cu", ["TypeX"]),
            Source::Norms => file!("norms.cu", ["TypeX", "TypeY", "TypeG", "TypeD", "WIDE", "EACH"]),
            Source::Parts => file!("parts.cu", ["TypeY", "WIDE"]),
            Source::Pool => file!("pool.cu", ["TypeX", "TypeY", "TypeD"]),
            Source::Quantise => file!("quantise.cu", ["TypeX", "TypeY", "FORMAT"]),
            Source::Reduce => file!("reduce.cu", ["TypeX", "TypeY", "WIDE"]),
            Source::Rows => file!("rows.cu", ["TypeX", "TypeY", "TypeG", "TypeD", "WIDE", "EACH"]),
            Source::Scatter => file!("scatter.cu", ["TypeX", "TypeY"]),
            Source::Update => file!("update.cu", ["TypeX", "WEIGHT", "MOMENTS"]),
        }
    }
}

/// All text that kernels are made of, for a hash.
pub(crate) fn texts() -> impl Iterator<Item = &'static str> {
    HEADERS.iter().map(|(_, text)| *text).chain(Source::ALL.iter().map(|source| source.file().1))
}

/// The type that kernels have for elements of this one.
pub(crate) fn c_type(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "float",
        DType::Bf16 => "bf16",
        DType::F16 => "f16",
        DType::E4m3 => "e4m3",
        DType::E5m2 => "e5m2",
        DType::I32 => "int",
        DType::U8 => "u8",
    }
}

/// The modules of one program: each file once for each set of types, and one text for all kernels
/// that are generated.
#[derive(Default)]
pub(crate) struct Modules {
    list: Vec<Module>,
    /// Position of the generated module, and the kernels in it.
    generated: Option<(usize, Vec<String>)>,
}

/// The values of the codes of the dynamic maps, as text.
fn dynamic_maps() -> String {
    let map = |name: &str, map: DynamicMap| {
        let values: Vec<String> = (0..=255).map(|code| format!("{:e}f", map.value(code))).collect();
        format!("__constant__ float {name}[256] = {{{}}};\n", values.join(", "))
    };
    map("SIGNED_VALUES", DynamicMap::Signed) + &map("UNSIGNED_VALUES", DynamicMap::Unsigned)
}

/// Stands for the name of a kernel that is generated.
pub(crate) const NAME: &str = "CHAIN_NAME";

impl Modules {
    /// A kernel of a file, with what these macros stand for.
    pub fn kernel(&mut self, source: Source, types: &[(&str, &str)], entry: &str) -> Kernel {
        self.followed(source, types, entry, "")
    }

    /// The same behind a text that says what becomes of results; nothing where they are stored.
    pub fn followed(&mut self, source: Source, types: &[(&str, &str)], entry: &str, chain: &str) -> Kernel {
        let (name, text, macros) = source.file();
        debug_assert!(
            types.iter().all(|(m, _)| macros.contains(m)),
            "{name} knows {macros:?}, not all of {types:?}"
        );
        let given = |name: &str| types.iter().find(|(m, _)| *m == name).map(|(_, value)| *value);
        let define = |&name: &&'static str| {
            let value = given(name).or(name.starts_with("Type").then_some("float"))?;
            Some((name.to_string(), value.to_string()))
        };
        let defines = macros.iter().filter_map(define).collect();
        let source = match source {
            Source::Update => format!("{}{text}", dynamic_maps()),
            _ => format!("{chain}{text}"),
        };
        let module = Module { name: name.to_string(), source, headers: HEADERS.to_vec(), defines };
        let found = self.list.iter().position(|m| *m == module);
        let module = found.unwrap_or_else(|| {
            self.list.push(module);
            self.list.len() - 1
        });
        Kernel { module, entry: entry.to_string() }
    }

    /// A kernel whose text is generated, with [`NAME`] as its name. The same text is the same
    /// kernel.
    pub fn generated(&mut self, text: String) -> Kernel {
        let (module, texts) = self.generated.get_or_insert_with(|| {
            self.list.push(Module {
                name: "chains.cu".into(),
                source: String::new(),
                headers: HEADERS.to_vec(),
                defines: Vec::new(),
            });
            (self.list.len() - 1, Vec::new())
        });
        let at = texts.iter().position(|t| *t == text).unwrap_or_else(|| {
            texts.push(text);
            texts.len() - 1
        });
        Kernel { module: *module, entry: format!("chain_{at}") }
    }

    /// The kernel of a generated text, if there is one.
    pub fn known(&self, text: &str) -> Option<Kernel> {
        let (module, texts) = self.generated.as_ref()?;
        let at = texts.iter().position(|t| t == text)?;
        Some(Kernel { module: *module, entry: format!("chain_{at}") })
    }

    /// All of them.
    pub fn finish(mut self) -> Vec<Module> {
        if let Some((module, texts)) = self.generated {
            let kernels = texts.iter().enumerate().map(|(i, t)| t.replace(NAME, &format!("chain_{i}")));
            self.list[module].source = format!(
                "#include \"elementwise.cuh\"\n#include \"table.cuh\"\n\n{}",
                kernels.collect::<Vec<_>>().join("\n")
            );
        }
        self.list
    }
}
