//! From the text of a policy to checked statements, and from Cedar's complaints to sentences with line and column.

use std::sync::Arc;

use cedar_policy::ffi::DetailedError;
use cedar_policy::{
    ActionConstraint, Effect, EntityTypeName, EntityUid, PolicyId, PolicySet, PrincipalConstraint, ResourceConstraint,
    ValidationWarning,
};

use super::nesting;
use super::vocabulary::Vocabulary;
use crate::error::{Error, Kind, Result};
use crate::types::{Action, Name};

/// The most bytes of one policy.
pub const MAX_POLICY_BYTES: usize = 64 * 1024;

/// The most characters of one of Cedar's sentences that are passed on.
const MAX_MESSAGE: usize = 400;

/// One `permit` or `forbid`.
#[derive(Debug)]
pub(super) struct Statement {
    /// `name#n`, counted from 1.
    pub(super) id: Arc<str>,
    pub(super) policy: cedar_policy::Policy,
    pub(super) scope: Scope,
    /// Whether it may read the facts of the request. Where it does not, its outcome can be remembered.
    pub(super) reads_context: bool,
}

/// To which questions a statement applies, before its conditions are looked at.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) principal: Slot,
    principal_type: Option<EntityTypeName>,
    /// `None` is any action.
    actions: Option<Box<[Action]>>,
    pub(super) resource: Slot,
    resource_type: Option<EntityTypeName>,
}

/// One side of a scope.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Slot {
    Any,
    Is(EntityUid),
    In(EntityUid),
}

impl Statement {
    pub(super) fn forbids(&self) -> bool {
        self.policy.effect() == Effect::Forbid
    }
}

impl Scope {
    /// Whether a statement that was found by its slots applies.
    pub(super) fn covers(&self, principal: &EntityUid, action: Action, resource: &EntityUid) -> bool {
        let of_type = |kind: &Option<EntityTypeName>, id: &EntityUid| kind.as_ref().is_none_or(|t| t == id.type_name());
        self.actions.as_ref().is_none_or(|listed| listed.contains(&action))
            && of_type(&self.principal_type, principal)
            && of_type(&self.resource_type, resource)
    }

    fn read(policy: &cedar_policy::Policy, vocabulary: &Vocabulary) -> Option<Self> {
        let (principal, principal_type) = match policy.principal_constraint() {
            PrincipalConstraint::Any => (Slot::Any, None),
            PrincipalConstraint::Eq(id) => (Slot::Is(id), None),
            PrincipalConstraint::In(id) => (Slot::In(id), None),
            PrincipalConstraint::Is(kind) => (Slot::Any, Some(kind)),
            PrincipalConstraint::IsIn(kind, id) => (Slot::In(id), Some(kind)),
        };
        let (resource, resource_type) = match policy.resource_constraint() {
            ResourceConstraint::Any => (Slot::Any, None),
            ResourceConstraint::Eq(id) => (Slot::Is(id), None),
            ResourceConstraint::In(id) => (Slot::In(id), None),
            ResourceConstraint::Is(kind) => (Slot::Any, Some(kind)),
            ResourceConstraint::IsIn(kind, id) => (Slot::In(id), Some(kind)),
        };
        // The schema has no groups of actions, so "in" is the same as "one of"; a test holds that.
        let named = |ids: &[EntityUid]| ids.iter().map(|id| vocabulary.named_action(id)).collect::<Option<Box<_>>>();
        let actions = match policy.action_constraint() {
            ActionConstraint::Any => None,
            ActionConstraint::Eq(id) => Some(named(&[id])?),
            ActionConstraint::In(ids) => Some(named(&ids)?),
        };
        Some(Self { principal, principal_type, actions, resource, resource_type })
    }
}

/// Parses and strictly validates one stored policy.
///
/// # Errors
/// [`Kind::Limit`] past [`MAX_POLICY_BYTES`]; [`Kind::Invalid`] with line, column and hint for anything that is not a
/// valid policy of the schema.
pub(super) fn parse(name: &Name, text: &str, vocabulary: &Vocabulary) -> Result<Vec<Arc<Statement>>> {
    if text.len() > MAX_POLICY_BYTES {
        return Err(Error::new(Kind::Limit, format!("policy {name} has more than {MAX_POLICY_BYTES} bytes")));
    }
    if let Some(at) = nesting::too_deep(text) {
        let sentence = format!("policy {name}, {}: this nests too deeply", Place::of(text, at));
        return Err(Error::new(Kind::Limit, sentence)
            .hint("put long lists into a set, as in `[\"a\", \"b\"].contains(..)`, or write several statements"));
    }
    let parsed: PolicySet = text.parse().map_err(|e: cedar_policy::ParseErrors| {
        let complaints = e.iter().map(DetailedError::from).collect();
        refuse(name, text, complaints)
    })?;
    if let Some(template) = parsed.templates().next() {
        let slots: Vec<_> = template.slots().map(ToString::to_string).collect();
        return Err(Error::new(Kind::Invalid, format!("policy {name} is a template: it has {}", slots.join(", ")))
            .hint("name the principal and the resource"));
    }
    let policies = numbered(name, &parsed);
    if policies.is_empty() {
        return Err(Error::new(Kind::Invalid, format!("policy {name} has no statement"))
            .hint("begin with `permit (principal, action, resource) ..;`, or remove the policy"));
    }
    validate(name, text, &policies, vocabulary)?;
    policies.into_iter().map(|policy| statement(name, policy, vocabulary)).collect()
}

/// The statements in the order of the text, with their final ids. Cedar numbers them from `policy0`.
fn numbered(name: &Name, parsed: &PolicySet) -> Vec<cedar_policy::Policy> {
    (0..parsed.num_of_policies())
        .filter_map(|n| {
            let policy = parsed.policy(&PolicyId::new(format!("policy{n}")))?;
            Some(policy.new_id(PolicyId::new(format!("{name}#{}", n + 1))))
        })
        .collect()
}

fn validate(name: &Name, text: &str, policies: &[cedar_policy::Policy], vocabulary: &Vocabulary) -> Result<()> {
    let set = PolicySet::from_policies(policies.iter().cloned())
        .map_err(|e| Error::internal(format!("collecting the statements of policy {name}: {e}")))?;
    let outcome = vocabulary.validate(&set);
    let mut complaints: Vec<_> = outcome.validation_errors().map(DetailedError::from).collect();
    if complaints.is_empty() {
        // A warning is about a statement that never applies, or that does not read as it looks: both are refused. Only
        // text in several scripts is somebody's language.
        let warnings = outcome.validation_warnings().filter(|w| !matches!(w, ValidationWarning::MixedScriptString(_)));
        complaints.extend(warnings.map(DetailedError::from));
    }
    if complaints.is_empty() { Ok(()) } else { Err(refuse(name, text, complaints)) }
}

fn statement(name: &Name, policy: cedar_policy::Policy, vocabulary: &Vocabulary) -> Result<Arc<Statement>> {
    let scope = Scope::read(&policy, vocabulary)
        .ok_or_else(|| Error::new(Kind::Invalid, format!("policy {name} names an unknown action")))?;
    // Too often "yes" (in a comment, or a string) costs a cached decision; "no" without the word cannot be wrong, for
    // Cedar has no way to spell the variable otherwise.
    let reads_context = policy.to_string().contains("context");
    let id: Arc<str> = policy.id().to_string().into();
    Ok(Arc::new(Statement { id, policy, scope, reads_context }))
}

/// One error for the first place that is wrong. Cedar repeats a complaint for each kind of principal, action and resource
/// that the scope leaves open, in no fixed order.
fn refuse(name: &Name, text: &str, mut complaints: Vec<DetailedError>) -> Error {
    let offset = |complaint: &DetailedError| complaint.source_locations.first().map_or(0, |label| label.loc.start);
    complaints.sort_by(|a, b| (offset(a), &a.message).cmp(&(offset(b), &b.message)));
    let Some(first) = complaints.first() else {
        return Error::new(Kind::Invalid, format!("policy {name} is not valid"));
    };
    let at = offset(first);
    let mut sentence = format!("policy {name}, {}: {}", Place::of(text, at), printable(without_id(&first.message)));
    if complaints.iter().any(|complaint| offset(complaint) != at) {
        sentence.push_str(", and more after it");
    }
    let error = Error::new(Kind::Invalid, sentence);
    let here = complaints.iter().filter(|complaint| offset(complaint) == at);
    match mend(first, here.filter(|complaint| complaint.message.contains("on entity type")).count()) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// What to do about a complaint; `types` is how many types of entity it was made for.
fn mend(complaint: &DetailedError, types: usize) -> Option<String> {
    if types > 1 {
        return Some(
            "every type of principal and resource that the scope leaves open must have it: narrow the scope, as in \
             `resource is Signet::Key`"
                .to_owned(),
        );
    }
    // Cedar's guess is the nearest spelling of the whole id, which is rarely the action that was meant.
    if complaint.message.contains("unrecognized action") {
        let known: Vec<_> = Action::ALL.iter().map(ToString::to_string).collect();
        return Some(format!("write Signet::Action::\"..\" with one of: {}", known.join(", ")));
    }
    let label = || complaint.source_locations.first().and_then(|label| label.label.as_deref());
    complaint.help.as_deref().or_else(label).map(|hint| printable(without_id(hint)))
}

/// What a client wrote may come back in Cedar's words: cut, and without characters that change how a line reads.
fn printable(message: &str) -> String {
    let plain = |c: char| {
        !c.is_control()
            && !matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    let safe = message
        .chars()
        .take(MAX_MESSAGE)
        .map(|c| if plain(c) { c.to_string() } else { c.escape_unicode().to_string() });
    safe.collect()
}

/// Cedar begins with "for policy `id`, ", which the sentence already says.
fn without_id(message: &str) -> &str {
    message.strip_prefix("for policy `").and_then(|rest| rest.split_once("`, ")).map_or(message, |(_, rest)| rest)
}

/// Line and column of a byte, counted from 1 as editors do.
struct Place {
    line: usize,
    column: usize,
}

impl Place {
    fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Self { line, column }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}
