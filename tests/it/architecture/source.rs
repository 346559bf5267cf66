//! Reads the source as token trees: the module tree that the compiler follows, without the parts built only for tests.

use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// A source file of the product.
pub(super) struct SourceFile {
    /// The path below `src`.
    pub(super) path: PathBuf,
    /// The module path, without `crate`.
    pub(super) module: Vec<String>,
    /// The tokens outside `#[cfg(test)]` items.
    pub(super) code: Vec<TokenTree>,
}

pub(super) fn source_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Returns every Rust file below a folder, test files included.
pub(super) fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Parses a file. Comments are no tokens, and doc comments are removed.
pub(super) fn tokens(path: &Path) -> Vec<TokenTree> {
    let text = std::fs::read_to_string(path).unwrap();
    let stream = text.parse::<TokenStream>().unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    without_docs(stream)
}

fn without_docs(stream: TokenStream) -> Vec<TokenTree> {
    let is_doc = |content: &[TokenTree]| matches!(content, [TokenTree::Ident(name), ..] if name == "doc");
    let mut kept: Vec<TokenTree> = Vec::new();
    for token in stream {
        match token {
            TokenTree::Group(group) => {
                let inner: Vec<TokenTree> = without_docs(group.stream());
                if group.delimiter() == Delimiter::Bracket && is_doc(&inner) {
                    let marks = kept.iter().rev().take_while(|token| is_punct(token, '#') || is_punct(token, '!'));
                    kept.truncate(kept.len() - marks.count());
                } else {
                    kept.push(TokenTree::Group(Group::new(group.delimiter(), inner.into_iter().collect())));
                }
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => kept.push(token),
        }
    }
    kept
}

/// Returns the product's files below `src`, found by following `mod` declarations from `lib.rs`.
pub(super) fn product_files() -> Vec<SourceFile> {
    let root = SourceFile {
        path: PathBuf::from("lib.rs"),
        module: Vec::new(),
        code: without_tests(&tokens(&source_folder().join("lib.rs"))),
    };
    let mut files = vec![root];
    let mut next = 0;
    while next < files.len() {
        let parent = &files[next];
        let folder = match parent.path.file_stem().and_then(|stem| stem.to_str()).unwrap() {
            "lib" | "mod" => parent.path.parent().unwrap().to_owned(),
            stem => parent.path.parent().unwrap().join(stem),
        };
        let children: Vec<SourceFile> = declared_modules(&parent.code)
            .into_iter()
            .map(|name| {
                let candidates = [folder.join(format!("{name}.rs")), folder.join(&name).join("mod.rs")];
                let path = candidates.into_iter().find(|path| source_folder().join(path).exists());
                let path = path.unwrap_or_else(|| panic!("no file for module {name} of {}", parent.path.display()));
                let code = without_tests(&tokens(&source_folder().join(&path)));
                SourceFile { path, module: [parent.module.clone(), vec![name]].concat(), code }
            })
            .collect();
        files.extend(children);
        next += 1;
    }
    files
}

/// Returns the names of the modules that a file declares (`mod name;`).
fn declared_modules(code: &[TokenTree]) -> Vec<String> {
    let declaration = |window: &[TokenTree]| match window {
        [TokenTree::Ident(keyword), TokenTree::Ident(name), after] if keyword == "mod" => {
            assert!(
                is_punct(after, ';'),
                "the module {name} is inline: give it a file, so that imports can be followed"
            );
            Some(name.to_string())
        }
        _ => None,
    };
    code.windows(3).filter_map(declaration).collect()
}

pub(super) fn is_punct(token: &TokenTree, expected: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == expected)
}

pub(super) fn group(token: &TokenTree, delimiter: Delimiter) -> Option<Vec<TokenTree>> {
    let TokenTree::Group(group) = token else { return None };
    (group.delimiter() == delimiter).then(|| group.stream().into_iter().collect())
}

/// Removes the items, fields and statements that only test builds contain.
pub(super) fn without_tests(code: &[TokenTree]) -> Vec<TokenTree> {
    let mut kept = Vec::new();
    let mut rest = code;
    while let [first, after @ ..] = rest {
        rest = after;
        if let [attribute, after @ ..] = after
            && is_punct(first, '#')
            && is_for_tests(attribute)
        {
            rest = skip_item(after);
        } else if let TokenTree::Group(group) = first {
            let inner: Vec<TokenTree> = group.stream().into_iter().collect();
            let inner = without_tests(&inner).into_iter().collect();
            kept.push(TokenTree::Group(Group::new(group.delimiter(), inner)));
        } else {
            kept.push(first.clone());
        }
    }
    kept
}

/// Whether an attribute is `[cfg(test)]` or another condition on `test`.
fn is_for_tests(attribute: &TokenTree) -> bool {
    let Some(content) = group(attribute, Delimiter::Bracket) else { return false };
    let [TokenTree::Ident(name), condition] = content.as_slice() else { return false };
    let condition = condition.to_string();
    let mut words = condition.split(|c: char| !c.is_alphanumeric() && c != '_');
    name == "cfg" && words.any(|word| word == "test")
}

/// Returns what follows the item, field or statement at the start.
fn skip_item(code: &[TokenTree]) -> &[TokenTree] {
    let (mut ends_with_semicolon, mut is_item) = (false, false);
    for (at, token) in code.iter().enumerate() {
        if let TokenTree::Ident(word) = token {
            let word = word.to_string();
            is_item |= ["fn", "impl", "struct", "enum", "trait", "mod"].contains(&word.as_str());
            ends_with_semicolon |= !is_item && ["use", "const", "static", "let", "type"].contains(&word.as_str());
        }
        let ends = is_punct(token, ';')
            || (is_punct(token, ',') && !is_item && !ends_with_semicolon)
            || (group(token, Delimiter::Brace).is_some() && (is_item || !ends_with_semicolon));
        if ends {
            return &code[at + 1..];
        }
    }
    &[]
}
