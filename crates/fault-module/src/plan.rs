//! The plan: which calls go wrong, and how. The language is taught in the crate's documentation.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use cryptoki_sys::{CK_ATTRIBUTE_TYPE, CK_FLAGS, CK_RV};

use crate::forward::FUNCTIONS;
use crate::report;
use crate::spoil::Output;

/// What happens to one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) delay_ms: u64,
    pub(crate) hang: bool,
    pub(crate) abort: bool,
    pub(crate) abort_after: bool,
    pub(crate) pre: Option<CK_RV>,
    pub(crate) post: Option<CK_RV>,
    pub(crate) flip: bool,
    pub(crate) short: bool,
    pub(crate) empty: bool,
    pub(crate) replay: bool,
    /// Another call may be answered with the answer of this one.
    pub(crate) remember: bool,
    pub(crate) flags: CK_FLAGS,
    pub(crate) without: Option<CK_ATTRIBUTE_TYPE>,
    pub(crate) stuck: Option<CK_RV>,
    pub(crate) close_sessions: bool,
}

/// A fault and the calls it happens to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    function: String,
    after: u64,
    every: u64,
    count: u64,
    once: bool,
    fault: Fault,
}

/// The file as it was read, and the calls since.
#[derive(Default)]
struct Plan {
    stamp: Option<Stamp>,
    rules: Vec<Rule>,
    calls: HashMap<&'static str, u64>,
    all: u64,
}

/// What changes when the file does; the inode for those who replace it within one tick of the clock.
#[derive(PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    seconds: i64,
    nanoseconds: i64,
}

/// Counts a call of `function`, and says what is to happen to it.
pub(crate) fn fault(function: &'static str) -> Option<Fault> {
    static PATH: OnceLock<Option<PathBuf>> = OnceLock::new();
    // Protects the plan and its counters; nothing else is locked while it is held, and a delayed call does not hold it.
    static PLAN: OnceLock<Mutex<Plan>> = OnceLock::new();
    let path = PATH.get_or_init(|| std::env::var_os("SIGNET_FAULT_PLAN").map(PathBuf::from)).as_ref()?;
    let mut plan = PLAN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    plan.refresh(path);
    let remember = plan.rules.iter().any(|rule| rule.fault.replay && rule.function == function);
    let taken = plan.count(function).filter(|rule| !rule.once || plan.claim(path, &rule.function));
    let fault = taken.map_or_else(Fault::default, |rule| rule.fault);
    Some(Fault { remember, ..fault })
}

impl Plan {
    fn refresh(&mut self, path: &Path) {
        let stamp = fs::metadata(path).ok().map(|file| Stamp {
            inode: file.ino(),
            size: file.size(),
            seconds: file.mtime(),
            nanoseconds: file.mtime_nsec(),
        });
        if stamp == self.stamp {
            return;
        }
        let text = if stamp.is_some() { fs::read_to_string(path).unwrap_or_default() } else { String::new() };
        match parse(&text) {
            Ok(rules) => *self = Self { stamp, rules, ..Self::default() },
            Err(error) => {
                report(&format!("{}: {error}", path.display()));
                std::process::abort()
            }
        }
    }

    /// Whether this process is the first to take a rule that holds once. The mark belongs to this version of the plan.
    fn claim(&self, path: &Path, function: &str) -> bool {
        let Some(Stamp { inode, size: _, seconds, nanoseconds }) = &self.stamp else { return false };
        let mark = format!("{}.{inode}-{seconds}-{nanoseconds}-{function}", path.display());
        fs::File::create_new(mark).is_ok()
    }

    fn count(&mut self, function: &'static str) -> Option<Rule> {
        self.all += 1;
        let own = self.calls.entry(function).or_insert(0);
        *own += 1;
        let (own, all) = (*own, self.all);
        let holds = |rule: &&Rule| {
            let call = if rule.function == "*" { all } else { own };
            let turn = call.checked_sub(rule.after.saturating_add(1));
            (rule.function == "*" || rule.function == function)
                && turn.is_some_and(|turn| turn.is_multiple_of(rule.every) && turn / rule.every < rule.count)
        };
        self.rules.iter().find(holds).cloned()
    }
}

fn parse(text: &str) -> Result<Vec<Rule>, String> {
    let mut rules = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        if let Some(function) = words.next() {
            rules.push(rule(function, words).map_err(|error| format!("line {number}: {error}: {line}"))?);
        }
    }
    Ok(rules)
}

fn rule<'a>(function: &str, words: impl Iterator<Item = &'a str>) -> Result<Rule, String> {
    let (output, takes_template) = match FUNCTIONS.iter().find(|(name, ..)| *name == function) {
        Some((_, output, takes_template)) => (*output, *takes_template),
        None if function == "*" => (Output::None, false),
        None => return Err(format!("no fault can be put on {function}")),
    };
    let function = function.to_owned();
    let mut rule = Rule { function, after: 0, every: 1, count: u64::MAX, once: false, fault: Fault::default() };
    for word in words {
        let fault = &mut rule.fault;
        match word.split_once('=') {
            Some(("after", value)) => rule.after = number(value)?,
            Some(("every", value)) => rule.every = number(value)?.max(1),
            Some(("count", value)) => rule.count = number(value)?,
            Some(("delay_ms", value)) => fault.delay_ms = number(value)?,
            Some(("pre", value)) => fault.pre = Some(number(value)?),
            Some(("post", value)) => fault.post = Some(number(value)?),
            Some(("flags", value)) if output.has_flags() => fault.flags = number(value)?,
            Some(("without", value)) if takes_template => fault.without = Some(number(value)?),
            Some(("stuck", value)) => fault.stuck = Some(number(value)?),
            None if word == "close_sessions" => fault.close_sessions = true,
            None if word == "replay" && output.can_replay() => fault.replay = true,
            None if word == "once" => rule.once = true,
            None if word == "hang" => fault.hang = true,
            None if word == "abort" => fault.abort = true,
            None if word == "abort_after" => fault.abort_after = true,
            None if word == "flip" && output.can_flip() => fault.flip = true,
            None if word == "short" && output.can_shorten() => fault.short = true,
            None if word == "empty" && output.can_empty() => fault.empty = true,
            Some(_) | None => return Err(format!("{word} means nothing here")),
        }
    }
    if rule.fault == Fault::default() {
        return Err("the rule does nothing".to_owned());
    }
    Ok(rule)
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text} is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Plan {
        Plan { rules: parse(text).unwrap(), ..Plan::default() }
    }

    #[test]
    fn a_rule_sleeps_then_holds_then_ends() {
        let mut plan = plan("C_Sign after=1 count=2 pre=0x30");
        let codes: Vec<_> = (0..4).map(|_| plan.count("C_Sign").and_then(|rule| rule.fault.pre)).collect();
        assert_eq!(codes, [None, Some(0x30), Some(0x30), None]);
        assert_eq!(plan.count("C_SignInit"), None);
    }

    #[test]
    fn a_rule_may_hold_now_and_then() {
        let mut plan = plan("C_Sign after=1 every=3 count=2 pre=0x30");
        let codes: Vec<_> = (0..9).map(|_| plan.count("C_Sign").is_some()).collect();
        assert_eq!(codes, [false, true, false, false, true, false, false, false, false]);
    }

    #[test]
    fn the_first_rule_that_holds_is_taken() {
        let mut plan = plan("# slow, then broken\nC_Sign count=1 delay_ms=5\n\nC_Sign post=6 # for ever\n");
        assert_eq!(plan.count("C_Sign").unwrap().fault.delay_ms, 5);
        assert_eq!(plan.count("C_Sign").unwrap().fault.post, Some(6));
    }

    #[test]
    fn a_star_counts_all_calls() {
        let mut plan = plan("* after=1 count=1 pre=5");
        assert_eq!(plan.count("C_Login"), None);
        assert_eq!(plan.count("C_Sign").unwrap().fault.pre, Some(5));
        assert_eq!(plan.count("C_Sign"), None);
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let bad = [
            "C_Sing pre=1",
            "C_Sign",
            "C_Sign pre=0xZZ",
            "C_Sign pre",
            "C_Login flip",
            "C_Sign often",
            "* empty",
            "C_FindObjects short",
            "C_Sign flags=1",
            "C_Sign without=1",
            "C_Login replay",
            "C_GetInterface empty",
        ];
        for line in bad {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
