//! Event files, which TensorBoard shows.

pub mod proto;
mod record;

use std::io::{self, Write};

use prost::Message;

use crate::Scalar;
use proto::{
    DT_STRING, Event, PluginData, START, SessionLog, Summary, SummaryMetadata, TensorProto, TensorShapeProto,
    Value, What,
};

/// The name of a new event file: TensorBoard looks for `tfevents` in it, and reads files of one
/// folder in the order of their names, so that a run that goes on comes after its beginning. `time`
/// is in seconds since 1970.
pub fn file_name(time: f64) -> String {
    format!("events.out.tfevents.{:010}.{}.halfstep", time as u64, std::process::id())
}

/// Writes an event file. Each call is one write, so that TensorBoard never waits for the rest of a
/// record, and what a killed process wrote can be read.
#[derive(Debug)]
pub struct EventWriter<W> {
    out: W,
}

impl<W: Write> EventWriter<W> {
    /// Begins a file whose first step is `step`: what earlier files of the folder have from there
    /// on, TensorBoard leaves out.
    ///
    /// # Errors
    /// It cannot be written to.
    pub fn begin(out: W, step: u64, time: f64) -> io::Result<EventWriter<W>> {
        let mut writer = EventWriter { out };
        writer.write(time, 0, What::FileVersion("brain.Event:2".into()))?;
        writer.write(time, step, What::SessionLog(SessionLog { status: START }))?;
        Ok(writer)
    }

    /// Adds numbers, all of the step and time of the first.
    ///
    /// # Errors
    /// The disk is full or gone.
    pub fn scalars(&mut self, scalars: &[Scalar]) -> io::Result<()> {
        let Some(first) = scalars.first() else { return Ok(()) };
        let value = |s: &Scalar| Value {
            tag: s.name.to_string(),
            simple_value: Some(s.value as f32),
            ..Value::default()
        };
        let summary = Summary { value: scalars.iter().map(value).collect() };
        self.write(first.time, first.step, What::Summary(summary))
    }

    /// Adds a text in Markdown.
    ///
    /// # Errors
    /// The disk is full or gone.
    pub fn text(&mut self, tag: &str, text: &str, step: u64, time: f64) -> io::Result<()> {
        let tensor = TensorProto {
            dtype: DT_STRING,
            tensor_shape: Some(TensorShapeProto {}),
            string_val: vec![text.as_bytes().to_vec()],
        };
        let plugin_data = Some(PluginData { plugin_name: "text".into() });
        let metadata = Some(SummaryMetadata { plugin_data });
        let value = Value { tag: tag.to_string(), tensor: Some(tensor), metadata, ..Value::default() };
        self.write(time, step, What::Summary(Summary { value: vec![value] }))
    }

    fn write(&mut self, wall_time: f64, step: u64, what: What) -> io::Result<()> {
        let event = Event { wall_time, step: step as i64, what: Some(what) };
        self.out.write_all(&record::framed(&event.encode_to_vec()))
    }
}
