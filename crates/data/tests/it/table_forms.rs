//! More forms of tables that programs and people write: each is read, or said what it is.

use halfstep_data::{DecimalMark, inspect, inspect_table};

use crate::tables::{Table, classes, features, kind, petal, rows};

/// A table of a column `v` in the given form, a number and a target.
fn with(cell: impl Fn(usize) -> String) -> Table {
    Table::new(rows("v,x,kind", |i| format!("{},{:.3},{}", cell(i), petal(i), kind(i))))
}

#[test]
fn numbers_of_other_countries_and_programs() {
    let lakh = with(|i| format!("\"{},{:02},{:03}\"", 1 + i % 40, i, i * 37 % 1000));
    let (_, data, notes) = lakh.suggested();
    assert!(features(&data) == ["v", "x"] && notes.contains("`1,00,000` is 100000"), "{notes}");
    let negative = with(|i| format!("{i}.50{}", ["", "-"][i % 2]));
    assert_eq!(features(&negative.suggested().1), ["v", "x"]);
    assert!(with(|i| format!("Rs. {i}")).suggested().2.contains("in `Rs.`"));
    assert!(with(|i| format!("Fr. {i}.\u{2013}")).suggested().2.contains("in `Fr.`"));
    let exponents = Table::new(rows("v;kind", |i| format!("1,{i:02}E+0{};{}", i % 3, kind(i))));
    assert!(exponents.suggested().2.contains("with a decimal comma"));
    // In files of spreadsheets a point can part thousands; elsewhere it does not.
    let table = |mark: char| {
        Table::new(rows(&format!("v{mark}kind"), |i| format!("{}.125{mark}{}", 1 + i * 7 % 50, kind(i))))
    };
    let (spec, _, notes) = table(';').suggested();
    assert!(spec.format.decimal == Some(DecimalMark::Point) && notes.contains("if not so"), "{notes}");
    assert!(table(',').suggested().0.format.decimal.is_none());
    let codes = with(|i| format!("{:05}", i * 1000 / 3));
    assert!(codes.suggested().2.contains("if its cells are codes, `categorical"));
}

#[test]
fn dates_of_programs_and_languages() {
    for (form, remark) in [
        ("2024{MM}{DD}", "`20240101` is 19723"),
        ("Mon Jan {DD} 07:05:00 2024", "with the month's name"),
        ("{D}. Mai 2024", "with the month's name"),
        ("1/{DD}/2024, 7:05 PM", "month, day, year"),
        ("{D} days 07:05:00", "becomes seconds"),
        ("{D}-Jan-24", "a year of two digits"),
        ("2024-W{MM}-{D}", "may be a date or time, but not in a form that is read"),
    ] {
        let cell = |i: usize| {
            let (month, day) = (1 + i / 28, 1 + i % 28);
            form.replace("{MM}", &format!("{month:02}"))
                .replace("{DD}", &format!("{day:02}"))
                .replace("{D}", &day.to_string())
        };
        let notes = with(|i| format!("\"{}\"", cell(i))).suggested().2;
        assert!(notes.contains(remark), "{form}: {notes}");
    }
}

#[test]
fn what_keeps_a_column_from_numbers_is_named() {
    let below = with(|i| if i % 5 == 0 { "<0.5".into() } else { format!("{}.25", i) });
    let (spec, _, notes) = below.suggested();
    assert!(
        spec.ignore == ["v"] && notes.contains("48 of its 60 cells are numbers, but 12 are not (`<0.5`)"),
        "{notes}"
    );
    let few = with(|i| if i % 5 == 0 { "unk".into() } else { (i % 4).to_string() });
    let (spec, _, notes) = few.suggested();
    assert!(spec.categorical == ["v"] && notes.contains("are not (`unk`)"), "{notes}");
    let (spec, data, notes) = with(|i| ["1", ""][i / 2 % 2].into()).suggested();
    assert!(spec.categorical == ["v"] && notes.contains("only its gaps tell rows apart"), "{notes}");
    assert_eq!(features(&data), ["v=1", "v=(missing)", "x"]);
    let flag = with(|i| ["1", ""][i / 2 % 2].into()).load("target = 'kind'\nmissing = 'mean'").unwrap();
    assert!(flag.notes[0].contains("Column `v` says nothing"), "{:?}", flag.notes);
    let alone = Table::new(rows("id,kind", |i| format!("A{i},{}", kind(i))));
    let error = inspect(&alone.path()).unwrap_err().to_string();
    assert!(
        error.contains("no column is left to predict `kind` from. Column `id` is left out: it has 60"),
        "{error}"
    );
    for (marker, said) in [("9999", "9999"), ("-9", "-9"), ("1e20", "1e20")] {
        let notes = with(|i| if i % 7 == 0 { marker.into() } else { i.to_string() }).suggested().2;
        assert!(notes.contains(&format!("has {said} in 9 rows")), "{marker}: {notes}");
    }
    assert!(!with(|i| (i % 10).to_string()).suggested().2.contains("far from"));
    let until = with(|i| if i % 7 == 0 { "9999-12-31".into() } else { format!("2024-01-{:02}", 1 + i % 28) });
    assert!(until.suggested().2.contains("has 9999-12-31 in 9 rows"));
}

#[test]
fn rows_are_numbered_under_many_names() {
    for (name, cell) in [("PassengerId", 1), ("nr", 1), ("CustomerID", 3), ("user.id", 3)] {
        let table = Table::new(rows(&format!("{name},x,kind"), |i| {
            format!("{},{:.3},{}", (i * 37 % 61) * cell, petal(i), kind(i))
        }));
        // 60 of 61 remainders: no permutation, so that the name decides.
        let (spec, ..) = table.suggested();
        assert_eq!(spec.ignore.contains(&name.to_owned()), name != "nr", "{name}");
    }
    let shuffled = with(|i| (i * 7 % 60).to_string()).suggested();
    assert!(shuffled.0.ignore == ["v"] && shuffled.2.contains("numbers the rows, in another order"));
}

#[test]
fn targets_under_other_names() {
    let target = |header: &str, row: fn(usize) -> String| {
        let (spec, _, notes) = Table::new(rows(header, row)).suggested();
        (spec.target, notes)
    };
    assert_eq!(
        target("class_label,x,a", |i| format!("{},{:.3},{}", kind(i), petal(i), i % 3)).0,
        "class_label"
    );
    assert_eq!(target("x,y,kind", |i| format!("{},{},{}", i % 7, i % 5, kind(i))).0, "kind", "coordinates");
    assert_eq!(target("x,y", |i| format!("{:.3},{}", petal(i), i % 2)).0, "y");
    let (name, notes) = target("label,class,x", |i| format!("{},{},{:.3}", i % 3, kind(i), petal(i)));
    assert!(name == "label" && notes.contains("`class`, which is named as one too"), "{notes}");
    let (_, notes) = target("x,code,kind", |i| format!("{:.3},{},{}", petal(i), 5 + i % 2, kind(i)));
    assert!(notes.contains("Column `code` alone gives the class of every row"), "{notes}");
    let (name, notes) = target("x,target", |i| format!("{:.3},{}", petal(i), ["+", "-"][i % 2]));
    assert!(name == "target" && notes.contains("`-` is taken as a value"), "{notes}");
    let sleep = Table::new(rows("x,disorder", |i| {
        format!("{:.3},{}", petal(i), ["None", "Apnea", "Insomnia"][i % 3])
    }));
    let (_, data, notes) = sleep.suggested();
    assert!(classes(&data).len() == 3 && notes.contains("`None` is taken as a class"), "{notes}");
    let (name, notes) = target("x,z,target", |i| format!("{:.3},{},{}", petal(i), i % 3, ["1", ""][i % 2]));
    assert!(name == "z" && notes.contains("one value only, and 30 missing cells"), "{notes}");
    let whole = Table::new(rows("x,z,target", |i| format!("{:.3},{},{}", petal(i), i % 3, i % 25)));
    assert!(whole.suggested().2.contains("take its numbers as classes with `--target`"));
    assert_eq!(inspect_table(&whole.path(), Some("target")).unwrap().classes(), Some(25));
}

#[test]
fn files_that_are_no_tables_say_what_they_are() {
    for (bytes, what) in [
        (b"PK\x03\x04\x14\0".as_slice(), "Excel workbook (XLSX)"),
        (b"PAR1\x15\x04", "Parquet"),
        (b"\x1F\x8B\x08\0", "compressed"),
        (b"\xFF\xFE\0\0a\0\0\0", "UTF-32"),
        (b"[\n  {\"a\": 1}]", "JSON"),
        (b"{\"a\": 1, \"kind\": 2}\n", "JSON"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"@RELATION iris\n", "ARFF"),
        (b"a,b\n1,x\n\0\0\n", "line 3 has a character of code 0"),
    ] {
        let error = inspect(&Table::new(bytes).path()).unwrap_err().to_string();
        assert!(error.contains(what), "{}: {error}", bytes.escape_ascii());
    }
}
