//! The shape of `src`, checked: a module uses lower rows only, every file says
//! what it is for and stays readable, and every metric is described.
//!
//! The rows are those of `lib.rs`. Paths are read with `syn`, outside
//! `cfg(test)` and `cfg(any(test, fuzzing))`: `crate::x`, chains of `super` that reach the root, and both
//! inside macros too.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

const ROWS: [&[&str]; 11] = [
    &[
        "proto",
        "drain",
        "clock",
        "budget",
        "net",
        "labour",
        "telemetry",
        "call",
    ],
    &["digest", "intake"],
    &["asset"],
    &["upstream", "embedded"],
    &["store", "fetcher"],
    &["resolver"],
    &["api", "forward", "middleware", "admin"],
    &["config"],
    &["server"],
    &["cli"],
    &["main"],
];

const LONGEST_FILE: usize = 400;

fn row(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

/// What is wrong with `from` using `to`, if anything.
fn verdict(from: &str, to: &str) -> Option<String> {
    let (Some(upper), Some(lower)) = (row(from), row(to)) else {
        return Some(format!(
            "`{from}` uses `{to}`: one of them has no row in tests/it/layers.rs"
        ));
    };
    (from != to && lower >= upper)
        .then(|| format!("`{from}` (row {upper}) uses `{to}` (row {lower}): only lower rows"))
}

/// Top-level modules that one file uses outside tests, and its test-only
/// child modules.
#[derive(Default)]
struct Uses {
    /// How deep below the crate root the code being visited is.
    depth: usize,
    modules: BTreeSet<String>,
    test_children: Vec<Child>,
}

/// A module in a file of its own.
enum Child {
    /// Found by its name.
    Module(String),
    /// Found by `#[path]`, beside the file that names it.
    File(String),
}

impl Child {
    fn of(module: &syn::ItemMod) -> Self {
        let path = module
            .attrs
            .iter()
            .find(|attribute| attribute.path().is_ident("path"));
        match path.and_then(|attribute| attribute.meta.require_name_value().ok()) {
            Some(syn::MetaNameValue {
                value:
                    syn::Expr::Lit(syn::ExprLit {
                        lit: syn::Lit::Str(file),
                        ..
                    }),
                ..
            }) => Self::File(file.value()),
            _ => Self::Module(module.ident.to_string()),
        }
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| {
                let text = list.tokens.to_string();
                let text = text.replace(' ', "");
                ["test", "any(test,fuzzing)"].contains(&&*text) || text.starts_with("all(test,")
            })
    })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

impl Uses {
    fn of(source: &str, depth: usize) -> Self {
        let file = syn::parse_file(source).expect("src parses");
        let mut uses = Self {
            depth,
            ..Self::default()
        };
        uses.visit_file(&file);
        uses
    }

    /// Takes the segments of a path, `crate` or `super` first.
    fn path(&mut self, segments: &[String]) {
        let supers = segments
            .iter()
            .take_while(|segment| *segment == "super")
            .count();
        let at_root = match segments.first().map(String::as_str) {
            Some("crate" | "assetgate") => Some(1),
            Some("super") if supers == self.depth => Some(supers),
            _ => None,
        };
        if let Some(module) = at_root.and_then(|at| segments.get(at)) {
            // `crate::Type` would be an item of lib.rs; there are none.
            self.modules.insert(module.clone());
        }
    }

    fn tree(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |ident: &syn::Ident| [before, &[ident.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.path(&with(&name.ident)),
            syn::UseTree::Rename(name) => self.path(&with(&name.ident)),
            syn::UseTree::Glob(_) => self.path(before),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|item| self.tree(before, item));
            }
        }
    }
}

impl<'ast> Visit<'ast> for Uses {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        } else if let syn::Item::Mod(module @ syn::ItemMod { content: None, .. }) = item {
            self.test_children.push(Child::of(module));
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_test(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.depth += 1;
        visit::visit_item_mod(self, module);
        self.depth -= 1;
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&[], &item.tree);
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {
        // `pub(in crate::x)` restricts, it does not use.
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        self.path(&segments);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let text = call.tokens.to_string();
        let words: Vec<&str> = text
            .split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
            .flat_map(|word| word.split("::"))
            .filter(|word| !word.is_empty())
            .collect();
        // Tokens print as `crate :: x`, so the word after `crate` is the module.
        for pair in words.windows(2) {
            if pair[0] == "crate" && row(pair[1]).is_some() {
                self.modules.insert(pair[1].to_owned());
            }
        }
        visit::visit_macro(self, call);
    }
}

struct Source {
    path: PathBuf,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    let mut directories = vec![root()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push(Source {
                    path: path.strip_prefix(root()).unwrap().to_owned(),
                    text,
                });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// `a/b.rs` and `a/b/mod.rs` are `[a, b]`.
fn module_path(path: &Path) -> Vec<String> {
    let mut parts: Vec<String> = path
        .with_extension("")
        .iter()
        .map(|part| part.to_str().unwrap().to_owned())
        .collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

/// What the files use, without those that are only built for tests: their
/// length and first line are nobody's worry.
fn used(sources: &[Source]) -> Vec<(&Source, Uses)> {
    let all: Vec<(&Source, Vec<String>, Uses)> = sources
        .iter()
        .map(|source| {
            let module = module_path(&source.path);
            let uses = Uses::of(&source.text, module.len());
            (source, module, uses)
        })
        .collect();
    let test_only: Vec<Vec<String>> = all
        .iter()
        .flat_map(|(source, module, uses)| {
            let beside = module_path(source.path.parent().unwrap());
            uses.test_children.iter().map(move |child| match child {
                Child::Module(name) if *module == ["lib"] => vec![name.clone()],
                Child::Module(name) => [module.as_slice(), std::slice::from_ref(name)].concat(),
                Child::File(name) => [beside.clone(), module_path(Path::new(name))].concat(),
            })
        })
        .collect();
    all.into_iter()
        .filter(|(_, module, _)| !test_only.iter().any(|test| module.starts_with(test)))
        .map(|(source, _, uses)| (source, uses))
        .collect()
}

/// Every forbidden edge, as a sentence each.
fn forbidden(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (source, uses) in used(sources) {
        let module = module_path(&source.path);
        for lower in uses.modules.iter().filter(|_| module != ["lib"]) {
            if let Some(text) = verdict(&module[0], lower) {
                wrong.push(format!("src/{}: {text}", source.path.display()));
            }
        }
    }
    wrong
}

fn source(path: &str, text: &str) -> Source {
    Source {
        path: path.into(),
        text: text.to_owned(),
    }
}

fn found_in(path: &str, text: &str) -> bool {
    !forbidden(&[source(path, text)]).is_empty()
}

#[test]
fn modules_use_lower_rows_only() {
    let wrong = forbidden(&sources());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_has_a_row() {
    let lib = syn::parse_file(&std::fs::read_to_string(root().join("lib.rs")).unwrap()).unwrap();
    let mut named: Vec<String> = vec!["main".to_owned()];
    for item in &lib.items {
        if let syn::Item::Mod(module) = item
            && !is_test(&module.attrs)
        {
            named.push(module.ident.to_string());
        }
    }
    let without: Vec<_> = named
        .iter()
        .filter(|module| row(module).is_none())
        .collect();
    assert!(
        without.is_empty(),
        "{without:?} stand in lib.rs but in no row"
    );
}

#[test]
fn the_checker_sees_every_way_to_use_a_module() {
    for (path, text) in [
        ("store/mod.rs", "use crate::resolver::X;"),
        ("store/mod.rs", "use crate::{digest, resolver as r};"),
        ("store/mod.rs", "pub(crate) use crate::api::*;"),
        ("store/mod.rs", "use crate::fetcher::Fetcher;"),
        ("store/a.rs", "fn f() -> crate::resolver::X { loop {} }"),
        ("store/a.rs", "fn f() { crate::api::go() }"),
        ("store/a.rs", "fn f() { x!(a, crate::api::go()) }"),
        ("store/a.rs", "use super::super::api::X;"),
        (
            "store/a.rs",
            "mod inner { use super::super::super::api::X; }",
        ),
        ("store.rs", "use super::api::X;"),
        ("server/a.rs", "use crate::cli::X;"),
        ("admin/mod.rs", "use crate::config::Config;"),
        ("admin/mod.rs", "use crate::api::X;"),
        ("proto.rs", "use crate::digest::X;"),
        ("main.rs", "fn main() { assetgate::nowhere::main() }"),
        ("unlisted.rs", "use crate::digest::X;"),
    ] {
        assert!(found_in(path, text), "{path}: {text}");
    }
}

#[test]
fn the_checker_leaves_the_rest_alone() {
    for (path, text) in [
        (
            "store/mod.rs",
            "use crate::{digest::Digest, asset::{Uri, AssetKey}};",
        ),
        (
            "store/a.rs",
            "use super::b::X; use crate::store::c::Y; use self::d::Z;",
        ),
        ("store/a.rs", "mod inner { use super::super::b::X; }"),
        (
            "store/a.rs",
            "#[cfg(test)] mod tests { use crate::api::X; }",
        ),
        (
            "store/a.rs",
            "#[cfg(test)] use crate::api::X; #[cfg(test)] fn f() { crate::api::g() }",
        ),
        (
            "store/a.rs",
            "impl A { #[cfg(test)] fn f() { crate::api::g() } }",
        ),
        ("store/a.rs", "use std::api::X; fn f() { resolver::x() }"),
        (
            "main.rs",
            "fn main() { assetgate::cli::main(assetgate::server::run) }",
        ),
    ] {
        assert!(!found_in(path, text), "{path}: {text}");
    }
    let parent = source("store/mod.rs", "#[cfg(test)] mod tests;");
    let child = source("store/tests.rs", "use crate::api::X;");
    assert!(
        forbidden(&[parent, child]).is_empty(),
        "a file of tests may use anything"
    );
    let parent = source(
        "store/a.rs",
        "#[cfg(test)] #[path = \"a_tests.rs\"] mod tests;",
    );
    let child = source("store/a_tests.rs", "use crate::api::X;");
    assert!(forbidden(&[parent, child]).is_empty(), "wherever it is");
    let parent = source("lib.rs", "#[cfg(any(test, fuzzing))] pub mod store;");
    let child = source("store.rs", "use crate::api::X;");
    assert!(forbidden(&[parent, child]).is_empty(), "from the root, too");
    let parent = source("store/mod.rs", "mod tests;");
    let child = source("store/tests.rs", "use crate::api::X;");
    assert!(
        !forbidden(&[parent, child]).is_empty(),
        "a name alone makes no test"
    );
}

/// The part of a file that is not its inline tests.
fn without_tests(text: &str) -> &str {
    text.split_once("\n#[cfg(test)]\nmod tests {")
        .map_or(text, |(code, _)| code)
}

#[test]
fn every_file_says_what_it_is_for() {
    let sources = sources();
    let files = used(&sources).into_iter().map(|(source, _)| source);
    let silent: Vec<_> = files
        .filter(|s| !s.text.starts_with("//! "))
        .map(|s| &s.path)
        .collect();
    assert!(silent.is_empty(), "{silent:?} must open with `//!`");
}

#[test]
fn no_file_is_too_long() {
    let sources = sources();
    let long: Vec<String> = used(&sources)
        .iter()
        .map(|(source, _)| (&source.path, without_tests(&source.text).lines().count()))
        .filter(|(_, lines)| *lines > LONGEST_FILE)
        .map(|(path, lines)| format!("{} has {lines} lines", path.display()))
        .collect();
    assert!(
        long.is_empty(),
        "more than {LONGEST_FILE} without tests: {}",
        long.join(", ")
    );
}

/// Names given as literals to the macros of `metrics`.
fn recorded(text: &str) -> Vec<&str> {
    ["counter!(", "gauge!(", "histogram!("]
        .iter()
        .flat_map(|call| text.split(call).skip(1))
        .filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next())
        .collect()
}

#[test]
fn every_metric_is_described() {
    let table = std::fs::read_to_string(root().join("telemetry/names.rs")).unwrap();
    let mut missing = BTreeSet::new();
    let sources = sources();
    for (source, _) in used(&sources) {
        for name in recorded(without_tests(&source.text)) {
            if !table.contains(&format!("\"{name}\"")) {
                missing.insert(format!("{name} in src/{}", source.path.display()));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "not in src/telemetry/names.rs: {missing:?}"
    );
    assert_eq!(
        recorded("x::counter!(\n \"a\", ..) histogram!(\"b\") gauge!(C)"),
        ["a", "b"]
    );
}
