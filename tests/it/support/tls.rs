//! A certificate authority of the test's own, and both ends of TLS under it.

use std::sync::Arc;

use pingora::tls::{TlsAcceptor, TlsConnector};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::hash::hex_sha256;

/// A CA and a certificate for 127.0.0.1 and `localhost`, signed by it.
pub(crate) struct Authority {
    ca: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
    leaf: Leaf,
}

/// A certificate and its key.
pub(crate) struct Leaf {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Leaf {
    /// SHA-256 of the certificate, in hex.
    pub(crate) fn fingerprint(&self) -> String {
        hex_sha256(self.certificate.der())
    }

    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.der().clone()]
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.serialize_der().into())
    }
}

impl Authority {
    pub(crate) fn new() -> Self {
        install_provider();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&ca_key).unwrap();
        let issuer = Issuer::new(params, ca_key);
        let leaf = signed(&issuer, &["localhost", "127.0.0.1"]);
        Self { ca, issuer, leaf }
    }

    /// The CA's certificate in PEM.
    pub(crate) fn ca_pem(&self) -> String {
        self.ca.pem()
    }

    /// The server's chain in PEM.
    pub(crate) fn chain_pem(&self) -> String {
        self.leaf.certificate.pem()
    }

    /// The server's key in PEM.
    pub(crate) fn key_pem(&self) -> String {
        self.leaf.key.serialize_pem()
    }

    /// Another certificate, for a client.
    pub(crate) fn client(&self) -> Leaf {
        signed(&self.issuer, &["client.test"])
    }

    /// A server that speaks this application protocol.
    pub(crate) fn acceptor(&self, alpn: &[u8]) -> TlsAcceptor {
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(self.leaf.chain(), self.leaf.key())
            .unwrap();
        config.alpn_protocols = vec![alpn.to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// A client that trusts the CA, speaks this application protocol, and perhaps shows a
    /// certificate.
    pub(crate) fn connector(&self, alpn: &[u8], client: Option<&Leaf>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let mut config = match client {
            None => builder.with_no_client_auth(),
            Some(leaf) => builder.with_client_auth_cert(leaf.chain(), leaf.key()).unwrap(),
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

fn signed(issuer: &Issuer<'static, KeyPair>, names: &[&str]) -> Leaf {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, issuer).unwrap();
    Leaf { certificate, key }
}

/// The crypto provider of the process; installed by whoever comes first.
pub(crate) fn install_provider() {
    drop(rustls::crypto::ring::default_provider().install_default());
}
