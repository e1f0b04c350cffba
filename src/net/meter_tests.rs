//! Tests of the judge: floods are found, what real clients do is not.

use super::*;

/// A client that sends frames, and what we answer.
struct Client {
    meter: Meter,
    wire: Vec<u8>,
}

impl Client {
    fn new() -> Self {
        Self {
            meter: Meter::new(0),
            wire: Vec::new(),
        }
    }

    fn bytes(&mut self, kind: u8, flags: u8, length: u32) -> &[u8] {
        let head = Head {
            length,
            kind,
            flags,
            stream: 1,
        };
        self.wire.clear();
        self.wire.extend_from_slice(&head.bytes());
        self.wire.resize(self.wire.len() + length as usize, 0);
        &self.wire
    }

    fn sends(&mut self, kind: u8, flags: u8, length: u32) -> Option<Offence> {
        self.bytes(kind, flags, length);
        self.meter.receive(&self.wire);
        self.meter.offence()
    }

    fn gets(&mut self, kind: u8, length: u32) {
        self.bytes(kind, 0, length);
        self.meter.send(&self.wire);
    }

    /// How many of these frames it takes to be told to go away.
    fn frames_until(&mut self, kind: u8, flags: u8, length: u32) -> (usize, Offence) {
        (1..100_000)
            .find_map(|count| Some((count, self.sends(kind, flags, length)?)))
            .expect("it is never told")
    }
}

#[tokio::test(start_paused = true)]
async fn every_useless_frame_has_a_bound_and_a_name() {
    for (kind, flags, length, offence, least, most) in [
        (kind::PING, 0, 8, Offence::Pings, 10_000, 10_001),
        (kind::PING, 1, 8, Offence::Pings, 10_000, 10_001),
        (kind::SETTINGS, 0, 0, Offence::Settings, 1_000, 1_001),
        (kind::SETTINGS, 0, 60_000, Offence::Settings, 100, 200),
        (kind::RST_STREAM, 0, 4, Offence::Resets, 4_000, 4_001),
        (
            kind::WINDOW_UPDATE,
            0,
            4,
            Offence::WindowUpdates,
            10_000,
            10_001,
        ),
        (kind::DATA, 0, 0, Offence::EmptyData, 10_000, 10_001),
        (kind::DATA, 0, 1, Offence::EmptyData, 10_000, 10_001),
        (
            kind::DATA,
            flag::PADDED,
            200,
            Offence::EmptyData,
            10_000,
            10_001,
        ),
        (2, 0, 5, Offence::UselessFrames, 10_000, 10_001),
        (kind::GOAWAY, 0, 8, Offence::UselessFrames, 10_000, 10_001),
        (0xee, 0, 100_000, Offence::UselessFrames, 100, 110),
    ] {
        let (count, found) = Client::new().frames_until(kind, flags, length);
        assert_eq!(found, offence, "frame type {kind}");
        assert!((least..=most).contains(&count), "{offence:?}: {count}");
    }
}

#[tokio::test(start_paused = true)]
async fn time_gives_credit_and_no_more_than_the_stock() {
    let mut client = Client::new();
    for _ in 0..20 {
        for _ in 0..900 {
            assert_eq!(client.sends(kind::PING, 0, 8), None);
        }
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
    }
    tokio::time::advance(std::time::Duration::from_secs(3600)).await;
    let (count, _) = client.frames_until(kind::PING, 0, 8);
    assert!(count <= 20_001, "{count}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_pings_and_updates_windows_with_every_frame_is_no_flood() {
    let mut client = Client::new();
    client.sends(kind::HEADERS, flag::END_HEADERS, 100);
    for _ in 0..200_000 {
        client.gets(kind::DATA, 64);
        client.sends(kind::WINDOW_UPDATE, 0, 4);
        client.sends(kind::WINDOW_UPDATE, 0, 4);
        assert_eq!(client.sends(kind::PING, 0, 8), None);
    }
}

#[tokio::test(start_paused = true)]
async fn calls_and_small_messages_are_no_flood() {
    let mut client = Client::new();
    for _ in 0..200_000 {
        client.sends(kind::HEADERS, flag::END_HEADERS, 10);
        // A message without content, then an end that comes alone.
        client.sends(kind::DATA, 0, 5);
        client.sends(kind::DATA, flag::END_STREAM, 0);
        client.sends(kind::WINDOW_UPDATE, 0, 4);
        client.sends(2, 0, 5);
        assert_eq!(client.sends(kind::PING, 0, 8), None);
    }
}

#[tokio::test(start_paused = true)]
async fn answered_calls_may_be_reset_and_calls_alone_may_not() {
    let mut client = Client::new();
    for _ in 0..20_000 {
        client.sends(kind::HEADERS, flag::END_HEADERS, 10);
        client.gets(kind::HEADERS, 20);
        assert_eq!(client.sends(kind::RST_STREAM, 0, 4), None);
    }
    // What we say to pings earns nothing.
    for _ in 0..5_000 {
        client.sends(kind::HEADERS, flag::END_HEADERS, 10);
        client.gets(kind::PING, 8);
        client.sends(kind::RST_STREAM, 0, 4);
    }
    assert_eq!(client.meter.offence(), Some(Offence::Resets));
}

#[tokio::test(start_paused = true)]
async fn header_blocks_have_a_size_over_all_their_frames() {
    let mut client = Client::new();
    client.sends(kind::HEADERS, flag::END_HEADERS, 100_000);
    client.sends(kind::HEADERS, 0, 100_000);
    assert_eq!(client.sends(kind::CONTINUATION, 0, 20_000), None);
    assert!(client.sends(kind::CONTINUATION, 0, 20_000).is_some());
    assert_eq!(client.meter.offence(), Some(Offence::HeaderBlock));
}

#[tokio::test(start_paused = true)]
async fn what_is_begun_is_known_until_it_is_done_and_data_is_not_meant() {
    let mut client = Client::new();
    assert!(client.meter.unfinished().is_some(), "no SETTINGS yet");
    client.sends(kind::SETTINGS, 0, 0);
    assert_eq!(client.meter.unfinished(), None);

    client.sends(kind::HEADERS, 0, 10);
    let block = client.meter.unfinished();
    assert!(block.is_some());
    client.sends(kind::CONTINUATION, 0, 10);
    assert_eq!(client.meter.unfinished(), block, "still the same block");
    client.sends(kind::CONTINUATION, flag::END_HEADERS, 10);
    assert_eq!(client.meter.unfinished(), None);

    let frame = client.bytes(kind::HEADERS, flag::END_HEADERS, 10).to_vec();
    let mut last = block;
    for cut in [5, 12] {
        client.meter.receive(&frame[..cut]);
        let next = client.meter.unfinished();
        assert!(next.is_some() && next != last);
        last = next;
        client.meter.receive(&frame[cut..]);
        assert_eq!(client.meter.unfinished(), None);
    }
    let frame = client.bytes(kind::DATA, 0, 10).to_vec();
    client.meter.receive(&frame[..12]);
    assert_eq!(client.meter.unfinished(), None, "DATA may be slow");
}
