//! `.parquet`: columns `logits` (a list of floats per row), `label` or `labels`, and `group_…`.

use std::fs::File;
use std::path::Path;

use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::{GROUP_PREFIX, LogitsError, Parts, Rows};
use crate::measures::GroupColumn;

/// Rows of a plain column read at once.
const ROWS: usize = 1 << 16;

/// The column of logits, read row group by row group.
pub(super) struct Columns {
    file: SerializedFileReader<File>,
    column: usize,
    classes: usize,
    group: usize,
    current: Option<ColumnReader>,
}

pub(super) fn open(path: &Path) -> Result<(Parts, Rows), LogitsError> {
    let bad = |message: String| LogitsError::Format { path: path.into(), message };
    let file = File::open(path).map_err(|source| LogitsError::Open { path: path.into(), source })?;
    let file = SerializedFileReader::new(file).map_err(|e| bad(format!("not a whole .parquet file: {e}")))?;
    let meta = file.metadata().file_metadata();
    let columns: Vec<String> =
        meta.schema_descr().columns().iter().map(|c| c.path().parts()[0].clone()).collect();
    let find = |name: &str| columns.iter().position(|c| c == name);
    let missing = |array: &str| LogitsError::missing(path, array, &columns);
    let rows = u64::try_from(meta.num_rows()).map_err(|_| bad("it has fewer than no rows".into()))?;
    let seed = meta.key_value_metadata().and_then(|all| all.iter().find(|kv| kv.key == "seed"));
    let seed = super::error::seed(path, seed.and_then(|kv| kv.value.as_deref()))?;
    let column = find("logits").ok_or_else(|| missing("logits"))?;
    let label = find("labels").or(find("label")).ok_or_else(|| missing("label"))?;
    let (labels, _) = plain(&file, label).map_err(|e| bad(format!("`{}`: {e}", columns[label])))?;
    let labels = labels.ok_or_else(|| bad(format!("`{}` does not hold integers", columns[label])))?;
    let mut groups = Vec::new();
    for (i, name) in columns.iter().enumerate().filter(|(_, n)| n.starts_with(GROUP_PREFIX)) {
        let (ints, texts) = plain(&file, i).map_err(|e| bad(format!("`{name}`: {e}")))?;
        let values = ints.map_or(texts, |ints| ints.iter().map(i64::to_string).collect());
        groups.push(GroupColumn::new(&name[GROUP_PREFIX.len()..], &values));
    }
    let mut logits = Columns { file, column, classes: 0, group: 0, current: None };
    let classes = logits.first_length().map_err(|e| bad(format!("`logits`: {e}")))?;
    logits.classes = classes;
    let parts = Parts { name: path.display().to_string(), classes, rows, labels, groups, seed };
    Ok((parts, Rows::Parquet(Box::new(logits))))
}

/// What [`take`] read: records, values, and for each value whether it continues the record before.
type Taken<T> = (usize, Vec<T>, Vec<i16>);

fn take<T: DataType>(reader: &mut ColumnReaderImpl<T>, records: usize) -> Result<Taken<T::T>, String> {
    let (mut definition, mut repetition, mut values) = (Vec::new(), Vec::new(), Vec::new());
    let (read, ..) = reader
        .read_records(records, Some(&mut definition), Some(&mut repetition), &mut values)
        .map_err(|e| e.to_string())?;
    Ok((read, values, repetition))
}

/// Adds the next values of a plain column; returns how many records and how many values there were.
fn append<T: DataType, U>(
    reader: &mut ColumnReaderImpl<T>,
    all: &mut Vec<U>,
    value: impl Fn(&T::T) -> U,
) -> Result<(usize, usize), String> {
    let (records, values, _) = take(reader, ROWS)?;
    all.extend(values.iter().map(value));
    Ok((records, values.len()))
}

/// All of a column without lists: integers, or else texts.
fn plain(
    file: &SerializedFileReader<File>,
    column: usize,
) -> Result<(Option<Vec<i64>>, Vec<String>), String> {
    let (mut ints, mut texts, mut is_text) = (Vec::new(), Vec::new(), false);
    for group in 0..file.num_row_groups() {
        let group = file.get_row_group(group).map_err(|e| e.to_string())?;
        let mut reader = group.get_column_reader(column).map_err(|e| e.to_string())?;
        loop {
            let (read, values) = match &mut reader {
                ColumnReader::Int32ColumnReader(r) => append(r, &mut ints, |&v| i64::from(v))?,
                ColumnReader::Int64ColumnReader(r) => append(r, &mut ints, |&v| v)?,
                ColumnReader::BoolColumnReader(r) => append(r, &mut ints, |&v| i64::from(v))?,
                ColumnReader::ByteArrayColumnReader(r) => {
                    is_text = true;
                    append(r, &mut texts, |v| String::from_utf8_lossy(v.data()).into_owned())?
                }
                _ => return Err("expected integers or strings".into()),
            };
            if values != read {
                return Err("some rows are empty or lists".into());
            }
            if read == 0 {
                break;
            }
        }
    }
    Ok(((!is_text).then_some(ints), texts))
}

impl Columns {
    /// The next records of the current row group as f32; none at its end.
    fn next(&mut self, records: usize) -> Result<Option<Taken<f32>>, String> {
        if self.current.is_none() {
            if self.group == self.file.num_row_groups() {
                return Err("there are fewer rows than the file says".into());
            }
            let group = self.file.get_row_group(self.group).map_err(|e| e.to_string())?;
            self.current = Some(group.get_column_reader(self.column).map_err(|e| e.to_string())?);
            self.group += 1;
        }
        let taken = match &mut self.current {
            Some(ColumnReader::FloatColumnReader(r)) => take(r, records)?,
            Some(ColumnReader::DoubleColumnReader(r)) => {
                let (n, values, repetition) = take(r, records)?;
                (n, values.into_iter().map(|v| v as f32).collect(), repetition)
            }
            _ => return Err("expected lists of floats".into()),
        };
        if taken.0 == 0 {
            self.current = None;
            return Ok(None);
        }
        Ok(Some(taken))
    }

    /// Length of the first row's list; the stream is at its beginning again.
    fn first_length(&mut self) -> Result<usize, String> {
        let length = loop {
            if self.current.is_none() && self.group == self.file.num_row_groups() {
                break 0;
            }
            if let Some((_, values, _)) = self.next(1)? {
                break values.len();
            }
        };
        (self.group, self.current) = (0, None);
        Ok(length)
    }

    /// Fills `out` with whole rows.
    pub(super) fn read(&mut self, out: &mut [f32]) -> Result<(), String> {
        let mut filled = 0;
        while filled < out.len() {
            let Some((records, values, repetition)) = self.next((out.len() - filled) / self.classes)? else {
                continue;
            };
            // A value begins a row exactly where a row of C begins.
            let whole = values.len() == records * self.classes
                && repetition.len() == values.len()
                && repetition.iter().enumerate().all(|(i, &r)| (r == 0) == i.is_multiple_of(self.classes));
            if !whole {
                return Err(format!("some rows of `logits` do not have {} values", self.classes));
            }
            out[filled..filled + values.len()].copy_from_slice(&values);
            filled += values.len();
        }
        Ok(())
    }
}
