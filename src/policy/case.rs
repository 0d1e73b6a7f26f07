//! One question made ready for Cedar, and the judgement.

use std::sync::Arc;

use cedar_policy::{Authorizer, Context, Entities, EntityUid, PolicySet, Request, Response};

use super::question::{Facts, Question};
use super::statement::Statement;
use super::vocabulary::{self, Vocabulary};
use super::{Candidate, Decision, Outcome};
use crate::types::Caller;

/// What a question came to before the facts of the request are known.
pub(super) enum Case {
    /// No candidate reads the facts.
    Decided(Arc<Decision>),
    /// Some candidate may.
    Open(Box<Open>),
}

/// Candidates and entities, ready for the facts.
pub(super) struct Open {
    principal: EntityUid,
    action: EntityUid,
    resource: EntityUid,
    entities: Entities,
    candidates: PolicySet,
}

impl Case {
    /// Prepares `question` and decides it where that can be done without the request's facts.
    pub(super) fn new(question: &Question<'_>, candidates: &[Arc<Statement>], vocabulary: &Vocabulary) -> Self {
        if candidates.is_empty() {
            return Self::Decided(Arc::new(Decision::default()));
        }
        match Open::new(question, candidates, vocabulary) {
            Err(reason) => Self::Decided(Arc::new(Decision::refused(reason))),
            Ok(open) if candidates.iter().any(|statement| statement.reads_context) => Self::Open(Box::new(open)),
            Ok(open) => Self::Decided(Arc::new(open.judge_in(Context::empty()))),
        }
    }

    /// The decision for one request. `caller` is missing where the question is not about a request.
    pub(super) fn decide(&self, caller: Option<&Caller>, facts: &Facts<'_>) -> Arc<Decision> {
        match self {
            Self::Decided(decision) => decision.clone(),
            Self::Open(open) => Arc::new(open.judge(caller, facts)),
        }
    }
}

impl Open {
    pub(super) fn new(
        question: &Question<'_>,
        candidates: &[Arc<Statement>],
        vocabulary: &Vocabulary,
    ) -> Result<Self, String> {
        let resource = vocabulary.resource(&question.target.resource);
        if !vocabulary.applies(question.action, &resource) {
            return Err(format!("{} does not apply to {}", question.action, resource.type_name()));
        }
        let action = vocabulary.action(question.action).cloned().ok_or("unknown action")?;
        let entities = vocabulary.entities(question)?;
        let candidates = PolicySet::from_policies(candidates.iter().map(|statement| statement.policy.clone()))
            .map_err(|e| e.to_string())?;
        Ok(Self { principal: vocabulary.principal(question.principal), action, resource, entities, candidates })
    }

    pub(super) fn judge(&self, caller: Option<&Caller>, facts: &Facts<'_>) -> Decision {
        match vocabulary::context(caller, facts) {
            Ok(context) => self.judge_in(context),
            Err(reason) => Decision::refused(format!("the facts of the request cannot be judged: {reason}")),
        }
    }

    fn judge_in(&self, context: Context) -> Decision {
        match self.ask(context) {
            Ok(response) => Decision::from_response(&response),
            Err(reason) => Decision::refused(reason),
        }
    }

    fn ask(&self, context: Context) -> Result<Response, String> {
        let (principal, action, resource) = (self.principal.clone(), self.action.clone(), self.resource.clone());
        // The schema is not consulted again: the ids are made from it, and a test compares the facts with it.
        let request = Request::new(principal, action, resource, context, None).map_err(|e| e.to_string())?;
        Ok(Authorizer::new().is_authorized(&request, &self.candidates, &self.entities))
    }

    /// What `statement` alone came to. The case must have been made of this one candidate.
    pub(super) fn judge_alone(&self, statement: &Statement, caller: Option<&Caller>, facts: &Facts<'_>) -> Candidate {
        let decision = self.judge(caller, facts);
        let outcome = match (decision.errors.first(), decision.because.is_empty()) {
            (Some(error), _) => Outcome::Failed(error.clone()),
            (None, true) => Outcome::DidNotApply,
            (None, false) if statement.forbids() => Outcome::Forbade,
            (None, false) => Outcome::Allowed,
        };
        Candidate { id: statement.id.to_string(), text: statement.policy.to_string(), outcome }
    }
}

impl Decision {
    pub(super) fn refused(reason: String) -> Self {
        Self { allow: false, because: Vec::new(), errors: vec![reason] }
    }

    /// Deny by default, forbid wins, and an error in any statement that applies refuses, which Cedar alone does not do:
    /// it would go on as if that statement did not exist, were it a `forbid` or not.
    fn from_response(response: &Response) -> Self {
        let mut errors: Vec<_> = response.diagnostics().errors().map(ToString::to_string).collect();
        errors.sort();
        let permitted = response.decision() == cedar_policy::Decision::Allow;
        let reasons = response.diagnostics().reason().map(ToString::to_string);
        let mut because: Vec<_> = if permitted && !errors.is_empty() { Vec::new() } else { reasons.collect() };
        because.sort();
        Self { allow: permitted && errors.is_empty(), because, errors }
    }
}
