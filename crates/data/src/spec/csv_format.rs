//! How a table is written.

use serde::{Deserialize, Serialize};

/// How a CSV file is cut into cells, and how its cells are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CsvFormat {
    /// `delimiter`: one ASCII character; a comma by default.
    pub delimiter: char,
    /// `header`: whether the first line names the columns (default); else they are called `c1`,
    /// `c2` and so on.
    pub header: bool,
    /// `decimal`: the mark before decimals; the other one may then part thousands. By default each
    /// column is read as its cells decide, and one that can be read in two ways is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decimal: Option<DecimalMark>,
    /// `date_order`: whether the day or the month comes first in dates such as `01/02/2024`, where
    /// no cell of the column shows it. By default such a column is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date_order: Option<DateOrder>,
    /// `encoding`: what a file is that is not UTF-8, by a name that browsers know, such as
    /// `windows-1252`. A byte-order mark goes before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// `missing_markers`: the cells that count as missing, beside empty ones.
    #[serde(default = "CsvFormat::first_markers")]
    pub missing_markers: Vec<String>,
}

impl Default for CsvFormat {
    fn default() -> Self {
        let missing_markers = Self::MISSING_MARKERS.map(str::to_owned).to_vec();
        let (decimal, date_order, encoding) = (None, None, None);
        CsvFormat { delimiter: ',', header: true, decimal, date_order, encoding, missing_markers }
    }
}

impl CsvFormat {
    /// What programs write for a missing value: R, pandas, SQL, SAS, Minitab, Excel in several
    /// languages, C on Windows, and people.
    pub const MISSING_MARKERS: [&'static str; 57] = [
        "?", "NA", "na", "N/A", "n/a", "N.A.", "n.a.", "#N/A", "#N/A N/A", "#NA", "<NA>", "NaN", "nan",
        "NAN", "-nan", "-NaN", "1.#QNAN", "-1.#QNAN", "1.#IND", "-1.#IND", "NaT", "null", "NULL", "Null",
        "(null)", "<null>", "[null]", "None", "nil", "NIL", "missing", "Missing", "MISSING", "-", "--",
        "---", "\u{2013}", "\u{2014}", ".", "..", "...", "*", "**", "\\N", "#NULL!", "#VALUE!", "#DIV/0!",
        "#REF!", "#NAME?", "#NUM!", "#NV", "#N/D", "#WERT!", "#BEZUG!", "#ZAHL!", "k.A.", "k. A.",
    ];

    /// The markers of models that were stored before there was a key for them.
    fn first_markers() -> Vec<String> {
        vec!["?".to_owned(), "NA".to_owned()]
    }

    /// Whether a cell says that its value is missing. A marker that is a number stands for every
    /// way to write it.
    pub(crate) fn is_missing(&self, cell: &str) -> bool {
        let digit = |text: &str| text.as_bytes().first().is_some_and(u8::is_ascii_digit);
        let number = |text: &str| text.parse::<f64>().ok();
        let equal = |marker: &String| {
            marker == cell || number(marker).is_some_and(|a| number(cell).is_some_and(|b| a == b))
        };
        // Most cells are numbers, and most markers are not.
        let is_number = digit(cell);
        let may = |marker: &&String| !is_number || digit(marker);
        cell.is_empty() || self.missing_markers.iter().filter(may).any(equal)
    }
}

/// The mark before the decimals of a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DecimalMark {
    /// `3.5`
    #[default]
    #[serde(rename = ".")]
    Point,
    /// `3,5`
    #[serde(rename = ",")]
    Comma,
}

impl DecimalMark {
    /// The mark itself and the one that may part thousands beside it.
    pub(crate) fn and_other(self) -> (char, char) {
        match self {
            DecimalMark::Point => ('.', ','),
            DecimalMark::Comma => (',', '.'),
        }
    }
}

/// The order in which the parts of a date stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DateOrder {
    /// `2024-02-01`
    YearMonthDay,
    /// `01.02.2024`
    DayMonthYear,
    /// `02/01/2024`
    MonthDayYear,
    /// `1 Feb 2024` or `February 1, 2024`
    NamedMonth,
}
