//! A certificate authority of the test's own, and both ends of TLS under it.

use std::sync::Arc;

use pingora::tls::{TlsAcceptor, TlsConnector};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// A CA and a certificate for 127.0.0.1 and `localhost`, signed by it.
pub(crate) struct Authority {
    ca: rcgen::Certificate,
    leaf: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    pub(crate) fn new() -> Self {
        install_provider();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&ca_key).unwrap();
        let issuer = Issuer::new(params, ca_key);
        let key = KeyPair::generate().unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        Self { ca, leaf, key }
    }

    /// The CA's certificate in PEM.
    pub(crate) fn ca_pem(&self) -> String {
        self.ca.pem()
    }

    /// The server's chain in PEM.
    pub(crate) fn chain_pem(&self) -> String {
        self.leaf.pem()
    }

    /// The server's key in PEM.
    pub(crate) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// A server that speaks this application protocol.
    pub(crate) fn acceptor(&self, alpn: &[u8]) -> TlsAcceptor {
        let chain: Vec<CertificateDer<'static>> = vec![self.leaf.der().clone()];
        let key = PrivateKeyDer::Pkcs8(self.key.serialize_der().into());
        let mut config =
            ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![alpn.to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// A client that trusts the CA and speaks this application protocol.
    pub(crate) fn connector(&self, alpn: &[u8]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let mut config =
            ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

/// The crypto provider of the process; installed by whoever comes first.
pub(crate) fn install_provider() {
    drop(rustls::crypto::ring::default_provider().install_default());
}
