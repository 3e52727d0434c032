//! What runs cost, in the form of CodeCarbon's `emissions.csv`.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::comparison::Setup;
use crate::cost::JOULES_PER_KWH;
use crate::run::RunResult;

/// The columns of CodeCarbon's `emissions.csv` (3.3), in its order.
const COLUMNS: &str = "timestamp,project_name,run_id,experiment_id,duration,emissions,emissions_rate,cpu_power,gpu_power,\
    ram_power,cpu_energy,gpu_energy,ram_energy,energy_consumed,water_consumed,country_name,country_iso_code,region,\
    cloud_provider,cloud_region,os,python_version,codecarbon_version,cpu_count,cpu_model,gpu_count,gpu_model,longitude,\
    latitude,ram_total_size,tracking_mode,cpu_utilization_percent,gpu_utilization_percent,ram_utilization_percent,\
    ram_used_gb,on_cloud,pue,wue";

/// One line per run with CodeCarbon's columns, so that what reads its files reads these.
/// `memory_gb` is the machine's. What is not known is empty: place, cloud, Python. The power of
/// memory is not reckoned apart.
pub fn emissions_csv(setups: &[(&Setup, &[RunResult])], memory_gb: f64) -> String {
    let mut out = format!("{COLUMNS}\n");
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    for (setup, runs) in setups {
        for run in *runs {
            let amounts = run.spent.amounts(&setup.rates);
            let seconds = run.spent.wall_seconds.max(f64::MIN_POSITIVE);
            let watts = amounts.kwh * JOULES_PER_KWH / seconds;
            let memory = run.peak_rss_bytes.unwrap_or(run.record.arena_bytes + run.record.state_bytes.total())
                as f64
                / 1e9;
            let mode = if run.spent.joules.is_some() { "machine" } else { "estimate" };
            let (threads, model) = (run.way.threads, quoted(&run.way.processor));
            out += &format!(
                "{},{},{},{},{},{},{},{watts},0,0,{},0,0,{},0,,,,,,{},,,{threads},{model},0,,,,{memory_gb},{mode},0,0,0,\
                 {memory},N,1,0\n",
                timestamp(run.ended),
                quoted(&format!("{} {}", setup.name, run.record.policy)),
                run.id,
                quoted(&format!("seed {}", run.record.seed)),
                run.spent.wall_seconds,
                amounts.kg_co2,
                amounts.kg_co2 / seconds,
                amounts.kwh,
                amounts.kwh,
                std::env::consts::OS,
            );
        }
    }
    out
}

/// A time in seconds since 1970 as `2026-11-23T20:23:08`, in UTC; empty beyond the year 9999.
fn timestamp(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
    let text = time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default();
    text.trim_end_matches('Z').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::tests::{run, setup};
    use crate::cost::tests::rates;

    #[test]
    fn every_line_has_every_column() {
        let setup = Setup { rates: rates(), ..setup() };
        let csv = emissions_csv(&[(&setup, &[run("fp32", 0, 0.9, 1.0)])], 16.0);
        let lines: Vec<usize> = csv.lines().map(|l| l.split(',').count()).collect();
        assert_eq!(lines, [38, 38], "{csv}");
        assert!(csv.contains("2023-11-14T22:13:20"), "{csv}");
    }
}
