//! Logits and labels of a test set, from a file of any framework or from memory, row by row.
//!
//! `docs/verdict.md` is the schema. Labels and group columns are held (four bytes per sample each);
//! logits are read in batches, so a file may be larger than memory.

mod array;
mod error;
mod npz;
#[cfg(feature = "parquet")]
mod parquet;
mod safetensors;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use array::Elements;
pub use error::LogitsError;
pub use safetensors::to_safetensors;

use crate::measures::GroupColumn;

/// Most classes: a row of them takes 64 MiB.
const MOST_CLASSES: usize = 1 << 24;
/// Prefix of the names of group columns.
pub const GROUP_PREFIX: &str = "group_";

/// Name of the column of what samples belong to that do not differ from each other by chance alone:
/// windows of one text, pictures of one patient.
pub const CLUSTER: &str = "cluster";

/// Whether a column of this name divides the samples into groups or clusters.
fn divides(name: &str) -> bool {
    name == CLUSTER || name.starts_with(GROUP_PREFIX)
}

/// Logits that can be opened, more than once.
pub trait Source: Sync {
    /// What messages call it.
    fn name(&self) -> String;

    /// Opens it at its first row.
    ///
    /// # Errors
    /// It cannot be read or is not as the schema says.
    fn open(&self) -> Result<Logits, LogitsError>;
}

/// An open table of logits, N rows of C classes, with their labels.
pub struct Logits {
    name: String,
    classes: usize,
    labels: Vec<u32>,
    groups: Vec<GroupColumn>,
    clusters: Option<GroupColumn>,
    seed: Option<u64>,
    rows: Rows,
    next: usize,
    seen: Seen,
}

/// What the rows that were read could be, besides logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// Nothing was read, or rows of zeros and a single one.
    OneHot,
    /// Rows between 0 and 1 that sum to 1.
    Probabilities,
    /// Nothing else.
    Logits,
}

enum Rows {
    Elements(Elements),
    Memory(Arc<Vec<f32>>),
    #[cfg(feature = "parquet")]
    Parquet(Box<parquet::Columns>),
}

/// A table's parts before they are checked together, but for the logits themselves. Columns that
/// divide the samples have the names of the file.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    name: String,
    classes: usize,
    rows: u64,
    labels: Vec<i64>,
    groups: Vec<GroupColumn>,
    seed: Option<u64>,
}

impl Logits {
    /// Opens a file by its ending: `.npz`, `.safetensors` or `.parquet` (feature `parquet`).
    ///
    /// # Errors
    /// Another ending; the file cannot be read, is cut short, or is not as the schema says; labels
    /// that are no class. That logits are numbers is checked as they are read.
    pub fn open(path: &Path) -> Result<Logits, LogitsError> {
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        match ending.as_str() {
            "npz" => npz::open(path).and_then(Logits::checked),
            "safetensors" => safetensors::open(path).and_then(Logits::checked),
            #[cfg(feature = "parquet")]
            "parquet" => parquet::open(path).and_then(Logits::checked),
            #[cfg(not(feature = "parquet"))]
            "parquet" => Err(LogitsError::NotBuilt { path: path.into() }),
            _ => Err(LogitsError::Ending { path: path.into() }),
        }
    }

    fn checked((parts, source): (Parts, Rows)) -> Result<Logits, LogitsError> {
        let Parts { name, classes, rows, labels, mut groups, seed } = parts;
        let table = |message: String| LogitsError::Table { name: name.clone(), message };
        if rows == 0 || classes == 0 {
            return Err(table(format!("`logits` is empty: [{rows}, {classes}]")));
        }
        if labels.len() as u64 != rows {
            return Err(table(format!("{rows} rows of logits, but {} labels", labels.len())));
        }
        if classes > MOST_CLASSES {
            return Err(table(format!("{classes} classes are too many; at most {MOST_CLASSES} are read")));
        }
        if let Some(g) = groups.iter().find(|g| g.codes.len() as u64 != rows) {
            return Err(table(format!("{rows} rows, but {} values of `{}`", g.codes.len(), g.name)));
        }
        if let Some(row) = labels.iter().position(|&l| l < 0 || l >= classes as i64) {
            return Err(LogitsError::Label { name, row, label: labels[row], classes });
        }
        let labels = labels.into_iter().map(|l| l as u32).collect();
        let clusters = groups.iter().position(|g| g.name == CLUSTER).map(|at| groups.remove(at));
        for group in &mut groups {
            group.name = group.name.strip_prefix(GROUP_PREFIX).unwrap_or_default().into();
        }
        Ok(Logits {
            name,
            classes,
            labels,
            groups,
            clusters,
            seed,
            rows: source,
            next: 0,
            seen: Seen::OneHot,
        })
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Classes: columns of the logits.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The class of each sample.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Columns that divide the samples into groups.
    pub fn groups(&self) -> &[GroupColumn] {
        &self.groups
    }

    /// What the samples belong to, if the file tells.
    pub fn clusters(&self) -> Option<&GroupColumn> {
        self.clusters.as_ref()
    }

    /// The seed of the run, if the file tells.
    pub fn seed(&self) -> Option<u64> {
        self.seed
    }

    /// Reads the next `rows` rows, or what is left of them, in place of what `out` holds, and says
    /// which rows they are.
    ///
    /// # Errors
    /// The file cannot be read or ends early; a logit is not a finite number; all rows are
    /// probabilities, which is known at the last.
    pub fn read(&mut self, rows: usize, out: &mut Vec<f32>) -> Result<std::ops::Range<usize>, LogitsError> {
        let range = self.next..self.labels.len().min(self.next.saturating_add(rows));
        let length = range.len() * self.classes;
        out.resize(length, 0.0);
        match &mut self.rows {
            Rows::Memory(all) => {
                let from = range.start * self.classes;
                out.copy_from_slice(&all[from..from + length]);
            }
            Rows::Elements(elements) => {
                elements.read(out).map_err(|source| LogitsError::Read { name: self.name.clone(), source })?
            }
            #[cfg(feature = "parquet")]
            Rows::Parquet(columns) => columns
                .read(out)
                .map_err(|message| LogitsError::Table { name: self.name.clone(), message })?,
        }
        if let Some(i) = first_not_finite(out) {
            return Err(LogitsError::NotFinite {
                name: self.name.clone(),
                row: range.start + i / self.classes,
                class: i % self.classes,
                value: out[i],
            });
        }
        if self.seen != Seen::Logits && self.classes > 1 {
            self.seen = out.chunks_exact(self.classes).fold(self.seen, Seen::with);
        }
        self.next = range.end;
        if self.seen == Seen::Probabilities && range.end == self.labels.len() {
            return Err(LogitsError::Probabilities { name: self.name.clone() });
        }
        Ok(range)
    }
}

impl Seen {
    fn with(self, row: &[f32]) -> Seen {
        // A sum of C numbers that were rounded to 16 bits.
        const ROUNDED: f32 = 4e-3;
        if self == Seen::Logits || row.iter().any(|p| !(0.0..=1.0).contains(p)) {
            return Seen::Logits;
        }
        match (row.iter().sum::<f32>() - 1.0).abs() <= ROUNDED {
            false => Seen::Logits,
            true if row.iter().all(|&p| p == 0.0 || p == 1.0) => self,
            true => Seen::Probabilities,
        }
    }
}

/// A number is not finite if all bits of its exponent are set. Without branches inside a chunk.
fn first_not_finite(values: &[f32]) -> Option<usize> {
    const EXPONENT: u32 = 0x7f80_0000;
    let bad = |x: &f32| u32::from(x.to_bits() & EXPONENT == EXPONENT);
    let clean = values.chunks(1024).all(|c| c.iter().fold(0, |any, x| any | bad(x)) == 0);
    if clean { None } else { values.iter().position(|x| !x.is_finite()) }
}

impl Source for PathBuf {
    fn name(&self) -> String {
        self.display().to_string()
    }

    fn open(&self) -> Result<Logits, LogitsError> {
        Logits::open(self)
    }
}

/// Logits in memory.
#[derive(Clone, Debug)]
pub struct InMemory {
    parts: Parts,
    logits: Arc<Vec<f32>>,
}

impl InMemory {
    /// Logits `[labels.len(), classes]` in row order.
    pub fn new(name: impl Into<String>, classes: usize, logits: Vec<f32>, labels: &[u32]) -> InMemory {
        let parts = Parts {
            name: name.into(),
            classes,
            rows: labels.len() as u64,
            labels: labels.iter().map(|&l| i64::from(l)).collect(),
            groups: Vec::new(),
            seed: None,
        };
        InMemory { parts, logits: Arc::new(logits) }
    }

    /// With a column of groups.
    pub fn with_group(mut self, mut column: GroupColumn) -> InMemory {
        column.name.insert_str(0, GROUP_PREFIX);
        self.parts.groups.push(column);
        self
    }

    /// With what each sample belongs to.
    pub fn with_clusters(mut self, of_samples: &[String]) -> InMemory {
        self.parts.groups.push(GroupColumn::new(CLUSTER, of_samples));
        self
    }

    /// With the seed of the run.
    pub fn with_seed(mut self, seed: u64) -> InMemory {
        self.parts.seed = Some(seed);
        self
    }
}

impl Source for InMemory {
    fn name(&self) -> String {
        self.parts.name.clone()
    }

    fn open(&self) -> Result<Logits, LogitsError> {
        let Parts { name, classes, labels, .. } = &self.parts;
        let (logits, rows) = (self.logits.len(), labels.len());
        if logits != rows * classes {
            let message = format!("{logits} logits are not {rows} rows of {classes}");
            return Err(LogitsError::Table { name: name.clone(), message });
        }
        Logits::checked((self.parts.clone(), Rows::Memory(self.logits.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let logits = [0.5f32, -1.25, f32::MIN_POSITIVE, 3.0];
        std::fs::write(&path, to_safetensors(&logits, 2, &[1, 0], Some(&[7, 8]), u64::MAX).unwrap()).unwrap();
        let mut open = Logits::open(&path).unwrap();
        let mut out = Vec::new();
        assert_eq!(open.read(9, &mut out).unwrap(), 0..2);
        assert_eq!(
            (out.as_slice(), open.labels(), open.seed()),
            (&logits[..], &[1u32, 0][..], Some(u64::MAX))
        );
        assert_eq!(open.clusters().unwrap().values, ["7", "8"]);
        assert!(open.groups().is_empty());
    }

    #[test]
    fn rows_come_in_batches_and_bad_ones_are_named() {
        let all: Vec<f32> = (0..10).map(|i| i as f32).collect();
        let mut open = InMemory::new("m", 2, all.clone(), &[0, 1, 0, 1, 0]).open().unwrap();
        let mut out = Vec::new();
        assert_eq!(open.read(3, &mut out).unwrap(), 0..3);
        assert_eq!(out, all[..6]);
        assert_eq!(open.read(3, &mut out).unwrap(), 3..5);
        assert_eq!(out, all[6..]);
        assert!(open.read(3, &mut out).unwrap().is_empty());

        let mut bad = all.clone();
        bad[7] = f32::NAN;
        let mut open = InMemory::new("m", 2, bad, &[0; 5]).open().unwrap();
        let e = open.read(5, &mut out).unwrap_err().to_string();
        assert!(e.contains("row 3") && e.contains("class 1") && e.contains("NaN"), "{e}");

        let mut huge = all.clone();
        huge[2] = f32::INFINITY;
        let e = InMemory::new("m", 2, huge, &[0; 5]).open().unwrap().read(5, &mut out).unwrap_err();
        assert!(e.to_string().contains("class 0 is infinite, or beyond what f32 holds"), "{e}");

        let message = |m: InMemory| m.open().err().unwrap().to_string();
        assert!(message(InMemory::new("m", 2, all.clone(), &[0, 1, 0, 2, 0])).contains("label 2"));
        assert!(message(InMemory::new("m", 3, all, &[0; 5])).contains("10 logits"));
        assert!(message(InMemory::new("m", 3, vec![], &[])).contains("empty"));
        assert!(Logits::open(Path::new("x.csv")).err().unwrap().to_string().contains(".npz"));
    }

    #[test]
    fn probabilities_are_no_logits() {
        let read = |rows: &[[f32; 2]]| {
            let mut open = InMemory::new("m", 2, rows.concat(), &vec![0; rows.len()]).open().unwrap();
            let mut out = Vec::new();
            // In two batches: what is said is said of all rows.
            open.read(1, &mut out).and_then(|_| open.read(9, &mut out)).map_err(|e| e.to_string())
        };
        let said = read(&[[0.25, 0.75], [1.0, 0.0], [0.333, 0.667]]).unwrap_err();
        assert!(said.starts_with("m: `logits` holds probabilities"), "{said}");
        // One row that is none, a sum that is another, and answers without probabilities.
        assert!(read(&[[0.25, 0.75], [1.5, -0.5]]).is_ok());
        assert!(read(&[[0.25, 0.75], [0.25, 0.5]]).is_ok());
        assert!(read(&[[0.0, 1.0], [1.0, 0.0]]).is_ok());
    }
}
