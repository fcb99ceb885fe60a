//! Whose certificates are trusted: those of the system, so that a company's own authority is one here too.

use std::path::PathBuf;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// Variables that name a file of certificates for other programs of this field: Python's requests, and curl.
/// (`SSL_CERT_FILE` and `SSL_CERT_DIR` are read with the system's.)
const BUNDLES: [&str; 2] = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];

/// The system's certificates and those of a bundle that the environment names; Mozilla's where there are none, as in a
/// container without any.
pub(crate) fn tls() -> TlsConfig {
    let bundle = BUNDLES.iter().find_map(std::env::var_os).filter(|it| !it.is_empty()).map(PathBuf::from);
    let system = rustls_native_certs::load_native_certs().certs;
    let mut certificates: Vec<Certificate<'static>> =
        system.iter().map(|it| Certificate::from_der(it.as_ref()).to_owned()).collect();
    certificates.extend(bundle.map(of_bundle).unwrap_or_default());
    let roots =
        if certificates.is_empty() { RootCerts::WebPki } else { RootCerts::Specific(certificates.into()) };
    TlsConfig::builder().root_certs(roots).build()
}

/// The certificates of a file; of one that cannot be read, none: what is missing is then an error of the connection.
fn of_bundle(path: PathBuf) -> Vec<Certificate<'static>> {
    let text = std::fs::read(path).unwrap_or_default();
    let items = parse_pem(&text).filter_map(Result::ok);
    items.filter_map(|it| if let PemItem::Certificate(it) = it { Some(it) } else { None }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_that_is_none_has_no_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        assert_eq!(of_bundle(file.clone()).len(), 0);
        std::fs::write(&file, "no certificate").unwrap();
        assert_eq!(of_bundle(file.clone()).len(), 0);
        let one = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        std::fs::write(&file, one.repeat(2)).unwrap();
        assert_eq!(of_bundle(file).len(), 2);
    }
}
