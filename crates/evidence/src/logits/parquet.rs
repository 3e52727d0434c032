//! `.parquet`: columns `logits` (a list of floats per row), `label` or `labels`, and `group_…`.

use std::fs::File;
use std::path::Path;

use halfstep_data::open_file;
use parquet::basic::LogicalType;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::{LogitsError, Parts, Rows, divides};
use crate::measures::GroupColumn;

/// Rows of a plain column read at once.
const ROWS: usize = 1 << 16;

/// Rows whose lengths say how many classes there are: the length that most of them have.
const FIRST_ROWS: usize = 64;

/// The column of logits, read row group by row group.
pub(super) struct Columns {
    file: SerializedFileReader<File>,
    column: usize,
    /// The definition level of a value that is there.
    present: i16,
    classes: usize,
    group: usize,
    /// Rows read.
    row: usize,
    /// Whether its values are of IEEE's half precision.
    is_half: bool,
    current: Option<ColumnReader>,
}

pub(super) fn open(path: &Path) -> Result<(Parts, Rows), LogitsError> {
    let bad = |message: String| LogitsError::Format { path: path.into(), message };
    let file = open_file(path).map_err(|source| LogitsError::Open { path: path.into(), source })?;
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
    for (i, name) in columns.iter().enumerate().filter(|(_, n)| divides(n)) {
        let (ints, texts) = plain(&file, i).map_err(|e| bad(format!("`{name}`: {e}")))?;
        let values = ints.map_or(texts, |ints| ints.iter().map(i64::to_string).collect());
        groups.push(GroupColumn::new(name.as_str(), &values));
    }
    let described = file.metadata().file_metadata().schema_descr().column(column);
    let (present, is_half) =
        (described.max_def_level(), described.logical_type_ref() == Some(&LogicalType::Float16));
    let mut logits = Columns { file, column, present, is_half, classes: 0, group: 0, row: 0, current: None };
    let classes = logits.usual_length().map_err(|e| bad(format!("`logits`: {e}")))?;
    logits.classes = classes;
    let parts = Parts { name: path.display().to_string(), classes, rows, labels, groups, seed };
    Ok((parts, Rows::Parquet(Box::new(logits))))
}

/// What [`take`] read.
struct Taken<T> {
    records: usize,
    values: Vec<T>,
    /// For each value or gap, how much of it is there.
    definition: Vec<i16>,
    /// For each value or gap, whether it continues the record before: 0 begins one.
    repetition: Vec<i16>,
}

fn take<T: DataType>(reader: &mut ColumnReaderImpl<T>, records: usize) -> Result<Taken<T::T>, String> {
    let (mut definition, mut repetition, mut values) = (Vec::new(), Vec::new(), Vec::new());
    let (records, ..) = reader
        .read_records(records, Some(&mut definition), Some(&mut repetition), &mut values)
        .map_err(|e| e.to_string())?;
    Ok(Taken { records, values, definition, repetition })
}

/// Adds the next values of a plain column, the first of which is that of `row`; returns how many
/// there were.
fn append<T: DataType, U>(
    reader: &mut ColumnReaderImpl<T>,
    row: usize,
    all: &mut Vec<U>,
    value: impl Fn(&T::T) -> U,
) -> Result<usize, String> {
    let taken = take(reader, ROWS)?;
    if taken.repetition.iter().any(|&level| level > 0) {
        return Err("it holds lists".into());
    }
    if taken.values.len() != taken.records {
        let present = taken.definition.iter().max().copied().unwrap_or(0).max(1);
        let gap = taken.definition.iter().position(|&level| level < present).unwrap_or(0);
        return Err(format!("row {} (counted from 0) has no value", row + gap));
    }
    all.extend(taken.values.iter().map(value));
    Ok(taken.records)
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
            let row = ints.len() + texts.len();
            let read = match &mut reader {
                ColumnReader::Int32ColumnReader(r) => append(r, row, &mut ints, |&v| i64::from(v))?,
                ColumnReader::Int64ColumnReader(r) => append(r, row, &mut ints, |&v| v)?,
                ColumnReader::BoolColumnReader(r) => append(r, row, &mut ints, |&v| i64::from(v))?,
                ColumnReader::ByteArrayColumnReader(r) => {
                    is_text = true;
                    append(r, row, &mut texts, |v| String::from_utf8_lossy(v.data()).into_owned())?
                }
                _ => return Err("expected integers or strings".into()),
            };
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
            Some(ColumnReader::DoubleColumnReader(r)) => take(r, records)?.map(|&v| v as f32),
            // Float16 is the type of two bytes that logits can have.
            Some(ColumnReader::FixedLenByteArrayColumnReader(r)) if self.is_half => take(r, records)?
                .map(|v| halfstep_float::f32_from_f16(u16::from_le_bytes([v.data()[0], v.data()[1]]))),
            _ => return Err("expected lists of floats".into()),
        };
        if taken.records == 0 {
            self.current = None;
            return Ok(None);
        }
        Ok(Some(taken))
    }

    /// The length that most of the first lists have; the stream is at its beginning again.
    fn usual_length(&mut self) -> Result<usize, String> {
        let first = loop {
            if self.current.is_none() && self.group == self.file.num_row_groups() {
                break Vec::new();
            }
            if let Some(taken) = self.next(FIRST_ROWS)? {
                break taken.lengths(self.present);
            }
        };
        (self.group, self.current) = (0, None);
        let count = |length: &usize| first.iter().filter(|other| *other == length).count();
        // Of lengths that are as common, the greater: a short list is likelier than a long one.
        Ok(first.iter().max_by_key(|length| (count(length), **length)).copied().unwrap_or(0))
    }

    /// Fills `out` with whole rows.
    pub(super) fn read(&mut self, out: &mut [f32]) -> Result<(), String> {
        let mut filled = 0;
        while filled < out.len() {
            let Some(taken) = self.next((out.len() - filled) / self.classes)? else {
                continue;
            };
            // A value begins a row exactly where a row of C begins.
            let values = &taken.values;
            let whole = values.len() == taken.records * self.classes
                && taken.repetition.len() == values.len()
                && taken
                    .repetition
                    .iter()
                    .enumerate()
                    .all(|(i, &r)| (r == 0) == i.is_multiple_of(self.classes));
            if !whole {
                return Err(self.wrong_row(&taken));
            }
            out[filled..filled + values.len()].copy_from_slice(values);
            filled += values.len();
            self.row += taken.records;
        }
        Ok(())
    }

    /// The first row that does not have as many values as there are classes.
    fn wrong_row(&self, taken: &Taken<f32>) -> String {
        let lengths = taken.lengths(self.present);
        let at = lengths.iter().position(|&length| length != self.classes).unwrap_or(0);
        let found = match lengths.get(at) {
            Some(0) | None => "no values".to_owned(),
            Some(1) => "1 value".to_owned(),
            Some(n) => format!("{n} values"),
        };
        format!(
            "row {} (counted from 0) of `logits` has {found}, but the others have {}; a missing value does not count",
            self.row + at,
            self.classes
        )
    }
}

impl<T> Taken<T> {
    fn map<U>(self, value: impl Fn(&T) -> U) -> Taken<U> {
        let values = self.values.iter().map(value).collect();
        Taken { records: self.records, values, definition: self.definition, repetition: self.repetition }
    }

    /// How many values each record has.
    fn lengths(&self, present: i16) -> Vec<usize> {
        let mut lengths = Vec::with_capacity(self.records);
        for (i, &level) in self.repetition.iter().enumerate() {
            if level == 0 {
                lengths.push(0);
            }
            if let Some(length) = lengths.last_mut() {
                *length += usize::from(self.definition.get(i).is_none_or(|&defined| defined == present));
            }
        }
        lengths
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
    use parquet::data_type::{FixedLenByteArray, FixedLenByteArrayType, FloatType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::super::Logits;
    use super::*;

    /// Rows of logits; `None` is a null in place of a row or a value.
    type Lists<'a> = &'a [Option<&'a [Option<f32>]>];

    fn write(path: &Path, compression: Compression, element: &str, rows: Lists<'_>) {
        let schema = format!(
            "message m {{ OPTIONAL GROUP logits (LIST) {{ REPEATED GROUP list {{ OPTIONAL {element}; }} }} \
             OPTIONAL INT64 label; }}"
        );
        let schema = Arc::new(parse_message_type(&schema).unwrap());
        let properties = WriterProperties::builder().set_compression(compression).build();
        let file = File::create(path).unwrap();
        let mut file = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
        let (mut values, mut definition, mut repetition) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            match row {
                None => (definition.push(0), repetition.push(0)),
                Some([]) => (definition.push(1), repetition.push(0)),
                Some(row) => {
                    for (i, value) in row.iter().enumerate() {
                        repetition.push(i16::from(i > 0));
                        definition.push(if value.is_some() { 3 } else { 2 });
                        values.extend(*value);
                    }
                    ((), ())
                }
            };
        }
        let mut group = file.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        if element.contains("FLOAT16") {
            let half =
                |v: &f32| FixedLenByteArray::from(halfstep_float::f16_from_f32(*v).to_le_bytes().to_vec());
            let halves: Vec<FixedLenByteArray> = values.iter().map(half).collect();
            let writer = column.typed::<FixedLenByteArrayType>();
            writer.write_batch(&halves, Some(&definition), Some(&repetition)).unwrap();
        } else {
            column.typed::<FloatType>().write_batch(&values, Some(&definition), Some(&repetition)).unwrap();
        }
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let labels: Vec<i64> = (0..rows.len() as i64).map(|i| i % 2).collect();
        column.typed::<Int64Type>().write_batch(&labels, Some(&vec![1; rows.len()]), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        file.close().unwrap();
    }

    const SOUND: Lists<'static> = &[Some(&[Some(0.5), Some(-1.25)]), Some(&[Some(3.0), Some(2.0)])];

    fn read(path: &Path) -> Result<Vec<f32>, String> {
        let mut logits = Logits::open(path).map_err(|e| e.to_string())?;
        let mut out = Vec::new();
        logits.read(usize::MAX, &mut out).map_err(|e| e.to_string())?;
        Ok(out)
    }

    #[test]
    fn every_codec_and_width_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        for compression in [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::GZIP(GzipLevel::default()),
            Compression::BROTLI(BrotliLevel::default()),
            Compression::ZSTD(ZstdLevel::default()),
            Compression::LZ4_RAW,
            Compression::LZ4,
        ] {
            for element in ["FLOAT element", "FIXED_LEN_BYTE_ARRAY (2) element (FLOAT16)"] {
                write(&path, compression, element, SOUND);
                assert_eq!(read(&path).unwrap(), [0.5, -1.25, 3.0, 2.0], "{compression} {element}");
            }
        }
    }

    #[test]
    fn a_row_with_a_gap_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let whole: Option<&[Option<f32>]> = Some(&[Some(1.0), Some(2.0)]);
        let cases: [(Lists<'_>, &str); 5] = [
            (
                &[None, whole, whole],
                "row 0 (counted from 0) of `logits` has no values, but the others have 2; a missing value does not count",
            ),
            (&[whole, Some(&[]), whole], "row 1 (counted from 0) of `logits` has no values"),
            (&[Some(&[Some(1.0)]), whole, whole], "row 0 (counted from 0) of `logits` has 1 value,"),
            (&[whole, whole, Some(&[Some(1.0), None])], "row 2 (counted from 0) of `logits` has 1 value,"),
            (&[whole, whole, Some(&[Some(1.0); 3])], "row 2 (counted from 0) of `logits` has 3 values"),
        ];
        for (rows, message) in cases {
            write(&path, Compression::SNAPPY, "FLOAT element", rows);
            let error = read(&path).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }
}
