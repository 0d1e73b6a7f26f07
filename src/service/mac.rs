//! Message authentication codes.

use super::{Service, check_batch, item, only};
use crate::admission::{Details, Released};
use crate::error::Result;
use crate::policy::Facts;
use crate::signing::{Results, Verdict};
use crate::types::operation::{Mac, VerifyMac};
use crate::types::{Caller, KeyName, Version};

impl Service {
    /// Makes one code.
    ///
    /// # Errors
    /// Those of [`crate::signing::Signing::mac`].
    pub async fn mac(&self, caller: &Caller, name: &KeyName, message: Vec<u8>) -> Result<Released<(Vec<u8>, Version)>> {
        let permit = self.admit_key::<Mac>(caller, name, &[Facts::default()]).await?;
        let mut details = Details::default();
        let made = self.signing.mac(&permit, name, vec![message]).await;
        let result = made.and_then(|Results { key, version, results }| {
            details = Details::of(key.record.id, version.number());
            only(results).map(|code| (code, version.number()))
        });
        permit.close(result, details).await
    }

    /// Makes many codes with one version.
    ///
    /// # Errors
    /// Those of [`crate::signing::Signing::mac`].
    pub async fn mac_batch(
        &self,
        caller: &Caller,
        name: &KeyName,
        messages: Vec<Vec<u8>>,
    ) -> Result<Released<(Version, Vec<Result<Vec<u8>>>)>> {
        check_batch(messages.len())?;
        let permit = self.admit_key::<Mac>(caller, name, &[Facts::default()]).await?;
        let mut details = Details::default();
        let made = self.signing.mac(&permit, name, messages).await;
        let result = made.map(|Results { key, version, results }| {
            let number = version.number();
            details = Details::of(key.record.id, number);
            details.items = results.iter().map(|result| item(result, Some(number), None)).collect();
            (number, results)
        });
        permit.close(result, details).await
    }

    /// Checks one code.
    ///
    /// # Errors
    /// Those of [`crate::signing::Signing::verify_mac`].
    pub async fn verify_mac(
        &self,
        caller: &Caller,
        name: &KeyName,
        version: Option<Version>,
        message: Vec<u8>,
        code: &[u8],
    ) -> Result<Released<Verdict>> {
        let permit = self.admit_key::<VerifyMac>(caller, name, &[Facts::default()]).await?;
        let verdict = self.signing.verify_mac(&permit, name, version, message, code).await;
        let details = match &verdict {
            Ok(verdict) => Details::of(verdict.key.record.id, verdict.version).fact("valid", verdict.valid),
            Err(_) => Details::default(),
        };
        permit.close(verdict, details).await
    }

    /// Checks many codes, one after the other.
    ///
    /// # Errors
    /// Per item, those of [`crate::signing::Signing::verify_mac`].
    pub async fn verify_mac_batch(
        &self,
        caller: &Caller,
        name: &KeyName,
        items: Vec<(Option<Version>, Vec<u8>, Vec<u8>)>,
    ) -> Result<Released<Vec<Result<Verdict>>>> {
        check_batch(items.len())?;
        let permit = self.admit_key::<VerifyMac>(caller, name, &[Facts::default()]).await?;
        let verify = |(version, message, code): (Option<Version>, Vec<u8>, Vec<u8>)| {
            let permit = &permit;
            async move { self.signing.verify_mac(permit, name, version, message, &code).await }
        };
        let verdicts = futures_util::future::join_all(items.into_iter().map(verify)).await;
        let record = |result: &Result<Verdict>| item(result, result.as_ref().ok().map(|verdict| verdict.version), None);
        let details = Details { items: verdicts.iter().map(record).collect(), ..Details::default() };
        permit.close(Ok(verdicts), details).await
    }
}
