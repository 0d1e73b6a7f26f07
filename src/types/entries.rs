//! A free map of a request. A name that is there twice is refused: of two values, nobody could say which one was meant.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Reads a map of strings, each name once.
///
/// # Errors
/// That of the format; for a name that is there twice, one that tells the name.
pub fn entries<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    Entries::deserialize(deserializer).map(|Entries(map)| map)
}

/// Reads a map as [`entries`] does, where there is one.
///
/// # Errors
/// Those of [`entries`].
pub fn optional_entries<'de, D>(deserializer: D) -> Result<Option<BTreeMap<String, String>>, D::Error>
where
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.map(|Entries(map)| map))
}

struct Entries(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Once)
    }
}

struct Once;

impl<'de> Visitor<'de> for Once {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Entries, A::Error> {
        let mut map = BTreeMap::new();
        while let Some(name) = access.next_key::<String>()? {
            if map.contains_key(&name) {
                return Err(A::Error::custom(format_args!("the name {name:?} is there twice")));
            }
            map.insert(name, access.next_value()?);
        }
        Ok(Entries(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Context;

    #[test]
    fn a_name_is_there_once() {
        let read = |text: &str| entries(&mut serde_json::Deserializer::from_str(text));
        assert_eq!(read(r#"{"b":"1","a":"1"}"#).unwrap().into_keys().collect::<Vec<_>>(), ["a", "b"]);
        // The same name, however it is written, and whatever the values.
        for twice in [r#"{"a":"1","a":"2"}"#, r#"{"a":"1","b":"","a":"1"}"#, r#"{"a":"1","\u0061":"1"}"#] {
            let error = read(twice).unwrap_err().to_string();
            assert!(error.starts_with(r#"the name "a" is there twice"#), "{twice}: {error}");
            assert!(serde_json::from_str::<Context>(twice).is_err(), "{twice}");
        }
        assert!(read(r#"{"a":1}"#).is_err() && read(r#"["a"]"#).is_err());
        let none = optional_entries(&mut serde_json::Deserializer::from_str("null")).unwrap();
        assert_eq!(none, None);
    }
}
