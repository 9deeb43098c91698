//! TLS for the listeners: certificate files are read and checked before the start, where Pingora
//! would panic, and only TLS 1.3 is spoken.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use pingora::listeners::tls::TlsSettings;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{RootCertStore, SignatureAlgorithm, SignatureScheme};

/// What a server signs in TLS 1.3 begins with this (RFC 8446 section 4.4.3), and nothing that it
/// signs in TLS 1.2 does: there the client's and the server's random bytes come first.
const TLS13_CONTEXT: &[u8] = b"\
    \x20\x20\x20\x20\x20\x20\x20\x20\x20\x20\x20\x20\x20\x20\x20\x20\
    \x20\x20\x20\x20\x20\x20\x20\x20\x20\x20\x20\x20\x20\x20\x20\x20\
    \x20\x20\x20\x20\x20\x20\x20\x20\x20\x20\x20\x20\x20\x20\x20\x20\
    \x20\x20\x20\x20\x20\x20\x20\x20\x20\x20\x20\x20\x20\x20\x20\x20\
    TLS 1.3, server CertificateVerify\0";

/// A certificate that can be replaced while connections are served, and whose clients may show one
/// of their own.
#[derive(Clone, Debug)]
pub struct Certificate {
    served: Arc<RwLock<Arc<CertifiedKey>>>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

impl Certificate {
    /// Reads a chain and its key from PEM files.
    ///
    /// # Errors
    /// What is wrong with which file, also if the two do not belong together.
    pub fn load(chain: &Path, key: &Path) -> Result<Self, TlsError> {
        Ok(Self { served: Arc::new(RwLock::new(Arc::new(read(chain, key)?))), clients: None })
    }

    /// Lets clients show a certificate too. One that is not of these authorities ends the handshake;
    /// none at all does not, for there are other credentials.
    ///
    /// # Errors
    /// If the file has no certificates of authorities.
    pub fn with_client_ca(self, file: &Path) -> Result<Self, TlsError> {
        let wrong = |what: &dyn fmt::Display| TlsError(format!("{}: {what}", file.display()));
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_file_iter(file).map_err(|e| wrong(&e))? {
            roots.add(authority.map_err(|e| wrong(&e))?).map_err(|e| wrong(&e))?;
        }
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated();
        let clients = verifier.build().map_err(|e| wrong(&e))?;
        Ok(Self { clients: Some(clients), ..self })
    }

    /// Serves what another was loaded from, on all listeners that have this one.
    pub fn replace(&self, fresh: &Self) {
        let fresh = fresh.current();
        *self.served.write().unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.served.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Settings for a listener: HTTP/2 and HTTP/1.1 by ALPN.
    ///
    /// # Errors
    /// If Pingora cannot make them.
    pub fn settings(&self) -> Result<TlsSettings, TlsError> {
        let mut settings =
            TlsSettings::intermediate("", "").map_err(|error| TlsError(error.to_string()))?;
        settings.set_cert_resolver(Arc::new(self.clone()));
        if let Some(clients) = &self.clients {
            settings.set_client_cert_verifier(Arc::clone(clients));
        }
        settings.enable_h2();
        Ok(settings)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

/// Signs for TLS 1.3 only. Pingora switches TLS 1.2 on and offers no way to switch it off; without
/// a signature of the server its handshake comes to no end.
#[derive(Debug)]
struct Tls13Key(Arc<dyn SigningKey>);

impl SigningKey for Tls13Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(Tls13Signer(self.0.choose_scheme(offered)?)))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.0.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm()
    }
}

#[derive(Debug)]
struct Tls13Signer(Box<dyn Signer>);

impl Signer for Tls13Signer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        if message.starts_with(TLS13_CONTEXT) {
            return self.0.sign(message);
        }
        Err(rustls::Error::General("TLS 1.2 is not offered".to_owned()))
    }

    fn scheme(&self) -> SignatureScheme {
        self.0.scheme()
    }
}

/// Why a certificate cannot be served.
#[derive(Debug)]
pub struct TlsError(String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

fn read(chain: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let wrong =
        |path: &Path, what: &dyn fmt::Display| TlsError(format!("{}: {what}", path.display()));
    let certs = CertificateDer::pem_file_iter(chain).map_err(|e| wrong(chain, &e))?;
    let certs = certs.collect::<Result<Vec<_>, _>>().map_err(|e| wrong(chain, &e))?;
    if certs.is_empty() {
        return Err(wrong(chain, &"there is no certificate in it"));
    }
    let mode = std::fs::metadata(key).map_err(|e| wrong(key, &e))?.permissions().mode();
    if mode & 0o007 != 0 {
        return Err(wrong(key, &"everybody can read this key; run: chmod 600"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| wrong(key, &e))?;
    let provider = rustls::crypto::ring::default_provider();
    let signing = provider.key_provider.load_private_key(private).map_err(|e| wrong(key, &e))?;
    let certified = CertifiedKey::new(certs, Arc::new(Tls13Key(signing)));
    certified
        .keys_match()
        .map_err(|_| wrong(key, &format!("it is not the key of {}", chain.display())))?;
    Ok(certified)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_checked_before_they_are_served() {
        let dir = tempfile::tempdir().unwrap();
        let (chain, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let other = rcgen::KeyPair::generate().unwrap();
        let check = |cert: &str, private: &str, expected: Option<&str>| {
            std::fs::write(&chain, cert).unwrap();
            std::fs::write(&key, private).unwrap();
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
            let error = Certificate::load(&chain, &key).err().map(|e| e.to_string());
            match (expected, error) {
                (None, None) => {}
                (Some(part), Some(error)) => assert!(error.contains(part), "{error}"),
                (expected, error) => panic!("{expected:?} {error:?}"),
            }
        };
        let (cert, good) = (made.cert.pem(), made.signing_key.serialize_pem());
        check(&cert, &good, None);
        check("", &good, Some("c.pem: there is no certificate"));
        check("-----BEGIN CERTIFICATE-----\nAAAA", &good, Some("c.pem: "));
        check(&cert, "", Some("k.pem: "));
        check(&cert, &other.serialize_pem(), Some("it is not the key of"));
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Certificate::load(&chain, &key).unwrap_err().to_string().contains("chmod 600"));
    }
}
