//! How grave a record is, for those who collect them.

/// What a person should look at is a warning or an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// As it should be.
    Info,
    /// A usual failure, such as a signature that does not verify.
    Notice,
    /// A refusal, or something that was found and mended.
    Warning,
    /// Tampering, or a defect.
    Error,
}

impl Severity {
    /// That of a record with this phase and outcome.
    #[must_use]
    pub fn of(phase: &str, outcome: &str) -> Self {
        match (phase, outcome) {
            (_, "tampered" | "internal") => Self::Error,
            ("refused" | "abandoned" | "recovered", _) => Self::Warning,
            (_, "ok" | "") => Self::Info,
            (_, _) => Self::Notice,
        }
    }
}
