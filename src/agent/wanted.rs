//! What was wanted when a pair was made: where the settings want something else, it is another certificate.

use serde::{Deserialize, Serialize};

use super::Settings;
use crate::types::Subject;

/// Kept beside a pair, in JSON.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wanted {
    issuer: String,
    profile: String,
    /// In their order, so that another order is the same.
    names: Vec<String>,
    subject: Subject,
    key_type: String,
    key_in: String,
}

impl Wanted {
    /// What `settings` want.
    pub(super) fn of(settings: &Settings) -> Self {
        let Settings { issuer, profile, names, subject, key_type, key_in, .. } = settings;
        let mut names: Vec<_> = names.iter().map(ToString::to_string).collect();
        names.sort();
        Self {
            issuer: issuer.to_string(),
            profile: profile.to_string(),
            names,
            subject: subject.clone(),
            key_type: key_type.as_str().to_owned(),
            key_in: key_in.to_string(),
        }
    }

    /// As it is kept.
    pub(super) fn written(&self) -> String {
        // Texts in a struct are always JSON.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// What was kept.
    pub(super) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// What is wanted otherwise than it was `before`, in words.
    pub(super) fn change(&self, before: &Self) -> Option<String> {
        let Self { issuer, profile, names, subject, key_type, key_in } = self;
        let changes = [
            ("issuer", *issuer != before.issuer, &before.issuer, issuer),
            ("profile", *profile != before.profile, &before.profile, profile),
            ("names", *names != before.names, &before.names.join(" "), &names.join(" ")),
            ("subject", *subject != before.subject, &in_words(&before.subject), &in_words(subject)),
            ("type of key", *key_type != before.key_type, &before.key_type, key_type),
            ("home of the key", *key_in != before.key_in, &before.key_in, key_in),
        ];
        let changes = changes.into_iter().filter(|(_, changed, ..)| *changed);
        let words: Vec<_> = changes.map(|(what, _, before, now)| format!("{what}: {now:?}, was {before:?}")).collect();
        (!words.is_empty()).then(|| words.join("; "))
    }
}

fn in_words(subject: &Subject) -> String {
    let Subject { country, province, locality, organization, organizational_unit, common_name } = subject;
    let attributes = [
        ("CN", common_name),
        ("OU", organizational_unit),
        ("O", organization),
        ("L", locality),
        ("ST", province),
        ("C", country),
    ];
    let words = attributes.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)));
    words.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_and_another_order_is_none() {
        let page = include_str!("../../docs/agent.md");
        let (_, text) = page.split_once("```toml\n").unwrap();
        let before: Settings = toml::from_str(text.split_once("```").unwrap().0).unwrap();
        let change = |change: fn(&mut Settings)| {
            let mut now = before.clone();
            change(&mut now);
            let kept = Wanted::read(&Wanted::of(&before).written()).unwrap();
            Wanted::of(&now).change(&kept)
        };
        assert_eq!(change(|_| {}), None);
        assert_eq!(change(|it| it.names.reverse()), None);
        assert_eq!(change(|it| it.renew_at = 50), None);
        assert_eq!(change(|it| it.profile = "a:b".parse().unwrap()).unwrap(), "profile: \"a:b\", was \"fleet:server\"");
        assert_eq!(change(|it| it.issuer = "a:b".parse().unwrap()).unwrap(), "issuer: \"a:b\", was \"fleet:web\"");
        let two = change(|it| {
            it.key_type = super::super::KeyType::EcdsaP384;
            it.subject = Subject { organization: Some("Example".to_owned()), ..Subject::default() };
        });
        assert_eq!(
            two.unwrap(),
            "subject: \"O=Example\", was \"CN=web.example.com\"; type of key: \"ecdsa-p384\", was \"ecdsa-p256\""
        );
        assert_eq!(Wanted::read("torn"), None);
    }
}
