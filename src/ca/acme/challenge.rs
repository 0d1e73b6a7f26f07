//! Challenges: how control of a name is shown ([RFC 8555, 8](https://www.rfc-editor.org/rfc/rfc8555#section-8)).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::problem::Recorded;
use super::{Identifier, random};
use crate::error::Result;
use crate::types::{sha256, words};
use crate::validation::Proof;

words! {
    /// The kinds of challenge.
    ChallengeKind: "kind of challenge" {
        /// A file on a web server, on port 80.
        Http01 = "http-01",
        /// A TXT record: the only kind that shows control of all names below one.
        Dns01 = "dns-01",
        /// A certificate in a TLS handshake, on port 443.
        TlsAlpn01 = "tls-alpn-01",
    }
}

words! {
    /// The state of a challenge ([RFC 8555, 7.1.6](https://www.rfc-editor.org/rfc/rfc8555#section-7.1.6)).
    ChallengeState: "state of a challenge" {
        /// The client has not answered.
        Pending = "pending",
        /// The proof is being looked for.
        Processing = "processing",
        /// It was there.
        Valid = "valid",
        /// It was not.
        Invalid = "invalid",
    }
}

/// What happens to a challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChallengeEvent {
    /// The client says that the proof is there.
    Answered,
    /// It was found.
    Proven,
    /// It was not.
    Failed,
}

impl ChallengeState {
    /// All that can happen.
    pub(super) const TABLE: &[(Self, ChallengeEvent, Self)] = &[
        (Self::Pending, ChallengeEvent::Answered, Self::Processing),
        (Self::Processing, ChallengeEvent::Proven, Self::Valid),
        (Self::Processing, ChallengeEvent::Failed, Self::Invalid),
    ];

    pub(super) fn after(self, event: ChallengeEvent) -> Option<Self> {
        Self::TABLE.iter().find(|(from, on, _)| (*from, *on) == (self, event)).map(|(_, _, to)| *to)
    }
}

/// A challenge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// Its kind.
    pub kind: ChallengeKind,
    /// Its state.
    pub state: ChallengeState,
    /// 32 random bytes, in base64url.
    pub token: String,
    /// When the proof was found.
    pub validated: Option<Timestamp>,
    /// Why it was not.
    pub error: Option<Recorded>,
}

impl Challenge {
    pub(super) fn new(kind: ChallengeKind) -> Result<Self> {
        let token = URL_SAFE_NO_PAD.encode(random::<32>()?);
        Ok(Self { kind, state: ChallengeState::Pending, token, validated: None, error: None })
    }

    /// What must be found, for an account whose key has that thumbprint
    /// ([RFC 8555, 8.1](https://www.rfc-editor.org/rfc/rfc8555#section-8.1)).
    #[must_use]
    pub fn proof(&self, thumbprint: &str) -> Proof {
        let authorization = format!("{}.{thumbprint}", self.token);
        let digest = sha256(&[authorization.as_bytes()]);
        match self.kind {
            ChallengeKind::Http01 => Proof::Http { token: self.token.clone(), authorization },
            ChallengeKind::Dns01 => Proof::Dns { digest: URL_SAFE_NO_PAD.encode(digest) },
            ChallengeKind::TlsAlpn01 => Proof::TlsAlpn { digest },
        }
    }
}

impl ChallengeKind {
    /// Whether it can show control of `identifier`.
    #[must_use]
    pub fn fits(self, identifier: &Identifier) -> bool {
        match (self, identifier) {
            (Self::Dns01, Identifier::Dns(_)) => true,
            // "the "dns-01" challenge MUST NOT be used to validate IP addresses" (RFC 8738, 7)
            (Self::Dns01, Identifier::Ip(_)) => false,
            (Self::Http01 | Self::TlsAlpn01, name) => !name.wildcard(),
        }
    }
}
