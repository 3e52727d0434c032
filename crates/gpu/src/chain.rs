//! Elementwise members of a group as CUDA C++: one kernel with one pass over memory, or what the
//! kernel of the group's anchor does with each element of its result.
//!
//! Sizes, strides and numbers are arguments, so that groups that compute the same of other shapes
//! are one kernel.

use std::fmt::Write;

use halfstep_float::{Format, Overflow};
use halfstep_graph::engine::EngineError;
use halfstep_graph::expression::{Access, Expression, Operand, Term, TermId};
use halfstep_graph::{Binary, DType, Graph, Group, Unary, ValueId};

use crate::command::Argument;
use crate::kernels::{NAME, c_type};

/// The most operands and results: all parameters together are far below what a launch takes.
const MOST: usize = 24;

/// Bytes of parameters that a launch takes at least, with some to spare: 4 KiB.
const PARAMETER_BYTES: usize = 3840;

/// Threads of a block.
pub(crate) const THREADS: u32 = 256;

/// A parameter of a chain's kernel.
pub(crate) enum Parameter {
    /// The memory of a value that is read.
    Read(ValueId),
    /// The memory of a result.
    Write(ValueId),
    /// A number.
    Number(Argument),
}

/// A kernel of a table of sets of arguments, each with the number of its first block.
pub(crate) struct Many {
    /// Its text, with [`NAME`] for its name.
    pub text: String,
    /// How many sets the table has room for.
    pub room: usize,
    /// Bytes of a set.
    pub bytes: usize,
}

/// A generated kernel and what it is launched with.
pub(crate) struct Chain {
    /// Its text: a kernel with [`NAME`] for its name, or a struct behind an include.
    pub text: String,
    /// The same, where it follows no anchor, for many sets of arguments.
    pub many: Many,
    pub parameters: Vec<Parameter>,
    /// Elements of a thread.
    pub width: usize,
    /// Elements in all.
    pub count: usize,
}

/// Whether the elementwise members of a group can be a chain.
pub(crate) fn fits(graph: &Graph, group: &Group) -> bool {
    chain(graph, group, None).is_ok()
}

/// The elementwise members of a group: a kernel, or the `struct Chain` that kernels of anchors are
/// given, which takes so many neighbouring results at a time as `wide` says, or one.
///
/// # Errors
/// Arithmetic on integers, or too many operands.
pub(crate) fn chain(graph: &Graph, group: &Group, wide: Option<usize>) -> Result<Chain, EngineError> {
    let expression = Expression::of(graph, group);
    let follows = group.anchor(graph).is_some();
    if expression.operands.len() + expression.outputs.len() > MOST {
        return Err(unsupported(format!("more than {MOST} operands and results in one kernel")));
    }
    let width = match follows {
        true => wide.unwrap_or(1),
        false if expression.count.is_multiple_of(4) => 4,
        false => 1,
    };
    let mut writer = Writer { width, ..Writer::default() };
    if !follows {
        writer.number("u32 count", Argument::U32(expression.count as u32));
    }
    for (n, operand) in expression.operands.iter().enumerate() {
        writer.operand(n, operand)?;
    }
    for (n, term) in expression.terms.iter().enumerate() {
        let value = writer.term(n, term)?;
        let _ = writeln!(writer.body, "        float t{n} = {value};");
    }
    for (n, (value, term)) in expression.outputs.iter().enumerate() {
        let dtype = number_type(graph.dtype(*value))?;
        writer.parameters.push(Parameter::Write(*value));
        writer.declarations.push(format!("{}* y{n}", c_type(dtype)));
        writer.arrays.push(format!("r{n}"));
        let _ = writeln!(writer.body, "        r{n}[v] = t{};", term.0);
        let _ = writeln!(writer.stores, "    put_several<{width}>(y{n}, i, r{n});");
    }
    let text = if follows { writer.structure() } else { writer.kernel() };
    let many = writer.many();
    Ok(Chain { text, many, parameters: writer.parameters, width, count: expression.count })
}

fn unsupported(what: String) -> EngineError {
    EngineError::Unsupported(what)
}

fn number_type(dtype: DType) -> Result<DType, EngineError> {
    if dtype.is_float() { Ok(dtype) } else { Err(unsupported("arithmetic on integers".into())) }
}

#[derive(Default)]
struct Writer {
    width: usize,
    declarations: Vec<String>,
    parameters: Vec<Parameter>,
    keys: Vec<ValueId>,
    /// Of what is known of each element before it is computed, and behind it.
    arrays: Vec<String>,
    /// The operands that are what a chain behind an anchor is given.
    given: String,
    /// Before the elements.
    loads: String,
    /// For each element.
    body: String,
    stores: String,
}

impl Writer {
    fn number(&mut self, declaration: &str, argument: Argument) {
        self.declarations.push(declaration.to_string());
        self.parameters.push(Parameter::Number(argument));
    }

    /// A parameter for the key of draws; its name.
    fn key(&mut self, key: ValueId) -> String {
        let known = self.keys.iter().position(|&k| k == key);
        let at = known.unwrap_or_else(|| {
            let at = self.keys.len();
            self.keys.push(key);
            self.declarations.push(format!("const int* key{at}"));
            self.parameters.push(Parameter::Read(key));
            at
        });
        format!("key{at}")
    }

    /// Loads an operand for all elements of a thread.
    fn operand(&mut self, n: usize, operand: &Operand) -> Result<(), EngineError> {
        let Some(source) = operand.source else {
            let _ = writeln!(self.given, "    const float* o{n} = result;");
            return Ok(());
        };
        self.arrays.push(format!("o{n}"));
        let (width, ty) = (self.width, c_type(number_type(operand.dtype)?));
        self.parameters.push(Parameter::Read(source));
        self.declarations.push(format!("const {ty}* x{n}"));
        let dimensions = match &operand.access {
            Access::Same => {
                let _ = writeln!(self.loads, "    get_several<{width}>(x{n}, i, o{n});");
                return Ok(());
            }
            Access::Strided(dimensions) => dimensions,
        };
        let _ = writeln!(self.loads, "    for (u32 v = 0; v < {width}; ++v) {{");
        let _ = writeln!(self.loads, "        u32 at = 0, rest = i + v;");
        for (d, dimension) in dimensions.iter().enumerate().rev() {
            let size = format!("n{n}_{d}");
            if dimension.stride != 0 {
                let stride = format!("s{n}_{d}");
                self.number(&format!("u32 {stride}"), Argument::U32(dimension.stride as u32));
                let coordinate = if d == 0 { "rest".into() } else { format!("rest % {size}") };
                let _ = writeln!(self.loads, "        at += {coordinate} * {stride};");
            }
            if d > 0 {
                self.number(&format!("u32 {size}"), Argument::U32(dimension.size as u32));
                let _ = writeln!(self.loads, "        rest /= {size};");
            }
        }
        let _ = writeln!(self.loads, "        o{n}[v] = get(x{n}, at);\n    }}");
        Ok(())
    }

    /// The expression of a term.
    fn term(&mut self, n: usize, term: &Term) -> Result<String, EngineError> {
        Ok(match *term {
            Term::Operand(operand) => format!("o{operand}[v]"),
            Term::Const(x) => {
                self.number(&format!("float c{n}"), Argument::F32(x as f32));
                format!("c{n}")
            }
            Term::Round(to, TermId(x)) => format!("stored<{}>(t{x})", c_type(number_type(to)?)),
            Term::Unary(f, TermId(x)) => format!("chain_{}(t{x})", unary(f)),
            Term::Binary(f, TermId(a), TermId(b)) => format!("chain_{}(t{a}, t{b})", binary(f)),
            Term::Select(TermId(c), TermId(a), TermId(b)) => format!("t{c} != 0.0f ? t{a} : t{b}"),
            Term::Quantise { format, overflow, draws, value: TermId(x), scale: TermId(scale) } => {
                let format = match format {
                    Format::E4m3 => "E4M3",
                    Format::E5m2 => "E5M2",
                    other => return Err(unsupported(format!("codes of {other} with one scale"))),
                };
                let saturate = matches!(overflow, Overflow::Saturate);
                let drawn = draws.map_or(String::new(), |(number, key)| {
                    let key = self.key(key);
                    self.number(&format!("u32 d{n}"), Argument::U32(number));
                    format!("draw({key}, d{n}, rounding_draw({key}, i + v)), ")
                });
                format!("coded<{format}>(t{x} * t{scale}, {drawn}{saturate})")
            }
            Term::Dropout { rate, id, per_sample, key, value: TermId(x) } => {
                let key = self.key(key);
                // As on the CPU: the rate is an f32 before anything is made of it.
                let rate = f64::from(rate as f32);
                self.number(&format!("u32 d{n}"), Argument::U32(id));
                self.number(&format!("u32 b{n}"), Argument::U32((rate * 4_294_967_296.0) as u32));
                self.number(&format!("u32 p{n}"), Argument::U32(per_sample as u32));
                self.number(&format!("float f{n}"), Argument::F32((1.0 / (1.0 - rate)) as f32));
                format!("dropped({key}, d{n}, b{n}, p{n}, i + v) ? 0.0f : t{x} * f{n}")
            }
        })
    }

    /// What is computed of the elements from `i` on.
    fn computed(&self) -> String {
        format!("    for (u32 v = 0; v < {}; ++v) {{\n{}    }}\n", self.width, self.body)
    }

    /// A line for each array.
    fn arrays(&self, line: impl Fn(&str) -> String) -> String {
        self.arrays.iter().map(|name| format!("    {};\n", line(name))).collect()
    }

    /// What is done with the elements from `i` on.
    fn elements(&self) -> String {
        let Writer { loads, stores, .. } = self;
        let arrays = self.arrays(|name| format!("float {name}[{}]", self.width));
        format!("{arrays}{loads}{}{stores}", self.computed())
    }

    fn kernel(&self) -> String {
        let (parameters, elements, width) = (self.declarations.join(", "), self.elements(), self.width);
        format!(
            "extern \"C\" __global__ void __launch_bounds__({THREADS}) {NAME}({parameters}) {{\n    \
             u32 i = (blockIdx.x * blockDim.x + threadIdx.x) * {width};\n    \
             if (i >= count) return;\n{elements}}}\n"
        )
    }

    /// A kernel of many sets of arguments, as many as a launch takes.
    fn many(&self) -> Many {
        let members: String = self.declarations.iter().map(|d| format!("    {d};\n")).collect();
        let name = |d: &String| d.rsplit(' ').next().unwrap_or_default().to_string();
        let names = self.declarations.iter().map(name);
        let locals: String = names.map(|n| format!("    auto {n} = a.{n};\n")).collect();
        let (width, elements, bytes) = (self.width, self.elements(), self.bytes());
        let room = PARAMETER_BYTES / bytes;
        let text = format!(
            "struct {NAME}_arguments {{\n{members}    u32 first;\n}};\n\
             struct {NAME}_table {{\n    u32 tensors, unused;\n    {NAME}_arguments of[{room}];\n}};\n\
             extern \"C\" __global__ void __launch_bounds__({THREADS}) {NAME}(\n    \
             const __grid_constant__ {NAME}_table table\n) {{\n    \
             const {NAME}_arguments& a = table.of[tensor_of(table, blockIdx.x)];\n{locals}    \
             u32 i = ((blockIdx.x - a.first) * blockDim.x + threadIdx.x) * {width};\n    \
             if (i >= count) return;\n{elements}}}\n"
        );
        Many { text, room, bytes }
    }

    /// Bytes of a struct of the parameters, of which one at least is a pointer, and a number.
    fn bytes(&self) -> usize {
        let size = |parameter: &Parameter| match parameter {
            Parameter::Read(_) | Parameter::Write(_) => 8,
            Parameter::Number(argument) => argument.alignment(),
        };
        let end = self.parameters.iter().fold(0usize, |end, p| end.next_multiple_of(size(p)) + size(p));
        (end.next_multiple_of(4) + 4).next_multiple_of(8)
    }

    /// As `after.cuh` has it for what is stored.
    fn structure(&self) -> String {
        let Writer { width, given, loads, stores, .. } = self;
        let members: String = self.declarations.iter().map(|d| format!("    {d};\n")).collect();
        let arrays = self.arrays(|name| format!("float {name}[{width}]"));
        let known = |of: &str| self.arrays(|name| format!("{of}float (&{name})[{width}] = e.{name}"));
        let (known, constant, computed) = (known(""), known("const "), self.computed());
        format!(
            "#include \"elementwise.cuh\"\n#define CHAINED\nstruct Chain {{\n{members}    struct Elements {{\n\
             {arrays}    }};\n    \
             __device__ void load(u32 i, Elements& e) const {{\n{known}{loads}    }}\n    \
             __device__ void compute(u32 i, Elements& e, const float* result) const {{\n\
             {known}{given}{computed}    }}\n    \
             __device__ void store(u32 i, const Elements& e) const {{\n{constant}{stores}    }}\n}};\n"
        )
    }
}

fn unary(f: Unary) -> &'static str {
    match f {
        Unary::Neg => "neg",
        Unary::Abs => "abs",
        Unary::Exp => "exp",
        Unary::Log => "log",
        Unary::Sqrt => "sqrt",
        Unary::Rsqrt => "rsqrt",
        Unary::Recip => "recip",
        Unary::Tanh => "tanh",
        Unary::Sigmoid => "sigmoid",
        Unary::Relu => "relu",
        Unary::Step => "step",
        Unary::Gelu => "gelu",
        Unary::GeluGrad => "gelu_grad",
        Unary::IsFinite => "is_finite",
        Unary::Square => "square",
        Unary::Sign => "sign",
    }
}

fn binary(f: Binary) -> &'static str {
    match f {
        Binary::Add => "add",
        Binary::Sub => "sub",
        Binary::Mul => "mul",
        Binary::Div => "div",
        Binary::Max => "max",
        Binary::Min => "min",
        Binary::Greater => "greater",
        Binary::GreaterEqual => "greater_equal",
        Binary::Equal => "equal",
    }
}
