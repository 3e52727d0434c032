//! Samples as a Parquet file, one row per value and format of a step: for tools that read tables.

use std::sync::Arc;

use halfstep_float::Format;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type};
use parquet::errors::Result;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use super::sample::{FormatShares, Sample, ValueRange};

const SCHEMA: &str = "message numerics {
    required binary policy (UTF8);
    required int64 seed;
    required int64 attempt;
    required double scale;
    required int32 position;
    required binary name (UTF8);
    required binary op (UTF8);
    required binary pass (UTF8);
    required binary stored (UTF8);
    required int64 count;
    required int64 zeros;
    required int64 non_finite;
    required float amax;
    required float amin;
    required int32 first_exponent;
    required binary exponents (UTF8);
    required binary format (UTF8);
    required double underflow;
    required double subnormal;
    required double overflow;
}";

/// The bytes of a Parquet file of these samples. `exponents` is a list of counts as JSON;
/// `position` is the value's place in execution order; `format` is the one that the shares are of.
///
/// # Errors
/// None for samples as they are taken.
pub fn parquet(samples: &[Sample]) -> Result<Vec<u8>> {
    let rows: Vec<Row<'_>> = samples.iter().flat_map(rows).collect();
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let properties = WriterProperties::builder().set_compression(parquet::basic::Compression::SNAPPY).build();
    let mut bytes = Vec::new();
    let mut file = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties))?;
    let mut group = file.next_row_group()?;
    let text = |of: &dyn Fn(&Row<'_>) -> String| -> Vec<ByteArray> {
        rows.iter().map(|r| ByteArray::from(of(r).into_bytes())).collect()
    };
    let whole = |of: &dyn Fn(&Row<'_>) -> u64| -> Vec<i64> { rows.iter().map(|r| of(r) as i64).collect() };
    let number = |of: &dyn Fn(&Row<'_>) -> f64| -> Vec<f64> { rows.iter().map(of).collect() };
    column::<ByteArrayType>(&mut group, &text(&|r| r.sample.policy.clone()))?;
    column::<Int64Type>(&mut group, &whole(&|r| r.sample.seed))?;
    column::<Int64Type>(&mut group, &whole(&|r| r.sample.attempt))?;
    column::<DoubleType>(&mut group, &number(&|r| r.sample.scale))?;
    column::<Int32Type>(&mut group, &rows.iter().map(|r| r.position).collect::<Vec<_>>())?;
    column::<ByteArrayType>(&mut group, &text(&|r| r.value.name.clone()))?;
    column::<ByteArrayType>(&mut group, &text(&|r| r.value.op.clone()))?;
    column::<ByteArrayType>(&mut group, &text(&|r| format!("{:?}", r.value.phase).to_lowercase()))?;
    column::<ByteArrayType>(&mut group, &text(&|r| r.value.format.to_string()))?;
    column::<Int64Type>(&mut group, &whole(&|r| r.value.count))?;
    column::<Int64Type>(&mut group, &whole(&|r| r.value.zeros))?;
    column::<Int64Type>(&mut group, &whole(&|r| r.value.non_finite))?;
    column::<FloatType>(&mut group, &rows.iter().map(|r| r.value.amax).collect::<Vec<_>>())?;
    column::<FloatType>(&mut group, &rows.iter().map(|r| r.value.amin).collect::<Vec<_>>())?;
    column::<Int32Type>(&mut group, &rows.iter().map(|r| r.value.first_exponent).collect::<Vec<_>>())?;
    column::<ByteArrayType>(&mut group, &text(&|r| format!("{:?}", r.value.exponents)))?;
    column::<ByteArrayType>(&mut group, &text(&|r| r.format.to_string()))?;
    column::<DoubleType>(&mut group, &number(&|r| r.shares.underflow))?;
    column::<DoubleType>(&mut group, &number(&|r| r.shares.subnormal))?;
    column::<DoubleType>(&mut group, &number(&|r| r.shares.overflow))?;
    group.close()?;
    file.close()?;
    Ok(bytes)
}

struct Row<'s> {
    sample: &'s Sample,
    value: &'s ValueRange,
    position: i32,
    format: &'static str,
    shares: FormatShares,
}

fn rows(sample: &Sample) -> impl Iterator<Item = Row<'_>> {
    sample.values.iter().enumerate().flat_map(move |(position, value)| {
        Format::ALL.iter().filter_map(move |format| {
            let shares = *value.formats.get(format.name())?;
            Some(Row { sample, value, position: position as i32, format: format.name(), shares })
        })
    })
}

fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, &mut Vec<u8>>,
    values: &[T::T],
) -> Result<()> {
    if let Some(mut column) = group.next_column()? {
        column.typed::<T>().write_batch(values, None, None)?;
        column.close()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use halfstep_graph::{DType, Phase};
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::RowAccessor;

    use super::*;

    #[test]
    fn every_value_and_format_is_a_row() {
        let shares = FormatShares { underflow: 0.25, subnormal: 0.5, overflow: 0.0 };
        let value = ValueRange {
            name: "layer".into(),
            op: "matmul".into(),
            phase: Phase::Backward,
            format: DType::F16,
            count: 4,
            zeros: 1,
            non_finite: 0,
            amax: 2.0,
            amin: 0.5,
            first_exponent: -1,
            exponents: vec![1, 1, 1],
            formats: Format::ALL.map(|f| (f.name().to_string(), shares)).into(),
        };
        let sample = Sample {
            policy: "fp16".into(),
            seed: 1,
            attempt: 7,
            scale: 4.0,
            values: vec![value.clone(), value],
        };
        let bytes = parquet(&[sample.clone(), sample]).unwrap();
        let file = SerializedFileReader::new(bytes::Bytes::from(bytes)).unwrap();
        let rows: Vec<_> = file.get_row_iter(None).unwrap().map(|r| r.unwrap()).collect();
        assert_eq!(rows.len(), 2 * 2 * Format::ALL.len());
        assert_eq!(rows[1].get_string(0).unwrap(), "fp16");
        assert_eq!(rows[1].get_long(2).unwrap(), 7);
        assert_eq!(rows[1].get_string(7).unwrap(), "backward");
        assert_eq!(rows[1].get_string(15).unwrap(), "[1, 1, 1]");
        assert_eq!(rows[1].get_double(18).unwrap(), 0.5);
    }
}
