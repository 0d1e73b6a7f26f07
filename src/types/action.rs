//! What can be done, and to what: the words of permits, policies and the audit log.

use std::fmt;

use super::words;
use super::{EndpointName, IssuerName, KeyName, Name, ProfileName};

words! {
    /// One operation. Each has one permit type, one policy action and one word in the audit log.
    Action: "action" {
        /// Make a key.
        CreateKey = "CreateKey",
        /// Read a key and its versions.
        ReadKey = "ReadKey",
        /// List keys.
        ListKeys = "ListKeys",
        /// Change labels, rotation, retention or protection of a key.
        UpdateKey = "UpdateKey",
        /// Make a new primary version.
        RotateKey = "RotateKey",
        /// Make a version that was prepared the primary one.
        ActivateVersion = "ActivateVersion",
        /// Suspend a version.
        SuspendVersion = "SuspendVersion",
        /// Undo a suspension.
        ResumeVersion = "ResumeVersion",
        /// End a version's use to protect.
        DeactivateVersion = "DeactivateVersion",
        /// Declare a version compromised.
        CompromiseVersion = "CompromiseVersion",
        /// Start the waiting period before a version is destroyed.
        ScheduleDestruction = "ScheduleDestruction",
        /// Stop a scheduled destruction.
        CancelDestruction = "CancelDestruction",
        /// Destroy a version whose waiting period is over.
        DestroyVersion = "DestroyVersion",
        /// Wrap a plaintext.
        Wrap = "Wrap",
        /// Unwrap a ciphertext.
        Unwrap = "Unwrap",
        /// Unwrap with a version that was declared compromised.
        UnwrapCompromised = "UnwrapCompromised",
        /// Move a ciphertext to the newest version or another key.
        Rewrap = "Rewrap",
        /// Make a data key, with or without its plaintext.
        GenerateDataKey = "GenerateDataKey",
        /// Sign.
        Sign = "Sign",
        /// Verify a signature.
        Verify = "Verify",
        /// Make a message authentication code.
        Mac = "Mac",
        /// Check a message authentication code.
        VerifyMac = "VerifyMac",
        /// Read a public key.
        ReadPublicKey = "ReadPublicKey",
        /// Make an issuer of certificates, and its key.
        CreateIssuer = "CreateIssuer",
        /// Read an issuer: its certificates and rules.
        ReadIssuer = "ReadIssuer",
        /// List issuers.
        ListIssuers = "ListIssuers",
        /// Change the rules of an issuer, or stop it.
        UpdateIssuer = "UpdateIssuer",
        /// Make the next version of an issuer, or put it in force.
        RotateIssuer = "RotateIssuer",
        /// Give an issuer the certificate that an outside authority made for it.
        ImportIssuerCertificate = "ImportIssuerCertificate",
        /// Have an issuer certify another authority.
        SignIntermediate = "SignIntermediate",
        /// Sign what tells of revocation: lists, OCSP answers and the certificates of their responders.
        SignStatus = "SignStatus",
        /// Store a profile of certificates.
        WriteProfile = "WriteProfile",
        /// Read or list profiles.
        ReadProfile = "ReadProfile",
        /// Remove a profile.
        DeleteProfile = "DeleteProfile",
        /// Issue a certificate for one name.
        IssueCertificate = "IssueCertificate",
        /// Read a certificate of an issuer.
        ReadCertificate = "ReadCertificate",
        /// Read when a certificate of an issuer should be renewed.
        ReadRenewal = "ReadRenewal",
        /// Search the certificates of an issuer, a namespace or all.
        ListCertificates = "ListCertificates",
        /// Revoke certificates of an issuer.
        RevokeCertificate = "RevokeCertificate",
        /// Announce that certificates of an issuer will be revoked, or should be replaced.
        WriteAnnouncement = "WriteAnnouncement",
        /// List the announcements of an issuer.
        ReadAnnouncement = "ReadAnnouncement",
        /// Take an announcement back before its time.
        DeleteAnnouncement = "DeleteAnnouncement",
        /// Make an ACME endpoint, or write one anew.
        WriteAcmeEndpoint = "WriteAcmeEndpoint",
        /// Read or list ACME endpoints.
        ReadAcmeEndpoint = "ReadAcmeEndpoint",
        /// Remove an ACME endpoint.
        DeleteAcmeEndpoint = "DeleteAcmeEndpoint",
        /// Make a key that binds ACME accounts to an identity.
        CreateEabKey = "CreateEabKey",
        /// Read or list such keys.
        ReadEabKey = "ReadEabKey",
        /// Revoke such a key, and with it its accounts.
        RevokeEabKey = "RevokeEabKey",
        /// Speak ACME: have an account, order, prove. The certificate itself is asked for by `IssueCertificate`.
        UseAcme = "UseAcme",
        /// Make a bearer token.
        CreateToken = "CreateToken",
        /// Read or list tokens.
        ReadToken = "ReadToken",
        /// Revoke a token.
        RevokeToken = "RevokeToken",
        /// Store an identity.
        WriteIdentity = "WriteIdentity",
        /// Read or list identities.
        ReadIdentity = "ReadIdentity",
        /// Remove an identity.
        DeleteIdentity = "DeleteIdentity",
        /// Store a policy.
        WritePolicy = "WritePolicy",
        /// Read or list policies, or ask why.
        ReadPolicy = "ReadPolicy",
        /// Remove a policy.
        DeletePolicy = "DeletePolicy",
        /// Read the audit log.
        ReadAudit = "ReadAudit",
        /// Remove archived records from the audit log.
        PruneAudit = "PruneAudit",
        /// Read the state of the service and its devices.
        ReadStatus = "ReadStatus",
        /// Read metrics.
        ReadMetrics = "ReadMetrics",
        /// Take a backup.
        Backup = "Backup",
        /// Ask who one is.
        WhoAmI = "WhoAmI",
        /// The house's own acts at start: unseal, enrol, reconcile.
        Start = "Start",
    }
}

/// What an operation is done to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// A key, whether or not it exists.
    Key(KeyName),
    /// An issuer of certificates, whether or not it exists.
    Issuer(IssuerName),
    /// A profile of certificates.
    Profile(ProfileName),
    /// A place where ACME is spoken.
    AcmeEndpoint(EndpointName),
    /// Everything in a namespace.
    Namespace(Name),
    /// A policy.
    Policy(Name),
    /// An identity.
    Identity(Name),
    /// A bearer token, by its public id.
    Token(String),
    /// The service itself.
    Service,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(name) => write!(f, "key/{name}"),
            Self::Issuer(name) => write!(f, "issuer/{name}"),
            Self::Profile(name) => write!(f, "profile/{name}"),
            Self::AcmeEndpoint(name) => write!(f, "acme-endpoint/{name}"),
            Self::Namespace(name) => write!(f, "namespace/{name}"),
            Self::Policy(name) => write!(f, "policy/{name}"),
            Self::Identity(name) => write!(f, "identity/{name}"),
            Self::Token(id) => write!(f, "token/{id}"),
            Self::Service => f.write_str("service"),
        }
    }
}
