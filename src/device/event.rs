//! What becomes of a device, told once to whoever records it.

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The breaker opened: callers are refused at once.
    Opened,
    /// It closed: the device works again.
    Closed,
    /// A worker process was lost, and is replaced.
    Replaced,
    /// The PIN was refused, or is not tried.
    PinRefused,
}

impl What {
    /// As logs and metrics call it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Closed => "closed",
            Self::Replaced => "worker replaced",
            Self::PinRefused => "pin refused",
        }
    }
}

/// An event, and why it came to pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub what: What,
    /// Why.
    pub why: String,
}
