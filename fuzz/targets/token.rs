//! The text of a bearer token, before anybody is authenticated.
#![no_main]

use signet::auth::token::Token;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(token) = Token::parse(text) {
        // One token has one spelling.
        assert_eq!(token.expose().as_str(), text);
    }
});
