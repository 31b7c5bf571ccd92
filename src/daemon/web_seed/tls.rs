//! Whose certificates count: those of Mozilla's list, and those that the operator adds in the file that
//! `SSL_CERT_FILE` names, as for other programs.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// By which the operator names a file of certificates.
const ADDED: &str = "SSL_CERT_FILE";

/// For clients that prove nothing of themselves.
pub(super) fn config() -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = std::env::var_os(ADDED).filter(|path| !path.is_empty()) {
        add(&mut roots, Path::new(&path))?;
    }
    config_with(roots)
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let unusable = |why: String| format!("{ADDED} cannot be used, {}: {why}", path.display());
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        // Others in the file may still be good.
        let _ = roots.add(certificate);
    }
    Ok(())
}

/// With these roots alone.
pub(super) fn config_with(roots: RootCertStore) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
