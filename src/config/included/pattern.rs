//! Finds the files that `include` names.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::files::Stamp;
use crate::route::{Case, Pattern};

/// An item of `include`: a file, or all files of a folder whose names match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) enum FilePattern {
    /// A file, which must exist.
    File(PathBuf),
    /// The files of a folder whose names match.
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The pattern of their names.
        names: Pattern,
    },
}

impl FilePattern {
    /// Parses an item. `base` is the folder that relative paths are relative to.
    ///
    /// # Errors
    /// The fact and the fix, if the item is no pattern.
    pub(in crate::config) fn parse(text: &str, base: &Path) -> Result<Self, (String, String)> {
        let path = Path::new(text);
        let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|_| !text.ends_with('/')) else {
            let fix = "write the path of a file, or a pattern such as `tenants.d/*.toml`";
            return Err((format!("`{text}` names no file"), fix.to_owned()));
        };
        let folder = path.parent().unwrap_or(Path::new(""));
        if folder.to_string_lossy().contains('*') {
            let fix = "write one pattern for each folder";
            return Err((format!("`{text}` has a `*` in the name of a folder"), fix.to_owned()));
        }
        if !name.contains('*') {
            return Ok(Self::File(base.join(path)));
        }
        Ok(Self::Folder { folder: base.join(folder), names: Pattern::new(name, Case::Sensitive) })
    }
}

/// A file that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Found {
    /// Its path.
    pub(in crate::config) path: PathBuf,
    /// Its metadata; `None` if it cannot be examined, such as a link to a missing file.
    pub(in crate::config) stamp: Option<Stamp>,
}

/// The files that `include` names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::config) struct Scan {
    /// The files: in the order of the patterns, and by name within one. Each appears once.
    pub(in crate::config) files: Vec<Found>,
    /// The indexes of the patterns that match no file, and whether their folder exists.
    pub(in crate::config) without_file: Vec<(usize, bool)>,
    /// The indexes of the patterns whose folder cannot be read, and why.
    pub(in crate::config) unreadable: Vec<(usize, String)>,
}

impl Scan {
    /// Finds the files. Leaves out `main`, and files whose name begins with a dot.
    pub(in crate::config) fn of(patterns: &[FilePattern], main: Option<&Path>) -> Self {
        let mut scan = Self::default();
        let mut paths = HashSet::new();
        for (index, pattern) in patterns.iter().enumerate() {
            let found = match pattern {
                FilePattern::File(path) => vec![path.clone()],
                FilePattern::Folder { folder, names } => match files(folder, names) {
                    Ok(found) => found,
                    Err(err) if err.kind() == io::ErrorKind::NotFound => {
                        scan.without_file.push((index, false));
                        continue;
                    }
                    Err(err) => {
                        scan.unreadable.push((index, format!("the folder {} cannot be read: {err}", folder.display())));
                        continue;
                    }
                },
            };
            let found: Vec<_> = found.into_iter().filter(|path| main != Some(path)).collect();
            if found.is_empty() {
                scan.without_file.push((index, true));
            }
            for path in found {
                if paths.insert(path.clone()) {
                    let stamp = std::fs::metadata(&path).ok().as_ref().map(Stamp::of);
                    scan.files.push(Found { path, stamp });
                }
            }
        }
        scan
    }
}

/// Returns the files of a folder whose names match, sorted.
fn files(folder: &Path, names: &Pattern) -> io::Result<Vec<PathBuf>> {
    let is_here = folder.as_os_str().is_empty();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(if is_here { Path::new(".") } else { folder })? {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        // Editors and Kubernetes keep files of their own there.
        if !text.starts_with('.') && names.matches(&text) {
            found.push(name);
        }
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|name| folder.join(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(folder: &Path, patterns: &[&str]) -> (Vec<String>, Scan) {
        let patterns: Vec<_> = patterns.iter().map(|text| FilePattern::parse(text, folder).unwrap()).collect();
        let scan = Scan::of(&patterns, Some(&folder.join("gateway.toml")));
        let name = |found: &Found| found.path.strip_prefix(folder).unwrap().display().to_string();
        (scan.files.iter().map(name).collect(), scan)
    }

    #[test]
    fn finds_files_in_order_without_dot_files_the_main_file_and_repeats() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("d")).unwrap();
        for name in ["gateway.toml", "z.toml", "d/b.toml", "d/a.toml", "d/.c.toml", "d/a.toml~", "d/note.md"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let (names, found) = scan(folder.path(), &["d/b*.toml", "d/*.toml", "*.toml", "none/*.toml", "d/x*.toml"]);
        assert_eq!(names, ["d/b.toml", "d/a.toml", "z.toml"]);
        assert_eq!(found.without_file, [(3, false), (4, true)]);
        assert_eq!(scan(folder.path(), &["one.toml"]).1.files[0].stamp, None);
    }

    #[test]
    fn rejects_what_is_no_pattern_of_files() {
        for text in ["", "/", "tenants.d/", "*/a.toml", ".."] {
            assert!(FilePattern::parse(text, Path::new("/etc")).is_err(), "{text}");
        }
    }
}
