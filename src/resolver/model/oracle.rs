//! What may be answered, and what has to be.
//!
//! Pushes write registers of which the last write wins, one per kind, URI and
//! exact qualifiers, and one per kind, URI and subset. Calls take time: of
//! those that overlap any may come first; what had ended before another began
//! came before it. A push that failed, or whose replica was killed, may have
//! written any of its entries.
//! Not for: how the answers came about (`world.rs`).

use super::case::{Case, Expiry, Fetch, Layout, ORIGIN, Push, Set, is_subset, qualifiers, size};
use super::history::{Ended, History, Mask, Record};
use super::keys::{self, Space};
use super::world::{CONTENT, expires, oldest};
use crate::asset::AssetKind;
use crate::resolver::{Answer, Outcome, ResolveError};

/// What cases brought up, to see that none of the rules is idle.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Seen {
    pub(super) exact: usize,
    pub(super) subset: usize,
    pub(super) origin: usize,
    pub(super) fetched_before: usize,
    pub(super) revalidated: usize,
    pub(super) misses: usize,
    pub(super) due: usize,
    pub(super) due_subset: usize,
    pub(super) failed_pushes: usize,
    pub(super) half_pushed: usize,
    pub(super) killed: usize,
    pub(super) overlapping: usize,
}

pub(super) struct Oracle<'a> {
    pub(super) case: &'a Case,
    pub(super) history: &'a History,
}

/// A fetch as far as one URI of it goes.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    fetch: &'a Fetch,
    record: &'a Record,
    uri: usize,
}

type Verdict = Result<(), String>;

fn fail(n: usize, what: &str) -> Verdict {
    Err(format!("#{n}: {what}"))
}

impl Oracle<'_> {
    pub(super) fn judge(&self, seen: &mut Seen) -> Verdict {
        if self.history.stuck {
            return Err("it comes to no end".to_owned());
        }
        for (n, record) in self.history.records.iter().enumerate() {
            let earlier = &self.history.records[..n];
            let overlaps = |other: &Record| other.end > record.start;
            seen.overlapping += usize::from(earlier.iter().any(overlaps));
            if let super::history::Asked::Push(push) = &record.asked {
                self.written_in_order(n, push)?;
            }
            match (&record.asked, &record.ended) {
                (_, None | Some(Ended::Panicked)) => return fail(n, "it panicked or has no end"),
                (_, Some(Ended::Killed)) => seen.killed += 1,
                (super::history::Asked::Push(push), Some(Ended::Pushed(result))) => {
                    self.pushed(n, record, push, result, seen)?;
                }
                (super::history::Asked::Fetch(fetch), Some(Ended::Answered(result))) => {
                    self.fetched(n, record, fetch, result, seen)?;
                }
                _ => return fail(n, "it has the end of another"),
            }
        }
        self.replicas_agree()
    }

    /// The exact entry of the first URI comes last: a hit on it means that the
    /// whole push was written.
    fn written_in_order(&self, n: usize, push: &Push) -> Verdict {
        let subsets = match size(push.set) {
            _ if push.expiry == Expiry::Past => 0,
            0 => 0,
            size if size <= self.case.subset_max => (1 << size) - 1,
            _ => 1,
        };
        let all = push.uris.len() * (1 + subsets);
        let first = keys::action((Space::Exact, push.kind, push.uris[0], push.set));
        let mut writes = self.history.writes.iter().filter(|w| w.record == n);
        let mut before = std::collections::BTreeSet::new();
        match writes.find(|write| {
            write.action == first || {
                before.insert(&write.action);
                false
            }
        }) {
            Some(write) if write.action == first && before.len() + 1 < all => {
                fail(n, "the entry of the first URI does not come last")
            }
            _ => Ok(()),
        }
    }

    fn pushed(
        &self,
        n: usize,
        record: &Record,
        push: &Push,
        result: &Result<(), ResolveError>,
        seen: &mut Seen,
    ) -> Verdict {
        let (history, start, end) = (self.history, record.start, record.end);
        let entries = push.uris.len() << size(push.set);
        if record.calls > 4 * entries + 16 {
            return fail(n, "too many calls");
        }
        let withdraws = push.expiry == Expiry::Past;
        let is_directory = push.kind == AssetKind::Blob || push.content >= 3;
        let needs = CONTENT.needs(push.kind, push.content);
        let sound = withdraws || (is_directory && history.throughout(needs, start, end));
        match result {
            Ok(()) if withdraws => Ok(()),
            Ok(()) if !is_directory => fail(n, "no directory, and acknowledged"),
            Ok(()) if !each_once(history, needs, start, end) => {
                fail(n, "acknowledged, and its content was never there")
            }
            Ok(()) => Ok(()),
            Err(error) => {
                seen.failed_pushes += 1;
                match error {
                    ResolveError::Missing { .. } | ResolveError::NotADirectory { .. } if !sound => {
                        Ok(())
                    }
                    ResolveError::Upstream(_) if record.failed > 0 => Ok(()),
                    ResolveError::Upstream(_) if self.may_be_lost(record, push) => Ok(()),
                    error => fail(n, &format!("refused for no reason: {error}")),
                }
            }
        }
    }

    /// A cache that answers with nothing is read back. What was written may
    /// have been evicted in between; and an older push that runs beside this
    /// one and writes last cannot be told from a cache where the first wins.
    fn may_be_lost(&self, record: &Record, push: &Push) -> bool {
        let within = |step: &usize| (record.start..=record.end).contains(step);
        let evicted = self.history.evicted.iter().any(|(s, _)| within(s));
        let beside = self.history.pushes().any(|(_, other, by)| {
            by.kind == push.kind
                && by.uris.iter().any(|uri| push.uris.contains(uri))
                && other.start < record.start
                && other.end > record.start
        });
        self.case.layout == Layout::Silent && (evicted || beside)
    }

    fn fetched(
        &self,
        n: usize,
        record: &Record,
        fetch: &Fetch,
        result: &Result<Answer, ResolveError>,
        seen: &mut Seen,
    ) -> Verdict {
        if record.calls > 16 * fetch.uris.len() + 8 {
            return fail(n, "too many calls");
        }
        let wanted = |uri| Wanted { fetch, record, uri };
        let due = |uri: &usize| self.due_exact(wanted(*uri), fetch);
        let due_subset = |uri: &usize| self.due_subset(wanted(*uri));
        let exact = fetch.uris.iter().position(due);
        let subset = fetch.uris.iter().position(due_subset);
        seen.due += usize::from(exact.is_some());
        seen.due_subset += usize::from(subset.is_some());
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => {
                seen.misses += 1;
                seen.half_pushed += usize::from(matches!(
                    error,
                    ResolveError::NotFound {
                        missed: crate::resolver::Missed::HalfPushed,
                        ..
                    }
                ));
                if (exact.is_some() || subset.is_some()) && record.failed == 0 {
                    return fail(n, "an acknowledged push is lost");
                }
                return self.may_fail(n, record, fetch, error);
            }
        };
        let due = (exact, subset);
        self.answered(n, (fetch, record), answer, due, seen)
    }

    /// An answer, where `due` says which URIs have to answer.
    fn answered(
        &self,
        n: usize,
        (fetch, record): (&Fetch, &Record),
        answer: &Answer,
        (exact, subset): (Option<usize>, Option<usize>),
        seen: &mut Seen,
    ) -> Verdict {
        let Some(content) = CONTENT.index.get(&answer.digest).copied() else {
            return fail(n, "nobody knows this digest");
        };
        let Some(at) = answer.uri_index.filter(|at| *at < fetch.uris.len()) else {
            return fail(n, "no URI");
        };
        if answer.kind != fetch.kind {
            return fail(n, "the kinds are mixed up");
        }
        let needs = CONTENT.needs(fetch.kind, content);
        if !self.was_there(needs, record, answer) {
            return fail(n, "its content was not in the CAS (P2)");
        }
        let uri = fetch.uris[at];
        let wanted = Wanted { fetch, record, uri };
        match answer.outcome {
            Outcome::HitExact if exact.is_some_and(|first| first < at) => {
                fail(n, "an earlier URI has to answer")
            }
            Outcome::HitExact => {
                if self.was_served(wanted, content, true)
                    && answer.qualifiers == qualifiers(fetch.set)
                {
                    seen.fetched_before += 1;
                    return Ok(());
                }
                seen.exact += 1;
                self.exact(n, wanted, at, content, answer)
            }
            Outcome::HitSubset if exact.is_some() => fail(n, "an exact match has to answer"),
            Outcome::HitSubset if subset.is_some_and(|first| first < at) => {
                fail(n, "an earlier URI has to answer by a subset")
            }
            Outcome::HitSubset => {
                seen.subset += 1;
                self.subset(n, wanted, content, answer)
            }
            _ if exact.is_some() || subset.is_some() => fail(n, "a push has to answer"),
            Outcome::HitChecksum | Outcome::HitMigrated => fail(n, "there is no such entry"),
            // Fetched or confirmed, by this call or by one that is as good.
            outcome => {
                seen.origin += 1;
                seen.revalidated += usize::from(outcome == Outcome::Revalidated);
                if answer.qualifiers != qualifiers(fetch.set) {
                    return fail(n, "other qualifiers than the origin was asked with");
                }
                match self.was_served(wanted, content, false) {
                    true => Ok(()),
                    false => fail(n, "the origin did not serve this"),
                }
            }
        }
    }

    fn may_fail(&self, n: usize, record: &Record, fetch: &Fetch, error: &ResolveError) -> Verdict {
        let http = fetch.kind == AssetKind::Blob && fetch.uris.contains(&ORIGIN);
        match error {
            ResolveError::NotFound { .. } if !http => Ok(()),
            ResolveError::Unsupported(_) if http && fetch.set[1..] != [0, 0] => Ok(()),
            ResolveError::Fetch(_) if http => Ok(()),
            ResolveError::Upstream(_) if record.failed > 0 => Ok(()),
            error => fail(n, &format!("failed for no reason: {error}")),
        }
    }

    /// P2. Where an entry is detached, a directory is walked before its files
    /// are asked for: each was there, at moments of their own.
    fn was_there(&self, needs: Mask, record: &Record, answer: &Answer) -> bool {
        let (from, to) = (record.start, record.end);
        let walked = self.case.layout == Layout::Detached && answer.kind == AssetKind::Directory;
        match walked {
            true => each_once(self.history, needs, from, to),
            false => self.history.once(needs, from, to),
        }
    }

    /// Whether the origin served this: before, for a fetch that states a limit,
    /// or while it ran.
    fn was_served(&self, wanted: Wanted<'_>, content: usize, before: bool) -> bool {
        let (fetch, record) = (wanted.fetch, wanted.record);
        if wanted.uri != ORIGIN || fetch.kind != AssetKind::Blob {
            return false;
        }
        let limit = oldest(fetch, record.began);
        let mut served = self.history.served.iter();
        served.any(|served| {
            let asker = &self.history.records[served.record];
            let super::history::Asked::Fetch(asked) = &asker.asked else {
                return false;
            };
            let same = served.content == content && asked.set == fetch.set;
            let at = i64::try_from(served.at).unwrap();
            let then = match before {
                true => limit.is_some_and(|limit| at >= limit) && served.step <= record.end,
                false => {
                    (asker.start.min(record.start)..=record.end).contains(&served.step)
                        && asker.end >= record.start
                }
            };
            same && then
        })
    }

    /// Whether the entry of a push may answer at all.
    fn may_answer(&self, wanted: Wanted<'_>, pusher: &Record, push: &Push, content: usize) -> bool {
        let (fetch, record) = (wanted.fetch, wanted.record);
        let expired = expires(push, pusher.began)
            .is_some_and(|at| at <= i64::try_from(record.began).unwrap());
        let pushed = i64::try_from(pusher.began).unwrap();
        let stale = oldest(fetch, record.began).is_some_and(|oldest| {
            oldest > pushed || oldest > i64::try_from(record.ended_at).unwrap()
        });
        push.kind == fetch.kind
            && push.content == content
            && push.uris.contains(&wanted.uri)
            && push.expiry != Expiry::Past
            && pusher.start < record.end
            && !expired
            && !stale
    }

    fn exact(
        &self,
        n: usize,
        wanted: Wanted<'_>,
        at: usize,
        content: usize,
        answer: &Answer,
    ) -> Verdict {
        let (fetch, record) = (wanted.fetch, wanted.record);
        if answer.qualifiers != qualifiers(fetch.set) {
            return fail(n, "an exact hit with other qualifiers");
        }
        let pushes = self.history.pushes();
        let mut may = pushes
            .filter(|(_, pusher, push)| {
                push.set == fetch.set && self.may_answer(wanted, pusher, push, content)
            })
            .peekable();
        if may.peek().is_none() {
            return fail(n, "nobody pushed this, or it no longer holds");
        }
        let mut may = may
            .filter(|(_, pusher, _)| !self.is_overwritten(wanted, fetch.set, pusher, record))
            .peekable();
        if may.peek().is_none() {
            return fail(n, "a later push was acknowledged (last write wins)");
        }
        match may.all(|(p, pusher, push)| self.is_half(wanted, at, p, pusher, push)) {
            true => fail(n, "a push that was never written for the first URI"),
            false => Ok(()),
        }
    }

    /// Whether a later push to the same exact key certainly came before.
    fn is_overwritten(&self, wanted: Wanted<'_>, set: Set, old: &Record, record: &Record) -> bool {
        let key = (Space::Exact, wanted.fetch.kind, wanted.uri, set);
        let action = keys::action(key);
        self.history.pushes().any(|(q, newer, push)| {
            let same = push.kind == wanted.fetch.kind && push.set == set;
            let later = same && push.uris.contains(&wanted.uri) && newer.start > old.end;
            let acknowledged = newer.is_acknowledged() && newer.end < record.start;
            let mut writes = self.history.writes.iter();
            later
                && (acknowledged
                    || writes.any(|w| w.record == q && w.action == action && w.step < record.start))
        })
    }

    /// Whether a push went wrong before it wrote the entry of its first URI,
    /// for which this fetch asks first.
    fn is_half(
        &self,
        wanted: Wanted<'_>,
        at: usize,
        p: usize,
        pusher: &Record,
        push: &Push,
    ) -> bool {
        let first = push.uris[0];
        if pusher.is_acknowledged() || !wanted.fetch.uris[..at].contains(&first) {
            return false;
        }
        let action = keys::action((Space::Exact, push.kind, first, push.set));
        let mut writes = self.history.writes.iter();
        !writes.any(|write| {
            let writer = &self.history.records[write.record];
            write.action == action
                && write.step <= wanted.record.end
                && (write.record == p || writer.start > pusher.start)
        })
    }

    fn subset(&self, n: usize, wanted: Wanted<'_>, content: usize, answer: &Answer) -> Verdict {
        let (fetch, record) = (wanted.fetch, wanted.record);
        let pushes = self.history.pushes();
        let mut may = pushes
            .filter(|(_, pusher, push)| {
                answer.qualifiers == qualifiers(push.set)
                    && self.is_found_by(push, fetch.set)
                    && self.may_answer(wanted, pusher, push, content)
            })
            .peekable();
        if may.peek().is_none() {
            return fail(
                n,
                "nobody pushed this with more qualifiers, or it no longer holds",
            );
        }
        let mut may = may
            .filter(|(_, pusher, _)| !self.is_subset_overwritten(wanted, pusher))
            .peekable();
        if may.peek().is_none() {
            return fail(n, "a later push with more qualifiers was acknowledged");
        }
        let withdrawn = |(_, old, push): (usize, &Record, &Push)| {
            self.history.pushes().any(|(_, newer, by)| {
                let same = by.kind == push.kind && by.set == push.set;
                let action = keys::action((Space::Exact, push.kind, wanted.uri, push.set));
                same && by.expiry == Expiry::Past
                    && by.uris.contains(&wanted.uri)
                    && newer.start > old.end
                    && newer.is_acknowledged()
                    && newer.end < record.start
                    && !self.history.is_evicted(action, newer.start, record.end)
                    // The payload may be a blob.
                    && !self.history.lost_others(newer.start, record.end)
            })
        };
        match may.all(withdrawn) {
            true => fail(n, "it was withdrawn"),
            false => Ok(()),
        }
    }

    /// Whether a push is recorded under this subset.
    fn is_found_by(&self, push: &Push, set: Set) -> bool {
        let all = size(push.set) <= self.case.subset_max;
        let proper = is_subset(set, push.set) && set != push.set;
        proper && (all || size(set) == 0) && push.expiry != Expiry::Past
    }

    fn is_subset_overwritten(&self, wanted: Wanted<'_>, old: &Record) -> bool {
        self.history.pushes().any(|(_, newer, push)| {
            push.kind == wanted.fetch.kind
                && push.uris.contains(&wanted.uri)
                && self.is_found_by(push, wanted.fetch.set)
                && newer.start > old.end
                && newer.is_acknowledged()
                && newer.end < wanted.record.start
        })
    }

    /// Whether an acknowledged push that nothing disturbed has to answer.
    fn due_exact(&self, wanted: Wanted<'_>, fetch: &Fetch) -> bool {
        self.history.pushes().any(|(p, pusher, push)| {
            let undisturbed = |uri: usize| {
                let action = keys::action((Space::Exact, push.kind, uri, push.set));
                !self
                    .history
                    .is_evicted(action, pusher.start, wanted.record.end)
                    && !self.history.pushes().any(|(q, other, by)| {
                        q != p
                            && by.kind == push.kind
                            && by.set == push.set
                            && by.uris.contains(&uri)
                            && other.end > pusher.start
                            && other.start < wanted.record.end
                    })
            };
            // Who asks for the first URI first takes its absence for a push
            // that failed midway.
            let at = fetch.uris.iter().position(|uri| *uri == wanted.uri);
            let first = fetch.uris[..at.unwrap_or(0)].contains(&push.uris[0]);
            push.set == fetch.set
                && self.holds(wanted, pusher, push)
                && undisturbed(wanted.uri)
                && (!first || undisturbed(push.uris[0]))
        })
    }

    fn due_subset(&self, wanted: Wanted<'_>) -> bool {
        let (fetch, record) = (wanted.fetch, wanted.record);
        self.history.pushes().any(|(p, pusher, push)| {
            let key = (Space::Subset, push.kind, wanted.uri, fetch.set);
            self.is_found_by(push, fetch.set)
                && self.holds(wanted, pusher, push)
                && !self
                    .history
                    .is_evicted(keys::action(key), pusher.start, record.end)
                && !self.history.pushes().any(|(q, other, by)| {
                    q != p
                        && by.kind == push.kind
                        && is_subset(fetch.set, by.set)
                        && by.set != fetch.set
                        && by.uris.contains(&wanted.uri)
                        && other.end > pusher.start
                        && other.start < record.end
                })
        })
    }

    /// Whether a push was acknowledged before, holds, is fresh enough, and has
    /// had all its content ever since.
    fn holds(&self, wanted: Wanted<'_>, pusher: &Record, push: &Push) -> bool {
        let (fetch, record, history) = (wanted.fetch, wanted.record, self.history);
        let (from, to) = (pusher.start, record.end);
        if !pusher.is_acknowledged() || pusher.end >= record.start {
            return false;
        }
        let now = i64::try_from(record.ended_at).unwrap();
        let pushed = i64::try_from(pusher.began).unwrap();
        let fresh = oldest(fetch, record.began).is_none_or(|oldest| oldest <= pushed);
        let lasts = expires(push, pusher.began).is_none_or(|at| at > now);
        let needs = CONTENT.needs(push.kind, push.content);
        let references = CONTENT.references(push);
        // Where no cache withholds it, the Tree brings Directory blobs back.
        let heals = self.case.layout == Layout::Plain || self.case.layout == Layout::Silent;
        let files: Mask = needs & 0b000_111;
        let kept = match push.kind {
            AssetKind::Directory if heals => {
                history.throughout(needs, from, pusher.end) && history.throughout(files, from, to)
            }
            _ => history.throughout(needs, from, to),
        };
        push.kind == fetch.kind
            && push.uris.contains(&wanted.uri)
            && push.expiry != Expiry::Past
            && fresh
            && lasts
            && kept
            && history.unchanged(references & !needs, from, to)
            && !history.lost_others(from, to)
    }

    /// When all is quiet, two that ask the same get the same.
    fn replicas_agree(&self) -> Verdict {
        let quiet = self
            .history
            .records
            .iter()
            .enumerate()
            .skip(self.history.quiet);
        let answers: Vec<_> = quiet
            .filter_map(|(n, record)| match (&record.asked, &record.ended) {
                (super::history::Asked::Fetch(f), Some(Ended::Answered(a))) => Some((n, f, a)),
                _ => None,
            })
            .collect();
        for pair in answers.windows(2) {
            let [(before, one, first), (n, other, second)] = pair else {
                continue;
            };
            let same = (one.kind, &one.uris, one.set) == (other.kind, &other.uris, other.set);
            let digest =
                |a: &Result<Answer, ResolveError>| a.as_ref().ok().map(|a| a.digest.clone());
            // What an origin served may be what another entry lacked.
            let still = |n: usize, m: usize| {
                let (first, second) = (&self.history.records[n], &self.history.records[m]);
                self.history.unchanged(Mask::MAX, first.start, second.end)
            };
            if same
                && still(*before, *n)
                && one.replica == 0
                && other.replica == 1
                && digest(first) != digest(second)
            {
                return fail(*n, "the replicas do not agree");
            }
        }
        Ok(())
    }
}

/// Whether each of these was in the CAS at some moment.
fn each_once(history: &History, mask: Mask, from: usize, to: usize) -> bool {
    let seen = history.present[from..=to].iter().fold(0, |all, p| all | p);
    seen & mask == mask
}
