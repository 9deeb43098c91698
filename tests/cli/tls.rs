use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use reqwest::Version;
use rustls::pki_types::CertificateDer;

use super::mock::{Mock, QUICK};
use super::support::{Folder, Gateway, client, eventually, question, tls_config};

/// A certificate authority of the test.
struct Authority {
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { root, issuer: Issuer::new(params, key) }
    }

    /// Writes a new certificate for `localhost` and its key, and gives the certificate.
    fn issue(&self, folder: &Folder) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        folder.write("cert.pem", &leaf.pem());
        folder.write("key.pem", &key.serialize_pem());
        leaf.der().clone()
    }
}

/// A gateway with TLS, its authority, and the certificate that it serves.
async fn start(mock: &Mock) -> (Folder, Gateway, Authority, CertificateDer<'static>) {
    let (folder, authority) = (Folder::new(&mock.url), Authority::new());
    folder.edit("name: public, ", "name: public, tls: {cert_file: cert.pem, key_file: key.pem}, ");
    let leaf = authority.issue(&folder);
    let gateway = Gateway::serve(&folder).await;
    (folder, gateway, authority, leaf)
}

/// The certificate that a client of these versions is shown.
fn handshake(
    folder: &Folder,
    authority: &Authority,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> std::io::Result<CertificateDer<'static>> {
    let config = tls_config(std::slice::from_ref(&authority.root), versions);
    let mut tls =
        rustls::ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut tcp = TcpStream::connect(folder.listen)?;
    tcp.set_read_timeout(Some(Duration::from_secs(10)))?;
    while tls.is_handshaking() {
        tls.complete_io(&mut tcp)?;
    }
    Ok(tls.peer_certificates().unwrap()[0].clone().into_owned())
}

#[tokio::test]
async fn both_protocols_are_spoken_over_tls_1_3() {
    let mock = Mock::start();
    let (folder, gateway, authority, _) = start(&mock).await;
    let url = format!("https://localhost:{}", folder.listen.port());
    for (alpn, version) in [("h2", Version::HTTP_2), ("http/1.1", Version::HTTP_11)] {
        let client = client(std::slice::from_ref(&authority.root), &[alpn], Some(folder.listen));
        let live = client.get(format!("{url}/livez")).send().await.unwrap();
        assert_eq!((live.status().as_u16(), live.version()), (200, version));
        assert_eq!(live.headers()["strict-transport-security"], "max-age=31536000");
        let chat = client.post(format!("{url}/v1/chat/completions")).bearer_auth(&folder.key);
        let chat = chat.json(&question(QUICK, false)).send().await.unwrap();
        assert_eq!((chat.status().as_u16(), chat.version()), (200, version));
        assert!(chat.headers().contains_key("strict-transport-security"));
    }
    let plain = gateway.client.get(format!("{}/livez", gateway.url)).send().await;
    assert!(plain.is_err(), "no plaintext on a TLS listener");
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let mock = Mock::start();
    let (folder, _gateway, authority, leaf) = start(&mock).await;
    assert_eq!(handshake(&folder, &authority, &[&rustls::version::TLS13]).unwrap(), leaf);
    handshake(&folder, &authority, &[&rustls::version::TLS12]).unwrap_err();
}

#[tokio::test]
async fn certificates_are_replaced_on_reload_unless_they_are_bad() {
    let mock = Mock::start();
    let (folder, gateway, authority, first) = start(&mock).await;
    let shown = || handshake(&folder, &authority, rustls::DEFAULT_VERSIONS).unwrap();
    assert_eq!(shown(), first);

    let second = authority.issue(&folder);
    gateway.reload("success").await;
    eventually("the new certificate", async || (shown() == second).then_some(())).await;

    folder.write("cert.pem", "-----BEGIN CERTIFICATE-----\nbroken");
    gateway.reload("failure").await;
    assert_eq!(shown(), second);

    authority.issue(&folder);
    folder.write("key.pem", &KeyPair::generate().unwrap().serialize_pem());
    gateway.reload("failure").await;
    assert_eq!(shown(), second, "a key of another certificate");

    let third = authority.issue(&folder);
    for (name, new) in [("cert.pem", "new-cert.pem"), ("key.pem", "new-key.pem")] {
        std::fs::rename(folder.path(name), folder.path(new)).unwrap();
        folder.edit(name, new);
    }
    gateway.reload("success").await;
    assert_eq!(shown(), third, "files of other names");
}
