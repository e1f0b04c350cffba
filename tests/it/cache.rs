//! R1 to R3, R5 to R7 and R9 to R11: the REv2 calls themselves, over the
//! embedded cache and through the program to another one.

use assetgate::proto::rev2::{
    ActionResult, BatchReadBlobsRequest, BatchUpdateBlobsRequest, Digest, FindMissingBlobsRequest,
    GetActionResultRequest, GetCapabilitiesRequest, OutputDirectory, OutputFile, Tree,
    UpdateActionResultRequest, batch_update_blobs_request,
};
use bytes::Bytes;
use prost::Message as _;

use crate::support::answer::fields;
use crate::support::client::{upload_name, write_messages};
use crate::support::content::noise;
use crate::support::{Client, Code, Dir, Function, Proxy, Running, Upstream, digest_in, digest_of};

/// The program over its own cache, and in front of another.
async fn both() -> (Upstream, Vec<(Running, Client)>) {
    let cache = Upstream::start();
    let own = Proxy::new().connected().await;
    let other = Proxy::new().upstream(&cache).connected().await;
    (cache, vec![own, other])
}

fn read_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.hash, digest.size_bytes)
}

#[tokio::test]
async fn r1_resource_names_of_every_form() {
    let (_proxy, client) = Proxy::new().connected().await;
    let content = b"content";
    let sha = digest_of(content);
    let blake = digest_in(Function::Blake3, content);
    let id = "2f1c0a52-6d5e-4c55-9a70-7f0a4f1c9f10";
    for (write, read) in [
        (
            format!("uploads/{id}/blobs/{}/7", sha.hash),
            format!("blobs/{}/7", sha.hash),
        ),
        (
            format!("a/b/uploads/{id}/blobs/{}/7", sha.hash),
            format!("a/b/blobs/{}/7", sha.hash),
        ),
        (
            format!("uploads/{id}/blobs/{}/7/free/blobs/text", sha.hash),
            format!("blobs/{}/7", sha.hash),
        ),
        (
            format!("a/uploads/{id}/blobs/blake3/{}/7", blake.hash),
            format!("a/blobs/blake3/{}/7", blake.hash),
        ),
    ] {
        let answer = client
            .write(write_messages(&write, content, 3))
            .await
            .unwrap();
        assert_eq!(answer.committed_size, 7, "{write}");
        assert_eq!(client.read(&read).await.unwrap(), content, "{read}");
    }
    for bad in [
        "",
        "blobs",
        "blobs/x/7",
        "blobs//blobs/x/7",
        &format!("blobs/{}/-1", sha.hash),
        &format!("blobs/{}/7/more", sha.hash),
        &format!("compressed-blobs/lzma/{}/7", sha.hash),
        &format!("uploads/{id}/blobs/{}/7", sha.hash),
    ] {
        let status = client.read(bad).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{bad}: {status:?}");
        assert_eq!(fields(&status), ["resource_name"]);
    }
    let foreign = client.read("logstreams/some/log").await.unwrap_err();
    assert_eq!(foreign.code(), Code::NotFound, "{foreign:?}");
}

#[tokio::test]
async fn r2_writes_are_checked_and_written_again_without_harm() {
    let (_cache, both) = both().await;
    for (_proxy, client) in &both {
        let content = noise(3_000_000, 5);
        let name = upload_name(&digest_of(&content));
        for _ in 0..2 {
            let answer = client
                .write(write_messages(&name, &content, 700_000))
                .await
                .unwrap();
            assert_eq!(answer.committed_size, 3_000_000);
        }
        let wrong = upload_name(&digest_of(b"something else"));
        let status = client
            .write(write_messages(&wrong, b"not that else.", 5))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert_eq!(
            client.missing(&[digest_of(b"something else")]).await.len(),
            1
        );
    }
}

#[tokio::test]
async fn r3_reads_have_offsets_and_limits() {
    let (_cache, both) = both().await;
    for (_proxy, client) in &both {
        let content = noise(1_000_000, 6);
        let digest = client.upload(&content).await;
        let name = read_name(&digest);
        for (offset, limit) in [
            (0, 0),
            (1, 0),
            (999_999, 0),
            (1_000_000, 0),
            (0, 1),
            (5, 600_000),
        ] {
            let end = if limit == 0 {
                content.len()
            } else {
                offset + limit
            };
            let part = client
                .read_part(&name, offset as i64, limit as i64)
                .await
                .unwrap();
            assert!(part == content[offset..end], "{offset} {limit}");
        }
        let beyond = client.read_part(&name, 1_000_001, 0).await.unwrap_err();
        assert_eq!(beyond.code(), Code::OutOfRange);
        let absent = client
            .read(&read_name(&digest_of(b"absent")))
            .await
            .unwrap_err();
        assert_eq!(absent.code(), Code::NotFound);
        assert_eq!(client.read(&read_name(&digest_of(b""))).await.unwrap(), b"");
    }
}

#[tokio::test]
async fn r5_find_missing_names_what_is_missing_and_nothing_else() {
    let (_cache, both) = both().await;
    for (_proxy, client) in &both {
        let there = client.upload(b"there").await;
        let absent = digest_of(b"absent");
        let asked = [there, absent.clone(), digest_of(b"")];
        assert_eq!(client.missing(&asked).await, [absent]);
        let many: Vec<Digest> = (0..10_000_u32)
            .map(|i| digest_of(&i.to_le_bytes()))
            .collect();
        assert_eq!(client.missing(&many).await.len(), 10_000);
    }
}

#[tokio::test]
async fn r5_another_digest_function_is_another_name() {
    let (_proxy, client) = Proxy::new().connected().await;
    let digest = digest_in(Function::Sha512, b"content");
    let request = BatchUpdateBlobsRequest {
        requests: vec![batch_update_blobs_request::Request {
            digest: Some(digest.clone()),
            data: Bytes::from_static(b"content"),
            ..Default::default()
        }],
        digest_function: Function::Sha512 as i32,
        ..Default::default()
    };
    let answer = client.batch_update_blobs(request).await.unwrap();
    assert_eq!(answer.responses[0].status.as_ref().map_or(0, |s| s.code), 0);
    let request = FindMissingBlobsRequest {
        blob_digests: vec![digest.clone()],
        digest_function: Function::Sha512 as i32,
        ..Default::default()
    };
    let answer = client.find_missing_blobs(request).await.unwrap();
    assert_eq!(answer.missing_blob_digests, []);
    assert_eq!(client.read(&read_name(&digest)).await.unwrap(), b"content");
}

#[tokio::test]
async fn r6_each_blob_of_a_batch_has_its_own_status() {
    let (_cache, both) = both().await;
    for (_proxy, client) in &both {
        let put = |content: &'static [u8], digest| batch_update_blobs_request::Request {
            digest: Some(digest),
            data: Bytes::from_static(content),
            ..Default::default()
        };
        let request = BatchUpdateBlobsRequest {
            requests: vec![
                put(b"good", digest_of(b"good")),
                put(b"evil", digest_of(b"claimed")),
                put(b"", digest_of(b"")),
            ],
            ..Default::default()
        };
        let answer = client.batch_update_blobs(request).await.unwrap();
        let codes: Vec<i32> = answer
            .responses
            .iter()
            .map(|r| r.status.as_ref().map_or(0, |s| s.code))
            .collect();
        assert_eq!(codes, [0, Code::InvalidArgument as i32, 0]);
        let request = BatchReadBlobsRequest {
            digests: vec![digest_of(b"good"), digest_of(b"claimed"), digest_of(b"")],
            ..Default::default()
        };
        let answer = client.batch_read_blobs(request).await.unwrap();
        let got: Vec<(i32, &[u8])> = answer
            .responses
            .iter()
            .map(|r| (r.status.as_ref().map_or(0, |s| s.code), &*r.data))
            .collect();
        assert_eq!(
            got,
            [(0, &b"good"[..]), (Code::NotFound as i32, b""), (0, b"")]
        );
    }
}

#[tokio::test]
async fn r6_a_batch_over_the_announced_limit_is_invalid_as_a_whole() {
    let (_proxy, client) = Proxy::new().connected().await;
    let capabilities = client
        .get_capabilities(GetCapabilitiesRequest::default())
        .await
        .unwrap();
    let cache = capabilities.cache_capabilities.unwrap();
    let limit = usize::try_from(cache.max_batch_total_size_bytes).unwrap();
    assert!(limit > 0);
    let blob = noise(limit / 2 + 1000, 9);
    let other = noise(limit / 2 + 1000, 10);
    let put = |data: &[u8]| batch_update_blobs_request::Request {
        digest: Some(digest_of(data)),
        data: Bytes::copy_from_slice(data),
        ..Default::default()
    };
    let request = BatchUpdateBlobsRequest {
        requests: vec![put(&blob), put(&other)],
        ..Default::default()
    };
    let status = client.batch_update_blobs(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert_eq!(client.missing(&[digest_of(&blob)]).await.len(), 1);
}

#[tokio::test]
async fn r7_a_tree_without_some_subtree_is_a_tree_without_it() {
    let (_cache, both) = both().await;
    for (_proxy, client) in &both {
        let here = Dir::new().file("here", b"1");
        let gone = Dir::new().file("gone", b"2");
        let root = Dir::new().dir("gone", &gone).dir("here", &here);
        client.upload_all(&[root.blob(), here.blob()]).await;
        let mut got: Vec<Vec<u8>> = client
            .tree(root.digest())
            .await
            .unwrap()
            .iter()
            .map(|d| d.encode_to_vec())
            .collect();
        got.sort();
        let mut want = vec![root.blob(), here.blob()];
        want.sort();
        assert_eq!(got, want);
        let absent = client.tree(digest_of(b"absent")).await.unwrap_err();
        assert_eq!(absent.code(), Code::NotFound);
    }
}

fn action() -> Digest {
    digest_of(b"an action")
}

async fn update(client: &Client, result: ActionResult) {
    let request = UpdateActionResultRequest {
        action_digest: Some(action()),
        action_result: Some(result),
        ..Default::default()
    };
    client.update_action_result(request).await.unwrap();
}

async fn result(client: &Client) -> Result<ActionResult, tonic::Status> {
    let request = GetActionResultRequest {
        action_digest: Some(action()),
        ..Default::default()
    };
    client.get_action_result(request).await
}

#[tokio::test]
async fn r9_an_action_result_comes_back_as_it_was_stored() {
    let (_cache, both) = both().await;
    for (_proxy, client) in &both {
        assert_eq!(result(client).await.unwrap_err().code(), Code::NotFound);
        let any = prost_types::Any {
            type_url: "type.googleapis.com/some.Thing".into(),
            value: vec![1, 2, 3],
        };
        let mut stored = ActionResult {
            output_files: vec![OutputFile {
                path: "out".into(),
                digest: Some(client.upload(b"out").await),
                ..Default::default()
            }],
            exit_code: 3,
            ..Default::default()
        };
        stored.execution_metadata = Some(assetgate::proto::rev2::ExecutedActionMetadata {
            worker: "w".into(),
            auxiliary_metadata: vec![any],
            ..Default::default()
        });
        update(client, stored.clone()).await;
        assert_eq!(result(client).await.unwrap(), stored);
    }
}

#[tokio::test]
async fn r9_a_result_without_its_outputs_is_not_found() {
    let (_cache, both) = both().await;
    for (_proxy, client) in &both {
        let absent = ActionResult {
            output_files: vec![OutputFile {
                path: "out".into(),
                digest: Some(digest_of(b"absent")),
                ..Default::default()
            }],
            ..Default::default()
        };
        update(client, absent).await;
        assert_eq!(result(client).await.unwrap_err().code(), Code::NotFound);
        let root = Dir::new().file("f", b"file in a tree");
        let tree = Tree {
            root: Some(assetgate::proto::rev2::Directory::decode(&*root.blob()).unwrap()),
            ..Default::default()
        };
        let directory = OutputDirectory {
            path: "dir".into(),
            tree_digest: Some(client.upload(&tree.encode_to_vec()).await),
            ..Default::default()
        };
        update(
            client,
            ActionResult {
                output_directories: vec![directory],
                ..Default::default()
            },
        )
        .await;
        assert_eq!(result(client).await.unwrap_err().code(), Code::NotFound);
        client.upload(b"file in a tree").await;
        result(client).await.unwrap();
    }
}

#[tokio::test]
async fn r10_capabilities_are_the_caches_own() {
    let (cache, both) = both().await;
    cache.announce(&[Function::Sha256, Function::Blake3]);
    cache.batch_limit(123_456);
    let (_proxy, client) = &both[1];
    let direct = Client::connect(&format!("http://{}", cache.address())).await;
    let ask = GetCapabilitiesRequest::default;
    let forwarded = client.get_capabilities(ask()).await.unwrap();
    assert_eq!(forwarded, direct.get_capabilities(ask()).await.unwrap());
    let (_proxy, client) = &both[0];
    let own = client
        .get_capabilities(ask())
        .await
        .unwrap()
        .cache_capabilities
        .unwrap();
    for function in [
        Function::Sha256,
        Function::Sha1,
        Function::Md5,
        Function::Sha384,
    ] {
        assert!(
            own.digest_functions.contains(&(function as i32)),
            "{function:?}"
        );
    }
    for function in [Function::Sha512, Function::Blake3] {
        assert!(
            own.digest_functions.contains(&(function as i32)),
            "{function:?}"
        );
    }
    assert!(own.action_cache_update_capabilities.unwrap().update_enabled);
}

#[tokio::test]
async fn r11_the_action_of_a_reference_is_well_formed_and_stored() {
    use assetgate::proto::rev2::{Action, Command};
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let digest = cache.put(b"blob");
    let push = crate::support::push_blob(&["urn:r:a"], digest);
    client.push_blob(push).await.unwrap();
    let (key, _) = cache.entries().remove(0);
    let blob = cache.get(&key.digest).expect("the Action is uploaded");
    assert_eq!(digest_of(&blob), key.digest);
    let action = Action::decode(blob.clone()).unwrap();
    assert_eq!(
        action.encode_to_vec(),
        blob,
        "no unknown fields, in tag order"
    );
    assert_eq!(action.input_root_digest, Some(digest_of(b"")));
    assert!(!action.do_not_cache);
    assert_eq!(action.salt.len(), 32);
    let command = cache.get(action.command_digest.as_ref().unwrap());
    let command = command.expect("the Command is uploaded");
    let decoded = Command::decode(command.clone()).unwrap();
    assert_eq!(decoded.encode_to_vec(), command);
    assert!(decoded.output_paths.is_empty(), "it makes nothing");
}
