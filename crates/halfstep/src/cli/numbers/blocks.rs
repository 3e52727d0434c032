//! Numbers as a row of a block-scaled form.

use halfstep::float::blocks::{BlockError, BlockShape, F32Scale, Fp8Blocks, Mx, Nvfp4, ScaleRule};
use halfstep::float::{E8m0, Format, SliceRounding, decode};
use serde::Serialize;

use super::super::failure::Failure;
use super::super::output::{self, value_name};
use super::args::{BlockForm, Numbers, Rule};
use super::{bits, brief, rough, table};

const NEAREST: SliceRounding = SliceRounding::NearestEven;

/// A row in one form, as `--json` prints it.
#[derive(Serialize)]
struct Row {
    form: String,
    element: Format,
    block: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    tensor_scale: Option<f32>,
    scales: Vec<f32>,
    codes: Vec<u8>,
    values: Vec<f32>,
    /// Root mean square of the errors over that of the numbers.
    relative_rms_error: Option<f64>,
}

/// Prints the row in each form.
pub fn run(args: &Numbers, numbers: &[f64]) -> Result<(), Failure> {
    if numbers.is_empty() {
        return Err(Failure::asked("a block needs numbers", "write them before the options, as 0.1 3 -7"));
    }
    let x: Vec<f32> = numbers.iter().map(|&x| x as f32).collect();
    let rows = args
        .blocks
        .iter()
        .map(|&form| store(form, args.scale_rule, &x))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| Failure::failed(e.to_string()))?;
    if args.json {
        return output::json(&serde_json::json!({ "numbers": x, "forms": rows }));
    }
    for (i, row) in rows.iter().enumerate() {
        if i > 0 {
            output::line("");
        }
        show(&args.values, &x, row);
    }
    Ok(())
}

fn store(form: BlockForm, rule: Rule, x: &[f32]) -> Result<Row, BlockError> {
    let n = x.len();
    let (mut codes, mut values) = (vec![0; n], vec![0.0; n]);
    let mut tensor_scale = None;
    let (element, block, scales) = match mx_element(form) {
        Some(element) => {
            let rule = match rule {
                Rule::Floor => ScaleRule::Floor,
                Rule::Even => ScaleRule::Even,
                Rule::NoOverflow => ScaleRule::NoOverflow,
            };
            let mx = Mx::new(element, rule)?;
            let mut scales = vec![E8m0::ONE; mx.scales(n, n)?];
            mx.quantise(NEAREST, x, n, &mut codes, &mut scales)?;
            mx.dequantise(&codes, n, &scales, &mut values)?;
            (element, Mx::BLOCK, scales.into_iter().map(E8m0::value).collect())
        }
        None if form == BlockForm::Nvfp4 => {
            let tensor = Nvfp4.tensor_scale(x);
            tensor_scale = Some(tensor);
            let mut scales = vec![0; Nvfp4.scales(n, n)?];
            Nvfp4.quantise(NEAREST, x, n, tensor, &mut codes, &mut scales)?;
            Nvfp4.dequantise(&codes, n, tensor, &scales, &mut values)?;
            let value = |s: u8| decode(Format::E4m3, s.into()) as f32;
            (Format::E2m1, Nvfp4::BLOCK, scales.into_iter().map(value).collect())
        }
        None => {
            let shape = BlockShape { rows: 1, columns: 128 };
            let fp8 = Fp8Blocks::new(Format::E4m3, shape, F32Scale::Any)?;
            let mut scales = vec![0.0; fp8.scales(n, n)?];
            fp8.quantise(NEAREST, x, n, &mut codes, &mut scales)?;
            fp8.dequantise(&codes, n, &scales, &mut values)?;
            (Format::E4m3, shape.columns, scales)
        }
    };
    let sum = |f: &dyn Fn(usize) -> f64| (0..n).map(f).map(|e| e * e).sum::<f64>();
    let ratio = sum(&|i| f64::from(values[i]) - f64::from(x[i])) / sum(&|i| f64::from(x[i]));
    let relative_rms_error = Some(ratio.sqrt()).filter(|e| e.is_finite());
    Ok(Row {
        form: value_name(&form),
        element,
        block,
        tensor_scale,
        scales,
        codes,
        values,
        relative_rms_error,
    })
}

fn mx_element(form: BlockForm) -> Option<Format> {
    match form {
        BlockForm::Mxfp8 => Some(Format::E4m3),
        BlockForm::Mxfp8E5m2 => Some(Format::E5m2),
        BlockForm::Mxfp6E3m2 => Some(Format::E3m2),
        BlockForm::Mxfp6E2m3 => Some(Format::E2m3),
        BlockForm::Mxfp4 => Some(Format::E2m1),
        BlockForm::Nvfp4 | BlockForm::Fp8Blocks => None,
    }
}

fn show(texts: &[String], x: &[f32], row: &Row) {
    let element = row.element;
    let error =
        row.relative_rms_error.map(|e| format!(", error {} % (rms)", rough(100.0 * e))).unwrap_or_default();
    let tensor = row.tensor_scale.map(|t| format!(", tensor scale {}", rough(t.into()))).unwrap_or_default();
    let form = output::bold(&row.form);
    output::line(&format!("{form}: {element} codes, one scale to {}{tensor}{error}", row.block));
    let line = |(i, &code): (usize, &u8)| {
        let (given, read) = (f64::from(x[i]), f64::from(row.values[i]));
        let relative = ((read - given) / given).abs();
        vec![
            texts[i].clone(),
            if i % row.block == 0 { scale_text(row.scales[i / row.block]) } else { String::new() },
            bits(element, code.into()),
            brief(decode(element, code.into())),
            rough(read),
            if relative.is_finite() { format!("{} %", rough(100.0 * relative)) } else { "–".into() },
        ]
    };
    let heading = "number | scale | code |  | read back | error";
    output::raw(&table(heading, row.codes.iter().enumerate().map(line)));
}

/// A scale, as a power of two where it is one.
fn scale_text(scale: f32) -> String {
    let power = scale.log2();
    if power.fract() == 0.0 { format!("2^{power}") } else { rough(scale.into()) }
}
