//! The origin's connections.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::Seen;
use super::reply::{Framing, Gate, Reply};

/// Shared by the connections.
pub(super) struct Script {
    pub(super) replies: Mutex<HashMap<String, Vec<Reply>>>,
    pub(super) seen: Mutex<Vec<Seen>>,
    /// Requests whose client left while their answer was held back.
    pub(super) left: Mutex<Vec<Seen>>,
}

impl Script {
    fn next(&self, seen: &Seen) -> Reply {
        let mut replies = self.replies.lock().unwrap();
        match replies.get_mut(seen.path()) {
            Some(list) if list.len() > 1 => list.remove(0),
            Some(list) => list[0].clone(),
            None => Reply::status(404),
        }
    }
}

/// Accepts until aborted; then the connections end with it.
pub(super) async fn serve(listener: TcpListener, script: Arc<Script>, tls: Option<TlsAcceptor>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let script = script.clone();
        let tls = tls.clone();
        stream.set_nodelay(true).ok();
        connections.spawn(async move {
            match tls {
                None => converse(stream, &script).await.ok(),
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => converse(stream, &script).await.ok(),
                    Err(_) => None,
                },
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, script: &Script) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(seen) = request(&mut stream).await? {
        script.seen.lock().unwrap().push(seen.clone());
        let mut reply = script.next(&seen);
        if reply.conditions && is_current(&reply, &seen) {
            reply = reply.without_body();
        } else if reply.ranges {
            apply_range(&mut reply, seen.header("range"));
        }
        match answer(&mut stream, &reply).await? {
            Then::More => {}
            Then::Close => break,
            Then::Left => script.left.lock().unwrap().push(seen),
        }
    }
    stream.shutdown().await
}

async fn request(stream: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> io::Result<Option<Seen>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let target = line.split_whitespace().nth(1).unwrap_or_default();
    let mut seen = Seen {
        target: target.to_owned(),
        headers: Vec::new(),
    };
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            return Ok(Some(seen));
        };
        let header = (name.to_ascii_lowercase(), value.trim().to_owned());
        seen.headers.push(header);
    }
}

/// RFC 9110, 13.2.2: by the name if one was asked about, else by the date.
fn is_current(reply: &Reply, seen: &Seen) -> bool {
    let own = |name: &str| {
        let mut all = reply.headers.iter();
        let found = all.find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    };
    // The weak comparison.
    let opaque = |tag: &str| tag.trim_start_matches("W/").to_owned();
    match seen.header("if-none-match") {
        Some(asked) => own("etag").map(opaque) == Some(opaque(asked)),
        None => {
            let since = seen.header("if-modified-since");
            since.is_some() && own("last-modified") == since
        }
    }
}

fn apply_range(reply: &mut Reply, range: Option<&str>) {
    let Some((from, to)) = range
        .and_then(|r| r.strip_prefix("bytes="))
        .and_then(|r| r.split_once('-'))
    else {
        return;
    };
    let total = reply.body.len();
    let from: usize = from.parse().unwrap();
    let to: usize = to.parse().map_or(total, |last: usize| last + 1);
    reply.status = 206;
    reply.body = reply.body.slice(from..to);
    let value = format!("bytes {from}-{}/{total}", to - 1);
    reply.headers.push(("Content-Range".into(), value));
}

/// What becomes of a connection.
enum Then {
    More,
    Close,
    /// The client ended it while it waited.
    Left,
}

/// Waits for the gate, or until the client leaves; says whether it stayed.
async fn opened(stream: &mut (impl AsyncBufRead + Unpin), gate: &Gate) -> bool {
    tokio::select! {
        () = gate.opened() => true,
        end = stream.fill_buf() => {
            // Nobody sends anything before the answer to this.
            assert!(end.is_err() || end.is_ok_and(<[u8]>::is_empty));
            false
        }
    }
}

/// Writes an answer.
async fn answer(
    stream: &mut (impl AsyncBufRead + AsyncWrite + Unpin),
    reply: &Reply,
) -> io::Result<Then> {
    if let Some(gate) = &reply.head_gate
        && !opened(stream, gate).await
    {
        return Ok(Then::Left);
    }
    if reply.raw {
        stream.write_all(&reply.body).await?;
        return Ok(Then::Close);
    }
    let mut head = format!("HTTP/1.1 {} Scripted\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&match reply.framing {
        Framing::Length => {
            let length = reply.body.len() * reply.times;
            format!("Content-Length: {length}\r\n\r\n")
        }
        Framing::Declared(length) => format!("Content-Length: {length}\r\n\r\n"),
        Framing::Chunked => "Transfer-Encoding: chunked\r\n\r\n".into(),
        Framing::NoBody => "\r\n".into(),
        Framing::UntilClose => "Connection: close\r\n\r\n".into(),
    });
    stream.write_all(head.as_bytes()).await?;
    let mut body = reply.body.clone();
    if let Some((bytes, gate)) = &reply.body_gate {
        write_body(stream, reply, body.split_to(*bytes)).await?;
        stream.flush().await?;
        if !opened(stream, gate).await {
            return Ok(Then::Left);
        }
    }
    if let Some(cut) = reply.cut {
        write_body(stream, reply, body.slice(..cut)).await?;
        stream.flush().await?;
        return Ok(Then::Close);
    }
    for _ in 0..reply.times {
        write_body(stream, reply, body.clone()).await?;
    }
    if matches!(reply.framing, Framing::Chunked) {
        stream.write_all(b"0\r\n\r\n").await?;
    }
    stream.flush().await?;
    Ok(match reply.framing {
        Framing::Length | Framing::Chunked | Framing::NoBody => Then::More,
        Framing::Declared(_) | Framing::UntilClose => Then::Close,
    })
}

async fn write_body(
    stream: &mut (impl AsyncWrite + Unpin),
    reply: &Reply,
    body: Bytes,
) -> io::Result<()> {
    if !matches!(reply.framing, Framing::Chunked) {
        return stream.write_all(&body).await;
    }
    for piece in body.chunks(16 << 10) {
        let size = format!("{:x}\r\n", piece.len());
        stream.write_all(size.as_bytes()).await?;
        stream.write_all(piece).await?;
        stream.write_all(b"\r\n").await?;
    }
    Ok(())
}
