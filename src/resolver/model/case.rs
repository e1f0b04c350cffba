//! What one case of the model is made of, and how cases are drawn. Smaller
//! numbers are simpler cases: proptest shrinks towards them.

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;

use crate::asset::{AssetKind, Qualifiers, Uri};

/// The URIs; an origin can be asked for the last.
pub(super) const URIS: [&str; 3] = ["urn:a", "urn:b", "https://origin.example/c"];
/// Its place.
pub(super) const ORIGIN: usize = 2;
/// Qualifiers; an origin honours the first only.
pub(super) const NAMES: [&str; 3] = ["bazel.canonical_id", "a", "b"];
/// Three blobs, a sub-directory, and the roots of two directories.
pub(super) const CONTENTS: usize = 6;

/// Values of [`NAMES`]; 0 is none.
pub(super) type Set = [u8; 3];

pub(super) fn uris(list: &[usize]) -> Vec<Uri> {
    list.iter().map(|u| Uri::new(URIS[*u])).collect()
}

pub(super) fn qualifiers(set: Set) -> Qualifiers {
    let named = NAMES.iter().zip(set).filter(|(_, value)| *value > 0);
    let pairs = named.map(|(name, value)| ((*name).to_owned(), format!("v{value}")));
    Qualifiers::new(pairs).unwrap()
}

/// Whether all of `some` is in `all`.
pub(super) fn is_subset(some: Set, all: Set) -> bool {
    some.iter().zip(all).all(|(s, a)| *s == 0 || *s == a)
}

/// How many there are.
pub(super) fn size(set: Set) -> usize {
    set.iter().filter(|value| **value > 0).count()
}

/// The cache under the replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Keeps entries whatever becomes of the content.
    Plain,
    /// Withholds incomplete entries, and is trusted to.
    Checked,
    /// The same, and it drops metadata: payloads are blobs.
    Stripped,
    /// Answers a write of an entry with nothing.
    Silent,
    /// Entries are in a cache of their own.
    Detached,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiry {
    None,
    Soon,
    Late,
    /// A withdrawal.
    Past,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Oldest {
    None,
    /// Some seconds ago.
    Recent,
    /// Long ago.
    Any,
    /// Not from cache.
    Future,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Push {
    pub(super) replica: usize,
    pub(super) kind: AssetKind,
    pub(super) uris: Vec<usize>,
    pub(super) set: Set,
    pub(super) content: usize,
    pub(super) expiry: Expiry,
    /// Contents it references: as blobs, and as directories.
    pub(super) blobs: Option<usize>,
    pub(super) directories: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fetch {
    pub(super) replica: usize,
    pub(super) kind: AssetKind,
    pub(super) uris: Vec<usize>,
    pub(super) set: Set,
    pub(super) oldest: Oldest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Op {
    Push(Push),
    Fetch(Fetch),
    /// Five seconds each.
    Advance(u8),
    EvictContent(usize),
    /// A Tree, a pin tree, an Action: the n-th of what is no content.
    EvictOther(u8),
    /// The n-th entry.
    EvictEntry(u8),
    Upload(usize),
    /// The replica is killed and started again.
    Restart(usize),
    /// What the origin serves from now on.
    Origin(Option<usize>),
}

/// A write of a push or a fetch that fails, counted over all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failing {
    pub(super) write: u8,
    /// It is written all the same, and the answer is lost.
    pub(super) written: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) layout: Layout,
    /// `references.subset_max`
    pub(super) subset_max: usize,
    pub(super) ops: Vec<Op>,
    /// What happens next, a number each: the oldest call goes on if it is 0,
    /// and at the end.
    pub(super) schedule: Vec<u8>,
    pub(super) failing: Vec<Failing>,
}

fn kind() -> impl Strategy<Value = AssetKind> {
    prop_oneof![3 => Just(AssetKind::Blob), 2 => Just(AssetKind::Directory)]
}

fn uri_list() -> impl Strategy<Value = Vec<usize>> {
    let lists: [&[usize]; 12] = [
        &[0],
        &[0],
        &[1],
        &[0, 1],
        &[0, 1],
        &[0, 1],
        &[1, 0],
        &[2],
        &[0, 2],
        &[2, 0],
        &[0, 1, 2],
        &[2, 1, 0],
    ];
    (0..lists.len()).prop_map(move |n| lists[n].to_vec())
}

fn set() -> impl Strategy<Value = Set> {
    let value = |present| prop_oneof![8 => Just(0u8), present => Just(1u8), 1 => Just(2u8)];
    prop_oneof![
        2 => Just([0, 0, 0]),
        5 => (value(8), value(8), value(3)).prop_map(|(c, a, b)| [c, a, b]),
    ]
}

fn push() -> impl Strategy<Value = Push> {
    let expiry = prop_oneof![
        6 => Just(Expiry::None),
        1 => Just(Expiry::Soon),
        1 => Just(Expiry::Late),
        2 => Just(Expiry::Past),
    ];
    let content = (kind(), 0..CONTENTS, 0..12u8).prop_map(|(kind, content, odd)| match kind {
        // Seldom a blob that is none.
        AssetKind::Directory if odd > 0 => (kind, 3 + content % 3),
        _ => (kind, content),
    });
    let references = (weighted(0.15, 0..CONTENTS), weighted(0.1, 3..CONTENTS));
    (0..2usize, content, uri_list(), set(), expiry, references).prop_map(
        |(replica, (kind, content), uris, set, expiry, (blobs, directories))| Push {
            replica,
            kind,
            uris,
            set,
            content,
            expiry,
            blobs,
            directories,
        },
    )
}

fn fetch() -> impl Strategy<Value = Fetch> {
    let oldest = prop_oneof![
        6 => Just(Oldest::None),
        1 => Just(Oldest::Recent),
        1 => Just(Oldest::Any),
        1 => Just(Oldest::Future),
    ];
    (0..2usize, kind(), uri_list(), set(), oldest).prop_map(|(replica, kind, uris, set, oldest)| {
        Fetch {
            replica,
            kind,
            uris,
            set,
            oldest,
        }
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => push().prop_map(Op::Push),
        10 => fetch().prop_map(Op::Fetch),
        2 => (1..5u8).prop_map(Op::Advance),
        2 => (0..CONTENTS).prop_map(Op::EvictContent),
        1 => any::<u8>().prop_map(Op::EvictOther),
        2 => any::<u8>().prop_map(Op::EvictEntry),
        1 => (0..CONTENTS).prop_map(Op::Upload),
        1 => (0..2usize).prop_map(Op::Restart),
        1 => weighted(0.8, 0..3usize).prop_map(Op::Origin),
    ]
}

/// What a fetch after a push is likely to ask: the same, or with fewer.
fn related(push: &Push, how: u8) -> Fetch {
    let mut set = push.set;
    if how & 1 == 1 {
        set[usize::from(how >> 1) % 3] = 0;
    }
    let mut uris = push.uris.clone();
    if how & 0b1000 != 0 {
        uris.rotate_left(1);
        uris.truncate(1);
    }
    Fetch {
        replica: usize::from(how >> 4) % 2,
        kind: push.kind,
        uris,
        set,
        oldest: Oldest::None,
    }
}

/// Fetches mostly ask for what was pushed, and later pushes mostly replace.
fn related_ops() -> impl Strategy<Value = Vec<Op>> {
    vec((op(), any::<u8>(), 0..10u8), 2..14).prop_map(|drawn| {
        let mut pushes: Vec<Push> = Vec::new();
        let mut from_origin: Option<Fetch> = None;
        let relate = |(op, how, which): (Op, u8, u8)| {
            let near = pushes
                .get(usize::from(which) % pushes.len().max(1))
                .cloned();
            let op = match (op, near) {
                (Op::Fetch(fetch), Some(near)) if which < 8 => Op::Fetch(Fetch {
                    oldest: fetch.oldest,
                    ..related(&near, how)
                }),
                (Op::Push(push), Some(near)) if which < 5 => Op::Push(Push {
                    kind: near.kind,
                    uris: if how & 1 == 0 { near.uris } else { push.uris },
                    set: if how & 2 == 0 { near.set } else { push.set },
                    content: match near.kind {
                        AssetKind::Directory => 3 + push.content % 3,
                        AssetKind::Blob => push.content,
                    },
                    ..push
                }),
                // What an origin served answers again within a limit.
                (Op::Fetch(fetch), _) if which == 8 => match &from_origin {
                    Some(before) => Op::Fetch(Fetch {
                        oldest: if how & 1 == 0 {
                            Oldest::Any
                        } else {
                            Oldest::Recent
                        },
                        ..before.clone()
                    }),
                    None => Op::Fetch(fetch),
                },
                (op, _) => op,
            };
            match &op {
                Op::Fetch(fetch)
                    if fetch.kind == AssetKind::Blob && fetch.uris.contains(&ORIGIN) =>
                {
                    from_origin = Some(fetch.clone());
                }
                _ => {}
            }
            if let Op::Push(push) = &op {
                pushes.push(push.clone());
            }
            op
        };
        drawn.into_iter().map(relate).collect()
    })
}

/// Cases; with or without writes that fail.
pub(super) fn cases(failing: bool) -> impl Strategy<Value = Case> {
    let layout = prop_oneof![
        3 => Just(Layout::Plain),
        4 => Just(Layout::Checked),
        1 => Just(Layout::Stripped),
        1 => Just(Layout::Silent),
        1 => Just(Layout::Detached),
    ];
    let fails = (0..40u8, any::<bool>());
    let fails = fails.prop_map(|(write, written)| Failing { write, written });
    let failing = if failing { 1..5 } else { 0..1 };
    (
        layout,
        2..5usize,
        related_ops(),
        vec(any::<u8>(), 0..160),
        vec(fails, failing),
    )
        .prop_map(|(layout, subset_max, ops, schedule, failing)| Case {
            layout,
            subset_max,
            ops,
            schedule,
            failing,
        })
}
