//! The syntax of a module: what the text says, before any opcode or name is understood.

/// A module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Text {
    /// `.version`, such as (9, 0).
    pub version: (u32, u32),
    /// `.target` and what follows it, such as `sm_90a`.
    pub target: Vec<String>,
    /// Variables of the module.
    pub variables: Vec<Variable>,
    /// Kernels and functions that have a body.
    pub functions: Vec<Function>,
}

/// A variable, a register list apart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Variable {
    pub line: u32,
    pub name: String,
    /// `global`, `shared`, `const`, `local` or `param`.
    pub space: String,
    /// Element type without its dot, such as `b8`.
    pub ty: String,
    pub align: Option<u32>,
    /// Number of elements; 1 for a scalar; none for `name[]`.
    pub elements: Option<u64>,
    pub initial: Vec<Initial>,
    /// `.extern`: of shared memory, what the launch sizes.
    pub external: bool,
}

/// An element of an initialiser.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Initial {
    Number(Number),
    /// The address of a variable; `generic(name)` or `name`, plus an offset.
    Address {
        name: String,
        generic: bool,
        offset: i64,
    },
}

/// A number as it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    /// An integer, as 64 bits of two's complement.
    Integer(u64),
    /// `0f…`: the bits of an f32.
    Single(u32),
    /// `0d…` or a decimal fraction: the bits of an f64.
    Double(u64),
}

/// A kernel (`.entry`) or a function (`.func`) with its body.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Function {
    pub line: u32,
    pub name: String,
    pub entry: bool,
    /// Return parameters of a function.
    pub returns: Vec<Variable>,
    pub params: Vec<Variable>,
    /// `.maxntid`, `.reqntid` and the like, with their numbers.
    pub directives: Vec<(String, Vec<u32>)>,
    pub body: Vec<Statement>,
}

/// A statement of a body.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Statement {
    /// `.reg .type names`; a count stands for `name<count>`.
    Registers {
        line: u32,
        ty: String,
        names: Vec<(String, Option<u32>)>,
    },
    Variable(Variable),
    Label {
        line: u32,
        name: String,
    },
    Instruction(Instruction),
    /// `{ … }`: names declared inside end with it.
    Scope(Vec<Statement>),
    /// `name: .branchtargets a, b;`
    Targets {
        name: String,
        labels: Vec<String>,
    },
}

/// An instruction.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Instruction {
    pub line: u32,
    /// The instruction as it is written, in one line.
    pub source: String,
    /// `@p` or `@!p`: the predicate, and whether it is negated.
    pub guard: Option<(String, bool)>,
    /// The parts of the opcode, such as `["mad", "lo", "s32"]`; a part with `::` stays whole.
    pub parts: Vec<String>,
    pub operands: Vec<Operand>,
}

impl Instruction {
    /// The first part of the opcode.
    pub fn stem(&self) -> &str {
        &self.parts[0]
    }

    /// The parts behind the first.
    pub fn modifiers(&self) -> &[String] {
        &self.parts[1..]
    }

    /// Whether one of the parts behind the first is `word`.
    pub fn has(&self, word: &str) -> bool {
        self.modifiers().iter().any(|part| part == word)
    }

    /// The opcode as it is written.
    pub fn opcode(&self) -> String {
        self.parts.join(".")
    }
}

/// An operand.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand {
    /// A register, a special register with its part (`%tid.x`), a label, a variable or `_`.
    Name(String),
    /// `!p`
    Not(String),
    Number(Number),
    /// `{a, b, …}`
    Vector(Vec<Operand>),
    /// `[base + offset]`; in `[map, {x, y}]` the rest are further parts.
    Address {
        base: Box<Operand>,
        offset: i64,
        rest: Vec<Operand>,
    },
    /// `a|b`: two results.
    Pair(Box<Operand>, Box<Operand>),
    /// `name + 4`, as in `mov.u32 %r1, table+4`.
    Sum(String, i64),
    /// `(a, b)`, as `call` has them.
    List(Vec<Operand>),
}

impl std::fmt::Display for Operand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |f: &mut std::fmt::Formatter<'_>, items: &[Operand]| {
            for (at, item) in items.iter().enumerate() {
                write!(f, "{}{item}", if at == 0 { "" } else { ", " })?;
            }
            Ok(())
        };
        match self {
            Operand::Name(name) => f.write_str(name),
            Operand::Not(name) => write!(f, "!{name}"),
            Operand::Number(Number::Integer(value)) => write!(f, "{}", *value as i64),
            Operand::Number(Number::Single(bits)) => write!(f, "0f{bits:08x}"),
            Operand::Number(Number::Double(bits)) => write!(f, "0d{bits:016x}"),
            Operand::Vector(items) => {
                f.write_str("{")?;
                list(f, items)?;
                f.write_str("}")
            }
            Operand::List(items) => {
                f.write_str("(")?;
                list(f, items)?;
                f.write_str(")")
            }
            Operand::Address { base, offset, rest } => {
                write!(f, "[{base}")?;
                if *offset != 0 {
                    write!(f, "{offset:+}")?;
                }
                for item in rest {
                    write!(f, ", {item}")?;
                }
                f.write_str("]")
            }
            Operand::Pair(a, b) => write!(f, "{a}|{b}"),
            Operand::Sum(name, offset) => write!(f, "{name}{offset:+}"),
        }
    }
}
