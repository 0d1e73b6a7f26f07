//! Finds the statements that can apply to a question without looking at the others.
//!
//! Statements stand under the principal and then the resource that their scope names. A question looks under *any*, under
//! itself and under what it is in, on both sides; actions and types are compared in what was found. So the cost grows
//! with the caller's groups and with the statements that name them, not with the store.

use std::collections::HashMap;
use std::sync::Arc;

use super::question::Question;
use super::statement::{Slot, Statement};
use super::vocabulary::Vocabulary;

type ByResource = HashMap<Slot, Vec<Arc<Statement>>>;

/// All statements, by their scopes.
#[derive(Debug, Default)]
pub(super) struct Index {
    by_principal: HashMap<Slot, ByResource>,
}

impl Index {
    pub(super) fn new<'a>(statements: impl Iterator<Item = &'a Arc<Statement>>) -> Self {
        let mut index = Self::default();
        for statement in statements {
            let by_resource = index.by_principal.entry(statement.scope.principal.clone()).or_default();
            by_resource.entry(statement.scope.resource.clone()).or_default().push(statement.clone());
        }
        index
    }

    /// The statements whose scope fits.
    pub(super) fn candidates(&self, question: &Question<'_>, vocabulary: &Vocabulary) -> Vec<Arc<Statement>> {
        let principal = vocabulary.principal(question.principal);
        let resource = vocabulary.resource(&question.target.resource);
        let groups = question.groups.iter().map(|group| Slot::In(vocabulary.group(group)));
        let principals = slots(&principal).into_iter().chain(groups);
        let parent = vocabulary.parent(&question.target.resource).map(Slot::In);
        let resources: Vec<_> = slots(&resource).into_iter().chain(parent).collect();
        let mut found = Vec::new();
        for by_resource in principals.filter_map(|slot| self.by_principal.get(&slot)) {
            let statements = resources.iter().filter_map(|slot| by_resource.get(slot)).flatten();
            found.extend(statements.filter(|s| s.scope.covers(&principal, question.action, &resource)).cloned());
        }
        found
    }
}

/// Where statements about `id` itself stand. An entity is `in` itself.
fn slots(id: &cedar_policy::EntityUid) -> [Slot; 3] {
    [Slot::Any, Slot::Is(id.clone()), Slot::In(id.clone())]
}
