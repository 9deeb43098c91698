//! Connections: to one server, to the primary that the Sentinels name, or to a cluster.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo, RedisError, RedisResult, TlsCertificates, TlsMode, Value,
};
use secrecy::ExposeSecret;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::options::{InvalidOptions, RedisOptions, Topology};

/// What makes new connections. The options are checked when it is made.
pub(super) enum Connector {
    Single(Box<Client>),
    /// One of each address: who does not answer keeps nobody waiting.
    Sentinel(Vec<Arc<Mutex<SentinelClient>>>),
    Cluster(Box<ClusterClient>),
}

impl Connector {
    pub(super) fn new(options: &RedisOptions) -> Result<Self, InvalidOptions> {
        Ok(match &options.topology {
            Topology::Single(url) => Self::Single(Box::new(single(url, options)?)),
            Topology::Sentinel { urls, .. } if urls.is_empty() => {
                return Err(
                    RedisError::from((ErrorKind::InvalidClientConfig, "no Sentinel")).into()
                );
            }
            Topology::Sentinel { urls, master } => {
                let client =
                    |url: &String| Ok(Arc::new(Mutex::new(sentinel(url, master, options)?)));
                let clients = urls.iter().map(client);
                Self::Sentinel(clients.collect::<Result<_, InvalidOptions>>()?)
            }
            Topology::Cluster(urls) => Self::Cluster(Box::new(cluster(urls, options)?)),
        })
    }

    pub(super) const fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// The connection belongs to the runtime that this is called on.
    pub(super) async fn connect(&self) -> RedisResult<Connection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(CONNECT_TIMEOUT))
            .set_pipeline_buffer_size(QUEUED_COMMANDS);
        Ok(match self {
            Self::Single(client) => Connection::Single(
                client.get_multiplexed_async_connection_with_config(&config).await?,
            ),
            Self::Sentinel(clients) => Connection::Single(primary(clients, &config).await?),
            Self::Cluster(client) => Connection::Cluster(client.get_async_connection().await?),
        })
    }
}

/// The primary, by the first of the Sentinels that leads there.
async fn primary(
    clients: &[Arc<Mutex<SentinelClient>>],
    config: &AsyncConnectionConfig,
) -> RedisResult<MultiplexedConnection> {
    let mut asked = JoinSet::new();
    for client in clients {
        let (client, config) = (Arc::clone(client), config.clone());
        asked.spawn(
            async move { client.lock().await.get_async_connection_with_config(&config).await },
        );
    }
    let mut last = RedisError::from((ErrorKind::Io, "no Sentinel answers"));
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => last = error,
            Err(_) => {}
        }
    }
    Err(last)
}

/// A connection that many requests use at the same time.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    pub(super) async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::Single(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }
}

fn single(url: &str, options: &RedisOptions) -> Result<Client, InvalidOptions> {
    let info = with_user(url.into_connection_info()?, options);
    Ok(match certificates(options).filter(|_| is_tls(&info)) {
        Some(certificates) => Client::build_with_tls(info, certificates)?,
        None => Client::open(info)?,
    })
}

fn sentinel(
    url: &str,
    master: &str,
    options: &RedisOptions,
) -> Result<SentinelClient, InvalidOptions> {
    let info = url.into_connection_info()?;
    let (address, of_sentinel) = ([info.addr().clone()], info.redis_settings());
    let mut builder = SentinelClientBuilder::new(address, master, SentinelServerType::Master)?
        .set_client_to_redis_db(of_sentinel.db());
    if let Some(username) = of_sentinel.username() {
        builder = builder.set_client_to_sentinel_username(username);
    }
    if let Some(password) = of_sentinel.password() {
        builder = builder.set_client_to_sentinel_password(password);
    }
    if let Some(username) = &options.username {
        builder = builder.set_client_to_redis_username(username);
    }
    if let Some(password) = &options.password {
        builder = builder.set_client_to_redis_password(password.expose_secret());
    }
    if is_tls(&info) {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        if let Some(certificates) = certificates(options) {
            builder = builder.set_client_to_redis_certificates(certificates.clone());
            builder = builder.set_client_to_sentinel_certificates(certificates);
        }
    }
    Ok(builder.build()?)
}

fn cluster(urls: &[String], options: &RedisOptions) -> Result<ClusterClient, InvalidOptions> {
    let infos = urls.iter().map(|url| url.as_str().into_connection_info());
    let infos = infos.collect::<RedisResult<Vec<_>>>()?;
    let tls = infos.iter().any(is_tls);
    let nodes = infos.into_iter().map(|info| with_user(info, options));
    let mut builder = ClusterClientBuilder::new(nodes)
        .connection_timeout(CONNECT_TIMEOUT)
        .response_timeout(options.call_timeout())
        .retries(CLUSTER_RETRIES)
        .min_retry_wait(1)
        .max_retry_wait(10);
    if let Some(certificates) = certificates(options).filter(|_| tls) {
        builder = builder.certs(certificates);
    }
    Ok(builder.build()?)
}

/// What is in the options wins over what is in the URL.
fn with_user(info: ConnectionInfo, options: &RedisOptions) -> ConnectionInfo {
    let mut settings = info.redis_settings().clone();
    if let Some(username) = &options.username {
        settings = settings.set_username(username);
    }
    if let Some(password) = &options.password {
        settings = settings.set_password(password.expose_secret());
    }
    info.set_redis_settings(settings)
}

fn is_tls(info: &ConnectionInfo) -> bool {
    matches!(info.addr(), ConnectionAddr::TcpTls { .. })
}

fn certificates(options: &RedisOptions) -> Option<TlsCertificates> {
    options.ca_pem.clone().map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem) })
}

/// Nobody waits for this: it happens while requests go by the policy.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
const QUEUED_COMMANDS: usize = 1_024;
/// For a slot that has moved: ask again where it is now.
const CLUSTER_RETRIES: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_cannot_work_are_found_at_the_start() {
        let ca = Some(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec());
        let cases = [
            (Topology::Single("redis://127.0.0.1:1/".to_owned()), None, true),
            (Topology::Single("rediss://127.0.0.1:1/".to_owned()), ca, false),
            (Topology::Single("http://u:hunter2@127.0.0.1/".to_owned()), None, false),
            (Topology::Single("hunter2".to_owned()), None, false),
            (Topology::Cluster(vec![]), None, false),
            (Topology::Cluster(vec!["redis://127.0.0.1:1/".to_owned()]), None, true),
            (Topology::Sentinel { urls: vec![], master: "m".to_owned() }, None, false),
            (
                Topology::Sentinel { urls: vec!["redis://h:1".to_owned()], master: "m".to_owned() },
                None,
                true,
            ),
        ];
        for (topology, ca_pem, valid) in cases {
            let shown = format!("{topology:?}");
            let options = RedisOptions { ca_pem, ..RedisOptions::new(topology) };
            let result = Connector::new(&options).map(|_| ());
            assert_eq!(result.is_ok(), valid, "{shown}: {result:?}");
            assert!(!format!("{result:?}").contains("hunter2"));
        }
    }
}
