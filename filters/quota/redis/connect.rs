//! Connections: to one server, to the primary that the Sentinels name, or to a cluster.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    RedisResult, TlsCertificates, TlsMode, Value,
};
use secrecy::ExposeSecret;
use tokio::sync::Mutex;

use super::options::{InvalidOptions, RedisOptions, Topology};

/// What makes new connections. The options are checked when it is made.
pub(super) enum Connector {
    Single(Client),
    Sentinel(Mutex<SentinelClient>),
    Cluster(ClusterClient),
}

impl Connector {
    pub(super) fn new(options: &RedisOptions) -> Result<Self, InvalidOptions> {
        Ok(match &options.topology {
            Topology::Single(url) => Self::Single(single(url, options)?),
            Topology::Sentinel { urls, master } => {
                Self::Sentinel(Mutex::new(sentinel(urls, master, options)?))
            }
            Topology::Cluster(urls) => Self::Cluster(cluster(urls, options)?),
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
            Self::Sentinel(client) => {
                let mut client = client.lock().await;
                Connection::Single(client.get_async_connection_with_config(&config).await?)
            }
            Self::Cluster(client) => Connection::Cluster(client.get_async_connection().await?),
        })
    }
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
    urls: &[String],
    master: &str,
    options: &RedisOptions,
) -> Result<SentinelClient, InvalidOptions> {
    let infos = infos(urls)?;
    let addresses = infos.iter().map(|info| info.addr().clone());
    let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?;
    if let Some(first) = infos.first() {
        let of_sentinels = first.redis_settings();
        if let Some(username) = of_sentinels.username() {
            builder = builder.set_client_to_sentinel_username(username);
        }
        if let Some(password) = of_sentinels.password() {
            builder = builder.set_client_to_sentinel_password(password);
        }
        builder = builder.set_client_to_redis_db(of_sentinels.db());
    }
    if let Some(username) = &options.username {
        builder = builder.set_client_to_redis_username(username);
    }
    if let Some(password) = &options.password {
        builder = builder.set_client_to_redis_password(password.expose_secret());
    }
    if infos.iter().any(is_tls) {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        if let Some(certificates) = certificates(options) {
            builder = builder.set_client_to_redis_certificates(certificates.clone());
            builder = builder.set_client_to_sentinel_certificates(certificates);
        }
    }
    Ok(builder.build()?)
}

fn cluster(urls: &[String], options: &RedisOptions) -> Result<ClusterClient, InvalidOptions> {
    let infos = infos(urls)?;
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

fn infos(urls: &[String]) -> Result<Vec<ConnectionInfo>, InvalidOptions> {
    let infos = urls.iter().map(|url| url.as_str().into_connection_info());
    Ok(infos.collect::<RedisResult<_>>()?)
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
