//! Batches: each item has its own outcome, in the order of the request.

use super::call::Call;
use super::problem::log;
use crate::error::{Error, Result};
use crate::wire::{BatchResults, ItemError, ItemResult};

/// Turns the items of a batch into ours; the error of one names its place.
pub(super) fn items<T, U>(items: Vec<T>, mut words: impl FnMut(T) -> Result<U>) -> Result<Vec<U>> {
    let place = |(at, item)| words(item).map_err(|e: Error| e.context(format_args!("items[{at}]")));
    items.into_iter().enumerate().map(place).collect()
}

/// Turns the outcomes into those of the API.
pub(super) fn results<T, U>(call: &Call, results: Vec<Result<T>>, words: impl Fn(T) -> U) -> BatchResults<U> {
    let outcome = |result: Result<T>| match result {
        Ok(value) => ItemResult { ok: Some(words(value)), error: None },
        Err(error) => {
            log(&error, &call.caller.request_id);
            let error = ItemError { code: error.kind().code().to_owned(), title: error.public().to_owned() };
            ItemResult { ok: None, error: Some(error) }
        }
    };
    BatchResults { results: results.into_iter().map(outcome).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn the_error_of_an_item_names_its_place() {
        let odd = |n: u32| if n % 2 == 1 { Ok(n) } else { Err(Error::new(Kind::Invalid, "even")) };
        assert_eq!(items(vec![1, 3], odd).unwrap(), [1, 3]);
        assert_eq!(items(vec![1, 2, 4], odd).unwrap_err().public(), "items[1]: even");
    }
}
