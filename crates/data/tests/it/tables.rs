//! Tables as people have them: what `inspect` finds loads, and what a recipe leaves open is said.

use std::fs;
use std::path::{Path, PathBuf};

use halfstep_data::{
    ColumnKind, CsvSpec, DataSpec, Dataset, DecimalMark, Found, MissingTarget, inspect, load,
};
use tempfile::TempDir;
use toml::de::DeTable;

pub(crate) struct Table {
    pub(crate) folder: TempDir,
}

impl Table {
    pub(crate) fn new(content: impl AsRef<[u8]>) -> Table {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("t.csv"), content).unwrap();
        Table { folder }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("t.csv")
    }

    /// What `inspect` suggests, its notes and those of loading it.
    pub(crate) fn suggested(&self) -> (CsvSpec, Dataset, String) {
        let seen = inspect(&self.path()).unwrap_or_else(|e| panic!("{e}"));
        let data = load(&seen.spec, Path::new("/")).unwrap_or_else(|e| panic!("{e}"));
        let notes = [seen.notes, data.notes.clone()].concat().join("\n");
        let DataSpec::Csv(spec) = seen.spec else { panic!("not a table") };
        (spec, data, notes)
    }

    pub(crate) fn load(&self, more: &str) -> Result<Dataset, String> {
        let toml = format!("kind = 'csv'\npath = 't.csv'\n{more}");
        let spec = DataSpec::read(DeTable::parse(&toml).unwrap().into_inner()).map_err(|e| e.to_string())?;
        load(&spec, self.folder.path()).map_err(|e| e.to_string())
    }
}

/// A header and 60 rows of alternating classes, made of the number of the row.
pub(crate) fn rows(header: &str, row: impl Fn(usize) -> String) -> String {
    (0..60).fold(format!("{header}\n"), |text, i| text + &row(i) + "\n")
}

pub(crate) fn kind(i: usize) -> &'static str {
    ["rosa", "tulip"][i % 2]
}

/// Numbers with three decimals, no two alike.
pub(crate) fn petal(i: usize) -> f64 {
    1.0 + (i * 37 % 60) as f64 / 61.0
}

pub(crate) fn features(data: &Dataset) -> Vec<String> {
    data.preprocessing.table().unwrap().feature_names()
}

pub(crate) fn classes(data: &Dataset) -> Vec<String> {
    data.preprocessing.classes().to_vec()
}

#[test]
fn an_index_that_a_program_wrote_is_no_feature() {
    for (header, first) in
        [(",petal,kind", 0), ("\"\",\"petal\",\"kind\"", 1), ("petal,kind", 1), ("Unnamed: 0,petal,kind", 7)]
    {
        // Sorted by class: the number of the row gives the class away.
        let table = Table::new(rows(header, |i| format!("{},{:.3},{}", i + first, petal(i), kind(i / 30))));
        let (spec, data, notes) = table.suggested();
        assert_eq!((spec.target.as_str(), features(&data)), ("kind", vec!["petal".to_owned()]), "{header}");
        assert!(notes.contains("the number of the row"), "{notes}");
        let by_hand = table.load("target = 'kind'").unwrap();
        assert_eq!(features(&by_hand), ["petal"], "{header}");
        assert!(
            by_hand.notes.iter().any(|note| note.contains("is left out") && note.contains("numeric = ["))
        );
    }
    let table = Table::new(rows(",petal,kind", |i| format!("{i},{:.3},{}", petal(i), kind(i))));
    assert_eq!(features(&table.load("target = 'kind'\nignore = ['']").unwrap()), ["petal"]);
    assert_eq!(features(&table.load("target = 'kind'\nnumeric = ['']").unwrap()), ["c1", "petal"]);
    // Names of rows, as R writes them, and a counting column that has a name.
    let named = Table::new(rows("petal,kind", |i| format!("Plant {i},{:.3},{}", petal(i), kind(i))));
    assert_eq!(features(&named.suggested().1), ["petal"]);
    let counting = Table::new(rows("nr,petal,kind", |i| format!("{i},{:.3},{}", petal(i), kind(i))));
    let by_hand = counting.load("target = 'kind'").unwrap();
    assert_eq!(features(&by_hand), ["nr", "petal"]);
    assert!(
        by_hand.notes[0].contains("`nr` is used, but it counts the rows")
            && by_hand.notes[0].contains("ignore = [\"nr\"]")
    );
    // A measurement without a name is one.
    let middle = Table::new(rows("petal,,kind", |i| format!("{:.3},{},{}", petal(i), i % 3, kind(i))));
    assert_eq!(features(&middle.load("target = 'kind'").unwrap()), ["petal", "c2"]);
}

#[test]
fn a_comma_at_the_end_of_each_line_makes_no_column() {
    for (header, end) in
        [("petal,kind,", ","), ("petal,kind", ","), ("petal,kind,", ""), ("petal,kind,,,", ",,,")]
    {
        let table = Table::new(rows(header, |i| format!("{:.3},{}{end}", petal(i), kind(i))));
        let (spec, data, _) = table.suggested();
        assert_eq!(
            (spec.target.as_str(), spec.format.header, features(&data)),
            ("kind", true, vec!["petal".into()])
        );
    }
}

#[test]
fn headers_of_numbers_are_headers() {
    for (header, has) in [
        ("2019,2020,kind", true),
        ("0,1,kind", true),
        ("NA,stem,kind", true),
        ("inf,stem,kind", true),
        ("1.5,2.5,rosa", false),
        ("1,2,tulip", false),
    ] {
        let table = Table::new(rows(header, |i| format!("{:.3},{:.3},{}", petal(i), petal(i + 7), kind(i))));
        let (spec, data, _) = table.suggested();
        assert_eq!(spec.format.header, has, "{header}");
        let first = if has { header.split(',').next().unwrap() } else { "c1" };
        assert_eq!(
            (features(&data)[0].as_str(), classes(&data)),
            (first, vec!["rosa".into(), "tulip".into()])
        );
        assert_eq!(data.train.len() + data.test.len(), if has { 60 } else { 61 }, "{header}");
    }
    let numbers = Table::new(rows("0,1,2", |i| format!("{:.3},{:.3},{}", petal(i), petal(i + 7), i % 2)));
    assert!(numbers.suggested().0.format.header);
    let texts = Table::new(rows("size,colour,kind", |i| {
        format!("{},{},{}", ["s", "l"][i / 2 % 2], ["red", "blue"][i / 4 % 2], kind(i))
    }));
    assert!(texts.suggested().0.format.header);
    let without = Table::new(rows("s,red,rosa", |i| {
        format!("{},{},{}", ["s", "l"][i / 2 % 2], ["red", "blue"][i / 4 % 2], kind(i))
    }));
    assert!(!without.suggested().0.format.header);
    let twice = Table::new(rows("x,x,kind", |i| format!("{:.3},{:.3},{}", petal(i), petal(i + 7), kind(i))));
    let error = inspect(&twice.path()).unwrap_err().to_string();
    assert!(error.contains("two columns are called `x` (columns 1 and 2)"), "{error}");
}

#[test]
fn usual_markers_are_missing_values() {
    for marker in [
        "null", "NULL", "N/A", "n/a", "-", "?", ".", "NaN", "nan", "None", "#N/A", "<NA>", "nil", "missing",
        "", "--", "\\N", "NaT",
    ] {
        let cell =
            |i: usize| if i.is_multiple_of(12) { marker.to_owned() } else { format!("{:.3}", petal(i)) };
        let table =
            Table::new(rows("petal,stem,kind", |i| format!("{},{:.3},{}", cell(i), petal(i + 3), kind(i))));
        let (spec, data, notes) = table.suggested();
        assert_eq!(features(&data), ["petal", "stem"], "{marker}: {notes}");
        assert!(notes.contains("Missing numbers become the mean of their column: petal (5)"), "{notes}");
        assert_eq!(features(&table.load("target = 'kind'\nmissing = 'mean'").unwrap()), ["petal", "stem"]);
        let strict = table.load("target = 'kind'").unwrap_err();
        assert!(strict.contains("column `petal`: value is missing"), "{marker}: {strict}");
        assert_eq!(spec.missing_target, MissingTarget::Error);

        let label = |i: usize| if i.is_multiple_of(12) { marker } else { kind(i) };
        let table = Table::new(rows("petal,kind", |i| format!("{:.3},{}", petal(i), label(i))));
        let (spec, data, notes) = table.suggested();
        assert_eq!(
            (spec.missing_target, classes(&data)),
            (MissingTarget::Drop, vec!["rosa".into(), "tulip".into()])
        );
        assert_eq!(data.train.len() + data.test.len(), 55, "{marker}");
        assert!(
            notes.contains(
                "5 of 60 rows are left out because their target `kind` is missing, the first in line 2"
            ),
            "{notes}"
        );
        let refused = table.load("target = 'kind'").unwrap_err();
        assert!(refused.contains("line 2, column `kind`: value is missing"), "{refused}");
    }
}

#[test]
fn one_repeated_text_among_numbers_is_a_gap() {
    let cell =
        |i: usize| if i.is_multiple_of(12) { "unknown".to_owned() } else { format!("{:.3}", petal(i)) };
    let table = Table::new(rows("petal,kind", |i| format!("{},{}", cell(i), kind(i))));
    let (_, data, notes) = table.suggested();
    assert_eq!(features(&data), ["petal"]);
    assert!(notes.contains("is numeric but for `unknown`"), "{notes}");
    let told = table.load("target = 'kind'\ncategorical = ['petal']").unwrap();
    assert!(features(&told).len() > 20);
    // A number that means "missing" is one by its key alone.
    let cell = |i: usize| if i.is_multiple_of(12) { "-999.0".to_owned() } else { format!("{:.3}", petal(i)) };
    let table = Table::new(rows("petal,kind", |i| format!("{},{}", cell(i), kind(i))));
    assert!(table.load("target = 'kind'").is_ok());
    let refused = table.load("target = 'kind'\nmissing_markers = ['-999']").unwrap_err();
    assert!(refused.contains("value is missing (`-999.0`)"), "{refused}");
}

#[test]
fn namibia_is_a_country() {
    let country = |i: usize| ["NA", "ZA", "BW", "AO"][i % 4];
    let table = Table::new(rows("gdp,country", |i| format!("{:.3},{}", petal(i), country(i))));
    let (spec, data, notes) = table.suggested();
    assert_eq!(classes(&data), ["AO", "BW", "NA", "ZA"]);
    assert!(!spec.format.missing_markers.contains(&"NA".to_owned()) && notes.contains("Namibia"), "{notes}");
    assert!(table.load("target = 'country'").unwrap_err().contains("`missing_markers = []`"));
    assert_eq!(classes(&table.load("target = 'country'\nmissing_markers = []").unwrap()).len(), 4);
    let (_, data, _) =
        Table::new(rows("country,gdp,grows", |i| format!("{},{:.3},{}", country(i / 2), petal(i), kind(i))))
            .suggested();
    assert!(features(&data).contains(&"country=NA".to_owned()), "{:?}", features(&data));
    // A gap in a column of other codes stays one.
    let code = |i: usize| if i.is_multiple_of(20) { "NA" } else { ["ZA", "BW"][i % 2] };
    let (_, data, _) =
        Table::new(rows("country,gdp,grows", |i| format!("{},{:.3},{}", code(i), petal(i), kind(i))))
            .suggested();
    assert!(features(&data).contains(&"country=(missing)".to_owned()), "{:?}", features(&data));
}

#[test]
fn decimal_commas_are_read_or_asked_for() {
    let german = |i: usize, digits: usize| format!("{:.digits$}", petal(i)).replace('.', ",");
    let open =
        Table::new(rows("petal;stem;kind", |i| format!("{};{};{}", german(i, 3), german(i + 3, 3), kind(i))));
    let (spec, data, notes) = open.suggested();
    assert_eq!((spec.format.delimiter, spec.format.decimal), (';', Some(DecimalMark::Comma)));
    assert!(features(&data).len() == 2 && notes.contains("1,234 is read as 1.234"), "{notes}");
    let asked = open.load("target = 'kind'\ndelimiter = ';'").unwrap_err();
    assert!(
        asked.contains("column `petal`")
            && asked.contains("decimal = \",\"")
            && asked.contains("decimal = \".\""),
        "{asked}"
    );
    assert_eq!(features(&open.load("target = 'kind'\ndelimiter = ';'\ndecimal = ','").unwrap()).len(), 2);
    // One cell with two decimals decides.
    let decided = Table::new(rows("petal;kind", |i| format!("{};{}", german(i, 2), kind(i))));
    let by_hand = decided.load("target = 'kind'\ndelimiter = ';'").unwrap();
    assert!(
        features(&by_hand) == ["petal"] && by_hand.notes[0].contains("with a decimal comma"),
        "{:?}",
        by_hand.notes
    );
    // Without a header, the commas must not part the cells.
    let headless = Table::new(
        rows("1,50;2,25;7", |i| format!("{};{};{}", german(i, 2), german(i + 3, 2), i % 2))
            .replace("7\n", "1\n"),
    );
    assert_eq!(headless.suggested().0.format.delimiter, ';');
    // Beside decided commas, `1.234` may be thousands.
    let mixed = Table::new(rows("price;area;kind", |i| {
        format!("{}.{:03};{};{}", 1 + i % 7, i * 13 % 1000, german(i, 2), kind(i))
    }));
    let asked = mixed.load("target = 'kind'\ndelimiter = ';'").unwrap_err();
    assert!(asked.contains("column `price`") && asked.contains("can be"), "{asked}");
    assert_eq!(mixed.suggested().0.format.decimal, Some(DecimalMark::Comma));
}

#[test]
fn thousands_units_currencies_and_percent_are_read() {
    for (cell, remark) in [
        ("\"{},{}.50\"", "commas between thousands"),
        ("\"{}.{},50\"", "with a decimal comma"),
        ("{} {}", ""),
        ("{}'{}", ""),
        ("{}_{}", ""),
        ("{}{}.5 kg", "in `kg`"),
        ("${}{}", "in `$`"),
        ("{}{} EUR", "in `EUR`"),
        ("{}.{}%", "in `%`"),
        ("{}{} m²", "in `m²`"),
        ("\u{2212}{}.{}", ""),
    ] {
        let number = |i: usize| {
            cell.replacen("{}", &(1 + i % 9).to_string(), 1).replacen(
                "{}",
                &format!("{:03}", i * 37 % 1000),
                1,
            )
        };
        let table =
            Table::new(rows("amount,area,sold", |i| format!("{},{:.2},{}", number(i), petal(i), kind(i))));
        let (spec, data, notes) = table.suggested();
        assert_eq!(
            (spec.target.as_str(), features(&data)),
            ("sold", vec!["amount".into(), "area".into()]),
            "{cell}"
        );
        assert!(remark.is_empty() || notes.contains(remark), "{cell}: {notes}");
        assert_eq!(features(&table.load("target = 'sold'").unwrap()).len(), 2, "{cell}");
    }
    let quoted =
        Table::new(rows("amount,sold", |i| format!("\"{},{:03}\",{}", 1 + i % 9, i * 37 % 1000, kind(i))));
    let (spec, _, notes) = quoted.suggested();
    assert!(
        spec.format.decimal == Some(DecimalMark::Point) && notes.contains("1,234 is read as 1234"),
        "{notes}"
    );
    let units = Table::new(rows("w,x,sold", |i| {
        format!("{i} {},{:.2},{}", ["kg", "g"][i / 2 % 2], petal(i), kind(i))
    }));
    let (spec, _, notes) = units.suggested();
    assert!(
        spec.ignore == ["w"] && notes.contains("do not all have the same unit (`0 kg` and `2 g`)"),
        "{notes}"
    );
    assert!(units.load("target = 'sold'").unwrap_err().contains("same unit"));
}

#[test]
fn dates_and_times_become_numbers() {
    for (cell, remark) in [
        ("2024-{M}-{D}", "holds dates (year, month, day)"),
        ("{D}.{M}.2024", "holds dates (day, month, year)"),
        ("{M}/{D}/2024", "holds dates (month, day, year)"),
        ("2024-{M}-{D}T12:30:00Z", "holds dates"),
        ("{D}-Mar-2024", "with the month's name"),
        ("{M}:{D}", "holds times"),
    ] {
        let date = |i: usize| {
            cell.replace("{M}", &format!("{:02}", 1 + i % 12)).replace("{D}", &format!("{:02}", 1 + i % 28))
        };
        let table =
            Table::new(rows("when,area,sold", |i| format!("{},{:.2},{}", date(i), petal(i), kind(i))));
        let (_, data, notes) = table.suggested();
        assert!(features(&data) == ["when", "area"] && notes.contains(remark), "{cell}: {notes}");
    }
    let open = Table::new(rows("when,area,sold", |i| {
        format!("{:02}/{:02}/2024,{:.2},{}", 1 + i % 12, 1 + i % 11, petal(i), kind(i))
    }));
    let (spec, _, notes) = open.suggested();
    assert!(spec.ignore == ["when"] && notes.contains("can be day, month or month, day"), "{notes}");
    for order in ["day-month-year", "month-day-year"] {
        let read = open.load(&format!("target = 'sold'\ndate_order = '{order}'")).unwrap();
        assert!(features(&read).contains(&"when".to_owned()), "{order}");
    }
    let other = open.load("target = 'sold'\ndate_order = 'year-month-day'").unwrap_err();
    assert!(other.contains("other orders show by themselves"), "{other}");
}

#[test]
fn spellings_of_one_class_are_one() {
    let label = |i: usize| if i > 30 { ["0.0", "1.0"][i % 2] } else { ["0", "1"][i % 2] };
    let mixed = Table::new(rows("petal,kind", |i| format!("{:.3},{}", petal(i), label(i))));
    let (_, data, notes) = mixed.suggested();
    assert!(
        classes(&data) == ["0", "1"] && notes.contains("`0`, `0.0` are one value, called `0`"),
        "{notes}"
    );
    // A test file that was written by another program.
    let train = Table::new(rows("petal,kind", |i| format!("{:.3},{}", petal(i), i % 2)));
    fs::write(
        train.folder.path().join("test.csv"),
        rows("petal,kind", |i| format!("{:.3},{}.0", petal(i), i % 2)),
    )
    .unwrap();
    let data = train.load("target = 'kind'\ntest_path = 'test.csv'").unwrap();
    assert!(classes(&data) == ["0", "1"] && data.test.labels()[..4] == [0, 1, 0, 1]);
    let label = |i: usize| [["True", "False"], ["true", "FALSE"]][usize::from(i > 40)][i % 2];
    let booleans = Table::new(rows("petal,kind", |i| format!("{:.3},{}", petal(i), label(i))));
    assert_eq!(classes(&booleans.suggested().1), ["False", "True"]);
    let label =
        |i: usize| if i.is_multiple_of(2) { ["caf\u{e9}", "cafe\u{301}"][i / 2 % 2] } else { " bar " };
    let forms = Table::new(rows("petal,kind", |i| format!("{:.3},{}", petal(i), label(i))));
    assert_eq!(classes(&forms.suggested().1), ["bar", "caf\u{e9}"]);
    let label = |i: usize| ["Rosa", "rosa", "tulip"][i % 3];
    let case = Table::new(rows("petal,kind", |i| format!("{:.3},{}", petal(i), label(i))));
    let (_, data, notes) = case.suggested();
    assert!(classes(&data).len() == 3 && notes.contains("differ only in case"), "{notes}");
    // Categories of features too.
    let feature = |i: usize| ["1", "1.0", "2"][i / 2 % 3];
    let data = Table::new(rows("x,kind", |i| format!("{},{}", feature(i), kind(i))))
        .load("target = 'kind'\ncategorical = ['x']")
        .unwrap();
    assert_eq!(features(&data), ["x=1", "x=2"]);
}

#[test]
fn encodings_are_recognised_or_named() {
    let words = rows("größe,kind", |i| format!("{:.3},{}", petal(i), ["Föhre", "Weide"][i % 2]));
    let latin: Vec<u8> = words.chars().map(|c| c as u32 as u8).collect();
    let utf16 = |bytes: fn(u16) -> [u8; 2]| words.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
    let (little, big) = (utf16(u16::to_le_bytes), utf16(u16::to_be_bytes));
    for (bytes, needed) in [
        (words.clone().into_bytes(), None),
        ([b"\xEF\xBB\xBF", words.as_bytes()].concat(), None),
        ([b"\xFF\xFE", &little[..]].concat(), None),
        ([b"\xFE\xFF", &big[..]].concat(), None),
        (little, Some("utf-16le")),
        (big, Some("utf-16be")),
        (latin, Some("windows-1252")),
    ] {
        let table = Table::new(bytes);
        let (spec, data, _) = table.suggested();
        assert_eq!(
            (spec.format.encoding.as_deref(), classes(&data)),
            (needed, vec!["Föhre".to_owned(), "Weide".into()])
        );
        assert_eq!(features(&data), ["größe"]);
        let by_hand = table.load("target = 'kind'");
        match needed {
            None => assert!(by_hand.is_ok()),
            Some(name) => assert!(by_hand.unwrap_err().contains(&format!("encoding = \"{name}\""))),
        }
        // The bytes of a row in another file are read as the model's were.
        let encoder = data.preprocessing.table().unwrap();
        assert_eq!(encoder.read_rows(&table.path()).unwrap().lines().nth(1), Some(3));
    }
    let unknown = Table::new("a,b\n1,x\n").load("target = 'b'\nencoding = 'klingon'").unwrap_err();
    assert!(unknown.contains("\"klingon\" is no encoding"), "{unknown}");
}

#[test]
fn spreadsheets_say_how_they_part_cells() {
    let table =
        Table::new(format!("sep=;\r\n{}", rows("petal;kind", |i| format!("{:.3};{}\r", petal(i), kind(i)))));
    let (spec, data, _) = table.suggested();
    assert!(spec.format.delimiter == ';' && features(&data) == ["petal"]);
    assert_eq!(features(&table.load("target = 'kind'").unwrap()), ["petal"]);
    let blank = Table::new(rows("petal,kind", |i| format!("{:.3},{}", petal(i), kind(i))) + ",\n,\n");
    let (_, data, notes) = blank.suggested();
    assert!(data.train.len() == 48 && notes.contains("2 row(s) of empty cells"), "{notes}");
    let quoted = Table::new(
        rows("petal,note,kind", |i| format!("{:.3},\"a\nb\",{}", petal(i), kind(i))) + "oops,x,rosa\n",
    );
    let error = quoted.load("target = 'kind'").unwrap_err();
    // A header and 60 rows of two lines each come before it.
    assert!(error.contains("line 122, column `petal`: `oops`"), "{error}");
}

#[test]
fn what_is_left_out_has_its_reason() {
    let table = Table::new(rows("code,same,none,text,id,target,kind", |i| {
        format!("A{i},7,,{},{},{:.3},{}", ["x", "y"][i / 2 % 2], (i * 7 + 3) % 61, petal(i), kind(i))
    }));
    let (spec, _, notes) = table.suggested();
    assert_eq!(
        (spec.target.as_str(), spec.ignore),
        ("kind", vec!["code".into(), "same".into(), "none".into(), "id".into()])
    );
    for reason in [
        "`code` is left out: it has 60 different texts in 60 rows, too many to learn from; to use it, take it out of \
         `ignore`",
        "`same` is left out: every row has `7`",
        "`none` is left out: it is empty",
        "`id` is left out: it has another number in every row and is called as identifiers are",
        "`target` is not taken as the target: its 60 different numbers are a quantity, and predicting quantities \
         (regression) is not supported",
    ] {
        assert!(notes.contains(reason), "{reason}\n{notes}");
    }
    let rooms =
        Table::new(rows("size,rooms,price", |i| format!("{:.3},{},{:.2}", petal(i), i % 4, petal(i + 5))));
    let (spec, _, notes) = rooms.suggested();
    assert!(
        spec.target == "rooms"
            && notes.contains("The last column, `price`, is not taken as the target: its 60"),
        "{notes}"
    );
    let gap = |i: usize| if i.is_multiple_of(9) { -999.0 } else { petal(i) };
    let (_, _, notes) = Table::new(rows("x,kind", |i| format!("{:.3},{}", gap(i), kind(i)))).suggested();
    assert!(notes.contains("has -999 in 7 rows") && notes.contains("`missing_markers`"), "{notes}");
    let quantities = Table::new(rows("size,price", |i| format!("{:.3},{:.2}", petal(i), petal(i + 5))));
    let error = inspect(&quantities.path()).unwrap_err().to_string();
    assert!(
        error.contains("no column holds classes to predict. `size`: its 60 different numbers"),
        "{error}"
    );
    let seen = inspect(&table.path()).unwrap();
    let Found::Csv { columns, .. } = seen.found else { panic!() };
    assert_eq!(columns[6].kind, ColumnKind::Target);
}

#[test]
fn a_folder_of_texts_is_one_text() {
    let folder = TempDir::new().unwrap();
    let table = folder.path().join("table.txt");
    fs::write(&table, rows("petal\tkind", |i| format!("{:.3}\t{}", petal(i), kind(i)))).unwrap();
    let notes = inspect(&table).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("looks like a table of 2 columns")), "{notes:?}");
    fs::remove_file(&table).unwrap();
    fs::create_dir(folder.path().join("b")).unwrap();
    fs::write(folder.path().join("a.txt"), "erste Zeile\n".repeat(300)).unwrap();
    fs::write(folder.path().join("b/c.txt"), "zweite Zeile").unwrap();
    fs::write(folder.path().join("notes.pdf"), "x").unwrap();
    let seen = inspect(folder.path()).unwrap();
    let data = load(&seen.spec, Path::new("/")).unwrap();
    assert!(
        data.notes[0].contains("2 text files") && data.notes[0].contains("1 other file(s)"),
        "{:?}",
        data.notes
    );
    assert!(seen.notes.iter().any(|note| note.contains("not taken as classes")), "{:?}", seen.notes);
}

#[test]
fn a_table_of_a_great_many_columns_is_read_in_seconds() {
    let header: Vec<String> = (0..250_000).map(|i| format!("x{i}")).collect();
    let row = |i: usize| format!("{},{}", vec![i.to_string(); header.len()].join(","), kind(i));
    let table =
        Table::new(format!("{},kind\n{}\n{}\n{}\n{}\n", header.join(","), row(1), row(2), row(3), row(4)));
    let start = std::time::Instant::now();
    assert_eq!(features(&table.load("target = 'kind'").unwrap()).len(), header.len());
    // Seconds without optimisation; comparing every name with every other takes minutes.
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
}
