//! JSON in which no member stands twice.
//!
//! Two readers of an object with a member twice may see two different values. Where something is signed, that is a way to
//! have one thing checked and another done, so such an object is refused at every depth.

use std::fmt;

use serde::de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};

use super::{Flaw, flawed};
use crate::error::Result;

/// Reads `T` from JSON in which no member stands twice, at any depth. `what` begins the sentence of a refusal.
///
/// # Errors
/// [`crate::error::Kind::Invalid`] for anything else.
pub fn strict<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T> {
    let refused = |e: serde_json::Error| {
        let text: String = e.to_string().chars().take(200).collect();
        flawed(Flaw::Form, format!("{what}: {text}"))
    };
    let Once(value) = serde_json::from_slice(bytes).map_err(refused)?;
    serde_json::from_value(value).map_err(refused)
}

/// A value in which no member stands twice.
struct Once(Value);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Once(value)) = items.next_element()? {
            all.push(value);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some((name, Once(value))) = members.next_entry::<String, Once>()? {
            if all.contains_key(&name) {
                return Err(A::Error::custom("a member stands twice"));
            }
            all.insert(name, value);
        }
        Ok(Value::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_stands_twice_is_refused_at_every_depth() {
        for bad in [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":1,"c":2,"a":3}}]"#, r#"{"a":1,"\u0061":2}"#, "{}x", "", "nul"] {
            assert!(strict::<Value>(bad.as_bytes(), "this").is_err(), "{bad}");
        }
        let good = r#"{"a":{"a":[null,true,-1,2,0.5,"x"]},"b":{"a":{}}}"#;
        assert_eq!(strict::<Value>(good.as_bytes(), "this").unwrap(), serde_json::from_str::<Value>(good).unwrap());
        let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        assert!(strict::<Value>(deep.as_bytes(), "this").is_err());
    }
}
