//! Who may do what: decisions from stored Cedar policies, without any I/O.
//!
//! **Promises.** Nothing is allowed that no `permit` allows; a `forbid` always wins; a statement that applies and fails
//! refuses, whether it permits or forbids. The same question gets the same answer whether it was asked before or not, and
//! whether there are ten statements or ten thousand: a test compares every answer with Cedar's own authorizer over the
//! whole set. What is stored was validated strictly against `schema.cedarschema`.
//!
//! **What it costs.** A [`Policies`] is immutable; its owner makes a new one when a policy changes and swaps it in, so a
//! change takes effect with the next decision and no cache outlives it. Statements are found by index, what was found is
//! remembered per principal, groups, action, resource and facts of the key, and where no candidate reads the request's
//! facts so is the decision. Parsing and validating is what costs: 150 us per statement, once per change of its text.
//!
//! **Limits.** [`MAX_POLICY_BYTES`] per policy, [`MAX_STATEMENTS`] in all, a bounded depth of expressions. No templates.

mod cache;
mod case;
mod index;
mod nesting;
mod question;
mod statement;
#[cfg(test)]
mod tests;
mod vocabulary;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use question::{Facts, KeyFacts, Target};
pub use statement::MAX_POLICY_BYTES;

use cache::Cache;
use case::{Case, Set};
use index::Index;
use question::{Owned, Question};
use statement::Statement;
use vocabulary::Vocabulary;

use crate::error::{Error, Kind, Result};
use crate::types::{Action, Caller, Name, Principal};

/// The most statements of all policies together.
pub const MAX_STATEMENTS: usize = 10_000;

/// How many questions are remembered, and how many sets of candidates.
const QUESTIONS: usize = 16_384;
const SETS: usize = 2_048;
/// Questions with more candidates are not remembered: this bounds the memory, and they are slow in any case.
const MAX_REMEMBERED: usize = 256;

/// The name of the policy that a new installation has.
pub const ADMINISTRATORS: &str = "administrators";

/// Its text: whoever is in the group `administrators` may do everything that the schema knows.
pub const ADMINISTRATORS_TEXT: &str = r#"permit (
  principal in Signet::Group::"administrators",
  action,
  resource
);
"#;

/// The answer to one question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may be done.
    pub allow: bool,
    /// The statements that decided, as `name#n`, sorted: all that permit, or all that forbid; none where nothing permits.
    pub because: Vec<String>,
    /// What failed, for the audit log and `explain`. Where this is not empty, nothing is allowed.
    pub errors: Vec<String>,
}

/// Why a decision is what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The decision.
    pub decision: Decision,
    /// Every statement whose scope fits the question, in the order of their ids.
    pub candidates: Vec<Candidate>,
}

/// One statement whose scope fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// `name#n`.
    pub id: String,
    /// As it was written.
    pub text: String,
    /// What it came to.
    pub outcome: Outcome,
}

/// What one statement came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It permits.
    Allowed,
    /// It forbids.
    Forbade,
    /// Its conditions do not hold.
    DidNotApply,
    /// It could not be evaluated, and that refuses.
    Failed(String),
}

/// All policies at one moment.
#[derive(Debug)]
pub struct Policies {
    vocabulary: Rules,
    stored: BTreeMap<Name, Arc<Stored>>,
    index: Index,
    questions: Cache<Remembered>,
    sets: Cache<Set>,
}

struct Remembered {
    question: Owned,
    case: Case,
    candidates: usize,
}

/// The schema, which has nothing to print.
#[derive(Clone, Copy)]
struct Rules(&'static Vocabulary);

#[derive(Debug)]
struct Stored {
    text: String,
    statements: Vec<Arc<Statement>>,
}

/// Checks the text of one policy as [`Policies::new`] will.
///
/// # Errors
/// [`Kind::Invalid`] with line, column, what is wrong and a hint; [`Kind::Limit`] where it is too long or too deep.
pub fn validate(name: &Name, text: &str) -> Result<()> {
    statement::parse(name, text, Vocabulary::load()?).map(drop)
}

impl Policies {
    /// Parses and validates all policies.
    ///
    /// # Errors
    /// As [`validate`], for the first policy that is refused; [`Kind::Limit`] past [`MAX_STATEMENTS`];
    /// [`Kind::Conflict`] where two have one name.
    pub fn new<T: Into<String>>(policies: impl IntoIterator<Item = (Name, T)>) -> Result<Self> {
        Self::build(policies, &BTreeMap::new())
    }

    /// The value after a change: as [`Self::new`], but a policy whose name and text are those of `self` is not parsed
    /// again. `policies` is the whole set, not the difference.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn renewed<T: Into<String>>(&self, policies: impl IntoIterator<Item = (Name, T)>) -> Result<Self> {
        Self::build(policies, &self.stored)
    }

    fn build<T: Into<String>>(
        policies: impl IntoIterator<Item = (Name, T)>,
        known: &BTreeMap<Name, Arc<Stored>>,
    ) -> Result<Self> {
        let vocabulary = Vocabulary::load()?;
        let mut stored = BTreeMap::new();
        let mut count = 0;
        for (name, text) in policies {
            let text = text.into();
            let policy = match known.get(&name) {
                Some(policy) if policy.text == text => policy.clone(),
                Some(_) | None => {
                    let statements = statement::parse(&name, &text, vocabulary)?;
                    Arc::new(Stored { text, statements })
                }
            };
            count += policy.statements.len();
            if count > MAX_STATEMENTS {
                return Err(Error::new(Kind::Limit, format!("there are more than {MAX_STATEMENTS} policy statements")));
            }
            if stored.insert(name.clone(), policy).is_some() {
                return Err(Error::new(Kind::Conflict, format!("there are two policies named {name}")));
            }
        }
        let index = Index::new(stored.values().flat_map(|policy| &policy.statements));
        Ok(Self {
            vocabulary: Rules(vocabulary),
            stored,
            index,
            questions: Cache::new(QUESTIONS),
            sets: Cache::new(SETS),
        })
    }

    /// How many statements there are.
    #[must_use]
    pub fn statements(&self) -> usize {
        self.stored.values().map(|policy| policy.statements.len()).sum()
    }

    /// Whether `caller` may do `action` to `target` under these facts.
    #[must_use]
    pub fn decide(&self, caller: &Caller, action: Action, target: &Target<'_>, facts: &Facts<'_>) -> Arc<Decision> {
        let question = Question { principal: &caller.principal, groups: &caller.groups, action, target };
        let make = || {
            let candidates = self.candidates(&question);
            let case = Case::new(&question, &candidates, self.vocabulary.0);
            Remembered { question: Owned::new(&question), case, candidates: candidates.statements().len() }
        };
        let is = |known: &Remembered| known.question.is(&question);
        let keep = |made: &Remembered| made.candidates <= MAX_REMEMBERED;
        self.questions.find_or_make(&question, is, make, keep).case.decide(Some(caller), facts)
    }

    /// The same decision with every statement that had a say in it. Slower; nothing is remembered.
    #[must_use]
    pub fn explain(&self, caller: &Caller, action: Action, target: &Target<'_>, facts: &Facts<'_>) -> Explanation {
        let question = Question { principal: &caller.principal, groups: &caller.groups, action, target };
        let judge = |candidates: &Arc<Set>| {
            Decision::clone(&Case::new(&question, candidates, self.vocabulary.0).decide(Some(caller), facts))
        };
        let set = self.candidates(&question);
        let mut candidates: Vec<_> = set
            .statements()
            .iter()
            .map(|statement| Candidate::new(statement, judge(&Arc::new(Set::new(vec![statement.clone()])))))
            .collect();
        candidates.sort_by(|a, b| a.id.cmp(&b.id));
        Explanation { decision: judge(&set), candidates }
    }

    /// Those of `identities`, each with its groups, who may do `action` to `target`.
    ///
    /// Asked without a request, the caller's address and credential are absent: a policy that permits only from some
    /// network does not count here.
    #[must_use]
    pub fn who_can(
        &self,
        action: Action,
        target: &Target<'_>,
        facts: &Facts<'_>,
        identities: impl IntoIterator<Item = (Name, Arc<[Name]>)>,
    ) -> Vec<Name> {
        let may = |name: &Name, groups: &Arc<[Name]>| {
            let principal = Principal::Identity(name.clone());
            let question = Question { principal: &principal, groups, action, target };
            Case::new(&question, &self.candidates(&question), self.vocabulary.0).decide(None, facts).allow
        };
        identities.into_iter().filter(|(name, groups)| may(name, groups)).map(|(name, _)| name).collect()
    }

    /// The statements whose scope fits, shared with every other question that has the same ones.
    fn candidates(&self, question: &Question<'_>) -> Arc<Set> {
        let mut found = self.index.candidates(question, self.vocabulary.0);
        found.sort_unstable_by_key(Arc::as_ptr);
        let addresses: Vec<_> = found.iter().map(Arc::as_ptr).collect();
        let keep = |set: &Set| set.statements().len() <= MAX_REMEMBERED;
        self.sets.find_or_make(&addresses, |set| set.is(&found), || Set::new(found.clone()), keep)
    }
}

impl Candidate {
    /// `alone` is the decision that this statement alone would make.
    fn new(statement: &Statement, alone: Decision) -> Self {
        let outcome = match (alone.errors.into_iter().next(), alone.because.is_empty()) {
            (Some(error), _) => Outcome::Failed(error),
            (None, true) => Outcome::DidNotApply,
            (None, false) if statement.forbids() => Outcome::Forbade,
            (None, false) => Outcome::Allowed,
        };
        Self { id: statement.id.to_string(), text: statement.policy.to_string(), outcome }
    }
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rules")
    }
}
