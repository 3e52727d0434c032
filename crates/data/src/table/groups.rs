//! Columns that divide the rows of a table into groups, for measures by group.

use super::read::Cells;
use crate::error::DataError;

/// Columns of numbers with more different values than this are cut at their quartiles.
const MOST_VALUES: usize = 20;

/// The group of every row by one column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupLabels {
    /// The column.
    pub column: String,
    /// `[N]`: the cell of each row; of a column of many numbers, the quarter of the train rows it
    /// lies in; `(missing)`.
    pub values: Vec<String>,
}

/// How columns become groups; fitted on the train rows.
pub(crate) struct Grouping {
    columns: Vec<(String, Option<[f64; 3]>)>,
}

impl Grouping {
    pub(crate) fn fit(cells: &Cells, rows: &[u32], columns: &[String]) -> Result<Grouping, DataError> {
        let fitted = |name: &String| {
            let at = cells.column(name)?;
            let texts = || rows.iter().map(|&r| cells.rows[r as usize].cells[at].as_str());
            let numbers: Option<Vec<f64>> = texts()
                .filter(|t| !cells.is_missing(t))
                .map(|t| t.parse().ok().filter(|x: &f64| x.is_finite()))
                .collect();
            Ok((name.clone(), numbers.and_then(quartiles)))
        };
        Ok(Grouping { columns: columns.iter().map(fitted).collect::<Result<_, DataError>>()? })
    }

    pub(crate) fn of(&self, cells: &Cells, rows: &[u32]) -> Result<Vec<GroupLabels>, DataError> {
        let labels = |(name, cuts): &(String, Option<[f64; 3]>)| {
            let at = cells.column(name)?;
            let value = |&row: &u32| match (cells.rows[row as usize].cells[at].as_str(), cuts) {
                (cell, _) if cells.is_missing(cell) => "(missing)".to_owned(),
                (cell, None) => cell.to_owned(),
                (cell, Some([a, b, c])) => match cell.parse::<f64>() {
                    Ok(x) if x <= *a => format!("Q1 (≤ {a})"),
                    Ok(x) if x <= *b => format!("Q2 (≤ {b})"),
                    Ok(x) if x <= *c => format!("Q3 (≤ {c})"),
                    Ok(_) => format!("Q4 (> {c})"),
                    Err(_) => cell.to_owned(),
                },
            };
            Ok(GroupLabels { column: name.clone(), values: rows.iter().map(value).collect() })
        };
        self.columns.iter().map(labels).collect()
    }
}

/// The three quartiles of more than [`MOST_VALUES`] different numbers: the smallest with a quarter,
/// half and three quarters of the numbers at or below them.
fn quartiles(mut numbers: Vec<f64>) -> Option<[f64; 3]> {
    numbers.sort_by(f64::total_cmp);
    let mut different = numbers.clone();
    different.dedup();
    let n = numbers.len();
    (different.len() > MOST_VALUES).then(|| [1, 2, 3].map(|q| numbers[(q * n).div_ceil(4) - 1]))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::read;
    use super::*;
    use crate::spec::CsvFormat;

    #[test]
    fn names_are_groups_and_many_numbers_are_cut_in_four() {
        let text = (1..=40).fold("age,sex\n".to_owned(), |t, i| {
            t + &format!("{i},{}\n", if i % 2 == 0 { "f" } else { "?" })
        });
        let cells = read::parse(&text, Path::new("t.csv"), &CsvFormat::default()).unwrap();
        let rows: Vec<u32> = (0..40).collect();
        let names = ["age".to_owned(), "sex".to_owned()];
        let groups = Grouping::fit(&cells, &rows, &names).unwrap().of(&cells, &rows).unwrap();
        assert_eq!(groups[1].values[..2], ["(missing)", "f"]);
        for (name, count) in [("Q1 (≤ 10)", 10), ("Q2 (≤ 20)", 10), ("Q3 (≤ 30)", 10), ("Q4 (> 30)", 10)]
        {
            assert_eq!(groups[0].values.iter().filter(|v| *v == name).count(), count, "{name}");
        }
        let unknown = Grouping::fit(&cells, &rows, &["sx".to_owned()]).err().unwrap().to_string();
        assert!(unknown.contains("did you mean `sex`"), "{unknown}");
    }
}
