//! A bad network between the gateway and Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// Passes bytes on, late if told so, until it is told to cut the connections.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) url: String,
    delay_ms: Arc<AtomicU64>,
    answers_swallowed: Arc<AtomicU64>,
    cuts: watch::Sender<u64>,
}

impl Proxy {
    pub(super) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}/", listener.local_addr().unwrap());
        let (cuts, _) = watch::channel(0);
        let proxy = Self {
            url,
            delay_ms: Arc::default(),
            answers_swallowed: Arc::default(),
            cuts: cuts.clone(),
        };
        let (delay, swallow) = (Arc::clone(&proxy.delay_ms), Arc::clone(&proxy.answers_swallowed));
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                let (delay, swallow) = (Arc::clone(&delay), Arc::clone(&swallow));
                let mut cut = cuts.subscribe();
                tokio::spawn(async move {
                    tokio::select! {
                        () = pass(client, server, &delay, &swallow) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        proxy
    }

    /// How long every packet to the server waits.
    pub(super) fn delay(&self, by: Duration) {
        self.delay_ms.store(by.as_millis() as u64, Ordering::SeqCst);
    }

    /// Cuts all connections.
    pub(super) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Passes on what is asked, but cuts the connection instead of the next answers.
    pub(super) fn swallow_answers(&self, swallow: bool) {
        self.answers_swallowed.store(swallow.into(), Ordering::SeqCst);
    }
}

async fn pass(client: TcpStream, server: TcpStream, delay: &AtomicU64, swallow: &AtomicU64) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async {
        let mut buffer = vec![0; 65_536];
        while let Ok(n @ 1..) = from_client.read(&mut buffer).await {
            sleep(Duration::from_millis(delay.load(Ordering::SeqCst))).await;
            if to_server.write_all(&buffer[..n]).await.is_err() {
                break;
            }
        }
    };
    let down = async {
        let mut buffer = vec![0; 65_536];
        while let Ok(n @ 1..) = from_server.read(&mut buffer).await {
            let swallowed = swallow.load(Ordering::SeqCst) != 0;
            if swallowed || to_client.write_all(&buffer[..n]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! { () = up => {}, () = down => {} }
}
