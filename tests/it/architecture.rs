//! Checks the source against the rules in `lib.rs`: which module may import which, no import cycles, a type's methods in
//! one file, where the sandbox may be named, which errors may carry the content of a secret, and what log lines must have.

mod imports;
mod log_lines;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use imports::{ImportGraph, Names, inherent_impls};
use proc_macro2::{TokenStream, TokenTree};
use source::{SourceFile, product_files, rust_files, source_folder, tokens, without_tests};

/// Returns the top-level modules that a file of `module` reaches by `crate::…` or `super::…`.
fn top_level_imports(module: &[String], code: &[TokenTree]) -> BTreeSet<String> {
    let names = Names::read(code);
    let absolute = |path: &[String]| {
        let supers = path.iter().take_while(|segment| *segment == "super").count();
        match path.first().map(String::as_str) {
            Some("crate") => path.get(1).cloned(),
            Some("super") if supers == module.len() => path.get(supers).cloned(),
            _ => None,
        }
    };
    names.all_paths().filter_map(absolute).collect()
}

/// Reads the table in `lib.rs`: each top-level module and what it may import. `None` means "anything".
fn table() -> BTreeMap<String, Option<BTreeSet<String>>> {
    let text = std::fs::read_to_string(source_folder().join("lib.rs")).unwrap();
    let exists =
        |module: &&str| source_folder().join(module).exists() || source_folder().join(format!("{module}.rs")).exists();
    let rows: Vec<(Vec<&str>, &str)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("//! ")?.split_once('→'))
        .map(|(modules, may)| (modules.split(',').map(str::trim).collect(), may.trim()))
        .filter(|(modules, _): &(Vec<&str>, _)| modules.iter().all(exists))
        .collect();
    let mut table = BTreeMap::new();
    let mut above = BTreeSet::new();
    for (modules, may) in rows {
        let allowed = match may {
            may if may.starts_with("anything") => None,
            "none" => Some(BTreeSet::new()),
            may if may.starts_with("all above") => Some(above.clone()),
            may => {
                let mut names: BTreeSet<String> = may.split(',').map(|name| name.trim().to_owned()).collect();
                // Any module above may have settings.
                if names.remove("the parts' settings") {
                    names.extend(above.iter().cloned());
                }
                Some(names)
            }
        };
        for module in modules {
            above.insert(module.to_owned());
            table.insert(module.to_owned(), allowed.clone());
        }
    }
    table
}

#[test]
fn modules_import_only_what_lib_rs_allows() {
    let table = table();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for SourceFile { path, module, code } in product_files() {
        let Some(top) = module.first() else { continue };
        let allowed = table.get(top).unwrap_or_else(|| panic!("lib.rs does not list the module of {}", path.display()));
        let Some(allowed) = allowed else { continue };
        checked += 1;
        for import in top_level_imports(&module, &code) {
            if import != *top && !allowed.contains(&import) {
                wrong.push(format!("{} imports {import}", path.display()));
            }
        }
    }
    assert!(checked > 50, "only {checked} files were checked");
    assert!(wrong.is_empty(), "the table in lib.rs does not allow:\n{}", wrong.join("\n"));
}

#[test]
fn imports_have_no_cycles() {
    let graph = ImportGraph::of(product_files());
    assert!(graph.files.len() > 200, "only {} files were found", graph.files.len());
    let cycles: Vec<String> = graph
        .cycles()
        .iter()
        .map(|cycle| format!("a cycle of {} files:\n{}", cycle.len(), graph.describe(cycle)))
        .collect();
    assert!(cycles.is_empty(), "{}", cycles.join("\n"));
}

#[test]
fn each_type_has_its_methods_in_one_file() {
    let graph = ImportGraph::of(product_files());
    let impls = graph.inherent_impls();
    assert!(impls.len() > 100, "only {} types with methods were found", impls.len());
    let mut wrong = Vec::new();
    for ((_, name), files) in impls.iter().filter(|(_, files)| files.len() > 1) {
        let files: Vec<String> = files.iter().map(|file| graph.path(*file).to_string()).collect();
        wrong.push(format!("{name} has methods in {}", files.join(", ")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn sandbox_imports_no_other_module_even_in_its_tests() {
    for path in rust_files(&source_folder().join("sandbox")) {
        let code = tokens(&path);
        let imported: Vec<String> =
            top_level_imports(&[], &code).into_iter().filter(|module| module != "sandbox").collect();
        assert!(imported.is_empty(), "{} imports {imported:?}", path.display());
        assert!(!mentions(&code, "signalr_gateway"), "{}", path.display());
    }
}

/// Whether an identifier contains `word` (lower case), in any case.
fn mentions(code: &[TokenTree], word: &str) -> bool {
    code.iter().any(|token| match token {
        TokenTree::Group(group) => mentions(&group.stream().into_iter().collect::<Vec<_>>(), word),
        TokenTree::Ident(_) | TokenTree::Literal(_) => token.to_string().to_lowercase().contains(word),
        TokenTree::Punct(_) => false,
    })
}

#[test]
fn sandbox_is_named_only_by_its_command() {
    for SourceFile { path, code, .. } in product_files() {
        // The log filter lists the modules that log, and the configuration recognizes the file of a sandbox.
        let others = ["lib.rs", "gateway/log_filter.rs", "config/syntax.rs"];
        let is_other = others.iter().any(|other| path == Path::new(other));
        let may_name_it = path.starts_with("sandbox") || path.starts_with("cli") || is_other;
        assert!(may_name_it || !mentions(&code, "sandbox"), "{} names the sandbox", path.display());
        let is_its_command = path == Path::new("cli/sandbox.rs") || path == Path::new("cli/sandbox_ready.rs");
        let may_import_it = is_its_command || !path.starts_with("cli");
        assert!(may_import_it || !top_level_imports(&[], &code).contains("sandbox"), "{}", path.display());
    }
}

/// The files that read secrets, keys and tokens. Their errors may not contain a library's error about these bytes.
const READERS_OF_SECRETS: [&str; 6] =
    ["credential", "files", "serve/certificate.rs", "serve/client_verifier.rs", "serve/tls_files.rs", "tls.rs"];

/// The errors that may be the source of another there: errors of the operating system, which contain no bytes of a file;
/// errors that `redact` has masked; our own; and those of the TLS library about settings.
const SOURCES: [&str; 17] = [
    "std::io::Error",
    "io::Error",
    "MaskedError",
    "FileError",
    "SecretError",
    "SecretSourceError",
    // Has errors of the operating system, of the resolver and of secrets, and masked texts.
    "ProxyError",
    "CertificateError",
    "CommandError",
    "TlsFileError",
    "NotAToken",
    // Has names of a certificate, made harmless.
    "RefusedCertificate",
    "NoResponse",
    "Box<ResponseError>",
    "TrustError",
    "rustls::Error",
    "CredentialProblem",
];

#[test]
fn errors_about_secrets_wrap_no_error_of_a_library() {
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for SourceFile { path, code, .. } in product_files() {
        if !READERS_OF_SECRETS.iter().any(|reader| path.starts_with(reader)) {
            continue;
        }
        let code = text(code);
        let has_errors = code.contains("thiserror::Error");
        // A field that thiserror makes the error's source: `source: T`, `#[source] T`, `#[from] T`.
        for mark in ["#[source]", "#[from]", " source:"] {
            for (at, _) in code.match_indices(mark) {
                let rest = code[at + mark.len()..].trim_start().trim_start_matches("source:").trim_start();
                let source = rest.split([',', ')', '}', ' ']).next().unwrap();
                let is_type = source.starts_with(char::is_uppercase) && source.contains(char::is_lowercase);
                let is_field = has_errors && (is_type || source.contains("::"));
                checked += 1;
                if is_field && !SOURCES.contains(&source) {
                    wrong.push(format!("{}: {mark} {source}", path.display()));
                }
            }
        }
        // Errors of parsers that may contain the parsed bytes.
        for leak in ["pem::Error", "serde_json::Error", "DecodeError", "Box<dyn Error"] {
            if code.contains(leak) {
                wrong.push(format!("{}: {leak}", path.display()));
            }
        }
    }
    assert!(checked > 10, "only {checked} error sources were checked");
    assert!(wrong.is_empty(), "these errors may contain a secret:\n{}", wrong.join("\n"));
}

/// Writes tokens as the source spaces them.
fn text(code: Vec<TokenTree>) -> String {
    let mut text = TokenStream::from_iter(code).to_string();
    for (spaced, written) in
        [(" ::", "::"), (":: ", "::"), ("# [", "#["), (" :", ":"), (" ,", ","), (" <", "<"), ("< ", "<"), (" >", ">")]
    {
        text = text.replace(spaced, written);
    }
    text
}

#[test]
fn production_build_leaves_out_what_only_the_sandbox_needs() {
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let manifest: toml_edit::ImDocument<String> = toml_edit::ImDocument::parse(manifest).unwrap();
    let dependencies = manifest["dependencies"].as_table().unwrap();
    let feature = manifest["features"]["sandbox"].as_array().unwrap();
    let optional: Vec<&str> =
        feature.iter().filter_map(|dependency| dependency.as_str()?.strip_prefix("dep:")).collect();
    assert!(!optional.is_empty());
    for name in optional {
        assert_eq!(dependencies[name].get("optional").and_then(toml_edit::Item::as_bool), Some(true), "{name}");
    }
    for banned in ["reqwest", "openssl", "native-tls", "ring"] {
        assert!(!dependencies.contains_key(banned), "{banned}");
    }
}

#[test]
fn parses_every_form_of_import() {
    let code = "use crate::a::{b, c}; fn f() { crate::d::e() } use crate::{g, h::{i, j}, k as l}; \
        pub(in crate::m) struct S; #[cfg(test)] mod tests { use crate::n; } #[cfg(any(test, fuzzing))] use crate::{o}; \
        struct T { #[cfg(test)] count: crate::p::Count, rest: super::super::q::R } #[cfg(unix)] use crate::r; \
        // crate::s \n const TEXT: &str = \"crate::t\";";
    let code: Vec<TokenTree> = code.parse::<TokenStream>().unwrap().into_iter().collect();
    let found = top_level_imports(&["x".to_owned(), "y".to_owned()], &without_tests(&code));
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["a", "d", "g", "h", "k", "q", "r"]);
}

/// Builds a graph of files given as module path and text.
fn graph(files: &[(&str, &str)]) -> ImportGraph {
    let file = |(module, text): &(&str, &str)| SourceFile {
        path: format!("{module}.rs").into(),
        module: module.split("::").filter(|segment| !segment.is_empty()).map(str::to_owned).collect(),
        code: text.parse::<TokenStream>().unwrap().into_iter().collect(),
    };
    ImportGraph::of([("", "")].iter().chain(files).map(file).collect())
}

#[test]
fn imports_resolve_to_the_file_that_defines_the_name() {
    let graph = graph(&[
        ("a", "mod b; mod c; mod d; pub use b::B; use d::D; pub struct A { d: D }"),
        ("a::b", "use super::c; pub struct B(c::C);"),
        ("a::c", "use crate::a::{A, B}; pub struct C;"),
        ("a::d", "pub struct D;"),
    ]);
    let lines = graph.describe(&(0..graph.files.len()).collect());
    let expected = [
        // `pub use b::B` only lists what the module has.
        "  a.rs imports d::D from a::d.rs",
        "  a::b.rs imports c::C from a::c.rs",
        "  a::c.rs imports crate::a::A from a.rs",
        "  a::c.rs imports crate::a::B from a::b.rs",
    ];
    assert_eq!(lines.lines().collect::<Vec<_>>(), expected);
    let cycles: Vec<Vec<usize>> = graph.cycles().into_iter().map(|cycle| cycle.into_iter().collect()).collect();
    assert_eq!(cycles, [[2, 3]]);
}

#[test]
fn distinguishes_inherent_impls_from_trait_impls() {
    let code = "impl A { fn f() -> impl Iterator { g() } } impl<T: Fn() -> u8> b::B<T> where T: for<'a> C<'a> {} \
        impl Display for D {} impl<'a> From<&'a E> for F {} fn h() -> impl Future { i } unsafe impl Send for G {}";
    let code: Vec<TokenTree> = code.parse::<TokenStream>().unwrap().into_iter().collect();
    let expected = [vec!["A".to_owned()], vec!["b".to_owned(), "B".to_owned()]];
    assert_eq!(inherent_impls(&code), expected);
}
