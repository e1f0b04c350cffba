//! Calls that are under way at the same time, begun one after another.

use std::time::Duration;

use assetgate::proto::asset::{FetchBlobRequest, FetchBlobResponse};
use tokio::task::JoinHandle;
use tonic::Status;

use super::{Client, Running, bounded, eventually};

/// A FetchBlob in the background.
pub struct Pending(JoinHandle<Result<FetchBlobResponse, Status>>);

impl Pending {
    pub fn call(client: &Client, message: FetchBlobRequest) -> Self {
        let client = client.clone();
        Self(tokio::spawn(
            async move { client.fetch_blob(message).await },
        ))
    }

    pub async fn answer(self) -> Result<FetchBlobResponse, Status> {
        bounded("the answer", self.0).await.unwrap()
    }

    pub fn is_over(&self) -> bool {
        self.0.is_finished()
    }

    /// The client cancels the call.
    pub fn cancel(self) {
        self.0.abort();
    }
}

impl Running {
    /// How many FetchBlobs are under way.
    pub async fn calls(&self) -> usize {
        let metrics = self.metrics().await;
        let of = |name| metrics.sum(name, &[r#"grpc_method="FetchBlob""#]);
        (of("grpc_server_started_total") - of("grpc_server_handled_total")) as usize
    }

    /// Waits until so many FetchBlobs wait for an origin. That the last of them
    /// has come so far cannot be seen from outside, so it gets a moment.
    pub async fn waiting(&self, calls: usize) {
        eventually("the calls under way", async || {
            (self.calls().await == calls).then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(self.calls().await, calls, "some ended");
    }
}
