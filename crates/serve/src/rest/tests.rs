//! Tests of the forms that requests and answers have.

use bytes::Bytes;
use proptest::prelude::*;

use super::answer::write;
use super::request::{Form, Request, Wanted};
use crate::tensor::{Datatype, Tensor};

const MOST: usize = 1 << 20;

fn read(body: &str) -> Result<Request, String> {
    Request::read(&Bytes::copy_from_slice(body.as_bytes()), None, MOST).map_err(|e| e.0)
}

fn one(datatype: &str, shape: &str, data: &str) -> Result<Bytes, String> {
    let body =
        format!(r#"{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":{shape},"data":{data}}}]}}"#);
    read(&body).map(|request| request.inputs[0].data().clone())
}

/// JSON, and binary data behind it.
fn binary(head: &str, rest: &[u8]) -> Result<Request, String> {
    let mut body = head.as_bytes().to_vec();
    body.extend_from_slice(rest);
    Request::read(&body.into(), Some(head.len()), MOST).map_err(|e| e.0)
}

#[test]
fn numbers_are_read_into_their_type() {
    let ends = [
        ("UINT8", "0", "255", "-1", "256"),
        ("UINT16", "0", "65535", "-1", "65536"),
        ("UINT32", "0", "4294967295", "-1", "4294967296"),
        ("UINT64", "0", "18446744073709551615", "-1", "18446744073709551616"),
        ("INT8", "-128", "127", "-129", "128"),
        ("INT16", "-32768", "32767", "-32769", "32768"),
        ("INT32", "-2147483648", "2147483647", "-2147483649", "2147483648"),
        (
            "INT64",
            "-9223372036854775808",
            "9223372036854775807",
            "-9223372036854775809",
            "9223372036854775808",
        ),
    ];
    for (datatype, least, most, below, above) in ends {
        let size = Datatype::named(datatype).unwrap().size().unwrap();
        let both = one(datatype, "[2]", &format!("[{least},{most}]")).unwrap();
        let (least_bytes, most_bytes) = both.split_at(size);
        let signed = datatype.starts_with('I');
        let high = |bytes: &[u8]| bytes[size - 1];
        assert_eq!(high(least_bytes), if signed { 0x80 } else { 0 }, "{datatype}");
        assert_eq!(high(most_bytes), if signed { 0x7f } else { 0xff }, "{datatype}");
        for wrong in [below, above, "1.0", "1e0", "\"1\"", "true", "null", "[1]", "{}"] {
            let error = one(datatype, "[2]", &format!("[0, {wrong}]")).unwrap_err();
            assert!(
                error.starts_with(&format!("input `x`: element 1 of `data` is no {datatype}")),
                "{error}"
            );
        }
    }
    assert_eq!(&one("BOOL", "[2]", "[true,false]").unwrap()[..], [1, 0]);
    assert!(one("BOOL", "[1]", "[1]").unwrap_err().contains("true or false"));
    assert_eq!(&one("BYTES", "[2]", r#"["", "é\n"]"#).unwrap()[..], b"\0\0\0\0\x03\0\0\0\xc3\xa9\n");
    assert!(one("BYTES", "[1]", r#"["\ud800"]"#).is_err());
    assert!(one("BYTES", "[1]", "[1]").unwrap_err().contains("a string"));
}

#[test]
fn floating_point_is_rounded_once() {
    let f32s = |text: &str| one("FP32", "[1]", &format!("[{text}]"));
    // Just above the middle of 1 and its neighbour: by way of double precision it is rounded to the
    // middle first, and then to the even one of the two.
    let text = "1.000000059604644775390625000000000000000000000000000000000000000000001";
    assert_eq!(f32s(text).unwrap(), (1.0f32 + f32::EPSILON).to_le_bytes()[..]);
    assert_eq!(f32s("-0.0").unwrap(), (-0.0f32).to_le_bytes()[..]);
    assert_eq!(f32s("16777217").unwrap(), 16_777_216f32.to_le_bytes()[..]);
    assert_eq!(f32s("1e-46").unwrap(), 0f32.to_le_bytes()[..]);
    for text in ["1e39", "NaN", "Infinity", "null", "\"NaN\"", "\"1\""] {
        assert!(f32s(text).is_err(), "{text}");
    }
    let whole = format!("1{}", "0".repeat(39));
    assert!(f32s(&whole).unwrap_err().contains("finite in single precision"));
    assert_eq!(one("FP64", "[1]", "[1e300]").unwrap(), 1e300f64.to_le_bytes()[..]);
    assert!(one("FP64", "[1]", "[1e309]").unwrap_err().contains("finite in double precision"));
    for half in ["FP16", "BF16"] {
        let error = one(half, "[1]", "[1.0]").unwrap_err();
        assert_eq!(
            error,
            format!(
                "receiving {half} data via JSON is not supported. Please use the binary data format for input \"x\""
            )
        );
    }
}

#[test]
fn arrays_are_flat_or_as_the_shape_says() {
    let bytes = |shape, data| one("UINT8", shape, data).map(|bytes| bytes.to_vec());
    for data in ["[1,2,3,4,5,6]", "[[1,2,3],[4,5,6]]", " [ [1,2,3], [4,5,6] ]"] {
        assert_eq!(bytes("[2,3]", data), Ok(vec![1, 2, 3, 4, 5, 6]), "{data}");
    }
    assert_eq!(bytes("[]", "[7]"), Ok(vec![7]));
    assert_eq!(bytes("[0]", "[]"), Ok(vec![]));
    assert_eq!(bytes("[2,0]", "[[],[]]"), Ok(vec![]));
    assert_eq!(bytes("[2,0]", "[]"), Ok(vec![]));
    assert_eq!(bytes("[1,1,2]", "[[[1,2]]]"), Ok(vec![1, 2]));
    for data in [
        "[[1,2],[3,4],[5,6]]",
        "[[1,2,3],[4,5]]",
        "[[1,2,3],[4,5,6],[7,8,9]]",
        "[[1,2,3],[4,5,6,7]]",
        "[1,2,3,4,5]",
        "[1,2,3,4,5,6,7]",
        "[]",
        "[[]]",
        "7",
        "{}",
        "\"\"",
    ] {
        let error = bytes("[2,3]", data).unwrap_err();
        assert_eq!(error, "input `x`: `data` is no array of the shape [2, 3], nested or flat", "{data}");
    }
    assert!(bytes("[2,3]", "[[1,2,3],4]").is_err());
    assert!(bytes("[2,3]", "[1,[2,3]]").is_err());
    // Short texts that would be long lists or deep ones.
    for shape in ["[-1]", "[1.5]", "[18446744073709551616]", "null", "3", "[[1]]"] {
        assert!(bytes(shape, "[1]").unwrap_err().contains("its members are not those"), "{shape}");
    }
    assert!(bytes("[18446744073709551615,2]", "[1]").unwrap_err().contains("more bytes than are taken"));
    assert!(bytes("[1048577]", "[1]").unwrap_err().contains("more bytes than are taken"));
    let axes = format!("[{}]", vec!["1"; 33].join(","));
    assert!(bytes(&axes, "[1]").unwrap_err().contains("at most 32 extents"));
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(bytes("[1]", &deep).is_err());
    assert!(bytes(&axes.replacen("1,", "", 1), &deep).is_err());
    // What is not read costs a byte for a level.
    assert!(read(&format!(r#"{{"inputs":[],"parameters":{{"x":{deep}}}}}"#)).is_ok());
    let many = vec![r#"{"name":"x","datatype":"BOOL","shape":[0],"data":[]}"#; 257].join(",");
    assert!(read(&format!(r#"{{"inputs":[{many}]}}"#)).unwrap_err().contains("at most 256"));
}

#[test]
fn requests_that_are_not_of_the_form_are_refused() {
    let input = r#"{"name":"x","datatype":"BOOL","shape":[1],"data":[true]}"#;
    let of = |inputs: &str, more: &str| read(&format!(r#"{{"inputs":[{inputs}]{more}}}"#));
    assert!(of(input, "").is_ok());
    for (body, why) in [
        ("", "it is no JSON"),
        ("{", "it is no JSON"),
        ("[]", "its members"),
        ("{}", "its members"),
        (r#"{"inputs":{}}"#, "its members"),
        (r#"{"inputs":[],"inputs":[]}"#, "its members"),
        (r#"{"inputs":[]} x"#, "it is no JSON"),
        ("\u{feff}{\"inputs\":[]}", "it is no JSON"),
        (r#"{"inputs":[{"name":"x"}]}"#, "its members"),
        (r#"{"inputs":[],"id":7}"#, "its members"),
        (r#"{"inputs":[],"outputs":[{}]}"#, "its members"),
    ] {
        let error = read(body).unwrap_err();
        assert!(error.contains(why), "{body}: {error}");
    }
    assert_eq!(of(&format!("{input},{input}"), "").unwrap_err(), "input `x`: it is given twice");
    assert!(of(&input.replace("BOOL", "FP8"), "").unwrap_err().contains("`FP8` is no datatype"));
    assert!(of(&input.replace(r#","data":[true]"#, ""), "").unwrap_err().contains("neither `data`"));
    let twice = of(input, r#","outputs":[{"name":"y"},{"name":"y"}]"#).unwrap_err();
    assert_eq!(twice, "output `y` is asked for twice");
    for parameter in ["sequence_id", "priority", "timeout"] {
        let error = of(input, &format!(r#","parameters":{{"{parameter}":1}}"#)).unwrap_err();
        assert_eq!(error, format!("the parameter `{parameter}` is not supported"));
    }
    let classes = of(input, r#","outputs":[{"name":"y","parameters":{"classification":3}}]"#).unwrap_err();
    assert_eq!(classes, "the parameter `classification` is not supported");
    assert!(of(input, r#","parameters":{"mine":[1,{"a":null}]},"more":{}"#).is_ok());
    // Neither values nor long names come back.
    let long = "n".repeat(5000);
    let error = of(&input.replace("\"x\"", &format!("\"{long}\"")).replace("BOOL", &long), "").unwrap_err();
    assert!(error.len() < 400, "{error}");
    let secret = read(r#"{"inputs":["4711-secret"]}"#).unwrap_err();
    assert!(!secret.contains("4711"), "{secret}");
}

#[test]
fn binary_data_belongs_to_the_inputs_in_their_order() {
    let input = |name: &str, datatype: &str, shape: &str, size: usize| {
        format!(
            r#"{{"name":"{name}","datatype":"{datatype}","shape":{shape},"parameters":{{"binary_data_size":{size}}}}}"#
        )
    };
    let head = |inputs: &[String]| format!(r#"{{"inputs":[{}]}}"#, inputs.join(","));
    let json = r#"{"name":"j","datatype":"UINT8","shape":[1],"data":[9]}"#.to_string();
    let inputs = head(&[input("a", "BF16", "[2]", 4), json.clone(), input("b", "BYTES", "[1]", 6)]);
    let request = binary(&inputs, b"\x01\x02\x03\x04\x02\0\0\0hi").unwrap();
    let data: Vec<&[u8]> = request.inputs.iter().map(|tensor| &tensor.data()[..]).collect();
    assert_eq!(data, [&b"\x01\x02\x03\x04"[..], b"\x09", b"\x02\0\0\0hi"]);

    let a = |size| head(&[input("a", "UINT8", "[4]", size)]);
    for (head, rest, why) in [
        (a(4), &b"abc"[..], "binary_data_size is 4, and the body has 3 bytes left"),
        (a(4), b"abcde", "the body has 1 bytes more"),
        (a(3), b"abc", "has 4 bytes, and there are 3"),
        (a(usize::MAX), b"abcd", "the body has 4 bytes left"),
        (head(&[input("a", "BYTES", "[1]", 4)]), b"\x01\0\0\0", "end within element 0"),
        (head(&[input("a", "BYTES", "[1]", 4)]), b"\xff\xff\xff\xff", "end within element 0"),
        (head(&[input("a", "UINT8", "[18446744073709551615,3]", 4)]), b"abcd", "more bytes than are taken"),
        (head(std::slice::from_ref(&json)), b"x", "the body has 1 bytes more"),
        (a(4).replace("\"parameters\"", "\"data\":[1,2,3,4],\"parameters\""), b"abcd", "both `data`"),
    ] {
        let error = binary(&head, rest).unwrap_err();
        assert!(error.contains(why), "{head}: {error}");
    }
    assert!(read(&a(4)).unwrap_err().contains("needs the header Inference-Header-Content-Length"));
    let short = Request::read(&Bytes::from_static(b"{}"), Some(3), MOST).unwrap_err();
    assert_eq!(short.0, "Inference-Header-Content-Length is 3, and the body has 2 bytes");
    assert!(Request::read(&Bytes::from_static(b"{}"), Some(0), MOST).is_err());
}

#[test]
fn outputs_come_as_they_are_asked_for() {
    let tensor = |name: &str, datatype, data: &[u8]| {
        let count = data.len() / Datatype::size(datatype).unwrap_or(data.len());
        Tensor::new(name, datatype, vec![count], Bytes::copy_from_slice(data)).unwrap()
    };
    let outputs =
        [tensor("a", Datatype::Fp32, &0.1f32.to_le_bytes()), tensor("b", Datatype::Bf16, &[1, 2, 3, 4])];
    let answer = |more: &str| {
        let request = read(&format!(r#"{{"inputs":[]{more}}}"#)).unwrap();
        write("m", "d", &request, &outputs).map(|body| (body.bytes, body.header_length)).map_err(|e| e.0)
    };
    let (bytes, length) =
        answer(r#","id":"7","outputs":[{"name":"b","parameters":{"binary_data":true}},{"name":"a"}]"#)
            .unwrap();
    let head = concat!(
        r#"{"model_name":"m","model_version":"d","id":"7","outputs":["#,
        r#"{"name":"b","datatype":"BF16","shape":[2],"parameters":{"binary_data_size":4}},"#,
        r#"{"name":"a","datatype":"FP32","shape":[1],"data":[0.1]}]}"#
    );
    assert_eq!(length, Some(head.len()));
    assert_eq!(bytes, [head.as_bytes(), &[1, 2, 3, 4]].concat());

    let (bytes, length) = answer(r#","parameters":{"binary_data_output":true}"#).unwrap();
    assert_eq!(&bytes[length.unwrap()..], [&0.1f32.to_le_bytes()[..], &[1, 2, 3, 4]].concat());
    let one = r#","outputs":[{"name":"a","parameters":{"binary_data":false}}],"parameters":{"binary_data_output":true}"#;
    assert_eq!(answer(one).unwrap().1, None);
    let half =
        "sending BF16 data via JSON is not supported. Please use the binary data format for output \"b\"";
    assert_eq!(answer("").unwrap_err(), half);
    assert_eq!(answer(r#","outputs":[{"name":"c"}]"#).unwrap_err(), "the model has no output `c`");

    // What JSON cannot write.
    let request = read(r#"{"inputs":[]}"#).unwrap();
    for tensor in [
        tensor("a", Datatype::Fp32, &f32::NAN.to_le_bytes()),
        tensor("a", Datatype::Fp64, &f64::INFINITY.to_le_bytes()),
        tensor("a", Datatype::Bytes, b"\x01\0\0\0\xff"),
    ] {
        let error = write("m", "d", &request, &[tensor]).map(|_| ()).unwrap_err();
        assert!(error.0.contains("JSON cannot write; ask for binary data"), "{error}");
    }
}

fn datatypes() -> impl Strategy<Value = Datatype> {
    prop::sample::select(
        ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP32", "FP64"]
            .map(|name| Datatype::named(name).unwrap())
            .to_vec(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// What is written as JSON reads back as the same bits.
    #[test]
    fn json_keeps_the_bits(datatype in datatypes(), mut data in prop::collection::vec(any::<u8>(), 0..64)) {
        let size = datatype.size().unwrap();
        data.truncate(data.len() / size * size);
        if datatype == Datatype::Bool {
            data.iter_mut().for_each(|byte| *byte &= 1);
        }
        let tensor = Tensor::new("x", datatype, vec![data.len() / size], data.into()).unwrap();
        let request = read(r#"{"inputs":[]}"#).unwrap();
        // Bits that are no finite number are refused, and by this alone.
        let Ok(body) = write("m", "d", &request, std::slice::from_ref(&tensor)) else {
            prop_assert!(matches!(datatype, Datatype::Fp32 | Datatype::Fp64));
            return Ok(());
        };
        let text = String::from_utf8(body.bytes).unwrap().replace("\"outputs\"", "\"inputs\"");
        prop_assert_eq!(&read(&text).unwrap().inputs[0], &tensor);
    }

    /// Nothing that is sent makes the reader panic, and tensors have no more bytes than are taken.
    #[test]
    fn any_bytes_are_read_or_refused(
        mut body in prop::collection::vec(any::<u8>(), 0..200),
        length in prop::option::of(0usize..220),
    ) {
        let _ = Request::read(&Bytes::copy_from_slice(&body), length, MOST);
        let mut good = br#"{"id":"a","inputs":[{"name":"x","datatype":"INT16","shape":[1,2],"parameters":{"binary_data_size":4}},{"name":"y","datatype":"FP32","shape":[2],"data":[1.5,2]}],"outputs":[{"name":"x"}]}abcd"#.to_vec();
        for pair in body.chunks_exact_mut(2).take(3) {
            let at = usize::from(pair[0]) % good.len();
            good[at] = pair[1];
        }
        let head = length.map(|length| length.min(good.len()).max(good.len() - 6));
        if let Ok(request) = Request::read(&good.into(), head, 64) {
            prop_assert!(request.inputs.iter().map(|tensor| tensor.data().len()).sum::<usize>() <= 64);
            prop_assert!(matches!(request.wanted, Wanted::All(Form::Json) | Wanted::Named(_) | Wanted::All(Form::Binary)));
        }
    }
}
