//! R9: entries, their completeness, and damage to them.

use super::*;
use prost::Message;
use rev2::{ActionResult, Directory, DirectoryNode, FileNode, OutputDirectory, OutputFile};

fn key(n: u32) -> Digest {
    absent(1000 + n)
}

fn output(digest: &Digest) -> OutputFile {
    OutputFile {
        path: "out".into(),
        digest: Some(digest.to_wire()),
        ..Default::default()
    }
}

async fn update(
    cache: &Cache,
    instance: &str,
    n: u32,
    result: ActionResult,
) -> Result<ActionResult, Status> {
    let request = rev2::UpdateActionResultRequest {
        instance_name: instance.into(),
        action_digest: Some(key(n).to_wire()),
        action_result: Some(result),
        ..Default::default()
    };
    let response = cache.actions().update_action_result(request).await?;
    Ok(response.into_inner())
}

async fn get(cache: &Cache, instance: &str, n: u32) -> Result<ActionResult, Code> {
    let request = rev2::GetActionResultRequest {
        instance_name: instance.into(),
        action_digest: Some(key(n).to_wire()),
        ..Default::default()
    };
    let response = cache.actions().get_action_result(request).await;
    response
        .map(tonic::Response::into_inner)
        .map_err(|e| e.code())
}

#[tokio::test]
async fn r9_the_last_write_wins_and_instances_are_apart() {
    let cache = Cache::new();
    let result = |exit_code| ActionResult {
        exit_code,
        ..Default::default()
    };
    assert_eq!(get(&cache, "", 1).await, Err(Code::NotFound));
    for n in [1, 2] {
        assert_eq!(update(&cache, "", 1, result(n)).await.unwrap(), result(n));
        assert_eq!(get(&cache, "", 1).await, Ok(result(n)));
    }
    assert_eq!(get(&cache, "a/b", 1).await, Err(Code::NotFound));
    update(&cache, "a/b", 1, result(3)).await.unwrap();
    assert_eq!(get(&cache, "", 1).await, Ok(result(2)));
    assert_eq!(get(&cache, "a/b", 1).await, Ok(result(3)));
    assert_eq!(cache.inner().store.usage().1, 2);
}

#[tokio::test]
async fn r9_auxiliary_metadata_and_root_digest_survive() {
    let cache = Cache::new();
    let file = cache.put(b"file").await;
    let any = prost_types::Any {
        type_url: "type.googleapis.com/x.Y".into(),
        value: noise(1, 5000),
    };
    let result = ActionResult {
        output_files: vec![output(&file)],
        execution_metadata: Some(rev2::ExecutedActionMetadata {
            worker: "w".into(),
            auxiliary_metadata: vec![any],
            ..Default::default()
        }),
        ..Default::default()
    };
    update(&cache, "", 1, result.clone()).await.unwrap();
    assert_eq!(get(&cache, "", 1).await, Ok(result));
}

/// A tree of two directories with one file each, stored but for what `leave`
/// names.
async fn tree(cache: &Cache, seed: u32, leave: &str, with_root: bool) -> OutputDirectory {
    let file = |n| noise(seed * 10 + n, 50);
    let node = |data: &[u8]| FileNode {
        name: "f".into(),
        digest: Some(Digest::of(F, data).unwrap().to_wire()),
        ..Default::default()
    };
    let child = Directory {
        files: vec![node(&file(1))],
        ..Default::default()
    };
    let child_bytes = child.encode_to_vec();
    let child_digest = Digest::of(F, &child_bytes).unwrap();
    let root = Directory {
        files: vec![node(&file(2)), node(b"")],
        directories: vec![DirectoryNode {
            name: "d".into(),
            digest: Some(child_digest.to_wire()),
        }],
        ..Default::default()
    };
    let root_bytes = root.encode_to_vec();
    let root_digest = Digest::of(F, &root_bytes).unwrap();
    let tree = rev2::Tree {
        root: Some(root),
        children: vec![child],
    };
    let tree_bytes = tree.encode_to_vec();
    for (name, data) in [
        ("child file", file(1)),
        ("root file", file(2)),
        ("child", child_bytes),
        ("root", root_bytes),
        ("tree", tree_bytes.clone()),
    ] {
        if name != leave {
            cache.put(&data).await;
        }
    }
    OutputDirectory {
        path: "dir".into(),
        tree_digest: Some(Digest::of(F, &tree_bytes).unwrap().to_wire()),
        root_directory_digest: with_root.then(|| root_digest.to_wire()),
        ..Default::default()
    }
}

#[tokio::test]
async fn r9_an_incomplete_result_is_not_found() {
    let cache = Cache::new();
    let cases = [
        ("", true, true),
        ("", false, true),
        ("child file", false, false),
        ("root file", false, false),
        ("tree", false, false),
        ("child", false, true),
        ("root", false, true),
        ("child", true, false),
        ("root", true, false),
    ];
    for (n, (leave, with_root, found)) in (1..).zip(cases) {
        let directory = tree(&cache, n, leave, with_root).await;
        let result = ActionResult {
            output_directories: vec![directory],
            ..Default::default()
        };
        update(&cache, "", n, result).await.unwrap();
        assert_eq!(
            get(&cache, "", n).await.is_ok(),
            found,
            "{leave:?} {with_root}"
        );
    }
    let (here, gone) = (cache.put(b"here").await, absent(1));
    let empty = Digest::of(F, b"").unwrap();
    let build = |stdout: &Digest, stderr: &Digest, file: &Digest| ActionResult {
        stdout_digest: Some(stdout.to_wire()),
        stderr_digest: Some(stderr.to_wire()),
        output_files: vec![output(file), output(&empty)],
        ..Default::default()
    };
    for (n, (result, found)) in (50..).zip([
        (build(&here, &empty, &here), true),
        (build(&gone, &here, &here), false),
        (build(&here, &gone, &here), false),
        (build(&here, &here, &gone), false),
    ]) {
        update(&cache, "", n, result).await.unwrap();
        assert_eq!(get(&cache, "", n).await.is_ok(), found, "{n}");
    }
}

#[tokio::test]
async fn a_tree_that_is_none_is_a_miss() {
    let cache = Cache::new();
    let garbage = cache.put(b"\xff\xff not a tree").await;
    let result = ActionResult {
        output_directories: vec![OutputDirectory {
            path: "d".into(),
            tree_digest: Some(garbage.to_wire()),
            ..Default::default()
        }],
        ..Default::default()
    };
    update(&cache, "", 1, result).await.unwrap();
    assert_eq!(get(&cache, "", 1).await, Err(Code::NotFound));
}

/// Two bytes each, which decoded would be dozens.
#[tokio::test]
async fn trees_of_empty_messages_are_checked_in_place() {
    let cache = Cache::new();
    let directories = cache.put(&[0x12, 0].repeat(1 << 20)).await;
    // A Directory whose files have no digests.
    let files = [0x0a, 0].repeat(1 << 10);
    let files = [&[0x12, 0x80, 0x10], &files[..]].concat();
    let files = cache.put(&files).await;
    for (n, tree, want) in [(1, directories, Ok(())), (2, files, Err(Code::NotFound))] {
        let directory = OutputDirectory {
            tree_digest: Some(tree.to_wire()),
            ..Default::default()
        };
        let result = ActionResult {
            output_directories: vec![directory],
            ..Default::default()
        };
        update(&cache, "", n, result).await.unwrap();
        assert_eq!(get(&cache, "", n).await.map(drop), want);
    }
}

#[tokio::test]
async fn a_hit_keeps_entry_and_content_from_eviction() {
    let cache = Cache::of_size(40 * 4096);
    let directory = tree(&cache, 1, "", true).await;
    let result = ActionResult {
        output_directories: vec![directory],
        ..Default::default()
    };
    update(&cache, "", 1, result).await.unwrap();
    for n in 0..200 {
        cache.put(&noise(9000 + n, 64)).await;
        get(&cache, "", 1).await.unwrap();
    }
}

#[tokio::test]
async fn malformed_updates_are_refused() {
    let cache = Cache::new();
    let bad = rev2::Digest {
        hash: "zz".into(),
        size_bytes: 1,
    };
    let mut file = ActionResult {
        output_files: vec![output(&key(1))],
        ..Default::default()
    };
    file.output_files[0].digest = Some(bad.clone());
    let stdout = ActionResult {
        stdout_digest: Some(bad.clone()),
        ..Default::default()
    };
    let mut none = ActionResult::default();
    none.output_files.push(OutputFile::default());
    let mut treeless = ActionResult::default();
    treeless.output_directories.push(OutputDirectory::default());
    for result in [file, stdout, none, treeless] {
        let error = update(&cache, "", 1, result).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
    }
    let error = update(&cache, "a/blobs", 1, ActionResult::default()).await;
    assert_eq!(error.unwrap_err().code(), Code::InvalidArgument);
    let request = rev2::UpdateActionResultRequest {
        action_digest: Some(key(1).to_wire()),
        ..Default::default()
    };
    let error = cache.actions().update_action_result(request).await;
    assert_eq!(error.unwrap_err().code(), Code::InvalidArgument);
    let request = rev2::GetActionResultRequest {
        action_digest: Some(bad),
        ..Default::default()
    };
    let error = cache.actions().get_action_result(request).await;
    assert_eq!(error.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(get(&cache, "", 1).await, Err(Code::NotFound));
}

#[tokio::test]
async fn a_damaged_entry_is_a_miss_and_removed() {
    let cache = Cache::new();
    let file = |n: u32| {
        let instance = crate::digest::InstanceName::default();
        let path = key::Key::action(&instance, F, &key(n)).path();
        cache.dir.path().join(path)
    };
    let result = ActionResult {
        exit_code: 7,
        stdout_raw: b"output"[..].into(),
        ..Default::default()
    };
    update(&cache, "", 1, result.clone()).await.unwrap();
    update(&cache, "", 2, result.clone()).await.unwrap();
    let good = std::fs::read(file(1)).unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let elsewhere = std::fs::read(file(2)).unwrap();
    for damaged in [
        &[],
        &good[..good.len() - 1],
        &good[..5],
        &flipped,
        &elsewhere,
    ] {
        std::fs::write(file(1), damaged).unwrap();
        assert_eq!(get(&cache, "", 1).await, Err(Code::NotFound));
        assert!(!file(1).exists());
        update(&cache, "", 1, result.clone()).await.unwrap();
        assert_eq!(get(&cache, "", 1).await, Ok(result.clone()));
    }
}

/// For want of descriptors, say: the entry is as good as before.
#[tokio::test]
async fn an_entry_that_cannot_be_read_just_now_is_kept() {
    let cache = Cache::new();
    update(&cache, "", 1, ActionResult::default())
        .await
        .unwrap();
    let digest = key(1);
    let path = super::key::Key::action(&Default::default(), F, &digest).path();
    let path = cache.dir.path().join(path);
    let aside = path.with_extension("aside");
    std::fs::rename(&path, &aside).unwrap();
    std::os::unix::fs::symlink(&path, &path).unwrap();
    assert_eq!(get(&cache, "", 1).await, Err(Code::NotFound));
    assert!(path.symlink_metadata().is_ok(), "it was removed");
    std::fs::rename(&aside, &path).unwrap();
    get(&cache, "", 1).await.unwrap();
}

#[tokio::test]
async fn a_tree_of_ten_thousand_files_is_checked_quickly() {
    let cache = Cache::new();
    let mut root = Directory::default();
    for piece in 0..10 {
        let mut requests = Vec::new();
        for n in 0..1000u32 {
            let data = (piece * 1000 + n).to_be_bytes();
            let digest = Digest::of(F, &data).unwrap();
            root.files.push(FileNode {
                name: format!("file-{piece}-{n}"),
                digest: Some(digest.to_wire()),
                ..Default::default()
            });
            requests.push(identity(&digest, &data));
        }
        cache.update(requests).await.unwrap();
    }
    let tree = rev2::Tree {
        root: Some(root),
        children: Vec::new(),
    };
    let tree = cache.put_message(&tree).await;
    let result = ActionResult {
        output_directories: vec![OutputDirectory {
            path: "d".into(),
            tree_digest: Some(tree.to_wire()),
            ..Default::default()
        }],
        ..Default::default()
    };
    update(&cache, "", 1, result).await.unwrap();
    let begin = tokio::time::Instant::now();
    get(&cache, "", 1).await.unwrap();
    let took = begin.elapsed();
    println!("10,000 files checked in {took:?}");
    assert!(took < std::time::Duration::from_secs(2), "{took:?}");
}
