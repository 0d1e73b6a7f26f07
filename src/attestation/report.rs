//! What holds, fact by fact, and what nobody vouches for.

use serde::Serialize;

/// Something that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// What it is about.
    pub about: &'static str,
    /// The fact.
    pub fact: String,
    /// Who vouches for it.
    pub by: &'static str,
}

/// What a verification found to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What holds.
    pub proven: Vec<Fact>,
    /// What does not follow from the file, as clauses.
    pub unproven: Vec<String>,
}

impl Report {
    /// Adds what holds.
    pub(crate) fn fact(&mut self, about: &'static str, fact: impl ToString, by: &'static str) {
        self.proven.push(Fact { about, fact: fact.to_string(), by });
    }

    /// Adds what does not follow.
    pub(crate) fn unproven(&mut self, what: impl Into<String>) {
        self.unproven.push(what.into());
    }
}
