//! Lines at WARN and ERROR are for the operator: each says what to do, and links to the runbook.

use proc_macro2::{Delimiter, TokenTree};

use super::source::{SourceFile, group, is_punct, product_files};

/// Lines without `remedy` and `runbook`: a part of the file's path, a part of the line, and why.
const EXEMPT: [(&str, &str, &str); 1] =
    [("cli/run.rs", "received a second signal", "the operator has stopped the gateway and knows what to do")];

/// Returns the arguments of each `warn!` and `error!` in these tokens.
fn lines(code: &[TokenTree]) -> Vec<Vec<TokenTree>> {
    let mut found = Vec::new();
    for (at, token) in code.iter().enumerate() {
        let TokenTree::Group(inner) = token else { continue };
        let is_line = match code.get(..at) {
            Some([.., TokenTree::Ident(name), mark]) => is_punct(mark, '!') && (name == "warn" || name == "error"),
            _ => false,
        };
        let inner: Vec<TokenTree> = inner.stream().into_iter().collect();
        match group(token, Delimiter::Parenthesis).filter(|_| is_line) {
            Some(arguments) => found.push(arguments),
            None => found.extend(lines(&inner)),
        }
    }
    found
}

/// Whether a line has a field of this name: `name = value`, or `name` alone.
fn has_field(line: &[TokenTree], name: &str) -> bool {
    let is_name = |token: &TokenTree| matches!(token, TokenTree::Ident(ident) if ident == name);
    let ends = |token: Option<&TokenTree>| token.is_none_or(|token| is_punct(token, '=') || is_punct(token, ','));
    line.iter().enumerate().any(|(at, token)| is_name(token) && ends(line.get(at + 1)))
}

#[test]
fn lines_for_the_operator_say_what_to_do_and_link_to_the_runbook() {
    let (mut wrong, mut checked, mut used) = (Vec::new(), 0, Vec::new());
    for SourceFile { path, code, .. } in product_files() {
        if path.starts_with("sandbox") {
            continue;
        }
        for line in lines(&code) {
            checked += 1;
            let text = line.iter().cloned().collect::<proc_macro2::TokenStream>().to_string();
            let file = path.display().to_string();
            if let Some(exempt) = EXEMPT.iter().find(|(path, part, _)| file.contains(path) && text.contains(part)) {
                used.push(exempt.1);
            } else if !["remedy", "runbook"].iter().all(|field| has_field(&line, field)) {
                wrong.push(format!("{file}: {text}"));
            }
        }
    }
    assert!(checked > 40, "only {checked} lines were checked");
    assert!(wrong.is_empty(), "these lines lack `remedy` or `runbook`:\n{}", wrong.join("\n"));
    assert_eq!(used.len(), EXEMPT.len(), "exempt without need: all but {used:?}");
}

#[test]
fn finds_lines_and_their_fields_in_any_place() {
    let code = "fn f() { match x { A => tracing::warn!(remedy, runbook = %s, \"a\"), B => { error!(\"remedy\"); } } }";
    let code: Vec<TokenTree> = code.parse::<proc_macro2::TokenStream>().unwrap().into_iter().collect();
    let found = lines(&code);
    assert_eq!(found.len(), 2);
    assert!(has_field(&found[0], "remedy") && has_field(&found[0], "runbook") && !has_field(&found[1], "remedy"));
}
