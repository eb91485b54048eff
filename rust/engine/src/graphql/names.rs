//! Names as Python and as GraphQL write them.

/// `order_id` is `orderId`.
pub(super) fn camel_case(name: &str) -> String {
    let mut parts = name.split('_').filter(|part| !part.is_empty());
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |camel, part| {
        let (head, tail) = part.split_at(part.chars().next().map_or(0, char::len_utf8));
        camel + &head.to_uppercase() + tail
    })
}

/// The keywords of Python that a name in snake_case may be.
const KEYWORDS: &str = "and as assert async await break class continue def del elif else except finally for from global if import in \
     is lambda nonlocal not or pass raise return try while with yield";

/// The snake_case of a GraphQL name; a keyword has a `_` behind it.
pub(super) fn python_name(name: &str) -> String {
    let mut snake = snake_case(name);
    if KEYWORDS.split(' ').any(|keyword| keyword == snake) {
        snake.push('_');
    }
    snake
}

/// `orderId` and `OrderID` are `order_id`.
pub(super) fn snake_case(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut snake = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).map(|at| letters[at]);
        let starts = |before: char| {
            let next_is_small = letters.get(at + 1).is_some_and(char::is_ascii_lowercase);
            before != '_' && (!before.is_ascii_uppercase() || next_is_small)
        };
        if letter.is_ascii_uppercase() && before.is_some_and(starts) {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
