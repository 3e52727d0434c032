//! Headers of safetensors files in which a key comes twice. JSON leaves open which of the two
//! counts, and so do the readers: what such a file means is nobody's to guess.

use std::collections::HashSet;
use std::fmt;

use safetensors::SafeTensors;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A safetensors file in which every name comes once.
///
/// # Errors
/// It is no safetensors file, or has a name twice.
pub fn open_safetensors(file: &[u8]) -> Result<SafeTensors<'_>, String> {
    let opened = SafeTensors::deserialize(file).map_err(|e| e.to_string())?;
    let (length, _) = SafeTensors::read_metadata(file).map_err(|e| e.to_string())?;
    refuse_duplicates(&file[8..8 + length])?;
    Ok(opened)
}

/// Refuses a header, as JSON text, of which an object has a key twice.
///
/// # Errors
/// It is not JSON, or has a key twice.
pub fn refuse_duplicates(header: &[u8]) -> Result<(), String> {
    serde_json::from_slice::<UniqueKeys>(header).map(drop).map_err(|e| format!("its header is broken: {e}"))
}

/// Any JSON value of which no object has a key twice.
struct UniqueKeys;

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(UniqueKeys)
    }
}

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = UniqueKeys;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without duplicate keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if seen.contains(&key) {
                return Err(de::Error::custom(format!("`{}` is in it twice", key.escape_debug())));
            }
            seen.insert(key);
            map.next_value::<UniqueKeys>()?;
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<UniqueKeys>()?.is_some() {}
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([0; 4]);
        bytes
    }

    #[test]
    fn a_name_that_comes_twice_is_refused() {
        let tensor = r#""w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
        assert!(open_safetensors(&file(&format!("{{{tensor}}}"))).is_ok());
        // Both of the same place, so that the format's own checks pass.
        let other = tensor.replace("[1]", "[1,1]");
        let twice = open_safetensors(&file(&format!("{{{tensor},{other}}}"))).unwrap_err();
        assert!(twice.contains("`w` is in it twice"), "{twice}");
        // The same name, written otherwise; and a key of the metadata.
        let escaped = file(&format!("{{{tensor},{}}}", other.replace("\"w\"", r#""\u0077""#)));
        assert!(open_safetensors(&escaped).unwrap_err().contains("`w` is in it twice"));
        let metadata = format!(r#"{{"__metadata__":{{"seed":"1","seed":"2"}},{tensor}}}"#);
        assert!(open_safetensors(&file(&metadata)).unwrap_err().contains("`seed` is in it twice"));
    }
}
