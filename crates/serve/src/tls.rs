//! TLS by rustls, one configuration per protocol.

use crate::error::ServeError;
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{Error, ServerConfig};

/// A certificate chain with its key.
#[derive(Clone, Debug)]
pub struct Tls(Arc<ServerConfig>);

impl Tls {
    /// Reads PEM files.
    ///
    /// # Errors
    /// [`ServeError::Tls`] names the file, or says that key and certificate do not belong together.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, ServeError> {
        let refused = |what: &Path, reason: String| ServeError::Tls { what: what.display().to_string(), reason };
        let open =
            |what: &Path| std::fs::read(what).map_err(|error| refused(what, format!("cannot be read ({error})")));
        let chain = chain(&open(certificate)?).map_err(|reason| refused(certificate, reason))?;
        let secret = secret(&open(key)?, key).map_err(|reason| refused(key, reason))?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret))
            .map_err(|error| match error {
                Error::InconsistentKeys(_) => refused(
                    key,
                    format!("is not the key of {}; give the pair that was made together", certificate.display()),
                ),
                Error::InvalidCertificate(_) => {
                    refused(certificate, "holds a certificate that is not valid; make it again".to_owned())
                }
                _ => refused(
                    key,
                    "is a key of a kind that is not supported; use RSA of 2048 bits or more, ECDSA P-256 or P-384, or \
                     Ed25519"
                        .to_owned(),
                ),
            })?;
        Ok(Self(Arc::new(config)))
    }

    /// Accepts connections for one of these protocols, preferring the first.
    pub(crate) fn acceptor(&self, protocols: &[&[u8]]) -> TlsAcceptor {
        let mut config = ServerConfig::clone(&self.0);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// The certificates of a PEM file.
fn chain(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(instead(bytes, "certificate", "openssl x509 -inform DER -in FILE -out chain.pem")),
        Err(_) => Err(damaged(bytes)),
    }
}

/// The private key of a PEM file.
fn secret(bytes: &[u8], path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    // PKCS#8 marks it in the label, the older format in a header.
    if holds(bytes, "ENCRYPTED") {
        return Err(format!(
            "the key is encrypted, and a server has nobody to ask for its password; decrypt it with `openssl pkey -in {} \
             -out key.pem` and protect the file",
            path.display()
        ));
    }
    PrivateKeyDer::from_pem_slice(bytes).map_err(|_| {
        if labels(bytes).iter().any(|label| is_key(label)) {
            damaged(bytes)
        } else {
            instead(bytes, "private key", "openssl pkey -inform DER -in FILE -out key.pem")
        }
    })
}

fn is_key(label: &str) -> bool {
    matches!(label, "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY")
}

fn holds(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|window| window == word.as_bytes())
}

/// Labels of the sections of a PEM file.
fn labels(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let label = |line: &str| Some(line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----")?.to_owned());
    text.lines().filter_map(label).take(8).collect()
}

/// What a file holds instead, and how to get the expected kind.
fn instead(bytes: &[u8], wanted: &str, converted: &str) -> String {
    let found = labels(bytes);
    let is = |label: &str| found.iter().any(|found| found == label);
    let told = if bytes.is_empty() {
        "the file is empty".to_owned()
    } else if matches!(bytes, [0x30, 0x80..=0x84, ..]) {
        format!("it is DER (or PKCS#12), not PEM; convert it with `{converted}`, PKCS#12 with `openssl pkcs12 -nodes`")
    } else if is("OPENSSH PRIVATE KEY") {
        "it is a key of OpenSSH; convert a copy with `ssh-keygen -p -m PEM -f COPY`".to_owned()
    } else if is("CERTIFICATE REQUEST") || is("NEW CERTIFICATE REQUEST") {
        "it is a certificate signing request; give the certificate that the authority issued".to_owned()
    } else if is("TRUSTED CERTIFICATE") {
        "it is a trusted certificate of OpenSSL's; convert it with `openssl x509 -in FILE -out chain.pem`".to_owned()
    } else if is("PUBLIC KEY") || is("RSA PUBLIC KEY") {
        "it is a public key; give the private one".to_owned()
    } else if is("CERTIFICATE") {
        "it holds certificates; is it the file for --tls-cert?".to_owned()
    } else if found.iter().any(|label| is_key(label)) {
        "it holds a private key; is it the file for --tls-key?".to_owned()
    } else if found.is_empty() {
        format!("it is not PEM, which has a line `-----BEGIN {}-----`", wanted.to_uppercase())
    } else {
        format!("it holds {}", found.join(", ").chars().take(80).collect::<String>())
    };
    format!("it holds no {wanted}: {told}")
}

/// What is wrong with a section whose start is intact.
fn damaged(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut inside = false;
    for (number, line) in text.lines().map(str::trim).enumerate() {
        let number = number + 1;
        if line.starts_with("-----BEGIN ") {
            inside = true;
        } else if line.starts_with("-----END ") {
            inside = false;
        } else if inside && !line.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='))
        {
            return format!("it is damaged: line {number} is not base64; copy the file again");
        }
    }
    if inside {
        "it is damaged: it ends before its line `-----END`; copy the file again".to_owned()
    } else {
        "it is damaged: what it holds is not base64 of whole bytes; copy the file again".to_owned()
    }
}
