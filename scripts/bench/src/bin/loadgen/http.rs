//! Just enough of an HTTP/1.1 client: one keep-alive connection, answers by length or in chunks.

use bytes::{Buf, BytesMut};
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
}

pub struct Answer {
    pub status: u16,
    /// The server will close the connection.
    pub close: bool,
}

struct Head {
    answer: Answer,
    length: Option<usize>,
    chunked: bool,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: BytesMut::with_capacity(16 * 1024) })
    }

    /// Sends one request and gives the pieces of its body to `sink` as they arrive.
    pub async fn exchange(
        &mut self,
        request: &[u8],
        mut sink: impl FnMut(&[u8]),
    ) -> io::Result<Answer> {
        self.stream.write_all(request).await?;
        let head = self.head().await?;
        if head.chunked {
            self.chunks(&mut sink).await?;
        } else if let Some(length) = head.length {
            self.pass(length, &mut sink).await?;
        } else {
            return Err(io::Error::other("an answer without length or chunks"));
        }
        Ok(head.answer)
    }

    async fn head(&mut self) -> io::Result<Head> {
        loop {
            if let Some((size, head)) = parse_head(&self.buffer)? {
                self.buffer.advance(size);
                return Ok(head);
            }
            self.fill().await?;
        }
    }

    async fn chunks(&mut self, sink: &mut impl FnMut(&[u8])) -> io::Result<()> {
        loop {
            let Ok(size) = httparse::parse_chunk_size(&self.buffer) else {
                return Err(io::Error::other("a bad chunk"));
            };
            let httparse::Status::Complete((skip, size)) = size else {
                self.fill().await?;
                continue;
            };
            self.buffer.advance(skip);
            self.pass(usize::try_from(size).map_err(io::Error::other)?, sink).await?;
            self.pass(2, &mut |_| ()).await?;
            if size == 0 {
                return Ok(());
            }
        }
    }

    async fn pass(&mut self, mut left: usize, sink: &mut impl FnMut(&[u8])) -> io::Result<()> {
        while left > 0 {
            if self.buffer.is_empty() {
                self.fill().await?;
            }
            let piece = self.buffer.split_to(left.min(self.buffer.len()));
            left -= piece.len();
            sink(&piece);
        }
        Ok(())
    }

    async fn fill(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

fn parse_head(bytes: &[u8]) -> io::Result<Option<(usize, Head)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(size) = response.parse(bytes).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let value = |name: &str| {
        let header =
            response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok()
    };
    let close = value("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let head = Head {
        answer: Answer { status: response.code.unwrap_or(0), close },
        length: value("content-length").and_then(|value| value.parse().ok()),
        chunked: value("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked")),
    };
    Ok(Some((size, head)))
}
