//! Accounts.

use serde_json::{Map, Value};

use super::{
    Account, AccountState, Contacts, EabKey, Id, Opened, ProblemKind, Signer, caller, only_own, origin, put, refuse,
};
use crate::admission::{Details, Released};
use crate::ca::acme::{Quota, unbound};
use crate::error::{Error, Result};
use crate::jose::{Jws, KeyReference, SignerKey, strict};
use crate::service::Service;
use crate::store::{Change, Expected};
use crate::types::Credential;

/// What a new account says of itself.
#[derive(Clone, Debug, Default)]
pub struct NewAccount {
    /// How its owner is reached.
    pub contacts: Contacts,
    /// Whether its owner agrees to the terms.
    pub agreed: bool,
    /// Whether it is only asked whether there is one.
    pub only_existing: bool,
    /// The external account binding, a signed object.
    pub binding: Option<Map<String, Value>>,
}

/// What is to be changed of an account.
#[derive(Clone, Debug, Default)]
pub struct AccountWish {
    /// Other contacts.
    pub contacts: Option<Contacts>,
    /// Its end.
    pub deactivate: bool,
}

impl Service {
    /// Makes an account, or finds the one that has this key. Answers whether it was made.
    ///
    /// # Errors
    /// `accountDoesNotExist`, `userActionRequired`, `externalAccountRequired`, `unauthorized` for a binding that does not hold,
    /// `rateLimited`.
    pub async fn acme_new_account(
        &self,
        opened: &Opened,
        new: NewAccount,
        url: &str,
    ) -> Result<Released<(Account, bool)>> {
        let Signer::Key(key) = &opened.signer else {
            return Err(Error::internal("a new account was asked for by an account"));
        };
        let _enrolling = self.parts.acme.enrolling.lock().await;
        if let Some(account) = self.acme_account_of(opened, key).await? {
            // "If the server receives a newAccount request signed with a key for which it already has an account registered …
            // then it MUST return a response with status code 200 (OK)"
            let caller = match account.alive() {
                Ok(()) => self.acme_caller(&opened.endpoint, &account, opened.address, &opened.request_id).await,
                Err(ended) => Err(ended),
            };
            let caller = match caller {
                Ok(caller) => caller,
                Err(refused) => return self.acme_refuse(opened, "a new account", refused).await,
            };
            let permit = self.acme_admit(&caller, &opened.endpoint).await?;
            return permit.close(Ok((account, false)), details("account found")).await;
        }
        match self.acme_prepare_account(opened, key, &new, url).await {
            Ok((account, speaker, changes)) => {
                let credential = Credential::AcmeAccount(account.id.to_string());
                let caller = caller(speaker, credential, opened.address, &opened.request_id);
                let permit = self.acme_admit(&caller, &opened.endpoint).await?;
                let details = details("account made").fact("account", account.id);
                let result = self.acme_commit(&permit, &details, changes).await.map(|_| (account, true));
                permit.close(result, details).await
            }
            Err(refused) => self.acme_refuse(opened, "a new account", refused).await,
        }
    }

    async fn acme_account_of(&self, opened: &Opened, key: &SignerKey) -> Result<Option<Account>> {
        let endpoint = &opened.endpoint.name;
        let Some((id, _)) = self.acme_read::<Id>(Account::key_path(endpoint, key)).await? else { return Ok(None) };
        Ok(self.acme_read(Account::path(endpoint, id)).await?.map(|(account, _)| account))
    }

    async fn acme_prepare_account(
        &self,
        opened: &Opened,
        key: &SignerKey,
        new: &NewAccount,
        url: &str,
    ) -> Result<(Account, super::Speaker, Vec<Change>)> {
        let NewAccount { contacts, agreed, only_existing, binding } = new;
        let (endpoint, now) = (&opened.endpoint, self.parts.ledger.clock().now());
        if *only_existing {
            return Err(refuse(ProblemKind::AccountDoesNotExist, "no account has this key"));
        }
        let agreed = match &endpoint.terms {
            None => None,
            Some(terms) if *agreed => Some((now, terms.clone())),
            Some(_) => return Err(refuse(ProblemKind::UserActionRequired, "the terms of service must be agreed to")),
        };
        let who = origin(opened.address);
        self.parts.acme.quotas.take(Quota::ACCOUNTS, &who, now)?;
        let (speaker, bound_by, mut changes) = match (&endpoint.open_to, binding) {
            (Some(speaker), None) => (speaker.clone(), None, Vec::new()),
            (None, None) => {
                let text = "an account needs an external account binding here";
                return Err(refuse(ProblemKind::ExternalAccountRequired, text)
                    .hint("an administrator makes its key with `signet acme eab create`"));
            }
            (_, Some(binding)) => {
                self.parts.acme.quotas.check(Quota::BINDINGS, &who, now)?;
                let bound = self.acme_bind(opened, key, binding, url).await;
                if bound.is_err() {
                    self.parts.acme.quotas.take(Quota::BINDINGS, &who, now)?;
                }
                let (key, change) = bound?;
                (key.speaker.clone(), Some(key.id), vec![change])
            }
        };
        let account = Account::new(Id::random()?, key.clone(), contacts.clone(), agreed, bound_by, now);
        changes.push(put(Account::path(&endpoint.name, account.id), Expected::Absent, &account)?);
        changes.push(put(Account::key_path(&endpoint.name, key), Expected::Absent, &account.id)?);
        Ok((account, speaker, changes))
    }

    /// The binding key, one use less, and the change that takes it off.
    async fn acme_bind(
        &self,
        opened: &Opened,
        account: &SignerKey,
        binding: &Map<String, Value>,
        url: &str,
    ) -> Result<(EabKey, Change)> {
        let bytes = serde_json::to_vec(binding).map_err(|e| Error::internal(format!("a binding: {e}")))?;
        let binding = Jws::parse(&bytes)?;
        let id = EabKey::named_by(&binding).ok_or_else(unbound)?;
        let path = EabKey::path(&opened.endpoint.name, id);
        let (mut key, revision) = self.acme_read::<EabKey>(path.clone()).await?.ok_or_else(unbound)?;
        key.bind(&binding, account, url, self.parts.ledger.clock().now())?;
        let change = put(path, Expected::Revision(revision), &key)?;
        Ok((key, change))
    }

    /// Changes the account with that id, or ends it. Without a wish it is only read.
    ///
    /// # Errors
    /// `unauthorized` where another account has signed; those of the ledger.
    pub async fn acme_update_account(&self, opened: &Opened, id: Id, wish: AccountWish) -> Result<Released<Account>> {
        let (account, caller) = opened.account()?;
        let permit = self.acme_admit(caller, &opened.endpoint).await?;
        let AccountWish { contacts, deactivate } = wish;
        let what = match (&contacts, deactivate) {
            (_, true) => "account deactivated",
            (Some(_), false) => "account changed",
            (None, false) => "account read",
        };
        let result = async {
            only_own(account, id)?;
            if contacts.is_none() && !deactivate {
                return Ok(account.clone());
            }
            let path = Account::path(&opened.endpoint.name, account.id);
            let (mut account, revision) =
                self.acme_read::<Account>(path.clone()).await?.ok_or_else(|| Error::internal("an account is gone"))?;
            account.alive()?;
            if let Some(contacts) = contacts {
                account.contacts = contacts;
            }
            if deactivate {
                account.state = AccountState::Deactivated;
            }
            let change = put(path, Expected::Revision(revision), &account)?;
            self.acme_commit(&permit, &details(what), vec![change]).await?;
            Ok(account)
        };
        let result = result.await;
        permit.close(result, details(what)).await
    }

    /// Gives an account another key, which has signed that it wants to be one ([RFC 8555, 7.3.5](https://www.rfc-editor.org/rfc/rfc8555#section-7.3.5)).
    /// `account_url` is the account's own address. Where another account has the key, that account's id is answered as the error.
    ///
    /// # Errors
    /// `malformed` where inner and outer request do not fit.
    pub async fn acme_change_key(
        &self,
        opened: &Opened,
        url: &str,
        account_url: &str,
    ) -> Result<Released<Result<Account, Id>>> {
        #[derive(serde::Deserialize)]
        struct Inner {
            account: String,
            #[serde(rename = "oldKey")]
            old_key: Map<String, Value>,
        }
        let (account, caller) = opened.account()?;
        let permit = self.acme_admit(caller, &opened.endpoint).await?;
        let result = async {
            let malformed = |text: &'static str| refuse(ProblemKind::Malformed, text);
            let inner = Jws::parse(&opened.payload)?;
            // "The inner JWS MUST have a "jwk" header parameter", "the same "url" header parameter as the outer JWS", "MUST omit
            // the "nonce""
            let KeyReference::Own(new) = &inner.key else {
                return Err(malformed("the inner request names no key of its own"));
            };
            if inner.url != url || inner.nonce.is_some() {
                return Err(malformed("the inner request has a nonce, or another url than the outer one"));
            }
            let Inner { account: named, old_key } = strict(inner.verify(new)?, "the inner request")?;
            if named != account_url || SignerKey::parse(&old_key)?.thumbprint != account.key.thumbprint {
                return Err(malformed("the inner request is about another account, or another key of it"));
            }
            let endpoint = &opened.endpoint.name;
            let _enrolling = self.parts.acme.enrolling.lock().await;
            if let Some((id, _)) = self.acme_read::<Id>(Account::key_path(endpoint, new)).await? {
                return Ok(Err(id));
            }
            let path = Account::path(endpoint, account.id);
            let (mut changed, revision) =
                self.acme_read::<Account>(path.clone()).await?.ok_or_else(|| Error::internal("an account is gone"))?;
            changed.alive()?;
            if changed.key != account.key {
                return Err(malformed("the account got another key in the meantime"));
            }
            changed.key = new.clone();
            let changes = vec![
                put(path, Expected::Revision(revision), &changed)?,
                put(Account::key_path(endpoint, new), Expected::Absent, &changed.id)?,
                Change { path: Account::key_path(endpoint, &account.key), expected: Expected::Any, value: None },
            ];
            self.acme_commit(&permit, &details("account key changed"), changes).await?;
            Ok(Ok(changed))
        };
        let result = result.await;
        permit.close(result, details("account key changed")).await
    }
}

fn details(what: &'static str) -> Details {
    Details::default().fact("acme", what)
}
