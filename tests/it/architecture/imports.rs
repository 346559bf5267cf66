//! Resolves imports to the files that define the imported names.
//!
//! A file *imports* another if one of its `use` items or paths resolves to an item that the other file defines. Re-exports
//! are followed: `super::Name` resolves to the sibling that defines `Name` when the parent only re-exports it. A parent's
//! `mod child;`, and its `pub use child::Name` when nothing else in the parent mentions `Name`, declare its contents and
//! are not imports. So a child may import what its parent's file defines, unless that file's own code uses the child. Then
//! what both need belongs in a file of its own.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, TokenTree};

use super::source::{SourceFile, group, is_punct};

/// A `use` item, with its groups expanded.
#[derive(Debug, Clone)]
struct Use {
    path: Vec<String>,
    /// The name in this file; `*` for a glob.
    name: String,
    is_public: bool,
}

/// The names of a file: what it defines, imports and mentions.
pub(super) struct Names {
    defined: BTreeSet<String>,
    uses: Vec<Use>,
    /// Paths of two and more segments outside `use` items.
    paths: Vec<Vec<String>>,
    /// Every identifier outside `use` items.
    mentioned: BTreeSet<String>,
}

const DEFINING_KEYWORDS: [&str; 8] = ["struct", "enum", "union", "trait", "type", "fn", "const", "static"];

impl Names {
    pub(super) fn read(code: &[TokenTree]) -> Self {
        let mut names =
            Self { defined: BTreeSet::new(), uses: Vec::new(), paths: Vec::new(), mentioned: BTreeSet::new() };
        for window in code.windows(2) {
            if let [TokenTree::Ident(keyword), TokenTree::Ident(name)] = window
                && DEFINING_KEYWORDS.contains(&keyword.to_string().as_str())
            {
                names.defined.insert(name.to_string());
            }
        }
        for window in code.windows(3) {
            if let [TokenTree::Ident(keyword), bang, TokenTree::Ident(name)] = window
                && keyword == "macro_rules"
                && is_punct(bang, '!')
            {
                names.defined.insert(name.to_string());
            }
        }
        names.visit(code);
        names
    }

    /// Returns the paths of `use` items and of expressions and types.
    pub(super) fn all_paths(&self) -> impl Iterator<Item = &[String]> {
        self.uses.iter().map(|import| import.path.as_slice()).chain(self.paths.iter().map(Vec::as_slice))
    }

    fn visit(&mut self, code: &[TokenTree]) {
        let mut at = 0;
        let mut is_public = false;
        while let Some(token) = code.get(at) {
            at += 1;
            match token {
                TokenTree::Group(group) => self.visit(&group.stream().into_iter().collect::<Vec<_>>()),
                TokenTree::Ident(word) if word == "pub" => {
                    is_public = true;
                    // `pub(in crate::config)` limits who sees the item; it imports nothing.
                    at += usize::from(code.get(at).is_some_and(|next| group(next, Delimiter::Parenthesis).is_some()));
                    continue;
                }
                TokenTree::Ident(word) if word == "use" => {
                    let length = code[at..].iter().take_while(|token| !is_punct(token, ';')).count();
                    expand_use(&code[at..at + length], &[], is_public, &mut self.uses);
                    at += length;
                }
                TokenTree::Ident(word) => {
                    let continues = at >= 2
                        && (is_punct(&code[at - 2], '.')
                            || is_punct(&code[at - 2], ':') && at >= 3 && is_punct(&code[at - 3], ':'));
                    let mut path = vec![word.to_string()];
                    while let [first, second, TokenTree::Ident(next), ..] = &code[at..]
                        && is_punct(first, ':')
                        && is_punct(second, ':')
                    {
                        path.push(next.to_string());
                        at += 3;
                    }
                    self.mentioned.extend(path.iter().cloned());
                    if path.len() > 1 && !continues {
                        self.paths.push(path);
                    }
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
            is_public = false;
        }
    }
}

/// Expands `a::{b, c::{self, d as e}}` into one [`Use`] per name.
fn expand_use(tree: &[TokenTree], prefix: &[String], is_public: bool, uses: &mut Vec<Use>) {
    for branch in tree.split(|token| is_punct(token, ',')) {
        let mut path = prefix.to_vec();
        let mut alias = None;
        let mut is_expanded = branch.is_empty();
        let mut tokens = branch.iter();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Ident(word) if word == "as" => alias = tokens.next().map(ToString::to_string),
                TokenTree::Ident(word) if word == "self" && !path.is_empty() => {}
                TokenTree::Ident(word) => path.push(word.to_string()),
                TokenTree::Punct(punct) if punct.as_char() == '*' => alias = Some("*".to_owned()),
                TokenTree::Group(group) => {
                    expand_use(&group.stream().into_iter().collect::<Vec<_>>(), &path, is_public, uses);
                    is_expanded = true;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
        if let Some(last) = path.last().filter(|_| !is_expanded) {
            uses.push(Use { name: alias.unwrap_or_else(|| last.clone()), path, is_public });
        }
    }
}

/// The product's files, and which of them imports which.
pub(super) struct ImportGraph {
    pub(super) files: Vec<SourceFile>,
    names: Vec<Names>,
    by_module: BTreeMap<Vec<String>, usize>,
    /// Importing file, imported file, imported names.
    pub(super) imports: BTreeMap<usize, BTreeMap<usize, BTreeSet<String>>>,
}

impl ImportGraph {
    pub(super) fn of(files: Vec<SourceFile>) -> Self {
        let names = files.iter().map(|file| Names::read(&file.code)).collect();
        let by_module = files.iter().enumerate().map(|(index, file)| (file.module.clone(), index)).collect();
        let mut graph = Self { files, names, by_module, imports: BTreeMap::new() };
        for file in 0..graph.files.len() {
            graph.add_imports(file);
        }
        graph
    }

    fn add_imports(&mut self, file: usize) {
        let names = &self.names[file];
        let module = &self.files[file].module;
        let mut found: Vec<(usize, String)> = Vec::new();
        for import in &names.uses {
            let Some((target, is_module)) = self.definition(file, &import.path, 0) else { continue };
            let target_module = &self.files[target].module;
            // Paths through an imported module are followed on their own; a glob takes everything.
            let names_a_module = is_module && import.name != "*";
            let is_listing =
                import.is_public && target_module.starts_with(module) && !names.mentioned.contains(&import.name);
            if !names_a_module && !is_listing {
                found.push((target, import.path.join("::")));
            }
        }
        for path in &names.paths {
            if let Some((target, _)) = self.definition(file, path, 0) {
                found.push((target, path.join("::")));
            }
        }
        let imports = self.imports.entry(file).or_default();
        for (target, name) in found {
            if target != file {
                imports.entry(target).or_default().insert(name);
            }
        }
    }

    /// Returns the file that defines what a path names, and whether it names the module itself. `None` for other crates,
    /// types of this file and local names.
    pub(super) fn definition(&self, file: usize, path: &[String], depth: usize) -> Option<(usize, bool)> {
        // Re-exports of re-exports; a real chain has three links.
        if depth > 8 {
            return None;
        }
        let (first, rest) = path.split_first()?;
        let module = &self.files[file].module;
        match first.as_str() {
            "crate" => self.descend(self.by_module[&Vec::new()], rest, depth),
            "self" => self.descend(file, rest, depth),
            "super" => self.descend(self.by_module[&module[..module.len().checked_sub(1)?]], rest, depth),
            _ if self.child(file, first).is_some() => self.descend(file, path, depth),
            _ => {
                let import = self.names[file].uses.iter().find(|import| import.name == *first)?;
                if import.path.first() == Some(first) {
                    return None;
                }
                self.definition(file, &[&import.path, rest].concat(), depth + 1)
            }
        }
    }

    fn child(&self, file: usize, name: &str) -> Option<usize> {
        self.by_module.get(&[self.files[file].module.clone(), vec![name.to_owned()]].concat()).copied()
    }

    /// Follows a path downwards from a module.
    fn descend(&self, file: usize, path: &[String], depth: usize) -> Option<(usize, bool)> {
        let Some((first, rest)) = path.split_first() else { return Some((file, true)) };
        if first == "super" {
            return self.definition(file, path, depth);
        }
        if let Some(child) = self.child(file, first) {
            return self.descend(child, rest, depth);
        }
        let names = &self.names[file];
        if names.defined.contains(first) {
            return Some((file, false));
        }
        if let Some(import) = names.uses.iter().find(|import| import.name == *first) {
            return self.definition(file, &[&import.path, rest].concat(), depth + 1);
        }
        // A name that no file defines in its text comes from a macro of this file.
        let globs = names.uses.iter().filter(|import| import.name == "*");
        let mut from_globs = globs.filter_map(|glob| {
            let (target, _) = self.definition(file, &glob.path, depth + 1)?;
            self.names[target].defined.contains(first).then_some((target, false))
        });
        Some(from_globs.next().unwrap_or((file, false)))
    }

    /// Returns the cycles: the largest sets of files in which each imports every other, directly or through others.
    pub(super) fn cycles(&self) -> Vec<BTreeSet<usize>> {
        let reached: Vec<BTreeSet<usize>> = (0..self.files.len()).map(|file| self.reachable(file)).collect();
        let mut cycles: Vec<BTreeSet<usize>> = Vec::new();
        for file in 0..self.files.len() {
            let cycle: BTreeSet<usize> =
                reached[file].iter().copied().filter(|other| reached[*other].contains(&file)).collect();
            if !cycle.is_empty() && !cycles.contains(&cycle) {
                cycles.push(cycle);
            }
        }
        cycles
    }

    fn reachable(&self, from: usize) -> BTreeSet<usize> {
        let mut reached = BTreeSet::new();
        let mut open = vec![from];
        while let Some(file) = open.pop() {
            let new = self.imports[&file].keys().filter(|target| reached.insert(**target));
            open.extend(new);
        }
        reached
    }

    /// Describes a cycle, one line per import.
    pub(super) fn describe(&self, cycle: &BTreeSet<usize>) -> String {
        let mut lines = Vec::new();
        for file in cycle {
            for (target, names) in self.imports[file].iter().filter(|(target, _)| cycle.contains(target)) {
                let names = names.iter().cloned().collect::<Vec<_>>().join(", ");
                lines.push(format!("  {} imports {} from {}", self.path(*file), names, self.path(*target)));
            }
        }
        lines.join("\n")
    }

    pub(super) fn path(&self, file: usize) -> std::path::Display<'_> {
        self.files[file].path.display()
    }

    /// Returns the types with inherent methods: the file that defines each and its name, with the files of its `impl`s.
    pub(super) fn inherent_impls(&self) -> BTreeMap<(usize, String), BTreeSet<usize>> {
        let mut impls: BTreeMap<_, BTreeSet<usize>> = BTreeMap::new();
        for (index, file) in self.files.iter().enumerate() {
            for path in inherent_impls(&file.code) {
                let name = path.last().unwrap().clone();
                let defined_here = path.len() == 1 && self.names[index].defined.contains(&name);
                let defining_file = if defined_here { None } else { self.definition(index, &path, 0) };
                impls
                    .entry((defining_file.map_or(index, |(defining_file, _)| defining_file), name))
                    .or_default()
                    .insert(index);
            }
        }
        impls
    }
}

/// Returns the type path of each `impl Type { … }` of a file.
pub(super) fn inherent_impls(code: &[TokenTree]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    // `-> impl Trait` is no item.
    let starts_an_item = |at: usize| {
        at == 0
            || is_punct(&code[at - 1], ';')
            || matches!(&code[at - 1], TokenTree::Group(_))
            || code[at - 1].to_string() == "unsafe"
    };
    let is_impl = |at: &usize| matches!(&code[*at], TokenTree::Ident(word) if word == "impl") && starts_an_item(*at);
    for start in (0..code.len()).filter(is_impl) {
        let mut depth = 0_u32;
        let mut path = Vec::new();
        let mut is_inherent = true;
        let mut after_type = false;
        for (at, token) in code.iter().enumerate().skip(start + 1) {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '<' => {
                    after_type |= !path.is_empty();
                    depth += 1;
                }
                TokenTree::Punct(punct) if punct.as_char() == '>' && !is_punct(&code[at - 1], '-') => depth -= 1,
                TokenTree::Ident(word) if depth == 0 && word == "for" => is_inherent = false,
                TokenTree::Ident(word) if depth == 0 && word == "where" => break,
                TokenTree::Ident(word) if depth == 0 && !after_type && word != "dyn" => path.push(word.to_string()),
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => break,
                TokenTree::Group(_) | TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
        if is_inherent && !path.is_empty() {
            found.push(path);
        }
    }
    found
}
