//! Loads the sources and turns them into settings. Keeps included files, so that a reload parses only those that changed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use figment::value::Value;

use super::document::Document;
use super::file::ConfigFile;
use super::included::{Draft, FilePattern, Fragment, IncludedSchema, Scan};
use super::loaded::{Loaded, Values};
use super::lower::{self, Memo};
use super::merged::{Merged, Override};
use super::problem::{ConfigError, Problem, is_stdin};
use super::sources::{IncludedNames, Overrides, Sources, read_included};
use super::structure::{self, Checked};
use super::syntax::not_a_gateway;
use super::tree::Tree;
use crate::files::Stamp;

/// How long files must stay the same before a change is loaded, so that one that takes several steps is loaded once. Chosen:
/// Kubernetes replaces the links of a volume within milliseconds.
const SETTLE: Duration = Duration::from_millis(100);
/// The maximum number of times that a change is waited for. Files that never stop changing are loaded after two seconds.
const MAX_LOOKS: usize = 20;
/// A file that changed this shortly before it was read may have changed again without another time of change. Chosen: longer than
/// the resolution of any file system's clock.
const DOUBT: Duration = Duration::from_secs(2);

/// Loads configurations from the same sources, one after the other.
#[derive(Debug)]
pub struct Loader {
    sources: Sources,
    /// Whether this host may lack files, secrets and variables that the gateway's host has.
    allows_absent: bool,
    schema: Arc<IncludedSchema>,
    /// The included files of the last load, by path.
    cache: HashMap<PathBuf, (Stamp, Arc<Fragment>)>,
    /// The included files that must be read again, because they changed just before they were read.
    doubtful: Vec<PathBuf>,
    /// The folders of `include` that had files. One that vanishes is an error: an unmounted volume must remove no endpoint.
    folders: HashSet<PathBuf>,
    /// What the last load that had no problem found out.
    memo: Memo,
    seen: Seen,
}

/// The files as the last load found them.
#[derive(Debug, Default)]
struct Seen {
    text: Option<String>,
    patterns: Vec<FilePattern>,
    scan: Scan,
    /// Whether a file changed between being found and being read.
    is_outdated: bool,
}

/// What an included file is before it is validated.
enum Content {
    Kept(Stamp, Arc<Fragment>),
    New(Option<Stamp>, Box<Draft>),
}

impl Loader {
    /// Creates a loader.
    pub fn new(sources: Sources) -> Self {
        Self::with_schema(sources, Arc::new(IncludedSchema::new()))
    }

    /// Creates a loader for a host that is not the gateway's: files, secrets and variables that it lacks are warnings.
    pub(super) fn of_other_host(sources: Sources) -> Self {
        Self { allows_absent: true, ..Self::new(sources) }
    }

    fn with_schema(sources: Sources, schema: Arc<IncludedSchema>) -> Self {
        Self {
            sources,
            allows_absent: false,
            schema,
            cache: HashMap::new(),
            doubtful: Vec::new(),
            folders: HashSet::new(),
            memo: Memo::default(),
            seen: Seen::default(),
        }
    }

    /// Returns a loader of the same sources that has loaded nothing yet.
    #[must_use]
    pub fn restarted(&self) -> Self {
        Self::with_schema(self.sources.clone(), Arc::clone(&self.schema))
    }

    /// Reads and loads the configuration. Performs no network I/O.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem of every source.
    pub fn load(&mut self) -> Result<Loaded, ConfigError> {
        let text = self.sources.read()?;
        self.load_text(text)
    }

    /// Loads the configuration again if a file changed, or in any case if `is_requested`: then reads all files. Returns `None` if
    /// nothing is to be loaded. Blocks until the files stay the same.
    pub fn reload(&mut self, is_requested: bool) -> Option<Result<Loaded, ConfigError>> {
        self.reload_settled(is_requested, &mut || std::thread::sleep(SETTLE))
    }

    /// Like [`Loader::reload`]; `wait` passes the time between two looks at the files.
    pub(super) fn reload_settled(
        &mut self,
        is_requested: bool,
        wait: &mut dyn FnMut(),
    ) -> Option<Result<Loaded, ConfigError>> {
        let text = match self.read_again(is_requested) {
            Ok(text) => text,
            // A file is missing for a moment while it is being replaced.
            Err(_) if !is_requested => return None,
            Err(err) => return Some(Err(err)),
        };
        if is_requested {
            self.cache.clear();
            self.folders.clear();
            self.memo = Memo::default();
            return Some(self.load_text(text));
        }
        let scan = self.scan(&self.seen.patterns);
        if !self.resolve_doubts() && text == self.seen.text && scan == self.seen.scan && !self.seen.is_outdated {
            return None;
        }
        let mut looked = (text, scan);
        for _ in 0..MAX_LOOKS {
            wait();
            let Ok(text) = self.read_again(is_requested) else { continue };
            let now = (text, self.scan(&self.seen.patterns));
            if now == looked {
                break;
            }
            looked = now;
        }
        // Loads the text that was compared. The file may have changed since; then the next call loads it.
        Some(self.load_text(looked.0))
    }

    /// Reads the main file again. Stdin was read once: unless a reload is requested, its text is the same, and included files may
    /// have changed.
    fn read_again(&self, is_requested: bool) -> Result<Option<String>, ConfigError> {
        if !is_requested && self.sources.is_stdin() {
            return Ok(self.seen.text.clone());
        }
        self.sources.read_again()
    }

    fn scan(&self, patterns: &[FilePattern]) -> Scan {
        Scan::of(patterns, self.sources.file.as_deref())
    }

    /// Reads again what changed just before it was read. Returns whether a file has other content now.
    fn resolve_doubts(&mut self) -> bool {
        let mut has_changed = false;
        for path in std::mem::take(&mut self.doubtful) {
            let Some((_, fragment)) = self.cache.get(&path) else { continue };
            if read_included(&path).is_ok_and(|(text, _)| !fragment.has_text(&text)) {
                has_changed = true;
                self.cache.remove(&path);
            }
        }
        has_changed
    }

    /// Loads the configuration; `text` is the content of the main file.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem of every source.
    pub(super) fn load_text(&mut self, text: Option<String>) -> Result<Loaded, ConfigError> {
        if text != self.seen.text {
            self.memo = Memo::default();
        }
        self.seen = Seen { text: text.clone(), ..Seen::default() };
        let document = match (&self.sources.file, text) {
            (Some(path), Some(text)) => Some(Document::parse(path, text).map_err(ConfigError::single)?),
            (_, None) | (None, _) => None,
        };
        let other = document.as_ref().and_then(|document| not_a_gateway(document.path(), document.table()));
        if let Some(problem) = other {
            return Err(ConfigError::single(problem));
        }
        let (items, base) = self.include(document.as_ref());
        let patterns: Vec<_> = items.iter().map(|item| FilePattern::parse(item, &base)).collect();
        let valid: Vec<FilePattern> = patterns.iter().filter_map(|pattern| pattern.clone().ok()).collect();
        let scan = self.scan(&valid);
        let (fragments, overrides) = self.fragments(document.as_ref(), &scan);

        let main = Merged::main(document, &overrides);
        let (mut problems, mut warnings) = (Vec::new(), Vec::new());
        report_patterns(&patterns, &scan, &self.folders, &main, &mut problems, &mut warnings);
        self.seen.patterns = valid;
        self.seen.scan = scan;
        let Checked { root, invalid, problems: of_main, warnings: ignored } =
            structure::check(&main, self.schema.main(), None);
        let (tree, taken) = Tree::new(main, fragments);
        problems.extend(taken);
        warnings.extend(ignored);

        // The problems and the invalid values of all files, with indexes through all files.
        let files = tree.fragments().iter().enumerate().map(|(index, fragment)| {
            (Some(index), fragment.problems.as_slice(), fragment.invalid.as_slice(), fragment.warnings.as_slice())
        });
        let files = files.chain([(None, of_main.as_slice(), invalid.as_slice(), [].as_slice())]);
        let mut placeholders = BTreeSet::new();
        for (file, found, invalid, ignored) in files {
            let shown = |problem: &Problem| Problem { key: tree.global_key(&problem.key, file), ..problem.clone() };
            problems.extend(found.iter().map(shown));
            warnings.extend(ignored.iter().map(shown));
            placeholders.extend(invalid.iter().map(|path| tree.global_path(path.clone(), file)));
        }

        let file = match root.deserialize::<ConfigFile>() {
            Ok(file) => put_together(file, tree.fragments()),
            // Invalid values were removed, so this is a bug.
            Err(err) => {
                problems.push(structure::bug(&err, None));
                return Err(ConfigError { problems });
            }
        };
        let mut context = lower::Context::new(
            &tree,
            placeholders,
            &self.sources.environment,
            self.sources.absolute_folder(),
            std::mem::take(&mut self.memo),
        );
        if self.allows_absent {
            context.allow_absent();
        }
        let (mut settings, tests) = lower::lower(&file, &mut context);
        settings.file = self.sources.absolute_file();
        problems.append(&mut context.problems);
        if problems.is_empty() {
            lower::run_tests(&tests, &settings, &mut context);
            problems.append(&mut context.problems);
        }
        warnings.append(&mut context.warnings);
        if problems.is_empty() {
            let displayed = std::mem::take(&mut context.displayed_values);
            self.memo = std::mem::take(&mut context.memo);
            let parents = tree.fragments().iter().filter_map(|fragment| fragment.path.parent());
            self.folders = parents.map(Path::to_owned).collect();
            let absent = std::mem::take(&mut context.absent);
            let included = tree.fragments().iter().map(|fragment| fragment.path.clone());
            let sources = self.sources.file.iter().filter(|path| !is_stdin(path)).cloned().chain(included).collect();
            let files = std::mem::take(&mut context.files);
            let values = Values::new(tree, root, displayed, Arc::clone(&self.schema));
            return Ok(Loaded { settings, warnings, absent, files, sources, values });
        }
        // The next load continues from here.
        self.memo = std::mem::take(&mut context.memo);
        self.memo.add(std::mem::take(&mut context.last));
        problems.sort_by(|one, other| (&one.origin, &one.key).cmp(&(&other.origin, &other.key)));
        problems.dedup();
        Err(ConfigError { problems })
    }

    /// Returns the items of `include`, and the folder that they are relative to. Items of another type are left out; the
    /// validation reports them.
    fn include(&self, document: Option<&Document>) -> (Vec<String>, PathBuf) {
        let none = IncludedNames::default();
        let overrides = self.sources.overrides(&HashSet::new(), document.map(Document::table), &none).main;
        if let Some(value) = overrides.iter().rfind(|value| value.key == "include") {
            let Ok(parsed) = value.value.parse::<Value>();
            let items = parsed.as_array().unwrap_or_default().iter();
            return (items.filter_map(|item| item.as_str().map(str::to_owned)).collect(), PathBuf::new());
        }
        let items = document.and_then(|document| document.table().get("include")?.as_array());
        let items = items.into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned));
        (items.collect(), self.sources.folder())
    }

    /// Reads the included files that changed and validates them. Returns all of them, and what overrides the main file.
    fn fragments(&mut self, document: Option<&Document>, scan: &Scan) -> (Vec<Arc<Fragment>>, Vec<Override>) {
        let mut contents: Vec<(&Path, Content)> = Vec::with_capacity(scan.files.len());
        for found in &scan.files {
            let content = self.content(&found.path, found.stamp);
            contents.push((&found.path, content));
        }
        let mut secrets: HashSet<&str> = HashSet::new();
        let mut names = IncludedNames::default();
        for (index, (_, content)) in contents.iter().enumerate() {
            let (of_file, secret_variables) = match content {
                Content::Kept(_, fragment) => (&fragment.names, fragment.secret_variables.as_slice()),
                Content::New(_, draft) => (draft.names(), draft.secret_variables()),
            };
            for name in &of_file.endpoints {
                names.endpoints.entry(name).or_insert(index);
            }
            for name in &of_file.credentials {
                names.credentials.entry(name).or_insert(index);
            }
            secrets.extend(secret_variables.iter().map(String::as_str));
        }
        let of_main = document.map(Document::secret_variables).unwrap_or_default();
        secrets.extend(of_main.iter().map(String::as_str));
        let Overrides { main, mut included } = self.sources.overrides(&secrets, document.map(Document::table), &names);
        drop((secrets, names));

        let (mut fragments, mut cache) = (Vec::with_capacity(contents.len()), HashMap::with_capacity(contents.len()));
        for (index, (path, content)) in contents.into_iter().enumerate() {
            let overrides = included.remove(&index).unwrap_or_default();
            let (stamp, fragment) = match content {
                Content::Kept(stamp, fragment) if fragment.has_overrides(&overrides) => (Some(stamp), fragment),
                Content::Kept(stamp, fragment) => {
                    (Some(stamp), Arc::new(fragment.draft().check(path, overrides, &self.schema)))
                }
                Content::New(stamp, draft) => (stamp, Arc::new(draft.check(path, overrides, &self.schema))),
            };
            if let Some(stamp) = stamp.filter(|_| fragment.is_parsed) {
                cache.insert(path.to_owned(), (stamp, Arc::clone(&fragment)));
            }
            fragments.push(fragment);
        }
        self.cache = cache;
        (fragments, main)
    }

    /// Returns the content of an included file. Reads it only if it changed.
    fn content(&mut self, path: &Path, found: Option<Stamp>) -> Content {
        let kept = self.cache.get(path);
        if let (Some((known, fragment)), Some(stamp)) = (kept, found)
            && *known == stamp
        {
            return Content::Kept(stamp, Arc::clone(fragment));
        }
        match read_included(path) {
            Ok((text, stamp)) => {
                self.seen.is_outdated |= found != Some(stamp);
                if stamp.changed_within(DOUBT) {
                    self.doubtful.push(path.to_owned());
                }
                match kept.filter(|(_, fragment)| fragment.has_text(&text)) {
                    Some((_, fragment)) => Content::Kept(stamp, Arc::clone(fragment)),
                    None => Content::New(Some(stamp), Box::new(Draft::new(path, Ok(text)))),
                }
            }
            Err(problem) => {
                self.seen.is_outdated |= found.is_some();
                Content::New(None, Box::new(Draft::new(path, Err(problem))))
            }
        }
    }
}

/// Reports the items of `include` that are invalid, whose folder cannot be read, or that match no file.
fn report_patterns(
    patterns: &[Result<FilePattern, (String, String)>],
    scan: &Scan,
    folders: &HashSet<PathBuf>,
    main: &Merged,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) {
    let problem = |item: usize, fact: String, fix: String| {
        let key = ["include".to_owned(), item.to_string()];
        Problem { key: key.join("."), fact, origin: main.origin_of(&key), fix }
    };
    for (item, pattern) in patterns.iter().enumerate() {
        if let Err((fact, fix)) = pattern {
            problems.push(problem(item, fact.clone(), fix.clone()));
        }
    }
    let valid: Vec<usize> = (0..patterns.len()).filter(|item| patterns.get(*item).is_some_and(Result::is_ok)).collect();
    let item = |index: usize| valid.get(index).copied().unwrap_or(index);
    for (index, fact) in &scan.unreadable {
        let fix = "check that the gateway's user may read it".to_owned();
        problems.push(problem(item(*index), fact.clone(), fix));
    }
    for (index, has_folder) in &scan.without_file {
        let pattern = patterns.get(item(*index)).and_then(|pattern| pattern.as_ref().ok());
        if let Some(FilePattern::Folder { folder, .. }) = pattern
            && !has_folder
            && folders.contains(folder)
        {
            let fact = format!("the folder {} had files and does not exist any more", folder.display());
            let fix = "mount it again, or remove the pattern".to_owned();
            problems.push(problem(item(*index), fact, fix));
            continue;
        }
        let fact = if *has_folder { "matches no file" } else { "matches no file: the folder does not exist" };
        let fix = "add a file, or remove the pattern".to_owned();
        warnings.push(problem(item(*index), fact.to_owned(), fix));
    }
}

/// Adds the entries of included files to those of the main file. The first entry of a name counts; the others are reported.
fn put_together(mut file: ConfigFile, fragments: &[Arc<Fragment>]) -> ConfigFile {
    let mut routes = Vec::new();
    let mut tests = Vec::new();
    for fragment in fragments {
        for (name, credential) in &fragment.file.credentials {
            file.credentials.entry(name.clone()).or_insert_with(|| Arc::clone(credential));
        }
        for (name, endpoint) in &fragment.file.endpoints {
            file.endpoints.entry(name.clone()).or_insert_with(|| Arc::clone(endpoint));
        }
        routes.extend(fragment.file.routes.iter().cloned());
        tests.extend(fragment.file.tests.iter().cloned());
    }
    routes.append(&mut file.routes);
    tests.append(&mut file.tests);
    ConfigFile { routes, tests, ..file }
}
