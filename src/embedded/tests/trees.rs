//! R7: GetTree.

use super::*;
use rev2::{Directory, DirectoryNode};

fn parent(children: &[&Digest]) -> Directory {
    let directories = children.iter().enumerate().map(|(n, child)| DirectoryNode {
        name: format!("d{n}"),
        digest: Some(child.to_wire()),
    });
    Directory {
        directories: directories.collect(),
        ..Default::default()
    }
}

fn leaf(n: u32) -> Directory {
    Directory {
        files: vec![rev2::FileNode {
            name: format!("f{n}"),
            digest: Some(absent(n).to_wire()),
            ..Default::default()
        }],
        ..Default::default()
    }
}

async fn pages(
    cache: &Cache,
    root: &Digest,
    page_size: i32,
    token: &str,
) -> Result<Vec<rev2::GetTreeResponse>, Status> {
    let request = rev2::GetTreeRequest {
        root_digest: Some(root.to_wire()),
        page_size,
        page_token: token.into(),
        ..Default::default()
    };
    let mut stream = cache.cas().get_tree(request).await?.into_inner();
    let mut pages = Vec::new();
    while let Some(page) = stream.message().await? {
        pages.push(page);
    }
    Ok(pages)
}

#[tokio::test]
async fn r7_every_directory_comes_once_and_missing_ones_are_left_out() {
    let cache = Cache::new();
    let one = cache.put_message(&leaf(1)).await;
    let two = cache.put_message(&leaf(2)).await;
    let empty = Digest::of(F, b"").unwrap();
    let gone = absent(99);
    let inner = cache.put_message(&parent(&[&one, &two, &gone])).await;
    let root_message = parent(&[&one, &inner, &one, &empty]);
    let root = cache.put_message(&root_message).await;
    let got = pages(&cache, &root, 0, "").await.unwrap();
    assert_eq!(got.len(), 1);
    assert!(got[0].next_page_token.is_empty());
    let want = [
        root_message,
        leaf(1),
        parent(&[&one, &two, &gone]),
        Directory::default(),
        leaf(2),
    ];
    assert_eq!(got[0].directories, want);

    let error = pages(&cache, &gone, 0, "").await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    let got = pages(&cache, &empty, 0, "").await.unwrap();
    assert_eq!(got[0].directories, [Directory::default()]);
}

#[tokio::test]
async fn r7_pages_and_their_tokens() {
    let cache = Cache::new();
    let mut leaves = Vec::new();
    for n in 0..9 {
        leaves.push(cache.put_message(&leaf(n)).await);
    }
    let root = cache
        .put_message(&parent(&leaves.iter().collect::<Vec<_>>()))
        .await;
    let all = pages(&cache, &root, 4, "").await.unwrap();
    let sizes: Vec<_> = all.iter().map(|p| p.directories.len()).collect();
    assert_eq!(sizes, [4, 4, 2]);
    assert!(all[2].next_page_token.is_empty());
    let rest = pages(&cache, &root, 4, &all[0].next_page_token)
        .await
        .unwrap();
    assert_eq!(rest, all[1..]);

    for (size, token) in [(-1, ""), (0, "x"), (0, "-1")] {
        let error = pages(&cache, &root, size, token).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn what_is_no_directory_is_refused() {
    let cache = Cache::new();
    let garbage = cache.put(b"\xff\xff\xff").await;
    let error = pages(&cache, &garbage, 0, "").await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_deep_chain_is_walked_to_its_end() {
    let cache = Cache::new();
    let mut last = cache.put_message(&leaf(0)).await;
    for _ in 0..500 {
        last = cache.put_message(&parent(&[&last])).await;
    }
    let all = pages(&cache, &last, 100, "").await.unwrap();
    let count: usize = all.iter().map(|p| p.directories.len()).sum();
    assert_eq!(count, 501);
}
