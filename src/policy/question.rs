//! What policy is asked: who, what, to what, under which circumstances.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use jiff::Timestamp;

use crate::types::{
    Action, Algorithm, Context, Domain, Hash as HashFunction, Name, Principal, ProfileName, Purpose, Resource, Subject,
};

/// What an operation is done to.
#[derive(Clone, Debug)]
pub struct Target<'a> {
    /// The resource.
    pub resource: Resource,
    /// What is known of the key, where the resource is one that exists, or that is about to be made with these facts.
    /// Without them, a policy that reads an attribute of the key fails, and that refuses.
    pub key: Option<KeyFacts<'a>>,
}

impl Target<'_> {
    /// A target of which nothing but its name is known: all but keys, and keys that were not found.
    #[must_use]
    pub const fn named(resource: Resource) -> Self {
        Self { resource, key: None }
    }
}

/// The attributes of a key that policies can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyFacts<'a> {
    /// What it is for.
    pub purpose: Purpose,
    /// What it does.
    pub algorithm: Algorithm,
    /// What a signing key may sign.
    pub domain: Option<Domain>,
    /// Where its next version is made.
    pub device: &'a Name,
    /// What people wrote on it.
    pub labels: &'a BTreeMap<String, String>,
}

/// The facts of one request, beyond those that its caller carries. What a request does not have is `None`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// The encryption context.
    pub context: Option<&'a Context>,
    /// The algorithm that the request names.
    pub algorithm: Option<Algorithm>,
    /// The hash function of a digest that is to be signed as it stands.
    pub digest: Option<HashFunction>,
    /// The profile that a certificate is asked from.
    pub profile: Option<&'a ProfileName>,
    /// One name that a certificate is asked for, such as `dns:web.example.com`.
    pub name: Option<&'a str>,
    /// The subject of the certificate that is asked for.
    pub subject: Option<&'a Subject>,
    /// Whether the caller proved the certified key.
    pub proven: Option<bool>,
    /// Whether the caller asked for the certificate.
    pub requested: Option<bool>,
    /// The time of the request.
    pub time: Option<Timestamp>,
}

impl Facts<'_> {
    /// What a record of a refusal says of them: which of many questions it was.
    pub fn in_words(&self) -> impl Iterator<Item = (&'static str, String)> {
        let profile = self.profile.map(|profile| ("profile", profile.to_string()));
        let name = self.name.map(|name| ("name", name.to_owned()));
        let algorithm = self.algorithm.map(|algorithm| ("algorithm", algorithm.to_string()));
        [profile, name, algorithm].into_iter().flatten()
    }
}

/// All that a decision depends on where no policy reads the request's facts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    pub(super) principal: &'a Principal,
    pub(super) groups: &'a Arc<[Name]>,
    pub(super) action: Action,
    pub(super) target: &'a Target<'a>,
}

impl Hash for Question<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { principal, groups, action, target: Target { resource, key } } = *self;
        (principal, groups.as_ref(), action, resource, key).hash(state);
    }
}

/// A question that outlives its request: the key of the cache.
#[derive(Debug)]
pub(super) struct Owned {
    principal: Principal,
    groups: Arc<[Name]>,
    action: Action,
    resource: Resource,
    key: Option<OwnedFacts>,
}

#[derive(Debug)]
struct OwnedFacts {
    purpose: Purpose,
    algorithm: Algorithm,
    domain: Option<Domain>,
    device: Name,
    labels: BTreeMap<String, String>,
}

impl Owned {
    pub(super) fn new(question: &Question<'_>) -> Self {
        let Question { principal, groups, action, target: Target { resource, key } } = *question;
        let key = key.map(|KeyFacts { purpose, algorithm, domain, device, labels }| OwnedFacts {
            purpose,
            algorithm,
            domain,
            device: device.clone(),
            labels: labels.clone(),
        });
        Self { principal: principal.clone(), groups: groups.clone(), action, resource: resource.clone(), key }
    }

    /// Whether this is the same question in every respect, the labels of the key included: they change without any
    /// change of policy, and the next decision must know.
    pub(super) fn is(&self, question: &Question<'_>) -> bool {
        let Self { principal, groups, action, resource, key } = self;
        let Target { resource: other_resource, key: other_key } = question.target;
        action == &question.action
            && principal == question.principal
            && resource == other_resource
            && (Arc::ptr_eq(groups, question.groups) || groups == question.groups)
            && key.as_ref().map(OwnedFacts::borrow) == *other_key
    }
}

impl OwnedFacts {
    const fn borrow(&self) -> KeyFacts<'_> {
        let Self { purpose, algorithm, domain, device, labels } = self;
        KeyFacts { purpose: *purpose, algorithm: *algorithm, domain: *domain, device, labels }
    }
}
