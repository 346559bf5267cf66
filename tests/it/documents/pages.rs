//! Reads the Markdown pages of the repository: their headings, links and code blocks.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The folder of the repository.
pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One page.
pub(super) struct Page {
    /// The path within the repository, such as `config/guide/routing.md`.
    pub(super) name: String,
    /// Its Markdown.
    pub(super) text: String,
}

/// A fenced code block.
pub(super) struct Block {
    /// The info string, such as `toml fragment`.
    pub(super) info: String,
    /// The lines between the fences.
    pub(super) text: String,
    /// The line of the opening fence, from 1.
    pub(super) line: usize,
}

impl Page {
    /// Reads a page.
    pub(super) fn read(name: &str) -> Self {
        let text = std::fs::read_to_string(root().join(name)).unwrap_or_else(|err| panic!("{name}: {err}"));
        Self { name: name.to_owned(), text }
    }

    /// Returns the code blocks.
    pub(super) fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut is_open = false;
        for (number, line) in self.text.lines().enumerate() {
            match line.trim_start().strip_prefix("```") {
                Some(info) if !is_open => {
                    blocks.push(Block { info: info.trim().to_owned(), text: String::new(), line: number + 1 });
                    is_open = true;
                }
                Some(_) => is_open = false,
                None if is_open => blocks.last_mut().unwrap().text.extend([line, "\n"]),
                None => {}
            }
        }
        assert!(!is_open, "{}: a code block is not closed", self.name);
        blocks
    }

    /// Returns the blocks in one of these languages, whatever follows the language in their info strings.
    pub(super) fn blocks_in(&self, languages: &[&str]) -> Vec<Block> {
        let mut blocks = self.blocks();
        blocks.retain(|block| languages.contains(&block.info.split([' ', ',']).next().unwrap()));
        blocks
    }

    /// Returns the lines outside of code blocks.
    fn prose(&self) -> Vec<&str> {
        let mut is_code = false;
        let is_prose = |line: &&str| {
            let is_fence = line.trim_start().starts_with("```");
            is_code ^= is_fence;
            !is_code && !is_fence
        };
        self.text.lines().filter(is_prose).collect()
    }

    /// Returns the targets of the links and pictures.
    pub(super) fn links(&self) -> Vec<String> {
        let prose = self.prose().join("\n");
        // A link in a code span is an example.
        let outside: String = prose.split('`').step_by(2).collect();
        let markdown = outside.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        let html = ["src=\"", "href=\""].into_iter().flat_map(|begin| outside.split(begin).skip(1));
        let html = html.filter_map(|rest| rest.split_once('"'));
        markdown.chain(html).map(|(target, _)| target.to_owned()).collect()
    }

    /// Returns the anchors: of the headings, as GitHub and mdBook derive them, and those given as `<a id="…">`.
    pub(super) fn anchors(&self) -> Vec<String> {
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut anchors = Vec::new();
        for line in self.prose() {
            let title = line.trim_start_matches('#');
            if title.len() < line.len() && title.starts_with(' ') {
                let kept = |char: &char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_');
                let slug = title.trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-");
                let count = seen.entry(slug.clone()).or_default();
                anchors.push(if *count == 0 { slug } else { format!("{slug}-{count}") });
                *count += 1;
            }
            let given = line.split("id=\"").skip(1).filter_map(|rest| rest.split_once('"'));
            anchors.extend(given.map(|(id, _)| id.to_owned()));
        }
        anchors
    }
}

fn collect(folder: &str, names: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(root().join(folder)) else { return };
    for entry in entries {
        let name = format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap());
        if root().join(&name).is_dir() {
            collect(&name, names);
        } else if has_extension(&name, "md") {
            names.push(name);
        }
    }
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}

/// Returns the pages of the guide.
pub(super) fn guide() -> Vec<Page> {
    let mut names = Vec::new();
    collect("config/guide", &mut names);
    names.sort();
    assert!(!names.is_empty());
    names.iter().map(|name| Page::read(name)).collect()
}

/// Returns all pages that people read.
pub(super) fn all() -> Vec<Page> {
    let mut names: Vec<_> = ["README.md", "CHANGELOG.md", "src/README.md", "tests/README.md", "benches/README.md"]
        .map(str::to_owned)
        .into();
    collect(".github", &mut names);
    names.sort();
    let mut pages: Vec<_> = names.iter().map(|name| Page::read(name)).collect();
    pages.extend(guide());
    pages
}

/// Returns the path in the repository that a link of `page` leads to, and its anchor. `None` for a link to another host.
pub(super) fn resolve(page: &Page, link: &str) -> Option<(PathBuf, Option<String>)> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor.to_owned())));
    if path.is_empty() {
        return Some((PathBuf::from(&page.name), anchor));
    }
    let mut resolved = PathBuf::from(&page.name);
    resolved.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => assert!(resolved.pop(), "{}: {link} leaves the repository", page.name),
            name => resolved.push(name),
        }
    }
    Some((resolved, anchor))
}
