//! Scenarios 20 and 21: who shares a download, and what one caller does to
//! another.

use std::time::Duration;

use assetgate::proto::asset::FetchBlobRequest;
use assetgate::proto::rev2::{RequestMetadata, ToolDetails};
use prost::Message as _;

use crate::support::origin::Serving;
use crate::support::{
    Answer as _, Client, Code, Fetching as _, Function, Gate, Origin, Pending, Proxy,
    Qualified as _, Reply, Running, digest_of, eventually, fetch_blob, hit, inline, sri,
};

const A: &[u8] = b"content of a";

/// An origin that holds `/a` back, and has others beside it.
struct Rig {
    gate: Gate,
    origin: Serving,
    proxy: Running,
    client: Client,
}

impl Rig {
    async fn new() -> Self {
        Self::serving(Reply::ok(A)).await
    }

    async fn serving(reply: Reply) -> Self {
        let gate = Gate::new();
        let origin = Origin::new()
            .reply("/a", reply.gated(&gate))
            .reply("/twin", Reply::ok(A).gated(&gate))
            .file("/one", "one")
            .file("/two", "two")
            .start()
            .await;
        let (proxy, client) = Proxy::new().connected().await;
        Self {
            gate,
            origin,
            proxy,
            client,
        }
    }

    /// A fetch of `/a`, pinned.
    fn a(&self) -> FetchBlobRequest {
        self.of(&["/a"], Function::Sha256)
    }

    fn of(&self, paths: &[&str], algorithm: Function) -> FetchBlobRequest {
        let uris: Vec<String> = paths.iter().map(|path| self.origin.url(path)).collect();
        fetch_blob(&uris).qualifier("checksum.sri", &sri(algorithm, A))
    }

    /// Begins a call and waits until the origin was asked.
    async fn lead(&self, client: &Client, message: FetchBlobRequest) -> Pending {
        let call = Pending::call(client, message);
        eventually("the origin's first request", async || {
            (self.origin.total() > 0).then_some(())
        })
        .await;
        self.proxy.waiting(1).await;
        call
    }

    async fn follow(&self, client: &Client, message: FetchBlobRequest) -> Pending {
        let before = self.proxy.calls().await;
        let call = Pending::call(client, message);
        self.proxy.waiting(before + 1).await;
        call
    }

    /// Two calls at once, which both succeed; says how often `/a` and its twin
    /// were asked for.
    async fn both(
        self,
        first: (&Client, FetchBlobRequest),
        second: (&Client, FetchBlobRequest),
    ) -> usize {
        let leader = self.lead(first.0, first.1).await;
        let follower = self.follow(second.0, second.1).await;
        self.gate.open();
        for call in [leader, follower] {
            assert_eq!(hit(call.answer().await), digest_of(A));
        }
        self.origin.count("/a") + self.origin.count("/twin")
    }
}

/// The same client, in another build.
fn invocation(client: &Client, id: &str) -> Client {
    let metadata = RequestMetadata {
        tool_details: Some(ToolDetails {
            tool_name: id.into(),
            tool_version: "8.4.0".into(),
        }),
        tool_invocation_id: id.into(),
        correlated_invocations_id: id.into(),
        action_id: id.into(),
        ..Default::default()
    };
    let key = "build.bazel.remote.execution.v2.requestmetadata-bin";
    client.with(key, metadata.encode_to_vec())
}

#[tokio::test]
async fn scenario_21_builds_share_a_download() {
    let rig = Rig::new().await;
    let [one, two] = ["one", "two"].map(|id| invocation(&rig.client, id));
    let (first, second) = (rig.a(), rig.a());
    assert_eq!(rig.both((&one, first), (&two, second)).await, 1);
}

#[tokio::test]
async fn scenario_21_the_order_of_qualifiers_does_not_part_downloads() {
    let rig = Rig::new().await;
    let client = rig.client.clone();
    let ask = |swap: bool| {
        let checksum = sri(Function::Sha256, A);
        let mut pairs = [("checksum.sri", &*checksum), ("bazel.canonical_id", "id")];
        if swap {
            pairs.reverse();
        }
        fetch_blob(&[rig.origin.url("/a")]).qualifiers(&pairs)
    };
    let (first, second) = (ask(false), ask(true));
    assert_eq!(rig.both((&client, first), (&client, second)).await, 1);
}

#[tokio::test]
async fn scenario_21_another_algorithm_that_matches_shares_a_download() {
    let rig = Rig::new().await;
    let client = rig.client.clone();
    let (first, second) = (rig.a(), rig.of(&["/a"], Function::Sha512));
    assert_eq!(rig.both((&client, first), (&client, second)).await, 1);
}

#[tokio::test]
async fn scenario_21_a_url_at_another_position_shares_a_download() {
    let rig = Rig::new().await;
    let client = rig.client.clone();
    let second = rig.of(&["/none", "/a"], Function::Sha256);
    let first = rig.a();
    assert_eq!(rig.both((&client, first), (&client, second)).await, 1);
}

#[tokio::test]
async fn scenario_21_what_may_be_other_content_is_downloaded_apart() {
    let twin = |rig: &Rig| rig.of(&["/twin"], Function::Sha256);
    let id = |rig: &Rig| rig.a().qualifier("bazel.canonical_id", "other");
    let header = |rig: &Rig| rig.a().qualifier("http_header:X-Token", "one");
    let tenant = |rig: &Rig| rig.a().instance("tenant");
    type Other = fn(&Rig) -> FetchBlobRequest;
    let others: [(&str, Other); 4] = [
        ("URI", twin),
        ("canonical id", id),
        ("header", header),
        ("tenant", tenant),
    ];
    for (what, other) in others {
        let rig = Rig::new().await;
        let client = rig.client.clone();
        let (first, second) = (rig.a(), other(&rig));
        let requests = rig.both((&client, first), (&client, second)).await;
        assert_eq!(requests, 2, "{what}");
    }
}

#[tokio::test]
async fn scenario_21_header_values_and_their_order_part_downloads() {
    for [one, two] in [
        [&["a"][..], &["b"][..]],
        [&["a", "b"], &["b", "a"]],
        [&["a"], &["a", "a"]],
    ] {
        let rig = Rig::new().await;
        let client = rig.client.clone();
        let ask = |values: &[&str]| {
            let pairs: Vec<_> = values.iter().map(|v| ("http_header_url:0:X", *v)).collect();
            rig.a().qualifiers(&pairs)
        };
        let (first, second) = (ask(one), ask(two));
        let requests = rig.both((&client, first), (&client, second)).await;
        assert_eq!(requests, 2, "{one:?} {two:?}");
    }
}

#[tokio::test]
async fn scenario_21_a_leader_who_cancels_leaves_the_follower_alone() {
    let rig = Rig::new().await;
    let leader = rig.lead(&rig.client, rig.a()).await;
    let other = invocation(&rig.proxy.client().await, "other");
    let follower = rig.follow(&other, rig.a()).await;
    leader.cancel();
    rig.proxy.waiting(1).await;
    rig.gate.open();
    assert_eq!(hit(follower.answer().await), digest_of(A));
    assert_eq!(rig.origin.count("/a"), 1);
}

#[tokio::test]
async fn scenario_21_a_leader_who_times_out_leaves_the_follower_alone() {
    let rig = Rig::new().await;
    let short = rig.a().timeout(Duration::from_millis(1500));
    let leader = rig.lead(&rig.client, short).await;
    let long = rig.a().timeout(Duration::from_secs(30));
    let follower = rig.follow(&rig.client, long).await;
    inline(leader.answer().await, Code::DeadlineExceeded);
    rig.gate.open();
    assert_eq!(hit(follower.answer().await), digest_of(A));
    assert_eq!(rig.origin.count("/a"), 1);
}

#[tokio::test]
async fn scenario_21_a_follower_who_times_out_fails_alone() {
    let rig = Rig::new().await;
    let leader = rig.lead(&rig.client, rig.a()).await;
    let short = rig.a().timeout(Duration::from_millis(300));
    let answer = rig.client.fetch_blob(short).await;
    inline(answer, Code::DeadlineExceeded);
    rig.gate.open();
    assert_eq!(hit(leader.answer().await), digest_of(A));
    assert_eq!(rig.origin.count("/a"), 1);
}

#[tokio::test]
async fn scenario_21_a_follower_with_a_wrong_checksum_fails_alone() {
    let rig = Rig::new().await;
    let leader = rig.lead(&rig.client, rig.a()).await;
    let wrong = fetch_blob(&[rig.origin.url("/a")])
        .qualifier("checksum.sri", &sri(Function::Sha256, b"something else"));
    let follower = rig.follow(&rig.client, wrong).await;
    rig.gate.open();
    assert_eq!(hit(leader.answer().await), digest_of(A));
    inline(follower.answer().await, Code::Aborted);
}

#[tokio::test]
async fn scenario_21_a_leader_with_a_wrong_checksum_fails_alone() {
    let rig = Rig::new().await;
    let wrong = fetch_blob(&[rig.origin.url("/a")])
        .qualifier("checksum.sri", &sri(Function::Sha256, b"something else"));
    let leader = rig.lead(&rig.client, wrong).await;
    let follower = rig.follow(&rig.client, rig.a()).await;
    rig.gate.open();
    inline(leader.answer().await, Code::Aborted);
    assert_eq!(hit(follower.answer().await), digest_of(A));
}

#[tokio::test]
async fn scenario_21_a_follower_with_another_checksum_has_mirrors_of_its_own() {
    let rig = Rig::new().await;
    let leader = rig.lead(&rig.client, rig.a()).await;
    let uris = [rig.origin.url("/a"), rig.origin.url("/one")];
    let other = fetch_blob(&uris).qualifier("checksum.sri", &sri(Function::Sha256, b"one"));
    let follower = rig.follow(&rig.client, other).await;
    rig.gate.open();
    assert_eq!(hit(leader.answer().await), digest_of(A));
    let answer = follower.answer().await;
    assert_eq!(answer.as_ref().unwrap().uri(), uris[1]);
    assert_eq!(hit(answer), digest_of(b"one"));
}

#[tokio::test]
async fn scenario_21_each_caller_goes_on_from_a_shared_503_to_its_own_mirror() {
    let rig = Rig::serving(Reply::status(503)).await;
    let ask = |mirror| fetch_blob(&[rig.origin.url("/a"), rig.origin.url(mirror)]);
    let leader = rig.lead(&rig.client, ask("/one")).await;
    let follower = rig.follow(&rig.client, ask("/two")).await;
    rig.gate.open();
    for (call, path) in [(leader, "/one"), (follower, "/two")] {
        let answer = call.answer().await;
        assert_eq!(answer.as_ref().unwrap().uri(), rig.origin.url(path));
        assert_eq!(hit(answer), digest_of(&path.as_bytes()[1..]));
        assert_eq!(rig.origin.count(path), 1);
    }
    assert_eq!(rig.origin.count("/a"), 1);
}

/// T3: whoever gives a fetch no more time than the call has will not come back
/// for it.
#[tokio::test]
async fn t3_scenario_21_when_all_cancel_so_does_the_request_of_the_origin() {
    let rig = Rig::new().await;
    let ask = || rig.a().timeout(Duration::from_secs(90));
    let call = |client: &Client| {
        let (client, mut request) = (client.clone(), rig.client.request(ask()));
        request.set_timeout(Duration::from_secs(120));
        tokio::spawn(async move { client.fetch().fetch_blob(request).await })
    };
    let calls = [call(&rig.client), call(&rig.client)];
    rig.proxy.waiting(2).await;
    assert_eq!(rig.origin.count("/a"), 1);
    for call in calls {
        call.abort();
    }
    eventually("the end of the origin's request", async || {
        (rig.origin.left("/a") == 1).then_some(())
    })
    .await;
    rig.gate.open();
    assert_eq!(hit(rig.client.fetch_blob(ask()).await), digest_of(A));
    assert_eq!(rig.origin.count("/a"), 2);
}

#[tokio::test]
async fn scenario_20_a_download_longer_than_the_deadline_is_made_once() {
    let rig = Rig::new().await;
    let ask = || rig.a();
    for _ in 0..3 {
        let deadline = Duration::from_millis(500);
        rig.client.fetch_blob_in_vain(ask(), deadline).await;
    }
    rig.proxy.waiting(0).await;
    assert_eq!(rig.origin.count("/a"), 1);
    let late = rig.follow(&rig.client, ask()).await;
    rig.gate.open();
    assert_eq!(hit(late.answer().await), digest_of(A));
    assert_eq!(rig.origin.count("/a"), 1);
}
