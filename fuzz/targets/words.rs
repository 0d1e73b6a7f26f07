//! Names, ids, numbers, periods and contexts: what every path and body is made of.
#![no_main]

use std::collections::BTreeMap;

use signet::ca::profile::{Pattern, Profile};
use signet::types::{Action, Context, KeyId, KeyName, Name, Period};
use signet::x509::{San, Serial, Subtree};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(name) = Name::new(text) {
        assert_eq!(name.as_str(), text);
    }
    if let Ok(name) = text.parse::<KeyName>() {
        assert_eq!(name.to_string().parse::<KeyName>().unwrap(), name);
    }
    if let Ok(id) = text.parse::<KeyId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(period) = text.parse::<Period>() {
        assert_eq!(period.to_string().parse::<Period>().unwrap(), period);
    }
    let _ = text.parse::<Action>();
    if let Ok(name) = text.parse::<San>() {
        assert_eq!(name.to_string(), text);
        name.check().unwrap();
    }
    if let Ok(tree) = text.parse::<Subtree>() {
        assert_eq!(tree.to_string(), text);
    }
    if let Ok(pattern) = text.parse::<Pattern>() {
        assert_eq!(pattern.to_string().parse::<Pattern>().unwrap(), pattern);
    }
    if let Ok(serial) = text.parse::<Serial>() {
        assert_eq!(serial.to_string(), text);
    }
    if let Ok(profile) = serde_json::from_str::<Profile>(text) {
        let _ = profile.check();
    }
    if let Ok(context) = serde_json::from_str::<Context>(text) {
        assert!(context.encode().len() <= Context::MAX_BYTES);
    }
    let entries: BTreeMap<_, _> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let _ = Context::new(entries.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
});
