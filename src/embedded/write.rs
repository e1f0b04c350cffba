//! `ByteStream.Write` and `QueryWriteStatus`.
//!
//! Offsets count bytes of the blob, except that on a compressed upload all
//! offsets but the first of a call add *compressed* bytes, as REv2 has it. A
//! blob that is present, or becomes so meanwhile, ends the call at once. A call
//! whose upload has no room is not read until it has (`room.rs`).
//!
//! Not for: hashing and publishing (`upload.rs`), keeping what a broken
//! connection left (`uploads.rs`).
//! Called by: `byte_stream.rs`.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use tonic::{Status, Streaming};

use super::Inner;
use super::compress::Decoder;
use super::key::Key;
use super::request::is_empty_blob;
use super::resource::Blob;
use super::room::Room;
use super::slot::{Claim, IDLE, LEAST_PROGRESS, Progress, Slot};
use super::status::{blocking, invalid};
use super::store;
use super::upload::Upload;
use super::uploads::Way;
use crate::call::ConnectionId;
use crate::proto::bytestream::{QueryWriteStatusResponse, WriteRequest, WriteResponse};

/// Bytes collected before the disk is visited.
const HOP: usize = 256 << 10;

/// Receives a blob.
pub(super) async fn write(
    inner: &Arc<Inner>,
    connection: ConnectionId,
    mut messages: Streaming<WriteRequest>,
    header: Option<&str>,
) -> Result<WriteResponse, Status> {
    let first = messages.message().await?;
    let first = first.ok_or_else(|| invalid("resource_name", "the call has no message"))?;
    super::byte_stream::check_header(header, &first.resource_name)?;
    let blob = Blob::parse_write(&first.resource_name)?;
    let target = Target {
        key: Key::blob(blob.function, &blob.digest),
        blob,
        inner: Arc::clone(inner),
        connection,
        name: first.resource_name.clone(),
    };
    if target.is_present() {
        return Ok(target.already_present());
    }
    let sink = target.open(&first).await?;
    let let_go = sink.claim.let_go.clone();
    let call = Call {
        progress: Progress::new(&sink.claim.slot),
        sink,
        pending: Vec::new(),
        pending_bytes: 0,
        next_offset: first.write_offset,
    };
    tokio::select! {
        result = call.run(first, &mut messages) => result,
        () = let_go.cancelled() => Err(lost()),
    }
}

/// How far an upload is. One that is not known is at 0, so that a client can
/// begin again after this server was restarted: to Bazel NOT_FOUND would end
/// the build.
pub(super) fn status(inner: &Arc<Inner>, name: &str) -> Result<QueryWriteStatusResponse, Status> {
    let blob = Blob::parse_write(name)?;
    let key = Key::blob(blob.function, &blob.digest);
    if is_empty_blob(blob.function, &blob.digest) || inner.store.touch(&key) {
        return Ok(QueryWriteStatusResponse {
            committed_size: blob.digest.size_i64(),
            complete: true,
        });
    }
    let committed = inner.uploads.committed(name).unwrap_or_default();
    Ok(QueryWriteStatusResponse {
        committed_size: i64::try_from(committed).unwrap_or(i64::MAX),
        complete: false,
    })
}

/// What is written, and where.
struct Target {
    inner: Arc<Inner>,
    connection: ConnectionId,
    name: String,
    blob: Blob,
    key: Key,
}

impl Target {
    fn is_present(&self) -> bool {
        is_empty_blob(self.blob.function, &self.blob.digest) || self.inner.store.touch(&self.key)
    }

    fn already_present(&self) -> WriteResponse {
        WriteResponse {
            committed_size: match self.blob.zstd {
                true => -1,
                false => self.blob.digest.size_i64(),
            },
        }
    }

    async fn open(self, first: &WriteRequest) -> Result<Sink, Status> {
        let decoder = self.blob.zstd.then(Decoder::new).transpose();
        let decoder = decoder.map_err(|e| Status::internal(e.to_string()))?;
        let begin = || {
            let room = Room::new(self.connection, self.blob.digest.size());
            Upload::new(
                &self.inner.store,
                self.blob.function,
                &self.blob.digest,
                room,
            )
        };
        let claim = match u64::try_from(first.write_offset) {
            Err(_) => return Err(invalid("write_offset", "it cannot be negative")),
            // All in one message: nothing that could be resumed.
            Ok(0) if first.finish_write => Slot::claim_new(begin()?)?,
            Ok(0) => self.inner.uploads.begin(&self.name, begin()?)?,
            Ok(_) => {
                let resumed = self.inner.uploads.resume(&self.name).await?;
                resumed.ok_or_else(|| out_of_range(0))?
            }
        };
        let committed = claim.upload.as_ref().map_or(0, Upload::written);
        let offset = u64::try_from(first.write_offset).unwrap_or_default();
        let skip = committed.checked_sub(offset);
        Ok(Sink {
            skip: skip.ok_or_else(|| out_of_range(committed))?,
            target: self,
            claim,
            decoder,
        })
    }
}

fn out_of_range(committed: u64) -> Status {
    Status::out_of_range(format!(
        "write_offset: {committed} bytes of this upload are here; see QueryWriteStatus"
    ))
}

/// What there has to be before an upload can go on.
enum Lack {
    /// Room of its share for so many bytes.
    Share(u64),
    /// Space in the cache, which others hold.
    Space,
}

/// Where bytes go; moves to another thread and back for each visit.
struct Sink {
    target: Target,
    claim: Claim,
    decoder: Option<Decoder>,
    /// Bytes the client sends again that are here already.
    skip: u64,
}

impl Sink {
    /// Writes, and finishes if `finish`, off this thread.
    async fn feed(mut self, pieces: Vec<Bytes>, finish: bool) -> Result<Self, Status> {
        let mut pieces = VecDeque::from(pieces);
        let mut way = Way::new();
        loop {
            let (sink, rest, fed) = blocking(move || {
                let fed = self.feed_here(&mut pieces, finish);
                if matches!(fed, Ok(None)) && finish || fed.is_err() {
                    // Whatever went wrong, going on with this upload cannot help.
                    self.give_up();
                }
                (self, pieces, fed)
            })
            .await?;
            (self, pieces) = (sink, rest);
            let uploads = &self.target.inner.uploads;
            match fed? {
                None => return Ok(self),
                Some(Lack::Share(bytes)) => uploads.extend(&mut self.claim, bytes).await,
                Some(Lack::Space) => {
                    if let Err(status) = way.wait(uploads, Some(&self.claim.slot)).await {
                        blocking(move || self.give_up()).await?;
                        return Err(status);
                    }
                }
            }
        }
    }

    /// Removes the upload: it is done, or of no use.
    fn give_up(&mut self) {
        *self.claim.upload = None;
        let uploads = &self.target.inner.uploads;
        uploads.forget(&self.target.name, &self.claim.slot);
    }

    /// Takes pieces from the front while there is room for them; says what
    /// there is not.
    fn feed_here(
        &mut self,
        pieces: &mut VecDeque<Bytes>,
        finish: bool,
    ) -> Result<Option<Lack>, Status> {
        while let Some(piece) = pieces.front_mut() {
            let lacking = match self.decoder.take() {
                None => self.put_plain(piece, finish)?,
                Some(mut decoder) => {
                    let lacking = self.put_compressed(&mut decoder, piece)?;
                    self.decoder = Some(decoder);
                    lacking
                }
            };
            if lacking.is_some() {
                self.note_progress();
                return Ok(lacking);
            }
            pieces.pop_front();
        }
        if !finish {
            self.note_progress();
            return Ok(None);
        }
        if self.decoder.as_ref().is_some_and(|d| !d.at_end()) {
            return Err(invalid("data", "the zstd stream is cut off"));
        }
        let upload = self.claim.upload.take().ok_or_else(lost)?;
        upload.finish()?;
        Ok(None)
    }

    fn note_progress(&self) {
        if let Some(upload) = &*self.claim.upload {
            self.claim.slot.progress(upload.written());
        }
    }

    /// Sets space aside so that `more` can be written, or says what there is
    /// not. `shared`: it has to be within the upload's share.
    fn lacking(&mut self, more: u64, shared: bool) -> Result<Option<Lack>, Status> {
        let upload = self.claim.upload.as_mut().ok_or_else(lost)?;
        let end = upload.after(more);
        if shared && !upload.room.covers(end) {
            return Ok(Some(Lack::Share(end)));
        }
        match upload.reserve(end) {
            Err(store::Error::NoRoom) => Ok(Some(Lack::Space)),
            reserved => Ok(reserved.map(|()| None)?),
        }
    }

    fn put_plain(&mut self, piece: &Bytes, last: bool) -> Result<Option<Lack>, Status> {
        let more = (piece.len() as u64).saturating_sub(self.skip);
        // What ends an upload is stored at once.
        let lacking = self.lacking(more, !last)?;
        if lacking.is_some() {
            return Ok(lacking);
        }
        self.put(piece)?;
        Ok(None)
    }

    fn put_compressed(
        &mut self,
        decoder: &mut Decoder,
        piece: &mut Bytes,
    ) -> Result<Option<Lack>, Status> {
        loop {
            let more = (Decoder::STEP as u64).saturating_sub(self.skip);
            let lacking = self.lacking(more, true)?;
            if lacking.is_some() {
                return Ok(lacking);
            }
            let mut rest = &**piece;
            let plain = decoder.step(&mut rest).map_err(|e| invalid("data", e))?;
            let taken = piece.len() - rest.len();
            piece.advance(taken);
            if plain.is_empty() {
                return Ok(None);
            }
            self.put(plain)?;
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Status> {
        let skip = self.skip.min(bytes.len() as u64);
        self.skip -= skip;
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let bytes = bytes.get(skip..).unwrap_or_default();
        let upload = self.claim.upload.as_mut().ok_or_else(lost)?;
        upload
            .write(bytes)
            .inspect_err(|error| self.target.inner.uploads.on_error(error))?;
        Ok(())
    }
}

fn idle() -> Status {
    let seconds = IDLE.as_secs();
    Status::deadline_exceeded(format!(
        "less than {LEAST_PROGRESS} bytes of this upload came in {seconds} s; it was given up"
    ))
}

fn lost() -> Status {
    Status::aborted(
        "this upload was given up: another call resumed it, or it held others up; try again",
    )
}

/// One call of `Write`.
struct Call {
    sink: Sink,
    pending: Vec<Bytes>,
    pending_bytes: usize,
    next_offset: i64,
    progress: Progress,
}

impl Call {
    async fn run(
        mut self,
        first: WriteRequest,
        messages: &mut Streaming<WriteRequest>,
    ) -> Result<WriteResponse, Status> {
        let mut message = first;
        loop {
            self.check(&message)?;
            self.next_offset += i64::try_from(message.data.len()).unwrap_or(i64::MAX);
            self.pending_bytes += message.data.len();
            self.progress.note(message.data.len());
            self.pending.push(message.data);
            if message.finish_write {
                let committed_size = self.next_offset;
                self.flush(true).await?;
                return Ok(WriteResponse { committed_size });
            }
            if self.pending_bytes >= HOP {
                if self.sink.target.is_present() {
                    let response = self.sink.target.already_present();
                    blocking(move || self.sink.give_up()).await?;
                    return Ok(response);
                }
                self = self.flush(false).await?;
                self.progress = Progress::new(&self.sink.claim.slot);
            }
            let next = tokio::time::timeout_at(self.progress.wait(), messages.message());
            let Ok(next) = next.await else {
                blocking(move || self.sink.give_up()).await?;
                return Err(idle());
            };
            message = match next {
                Ok(Some(message)) => message,
                // Keep what came, for the client to resume.
                Ok(None) => return self.flush(false).await?.committed(),
                Err(error) => {
                    self.flush(false).await?;
                    return Err(error);
                }
            }
        }
    }

    fn check(&self, message: &WriteRequest) -> Result<(), Status> {
        let name = &message.resource_name;
        if !name.is_empty() && *name != self.sink.target.name {
            return Err(invalid("resource_name", "it changed within the call"));
        }
        if message.write_offset != self.next_offset {
            let reason = format!("it is {}, not {}", message.write_offset, self.next_offset);
            return Err(invalid("write_offset", reason));
        }
        Ok(())
    }

    async fn flush(mut self, finish: bool) -> Result<Self, Status> {
        let pending = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        self.progress.works();
        self.sink = self.sink.feed(pending, finish).await?;
        Ok(self)
    }

    fn committed(&self) -> Result<WriteResponse, Status> {
        let written = self.sink.claim.upload.as_ref().map_or(0, Upload::written);
        let committed_size = i64::try_from(written).unwrap_or(i64::MAX);
        Ok(WriteResponse { committed_size })
    }
}
