//! Wrap, unwrap, rewrap, data keys.

use std::sync::Arc;

use super::{Service, check_batch, context_facts, item, only};
use crate::admission::{Details, Permit, Released};
use crate::envelope::{Blobs, Envelope, Opened, Plain, Sealed};
use crate::error::Result;
use crate::keyring::Key;
use crate::policy::Facts;
use crate::types::operation::{GenerateDataKey, Includes, Operation, Rewrap, Unwrap, UnwrapCompromised, Wrap};
use crate::types::{Caller, Context, KeyName, SecretBytes, Version};

/// A ciphertext that is to be moved.
pub type RewrapItem = Sealed;

/// A data key.
#[derive(Debug)]
pub struct DataKeyMade {
    /// Its plaintext, where it was asked for.
    pub plaintext: Option<SecretBytes>,
    /// Its wrapped form.
    pub blob: Vec<u8>,
}

impl Service {
    /// Wraps one plaintext.
    ///
    /// # Errors
    /// Those of [`Envelope::wrap`].
    pub async fn wrap(&self, caller: &Caller, name: &KeyName, plain: Plain) -> Result<Released<(Vec<u8>, Version)>> {
        let permit = self.admit_key::<Wrap>(caller, name, &context_facts([&plain.context].into_iter())).await?;
        let context = plain.context.clone();
        let wrapped = self.envelope.wrap(&permit, name, vec![plain]).await;
        let (details, result) = single(wrapped, context);
        permit.close(result, details).await
    }

    /// Wraps many plaintexts with one version.
    ///
    /// # Errors
    /// Those of [`Envelope::wrap`].
    pub async fn wrap_batch(&self, caller: &Caller, name: &KeyName, items: Vec<Plain>) -> Result<Released<Blobs>> {
        check_batch(items.len())?;
        let contexts: Vec<_> = items.iter().map(|item| item.context.clone()).collect();
        let permit = self.admit_key::<Wrap>(caller, name, &context_facts(contexts.iter())).await?;
        let wrapped = self.envelope.wrap(&permit, name, items).await;
        close_blobs(permit, wrapped, &contexts).await
    }

    /// Unwraps one ciphertext.
    ///
    /// # Errors
    /// Those of [`Envelope::unwrap`].
    pub async fn unwrap(
        &self,
        caller: &Caller,
        name: &KeyName,
        sealed: Sealed,
        allow_compromised: bool,
    ) -> Result<Released<Opened>> {
        let context = sealed.context.clone();
        let facts = context_facts([&context].into_iter());
        if allow_compromised {
            let permit = self.admit_key::<UnwrapCompromised>(caller, name, &facts).await?;
            return self.unwrap_one(permit, name, sealed, context.clone(), true).await;
        }
        let permit = self.admit_key::<Unwrap>(caller, name, &facts).await?;
        self.unwrap_one(permit, name, sealed, context.clone(), false).await
    }

    async fn unwrap_one<O: Operation + Includes<Unwrap>>(
        &self,
        permit: Permit<O>,
        name: &KeyName,
        sealed: Sealed,
        context: Context,
        allow_compromised: bool,
    ) -> Result<Released<Opened>> {
        let opened = self.envelope.unwrap(&permit, name, vec![sealed], allow_compromised).await;
        let mut details = Details { context: Some(context), ..Details::default() };
        let result = opened.and_then(|(key, results)| {
            details.key_id = Some(key.record.id);
            only(results)
        });
        details.version = result.as_ref().ok().map(|opened| opened.version);
        permit.close(result, details).await
    }

    /// Unwraps many ciphertexts; those of one version go to the device together.
    ///
    /// # Errors
    /// Those of [`Envelope::unwrap`].
    pub async fn unwrap_batch(
        &self,
        caller: &Caller,
        name: &KeyName,
        items: Vec<Sealed>,
    ) -> Result<Released<Vec<Result<Opened>>>> {
        check_batch(items.len())?;
        let contexts: Vec<_> = items.iter().map(|item| item.context.clone()).collect();
        let permit = self.admit_key::<Unwrap>(caller, name, &context_facts(contexts.iter())).await?;
        let opened = self.envelope.unwrap(&permit, name, items, false).await;
        let mut details = Details::default();
        let result = opened.map(|(key, results)| {
            details.key_id = Some(key.record.id);
            let record = |(result, context): (&Result<Opened>, &Context)| {
                item(result, result.as_ref().ok().map(|opened| opened.version), Some(context))
            };
            details.items = results.iter().zip(&contexts).map(record).collect();
            results
        });
        permit.close(result, details).await
    }

    /// Moves one ciphertext to the newest version, or to another key: that needs the right to wrap there as well.
    ///
    /// # Errors
    /// Those of [`Envelope::unwrap`] and [`Envelope::wrap`].
    pub async fn rewrap(
        &self,
        caller: &Caller,
        name: &KeyName,
        sealed: RewrapItem,
        to: Option<KeyName>,
    ) -> Result<Released<(Vec<u8>, Version)>> {
        let context = sealed.context.clone();
        let facts = context_facts([&context].into_iter());
        let permit = self.admit_key::<Rewrap>(caller, name, &facts).await?;
        let moved = self.move_to(caller, &permit, name, vec![sealed], to, &facts).await;
        let (details, result) = single(moved, context.clone());
        permit.close(result, details).await
    }

    /// Moves many ciphertexts.
    ///
    /// # Errors
    /// As [`Self::rewrap`].
    pub async fn rewrap_batch(
        &self,
        caller: &Caller,
        name: &KeyName,
        items: Vec<RewrapItem>,
        to: Option<KeyName>,
    ) -> Result<Released<Blobs>> {
        check_batch(items.len())?;
        let contexts: Vec<_> = items.iter().map(|item| item.context.clone()).collect();
        let facts = context_facts(contexts.iter());
        let permit = self.admit_key::<Rewrap>(caller, name, &facts).await?;
        let blobs = self.move_to(caller, &permit, name, items, to, &facts).await;
        close_blobs(permit, blobs, &contexts).await
    }

    /// Moves within the key under one permit, or to another key under a second one for that key.
    async fn move_to(
        &self,
        caller: &Caller,
        permit: &Permit<Rewrap>,
        name: &KeyName,
        items: Vec<Sealed>,
        to: Option<KeyName>,
        facts: &[Facts<'_>],
    ) -> Result<Blobs> {
        let Some(to) = to.filter(|to| to != name) else {
            return self.move_all(permit, permit, name, name, items).await;
        };
        let wrap = self.admit_key::<Wrap>(caller, &to, facts).await?;
        let moved = self.move_all(permit, &wrap, name, &to, items).await;
        let details = match &moved {
            Ok(blobs) => of(&blobs.key, blobs.version).fact("rewrapped_from", name),
            Err(_) => Details::default(),
        };
        wrap.close(moved, details).await.map(Released::into_inner)
    }

    /// Unwraps under one permit and wraps what opened under another.
    async fn move_all<A: Operation + Includes<Unwrap>, B: Operation + Includes<Wrap>>(
        &self,
        unwrap: &Permit<A>,
        wrap: &Permit<B>,
        from: &KeyName,
        to: &KeyName,
        items: Vec<Sealed>,
    ) -> Result<Blobs> {
        let contexts: Vec<_> = items.iter().map(|item| item.context.clone()).collect();
        let (_, opened) = self.envelope.unwrap(unwrap, from, items, false).await?;
        let mut failures = Vec::new();
        let mut plains = Vec::new();
        for (result, context) in opened.into_iter().zip(contexts) {
            match result {
                Ok(opened) => {
                    plains.push(Plain { plaintext: opened.plaintext, context });
                    failures.push(None);
                }
                Err(error) => failures.push(Some(error)),
            }
        }
        let Blobs { key, version, results } = self.envelope.wrap(wrap, to, plains).await?;
        let mut results = results.into_iter();
        let missing = || Err(crate::error::Error::internal("an item of a batch got no answer"));
        let results = failures
            .into_iter()
            .map(|failure| failure.map_or_else(|| results.next().unwrap_or_else(missing), Err))
            .collect();
        Ok(Blobs { key, version, results })
    }

    /// Makes a random data key and wraps it.
    ///
    /// # Errors
    /// `Invalid` for a length outside [`crate::envelope::DATA_KEY`], and those of [`Envelope::wrap`].
    pub async fn generate_data_key(
        &self,
        caller: &Caller,
        name: &KeyName,
        length: usize,
        context: Context,
        plaintext: bool,
    ) -> Result<Released<(DataKeyMade, Version)>> {
        let permit = self.admit_key::<GenerateDataKey>(caller, name, &context_facts([&context].into_iter())).await?;
        let mut kept = None;
        let wrapped = match Envelope::data_key(length) {
            Err(error) => Err(error),
            Ok(key) => {
                kept = plaintext.then(|| key.duplicate());
                self.envelope.wrap(&permit, name, vec![Plain { plaintext: key, context: context.clone() }]).await
            }
        };
        let (details, result) = single(wrapped, context);
        let details = details.fact("plaintext", plaintext).fact("length", length);
        let result = result.map(|(blob, version)| (DataKeyMade { plaintext: kept, blob }, version));
        permit.close(result, details).await
    }

    /// Makes many data keys with one version.
    ///
    /// # Errors
    /// As [`Self::generate_data_key`].
    pub async fn generate_data_keys(
        &self,
        caller: &Caller,
        name: &KeyName,
        wanted: Vec<(usize, Context, bool)>,
    ) -> Result<Released<(Version, Vec<Result<DataKeyMade>>)>> {
        check_batch(wanted.len())?;
        let contexts: Vec<_> = wanted.iter().map(|(_, context, _)| context.clone()).collect();
        let permit = self.admit_key::<GenerateDataKey>(caller, name, &context_facts(contexts.iter())).await?;
        let mut kept = Vec::new();
        let mut plains = Vec::new();
        let mut wrong = None;
        for (length, context, plaintext) in wanted {
            match Envelope::data_key(length) {
                Ok(key) => {
                    kept.push(plaintext.then(|| key.duplicate()));
                    plains.push(Plain { plaintext: key, context });
                }
                Err(error) => wrong = Some(error),
            }
        }
        let wrapped = match wrong {
            Some(error) => Err(error),
            None => self.envelope.wrap(&permit, name, plains).await,
        };
        let mut details = Details::default();
        let result = wrapped.map(|Blobs { key, version, results }| {
            details = Details::of(key.record.id, version);
            let record = |(result, context): (&Result<Vec<u8>>, &Context)| item(result, Some(version), Some(context));
            details.items = results.iter().zip(&contexts).map(record).collect();
            let made =
                results.into_iter().zip(kept).map(|(blob, plaintext)| blob.map(|blob| DataKeyMade { plaintext, blob }));
            (version, made.collect())
        });
        permit.close(result, details).await
    }
}

/// The only blob of a batch of one, and its record.
fn single(wrapped: Result<Blobs>, context: Context) -> (Details, Result<(Vec<u8>, Version)>) {
    let mut details = Details { context: Some(context), ..Details::default() };
    let result = wrapped.and_then(|Blobs { key, version, results }| {
        (details.key_id, details.version) = (Some(key.record.id), Some(version));
        only(results).map(|blob| (blob, version))
    });
    (details, result)
}

async fn close_blobs<O: Operation>(
    permit: Permit<O>,
    blobs: Result<Blobs>,
    contexts: &[Context],
) -> Result<Released<Blobs>> {
    let details = match &blobs {
        Err(_) => Details::default(),
        Ok(Blobs { key, version, results }) => {
            let record = |(result, context): (&Result<Vec<u8>>, &Context)| item(result, Some(*version), Some(context));
            let items = results.iter().zip(contexts).map(record).collect();
            Details { items, ..of(key, *version) }
        }
    };
    permit.close(blobs, details).await
}

fn of(key: &Arc<Key>, version: Version) -> Details {
    Details::of(key.record.id, version)
}
