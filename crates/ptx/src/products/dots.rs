//! Types of operands, and the scalar products of rows with columns.

use crate::capability::Capability;
use crate::formats::Format;
use crate::summation::{Adder, Alignment, Factor, Summation};

/// The type of an operand A or B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Multiplicand {
    Float(Format),
    Signed8,
    Unsigned8,
}

impl Multiplicand {
    /// The type with a name of PTX.
    pub fn parse(name: &str) -> Option<Multiplicand> {
        Some(match name {
            "f16" => Multiplicand::Float(Format::F16),
            "bf16" => Multiplicand::Float(Format::Bf16),
            "tf32" => Multiplicand::Float(Format::Tf32),
            "e4m3" => Multiplicand::Float(Format::E4m3),
            "e5m2" => Multiplicand::Float(Format::E5m2),
            "s8" => Multiplicand::Signed8,
            "u8" => Multiplicand::Unsigned8,
            _ => return None,
        })
    }

    /// Bits of an element in a register.
    pub fn bits(self) -> u32 {
        match self {
            Multiplicand::Float(format) => format.bits(),
            Multiplicand::Signed8 | Multiplicand::Unsigned8 => 8,
        }
    }

    /// Whether it is a floating-point format.
    pub fn float(self) -> bool {
        matches!(self, Multiplicand::Float(_))
    }

    fn integer(self, code: u32) -> i64 {
        if self == Multiplicand::Signed8 { i64::from(code as u8 as i8) } else { i64::from(code as u8) }
    }
}

/// The type of C and D.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accumulator {
    F32,
    /// Two in a register.
    F16,
    /// An integer of 32 bits that wraps.
    S32,
    /// An integer that stops at its greatest and its smallest value, by `.satfinite`.
    S32Saturated,
}

impl Accumulator {
    /// Bits of an element in a register.
    pub fn bits(self) -> u32 {
        if self == Accumulator::F16 { 16 } else { 32 }
    }

    /// Whether it is an integer.
    pub fn integer(self) -> bool {
        matches!(self, Accumulator::S32 | Accumulator::S32Saturated)
    }
}

/// The types of a product's operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Types {
    pub a: Multiplicand,
    pub b: Multiplicand,
    pub accumulator: Accumulator,
}

impl Types {
    /// Whether PTX has a product of these types.
    pub fn exist(self) -> bool {
        let narrow = matches!(self.a, Multiplicand::Float(Format::F16 | Format::E4m3 | Format::E5m2));
        let sizes = self.a.bits() == self.b.bits();
        let kinds = match (self.a, self.b) {
            (Multiplicand::Float(a), Multiplicand::Float(b)) => a.bits() == 8 || a == b,
            (a, b) => !a.float() && !b.float(),
        };
        let sums = self.a.float() != self.accumulator.integer();
        sizes && kinds && sums && (self.accumulator != Accumulator::F16 || narrow)
    }
}

/// How sums are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arithmetic {
    pub summation: Summation,
    pub capability: Capability,
}

/// Rows of A and columns of B, ready to be multiplied.
pub(crate) enum Dots {
    Floats(Box<Floats>),
    Integers { types: Types, rows: Vec<u32>, columns: Vec<u32>, k: usize },
}

/// Floating-point rows and columns.
pub(crate) struct Floats {
    adder: Adder,
    rows: Vec<Factor>,
    columns: Vec<Factor>,
    k: usize,
    /// Of each row and of each column, whether it is finite.
    finite: [Vec<bool>; 2],
    /// Where sums are exact in f64 as a rule: the values of rows and of columns.
    values: Option<[Lines; 2]>,
}

/// Values of rows or columns, and between which exponents the bits of each line lie.
struct Lines {
    values: Vec<f64>,
    spans: Vec<(i32, i32)>,
}

impl Lines {
    fn new(factors: &[Factor], format: Format, k: usize) -> Lines {
        let mut values = Vec::with_capacity(factors.len());
        let mut spans = Vec::with_capacity(factors.len() / k);
        for line in factors.chunks(k) {
            // A line of zeros takes part nowhere.
            let mut span = (EMPTY, -EMPTY);
            for factor in line {
                let (value, bits) = factor.value(format);
                let (low, high) = bits.unwrap_or(span);
                span = (span.0.min(low), span.1.max(high));
                values.push(value);
            }
            spans.push(span);
        }
        Lines { values, spans }
    }
}

/// The exponent of the lowest bit of nothing; its negative is that of the highest.
const EMPTY: i32 = 1 << 12;
/// Mantissa bits of an f64, with the implicit one.
const F64_BITS: i32 = 53;

impl Floats {
    fn dot(&mut self, row: usize, column: usize, c: u32) -> u32 {
        let k = self.k;
        if let Some(exact) = self.exact(row, column, c) {
            return exact;
        }
        let finite = self.finite[0][row] && self.finite[1][column];
        let (row, column) = (&self.rows[row * k..][..k], &self.columns[column * k..][..k]);
        if finite { self.adder.sum_finite(row, column, c) } else { self.adder.sum(row, column, c) }
    }

    /// The sum in f64, where no bit of it is lost.
    fn exact(&self, row: usize, column: usize, c: u32) -> Option<u32> {
        let [rows, columns] = self.values.as_ref()?;
        let (a, b, c) = (rows.spans[row], columns.spans[column], f32::from_bits(c));
        let bits = c.to_bits() >> 23 & 0xff;
        let of_c = if c == 0.0 { (EMPTY, -EMPTY) } else { (bits.max(1) as i32 - 150, bits as i32 - 126) };
        // 32 products, and c, carry into 6 bits more.
        let span = (a.1 + b.1).max(of_c.1) + 6 - (a.0 + b.0).min(of_c.0);
        if span > F64_BITS || bits == 0xff {
            return None;
        }
        let pairs =
            rows.values[row * self.k..][..self.k].iter().zip(&columns.values[column * self.k..][..self.k]);
        let sum: f64 = pairs.map(|(a, b)| a * b).sum();
        // A sum of zeros is +0.
        Some(((sum + f64::from(c) + 0.0) as f32).to_bits())
    }
}

impl Dots {
    /// Of codes, row by row of A and column by column of B, `k` in each.
    pub fn new(
        types: Types,
        summation: Summation,
        alignment: Alignment,
        k: usize,
        [rows, columns]: [Vec<u32>; 2],
    ) -> Dots {
        let (Multiplicand::Float(a), Multiplicand::Float(b)) = (types.a, types.b) else {
            return Dots::Integers { types, rows, columns, k };
        };
        let c = if types.accumulator == Accumulator::F16 { Format::F16 } else { Format::F32 };
        let (rows, columns) = (Factor::all(a, &rows), Factor::all(b, &columns));
        let lines = |factors: &[Factor]| {
            factors.chunks(k).map(|line| line.iter().all(|factor| factor.is_finite())).collect::<Vec<_>>()
        };
        let finite = [lines(&rows), lines(&columns)];
        let adder = Adder::new(summation, alignment, [a, b, c]);
        let exact = finite.iter().flatten().all(|finite| *finite)
            && summation == Summation::Exact
            && c == Format::F32;
        let values = exact.then(|| [Lines::new(&rows, a, k), Lines::new(&columns, b, k)]);
        Dots::Floats(Box::new(Floats { adder, rows, columns, k, finite, values }))
    }

    /// The code of `row` · `column` + c, where c has the code `c`.
    pub fn dot(&mut self, row: usize, column: usize, c: u32) -> u32 {
        match self {
            Dots::Floats(floats) => floats.dot(row, column, c),
            Dots::Integers { types, rows, columns, k } => {
                let pairs = rows[row * *k..][..*k].iter().zip(&columns[column * *k..][..*k]);
                let sum: i64 = pairs.map(|(&x, &y)| types.a.integer(x) * types.b.integer(y)).sum();
                let sum = sum + i64::from(c as i32);
                match types.accumulator {
                    Accumulator::S32Saturated => sum.clamp(i32::MIN.into(), i32::MAX.into()) as u32,
                    _ => sum as u32,
                }
            }
        }
    }
}
