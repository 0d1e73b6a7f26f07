//! One question made ready for Cedar, and the judgement.

use std::sync::Arc;

use cedar_policy::{Authorizer, Context, Entities, EntityUid, PolicySet, Request, Response};

use super::Decision;
use super::question::{Facts, Question};
use super::statement::Statement;
use super::vocabulary::{self, Vocabulary};
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
    candidates: Arc<Set>,
}

/// The candidates of a question, ready for Cedar. Many questions have the same ones and share them.
pub(super) struct Set {
    statements: Vec<Arc<Statement>>,
    /// Ids are unique, so Cedar has nothing to object to; if it had, every question would be refused with it.
    policies: Result<PolicySet, String>,
}

impl Set {
    /// Collects `statements`.
    pub(super) fn new(statements: Vec<Arc<Statement>>) -> Self {
        let policies = PolicySet::from_policies(statements.iter().map(|statement| statement.policy.clone()));
        Self { statements, policies: policies.map_err(|e| e.to_string()) }
    }

    /// The statements.
    pub(super) fn statements(&self) -> &[Arc<Statement>] {
        &self.statements
    }

    /// Whether these are its statements, in this order.
    pub(super) fn is(&self, statements: &[Arc<Statement>]) -> bool {
        self.statements.len() == statements.len()
            && self.statements.iter().zip(statements).all(|(ours, other)| Arc::ptr_eq(ours, other))
    }

    fn reads_context(&self) -> bool {
        self.statements.iter().any(|statement| statement.reads_context)
    }
}

impl Case {
    /// Prepares `question` and decides it where that can be done without the request's facts.
    pub(super) fn new(question: &Question<'_>, candidates: &Arc<Set>, vocabulary: &Vocabulary) -> Self {
        if candidates.statements().is_empty() {
            return Self::Decided(Arc::new(Decision::default()));
        }
        match Open::new(question, candidates.clone(), vocabulary) {
            Err(reason) => Self::Decided(Arc::new(Decision::refused(reason))),
            Ok(open) if candidates.reads_context() => Self::Open(Box::new(open)),
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
    pub(super) fn new(question: &Question<'_>, candidates: Arc<Set>, vocabulary: &Vocabulary) -> Result<Self, String> {
        let resource = vocabulary.resource(&question.target.resource);
        if !vocabulary.applies(question.action, &resource) {
            return Err(format!("{} does not apply to {}", question.action, resource.type_name()));
        }
        let action = vocabulary.action(question.action).cloned().ok_or("unknown action")?;
        let entities = vocabulary.entities(question)?;
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
        let candidates = self.candidates.policies.as_ref().map_err(Clone::clone)?;
        Ok(Authorizer::new().is_authorized(&request, candidates, &self.entities))
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
