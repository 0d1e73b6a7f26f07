//! Refuses policy text that nests too deeply, before it is parsed.
//!
//! Cedar's parser recurses without a limit: 36 brackets overflow a stack of 2 MiB in a build without optimisation, and an
//! overflow ends the process. Its validator gives up *silently* where expressions are too deep, and its evaluator with an
//! error. So the depth is bounded here by a scan that knows only strings, comments, brackets and operators. It may count
//! more than the real depth and never by much less: the true depth stays under twice [`MAX_DEPTH`].

/// How deep an expression may be: one for each operator in a row, [`BRACKET`] for each bracket around it.
pub(super) const MAX_DEPTH: u32 = 96;
/// What one bracket costs the parser, in operators.
const BRACKET: u32 = 4;

/// What was counted inside one pair of brackets.
#[derive(Clone, Copy, Default)]
struct Level {
    /// Joined terms and conditionals: they last until the next comma or statement.
    lasting: u32,
    /// Operators of the current term, which `&&` and `||` end.
    term: u32,
}

/// The byte offset at which `text` becomes too deep, if it does.
pub(super) fn too_deep(text: &str) -> Option<usize> {
    let mut outer: Vec<Level> = Vec::new();
    let mut outer_depth = 0;
    let mut level = Level::default();
    let mut rest = text;
    while let Some(token) = next_token(rest) {
        rest = rest.get(token.len()..)?;
        match token {
            "(" | "[" | "{" => {
                outer_depth += level.lasting + level.term + BRACKET;
                outer.push(std::mem::take(&mut level));
            }
            ")" | "]" | "}" => {
                level = outer.pop().unwrap_or_default();
                outer_depth = outer_depth.saturating_sub(level.lasting + level.term + BRACKET);
                // A closed bracket is an operand now; an index or a call makes the term deeper.
                level.term += 1;
            }
            "," | ";" => level = Level::default(),
            "&&" | "||" => level = Level { lasting: level.lasting + 1, term: 0 },
            "if" | "then" | "else" => level.lasting += 1,
            "." | "+" | "-" | "*" | "=" | "<" | ">" | "!" | "in" | "has" | "is" | "like" => level.term += 1,
            _ => {}
        }
        if outer_depth + level.lasting + level.term > MAX_DEPTH {
            return Some(text.len() - rest.len());
        }
    }
    None
}

/// The next string, comment, word, joining operator or single character of `text`; nothing at its end.
fn next_token(text: &str) -> Option<&str> {
    let first = text.chars().next()?;
    let length = match first {
        '"' => string_length(text),
        '/' if text.starts_with("//") => text.find('\n').unwrap_or(text.len()),
        '&' if text.starts_with("&&") => 2,
        '|' if text.starts_with("||") => 2,
        c if c.is_alphanumeric() || c == '_' => {
            text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
        }
        other => other.len_utf8(),
    };
    text.get(..length)
}

/// The length of the string literal that `text` begins with, quotes included.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_passes() {
        let term = r#"resource.labels.contains("a=(((((((((((((((((((((((((((((((((((") "#;
        let many = format!("permit(principal, action, resource) when {{ {} }};", vec![term; 60].join("&& "));
        assert_eq!(too_deep(&many.repeat(20)), None);
        assert_eq!(too_deep("// ((((((((((((((((((((((((((((((((\npermit(principal, action, resource);"), None);
        assert_eq!(too_deep(&format!("[{}]", "\"x\",".repeat(5000))), None);
    }

    #[test]
    fn deep_text_is_found() {
        for piece in
            ["(", "[", "{a:", "ip(", "true &&", "false ||", "+1", ".a", "[1]", "if a then b else ", "* -1", "<1"]
        {
            assert!(too_deep(&piece.repeat(150)).is_some(), "{piece}");
        }
    }

    #[test]
    fn closing_more_than_was_opened_is_left_to_the_parser() {
        assert_eq!(too_deep("}}}))) ]"), None);
    }

    #[test]
    fn what_passes_fits_a_small_stack() {
        let deepest = |open: &str, core: &str, close: &str| {
            let text = |n: usize| {
                format!("permit(principal, action, resource) when {{ {}{core}{} }};", open.repeat(n), close.repeat(n))
            };
            let most = (1..200).take_while(|n| too_deep(&text(*n)).is_none()).last().unwrap();
            text(most)
        };
        let shapes = [
            deepest("(", "true", ")"),
            deepest("[", "1", "] == 1"),
            deepest("{a:", "1", "}"),
            deepest("ip(", "\"1.1.1.1\"", ")"),
            deepest("", "true", " && true"),
            deepest("", "1", "+1"),
            deepest("", "principal", ".a"),
            deepest("if true then true else ", "true", ""),
            deepest("!(true && ", "true", ")"),
        ];
        let small = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
            for text in &shapes {
                let _ = crate::policy::validate(&"deep".parse().unwrap(), text);
            }
        });
        small.unwrap().join().unwrap();
    }
}
