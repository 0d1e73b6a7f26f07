//! What can be wrong, in the words of ACME ([RFC 8555, 6.7](https://www.rfc-editor.org/rfc/rfc8555#section-6.7)).
//!
//! A refusal is an [`Error`] like all others, with a [`Problem`] as its cause: the audit log sees its kind, and the protocol finds
//! its own word. An error without one becomes the word that its kind is nearest to.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Identifier;
use crate::error::{Error, Kind};
use crate::jose::Flaw;
use crate::types::words;
use crate::validation::{Failure, FailureKind};

words! {
    /// The types of problems, without `urn:ietf:params:acme:error:`.
    ProblemKind: "type of problem" {
        /// The request names an account that does not exist.
        AccountDoesNotExist = "accountDoesNotExist",
        /// The certificate that is to be replaced has a successor already ([RFC 9773, 7.4](https://www.rfc-editor.org/rfc/rfc9773#section-7.4)).
        AlreadyReplaced = "alreadyReplaced",
        /// The certificate to be revoked is revoked.
        AlreadyRevoked = "alreadyRevoked",
        /// The CSR cannot be accepted.
        BadCsr = "badCSR",
        /// The nonce was not given out here, or is used up.
        BadNonce = "badNonce",
        /// The key is weak or of a kind that is not known.
        BadPublicKey = "badPublicKey",
        /// This reason of revocation is not allowed.
        BadRevocationReason = "badRevocationReason",
        /// The algorithm of the signature is not on the list.
        BadSignatureAlgorithm = "badSignatureAlgorithm",
        /// A CAA record forbids it.
        Caa = "caa",
        /// Several things are wrong: the subproblems tell which.
        Compound = "compound",
        /// The place of the proof could not be connected to.
        Connection = "connection",
        /// The name could not be looked up.
        Dns = "dns",
        /// An external account binding is needed.
        ExternalAccountRequired = "externalAccountRequired",
        /// What was found is not the proof.
        IncorrectResponse = "incorrectResponse",
        /// A contact is malformed.
        InvalidContact = "invalidContact",
        /// There is no such profile here.
        InvalidProfile = "invalidProfile",
        /// The request is malformed.
        Malformed = "malformed",
        /// The order is not ready for that.
        OrderNotReady = "orderNotReady",
        /// Too much of something.
        RateLimited = "rateLimited",
        /// No certificate is issued for this name.
        RejectedIdentifier = "rejectedIdentifier",
        /// Our side failed.
        ServerInternal = "serverInternal",
        /// TLS failed at the place of the proof.
        Tls = "tls",
        /// Whoever asks may not.
        Unauthorized = "unauthorized",
        /// A contact is of a kind that is not used here.
        UnsupportedContact = "unsupportedContact",
        /// Names of this type are not certified here.
        UnsupportedIdentifier = "unsupportedIdentifier",
        /// A person must do something first: agree to the terms.
        UserActionRequired = "userActionRequired",
    }
}

/// The cause of a refusal, for the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its type.
    pub kind: ProblemKind,
    /// What is wrong with single names.
    pub subproblems: Vec<Subproblem>,
}

/// What is wrong with one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subproblem {
    /// Which name.
    pub identifier: Identifier,
    /// What.
    pub problem: Recorded,
}

/// A problem that is kept, as the reason of what became invalid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Its type.
    pub kind: ProblemKind,
    /// The sentence.
    pub detail: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.as_str())
    }
}

impl std::error::Error for Problem {}

/// A refusal of that type.
#[must_use]
pub fn refuse(kind: ProblemKind, text: impl Into<Cow<'static, str>>) -> Error {
    refuse_names(kind, text, Vec::new())
}

/// A refusal of that type, on account of single names.
#[must_use]
pub fn refuse_names(kind: ProblemKind, text: impl Into<Cow<'static, str>>, subproblems: Vec<Subproblem>) -> Error {
    Error::new(kind.house(), text).because(Problem { kind, subproblems })
}

/// A refusal of whoever signs with the key of an account that is over. "The server MUST reject further requests authorized by that
/// account's key" with 401 and the type `unauthorized` ([RFC 8555, 7.3.6](https://www.rfc-editor.org/rfc/rfc8555#section-7.3.6)).
#[must_use]
pub(super) fn refuse_account(text: impl Into<Cow<'static, str>>) -> Error {
    let problem = Problem { kind: ProblemKind::Unauthorized, subproblems: Vec::new() };
    Error::new(Kind::Unauthenticated, text).because(problem)
}

impl ProblemKind {
    /// What a client can do about it, in the words of the house.
    const fn house(self) -> Kind {
        match self {
            Self::AccountDoesNotExist | Self::BadNonce | Self::ExternalAccountRequired => Kind::Unauthenticated,
            Self::AlreadyReplaced | Self::AlreadyRevoked => Kind::Conflict,
            Self::BadCsr
            | Self::BadPublicKey
            | Self::BadRevocationReason
            | Self::BadSignatureAlgorithm
            | Self::Compound
            | Self::InvalidContact
            | Self::InvalidProfile
            | Self::Malformed
            | Self::UnsupportedContact
            | Self::UnsupportedIdentifier => Kind::Invalid,
            Self::Caa | Self::RejectedIdentifier | Self::Unauthorized | Self::UserActionRequired => Kind::Forbidden,
            Self::Connection | Self::Dns | Self::IncorrectResponse | Self::Tls | Self::OrderNotReady => Kind::State,
            Self::RateLimited => Kind::Busy,
            Self::ServerInternal => Kind::Internal,
        }
    }

    /// The type of any error of the house.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        if let Some(problem) = error.cause::<Problem>() {
            return problem.kind;
        }
        match (error.cause::<Flaw>(), error.kind()) {
            (Some(Flaw::Algorithm), _) => Self::BadSignatureAlgorithm,
            (Some(Flaw::Key), _) => Self::BadPublicKey,
            (Some(Flaw::Signature), _) => Self::Unauthorized,
            (Some(Flaw::Form), _) => Self::Malformed,
            (None, Kind::Invalid | Kind::NotFound | Kind::Unsupported | Kind::Limit) => Self::Malformed,
            (None, Kind::Unauthenticated | Kind::Forbidden | Kind::DoesNotOpen) => Self::Unauthorized,
            (None, Kind::Conflict | Kind::Stale | Kind::State) => Self::Malformed,
            (None, Kind::Busy | Kind::Unavailable | Kind::Tampered | Kind::Internal) => Self::ServerInternal,
        }
    }
}

impl From<Failure> for Recorded {
    fn from(failure: Failure) -> Self {
        let kind = match failure.kind {
            FailureKind::Dns => ProblemKind::Dns,
            FailureKind::Connection => ProblemKind::Connection,
            FailureKind::Tls => ProblemKind::Tls,
            FailureKind::Incorrect => ProblemKind::IncorrectResponse,
            FailureKind::Caa => ProblemKind::Caa,
        };
        Self { kind, detail: failure.text }
    }
}

impl From<&Error> for Recorded {
    fn from(error: &Error) -> Self {
        Self { kind: ProblemKind::of(error), detail: error.public().chars().take(1000).collect() }
    }
}
