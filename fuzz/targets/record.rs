//! A sealed record: whoever holds the database may write anything in its place.
#![no_main]

use std::path::Path;

use signet::error::Result;
use signet::store::certificates::{Counts, Found, Row, Search, Serial};
use signet::store::{Change, Encode, Record, Sealed, StorageKey, Store};
use signet::types::{IssuerName, SecretBytes, Version};

/// A database with one record in it.
struct One(Vec<u8>);

impl Store for One {
    fn get(&self, path: &str) -> Result<Option<Record>> {
        Ok(Some(Record { path: path.to_owned(), revision: 1, value: self.0.clone() }))
    }

    fn scan(&self, _: &str) -> Result<Vec<Record>> {
        Ok(Vec::new())
    }

    fn paths(&self, _: &str) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn commit_with(&self, _: &[Change], _: &[Row], _: &Encode<'_>) -> Result<u64> {
        Ok(1)
    }

    fn certificate(&self, _: &Serial) -> Result<Option<Found>> {
        Ok(None)
    }

    fn certificates(&self, _: &Search) -> Result<Vec<Found>> {
        Ok(Vec::new())
    }

    fn open_reservations(&self) -> Result<Vec<Found>> {
        Ok(Vec::new())
    }

    fn last_end(&self, _: &IssuerName, _: Version) -> Result<Option<jiff::Timestamp>> {
        Ok(None)
    }

    fn count_ends(&self, _: jiff::Timestamp, _: jiff::Timestamp) -> Result<u64> {
        Ok(0)
    }

    fn count_certificates(&self) -> Result<Counts> {
        Ok(Counts::default())
    }

    fn copy_to(&self, _: &Path) -> Result<()> {
        Ok(())
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let key = StorageKey::try_from(SecretBytes::new(vec![7; 32])).unwrap();
    assert!(Sealed::new(One(bytes.to_vec()), key).get("keys/default/release").is_err());
});
