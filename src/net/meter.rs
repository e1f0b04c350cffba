//! Judges what an HTTP/2 client sends by the heads of its frames: frames that
//! bring nothing are paid from a budget, header blocks have a size.
//!
//! h2 answers every PING and SETTINGS, takes empty DATA and steps over what it
//! does not know, for as long as they come. Here each such frame costs a
//! credit. Credits come back with time and with what makes such frames honest:
//! calls, content, and DATA that *we* send (a client pings to measure its
//! bandwidth, and updates windows, only as it receives). Resets have a budget
//! of their own, which grows with what we answered: a call that was cancelled
//! before it got anything is what a reset flood is made of.
//!
//! Not for: what h2 bounds itself (CONTINUATION frames, sizes of frames, header
//! lists, streams that wait to be accepted), nor for time: `unfinished` says
//! what there is to wait for, the caller has the clock.
//! Called by: `coalesce`.

use std::time::Duration;

use tokio::time::Instant;

use super::frames::{Head, Walk, flag, kind};

/// Frames without use that may come at once, and per second.
const SPARE: Budget = Budget::new(10_000, 1_000);

/// Resets at once and per second. A build tool that is stopped cancels what it
/// has under way, at most our limit on streams; racing local against remote
/// work cancels some tens a second.
const RESETS: Budget = Budget::new(4_000, 200);

/// DATA of fewer bytes than a gRPC message has at least is of no use.
const LEAST_DATA: u32 = 5;

/// DATA of this size pays for another frame.
const USEFUL_DATA: u32 = 1024;

/// What a call, and a DATA frame sent to the client, pay for: a ping, a window
/// update for the stream and one for the connection, and something over.
const EARNED: i64 = 4;

/// A SETTINGS frame may touch every stream.
const SETTINGS_COST: i64 = 10;

/// Payload of useless frames that costs one credit more.
const PAYLOAD_PER_CREDIT: u32 = 1024;

/// Bytes of one header block. The list it decodes to may have 64 KiB; one that
/// is somewhat larger gets HTTP's own answer (431), this one ends.
const HEADER_BLOCK: u32 = 128 * 1024;

/// Why a client is told to go away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offence {
    /// PING.
    Pings,
    /// SETTINGS.
    Settings,
    /// RST_STREAM.
    Resets,
    /// WINDOW_UPDATE.
    WindowUpdates,
    /// DATA without content.
    EmptyData,
    /// PRIORITY, GOAWAY and types nobody knows.
    UselessFrames,
    /// A header block without end.
    HeaderBlock,
}

impl Offence {
    /// A word for metrics and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Pings => "ping_flood",
            Self::Settings => "settings_flood",
            Self::Resets => "reset_flood",
            Self::WindowUpdates => "window_update_flood",
            Self::EmptyData => "empty_data_flood",
            Self::UselessFrames => "useless_frame_flood",
            Self::HeaderBlock => "header_block_too_large",
        }
    }
}

/// Credits: a stock, and how fast it fills again.
#[derive(Debug, Clone, Copy)]
struct Budget {
    most: i64,
    per_second: u32,
}

impl Budget {
    const fn new(most: i64, per_second: u32) -> Self {
        Self { most, per_second }
    }
}

#[derive(Debug)]
struct Account {
    budget: Budget,
    credits: i64,
    /// Until when time was paid for.
    paid: Instant,
}

impl Account {
    fn new(budget: Budget) -> Self {
        Self {
            budget,
            credits: budget.most,
            paid: Instant::now(),
        }
    }

    fn earn(&mut self, credits: i64) {
        self.credits = (self.credits + credits).min(self.budget.most);
    }

    /// Returns whether there was enough. The clock is read only when not.
    fn spend(&mut self, credits: i64) -> bool {
        self.credits -= credits;
        self.credits >= 0 || self.refill()
    }

    #[cold]
    fn refill(&mut self) -> bool {
        let each = Duration::from_secs(1) / self.budget.per_second;
        let earned = self.paid.elapsed().as_nanos() / each.as_nanos();
        // More than the stock cannot be had, nor is it lost time.
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        self.paid += each * earned;
        self.earn(i64::from(earned));
        self.credits >= 0
    }
}

/// What began in some bytes of a client.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Seen {
    /// Frames of all kinds.
    pub(super) frames: usize,
    /// Of these, HEADERS.
    pub(super) calls: usize,
    /// Bytes of header blocks.
    pub(super) heads: usize,
}

/// The judge of one client.
#[derive(Debug)]
pub(super) struct Meter {
    received: Walk,
    sent: Walk,
    spare: Account,
    resets: Account,
    /// The header block under way: its bytes, and the frame it began with.
    block: Option<(u32, u64)>,
    /// Whether the payload under way, or the last, is DATA's.
    data: bool,
    /// Frames received.
    frames: u64,
    /// Of these, HEADERS.
    calls: u64,
    /// Bytes of header blocks.
    heads: u64,
    /// The highest stream a call was begun on.
    last_stream: u32,
    offence: Option<Offence>,
}

impl Meter {
    /// For a client of which `already` bytes come before the first frame.
    pub(super) fn new(already: u32) -> Self {
        Self {
            received: Walk::after(already),
            sent: Walk::default(),
            spare: Account::new(SPARE),
            resets: Account::new(RESETS),
            block: None,
            data: false,
            frames: 0,
            calls: 0,
            heads: 0,
            last_stream: 0,
            offence: None,
        }
    }

    pub(super) fn offence(&self) -> Option<Offence> {
        self.offence
    }

    pub(super) fn last_stream(&self) -> u32 {
        self.last_stream
    }

    /// Whether what we sent so far ends with the end of a frame.
    pub(super) fn may_send(&self) -> bool {
        self.sent.at_boundary()
    }

    /// What the client began and has not completed, as a number that changes
    /// when it does: the first frame, a head, a header block, any frame but
    /// DATA (which flow control makes slow).
    pub(super) fn unfinished(&self) -> Option<u64> {
        // The frames of a block are one thing.
        if let Some((_, began)) = self.block {
            return Some(began);
        }
        let in_payload = !self.data && !self.received.at_boundary();
        (self.frames == 0 || self.received.in_head() || in_payload).then_some(self.frames)
    }

    /// Looks at what the client sent, and says what began in it.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Seen {
        let (frames, calls, heads) = (self.frames, self.calls, self.heads);
        // The walk cannot be borrowed along with the rest.
        let mut walk = std::mem::take(&mut self.received);
        walk.walk(bytes, |head| self.judge(head));
        self.received = walk;
        Seen {
            frames: usize::try_from(self.frames - frames).unwrap_or(usize::MAX),
            calls: usize::try_from(self.calls - calls).unwrap_or(usize::MAX),
            heads: usize::try_from(self.heads - heads).unwrap_or(usize::MAX),
        }
    }

    /// Looks at what is sent to the client.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        let (spare, resets) = (&mut self.spare, &mut self.resets);
        self.sent.walk(bytes, |head| match head.kind {
            kind::DATA => spare.earn(EARNED),
            kind::HEADERS => resets.earn(1),
            _ => {}
        });
    }

    fn judge(&mut self, head: Head) {
        self.frames += 1;
        self.data = head.kind == kind::DATA;
        let spent = match head.kind {
            kind::DATA => return self.judge_data(head),
            kind::HEADERS | kind::CONTINUATION => return self.judge_headers(head),
            kind::RST_STREAM if !self.resets.spend(1) => Some(Offence::Resets),
            kind::RST_STREAM => None,
            kind::SETTINGS => self.waste(head, SETTINGS_COST, Offence::Settings),
            kind::PING => self.waste(head, 1, Offence::Pings),
            kind::WINDOW_UPDATE => self.waste(head, 1, Offence::WindowUpdates),
            _ => self.waste(head, 1, Offence::UselessFrames),
        };
        self.accuse(spent);
    }

    fn judge_data(&mut self, head: Head) {
        // How much of it is padding stands in the payload: as much as can be.
        let padding = if head.has(flag::PADDED) { 256 } else { 0 };
        let content = head.length.saturating_sub(padding);
        if content >= USEFUL_DATA {
            self.spare.earn(1);
        } else if content < LEAST_DATA && !head.has(flag::END_STREAM) {
            let spent = self.waste(head, 1, Offence::EmptyData);
            self.accuse(spent);
        }
    }

    fn judge_headers(&mut self, head: Head) {
        if head.kind == kind::HEADERS {
            self.calls += 1;
            self.last_stream = self.last_stream.max(head.stream);
            self.spare.earn(EARNED);
        }
        self.heads += u64::from(head.length);
        let (before, began) = self.block.unwrap_or((0, self.frames));
        let length = before.saturating_add(head.length);
        self.block = (!head.has(flag::END_HEADERS)).then_some((length, began));
        if length > HEADER_BLOCK {
            self.accuse(Some(Offence::HeaderBlock));
        }
    }

    fn waste(&mut self, head: Head, cost: i64, offence: Offence) -> Option<Offence> {
        let cost = cost + i64::from(head.length / PAYLOAD_PER_CREDIT);
        (!self.spare.spend(cost)).then_some(offence)
    }

    /// The first offence counts.
    fn accuse(&mut self, offence: Option<Offence>) {
        self.offence = self.offence.or(offence);
    }
}

#[cfg(test)]
#[path = "meter_tests.rs"]
mod tests;
