//! A checker of JSON Schema 2020-12, as far as our schemas use it: a keyword it does not know is a
//! failure, so that a schema cannot say what is not checked. A whole validator would more than
//! double what this crate's tests compile; `scripts/check_checkpoint.py` uses one.

use serde_json::{Map, Value};

/// What in `value` does not fit `schema`, if anything.
pub fn mismatch(schema: &Value, value: &Value) -> Option<String> {
    Checker { root: schema }.check(schema, value, "").err()
}

struct Checker<'a> {
    root: &'a Value,
}

impl Checker<'_> {
    fn check(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let empty = Map::new();
        let keywords = schema.as_object().expect("a schema is an object");
        let properties = keywords.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let number = |keyword: &Value| keyword.as_f64().expect("a limit is a number");
        for (name, keyword) in keywords {
            let fits = match name.as_str() {
                "$schema" | "$id" | "$defs" | "title" | "description" => true,
                "$ref" => {
                    let path =
                        keyword.as_str().unwrap().strip_prefix('#').expect("references stay in the schema");
                    let target = self.root.pointer(path).unwrap_or_else(|| panic!("no {path} in the schema"));
                    self.check(target, value, at)?;
                    true
                }
                "const" => value == keyword,
                "enum" => keyword.as_array().unwrap().contains(value),
                "type" => match keyword.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "number" => value.is_number(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "null" => value.is_null(),
                    other => panic!("unknown type {other}"),
                },
                "oneOf" => {
                    let fitting =
                        keyword.as_array().unwrap().iter().filter(|s| self.check(s, value, at).is_ok());
                    fitting.count() == 1
                }
                "required" => {
                    let there = |key: &Value| value.get(key.as_str().unwrap()).is_some();
                    value.as_object().is_none_or(|_| keyword.as_array().unwrap().iter().all(there))
                }
                "properties" => {
                    for (key, inner) in value.as_object().unwrap_or(&empty) {
                        if let Some(schema) = properties.get(key) {
                            self.check(schema, inner, &format!("{at}/{key}"))?;
                        }
                    }
                    true
                }
                "additionalProperties" => {
                    assert_eq!(keyword, false, "only false is known");
                    value.as_object().unwrap_or(&empty).keys().all(|key| properties.contains_key(key))
                }
                "items" => {
                    for (i, inner) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(keyword, inner, &format!("{at}/{i}"))?;
                    }
                    true
                }
                "minItems" => value.as_array().is_none_or(|a| a.len() as f64 >= number(keyword)),
                "minLength" => value.as_str().is_none_or(|s| s.chars().count() as f64 >= number(keyword)),
                "minimum" => value.as_f64().is_none_or(|v| v >= number(keyword)),
                "exclusiveMinimum" => value.as_f64().is_none_or(|v| v > number(keyword)),
                "exclusiveMaximum" => value.as_f64().is_none_or(|v| v < number(keyword)),
                other => panic!("the schema uses `{other}`, which is not checked here"),
            };
            if !fits {
                return Err(format!("{at}: does not fit `{name}`: {keyword}"));
            }
        }
        Ok(())
    }
}
