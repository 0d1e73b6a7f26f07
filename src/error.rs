//! The one error of the house.
//!
//! An [`Error`] has a [`Kind`] that a client can act on, a public sentence, an optional hint (what to do next) and a
//! private cause. `Display` prints the public sentence only; [`Error::chain`] prints everything and belongs in logs.
//! No constructor may be given a secret, a plaintext, a PIN or a token.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// The result of almost everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a client can do about an error. Each has one HTTP status and one exit code, see `docs/status-codes.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request can never work as it stands.
    Invalid,
    /// No credential, or one that is wrong, expired, revoked or exhausted.
    Unauthenticated,
    /// The caller is known and may see the resource, but not do this.
    Forbidden,
    /// There is no such thing, or the caller may not know of it.
    NotFound,
    /// Another change came first, or the name is taken.
    Conflict,
    /// The expected version or ETag is not the current one.
    Stale,
    /// The key or version is in a state that does not allow this.
    State,
    /// A limit of the table in `docs/limits.md` was passed.
    Limit,
    /// A ciphertext does not open: wrong key, wrong context, or damaged. One answer for all of them.
    DoesNotOpen,
    /// The device or algorithm cannot do this; the sentence lists what it can.
    Unsupported,
    /// Too much to do right now: try again after the given time.
    Busy,
    /// Something this needs is gone for the moment: try again after the given time.
    Unavailable,
    /// Stored data is not what was stored: an operator must look.
    Tampered,
    /// A defect or an unknown cause; says nothing to the outside.
    Internal,
}

impl Kind {
    /// The stable word for programs: the `code` of a problem document.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Stale => "stale",
            Self::State => "state",
            Self::Limit => "limit",
            Self::DoesNotOpen => "does_not_open",
            Self::Unsupported => "unsupported",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::Tampered => "tampered",
            Self::Internal => "internal",
        }
    }
}

/// What went wrong: see the module.
pub struct Error {
    kind: Kind,
    public: Cow<'static, str>,
    hint: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
    cause: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error with its public sentence: lower case, no full stop, no secret.
    pub fn new(kind: Kind, public: impl Into<Cow<'static, str>>) -> Self {
        let retry_after = match kind {
            Kind::Busy | Kind::Unavailable => Some(Duration::from_secs(1)),
            Kind::Invalid
            | Kind::Unauthenticated
            | Kind::Forbidden
            | Kind::NotFound
            | Kind::Conflict
            | Kind::Stale
            | Kind::State
            | Kind::Limit
            | Kind::DoesNotOpen
            | Kind::Unsupported
            | Kind::Tampered
            | Kind::Internal => None,
        };
        Self { kind, public: public.into(), hint: None, retry_after, cause: None }
    }

    /// A defect of ours or an unknown cause: the sentence goes to the log, the outside reads *internal error*.
    pub fn internal(private: impl Into<Cow<'static, str>>) -> Self {
        let private: Cow<'static, str> = private.into();
        Self { cause: Some(private.into_owned().into()), ..Self::new(Kind::Internal, "internal error") }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the private cause, for logs.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Says when to try again.
    #[must_use]
    pub const fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Puts `context` and a colon before the public sentence.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        if self.kind != Kind::Internal {
            self.public = format!("{context}: {}", self.public).into();
        }
        self
    }

    /// What a client can do about it.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The sentence for the outside.
    #[must_use]
    pub fn public(&self) -> &str {
        &self.public
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn mend(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// When to try again, for [`Kind::Busy`] and [`Kind::Unavailable`].
    #[must_use]
    pub const fn wait(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The private cause, where it is a `T`: how a protocol finds its own word for what went wrong.
    #[must_use]
    pub fn cause<T: StdError + 'static>(&self) -> Option<&T> {
        self.cause.as_deref().and_then(|cause| cause.downcast_ref())
    }

    /// Everything, for a log line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.public.to_string();
        let mut next = self.cause.as_deref().map(|cause| cause as &dyn StdError);
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.public)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({})", self.kind, self.chain())
    }
}

impl StdError for Error {}
