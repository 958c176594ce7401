//! Certificates of authorities that an upstream may be certified by, besides those that the system knows.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use thiserror::Error;

/// The largest file that is read: thousands of certificates.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Authorities that are trusted besides the system's; empty unless a `ca_file` names some.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Authorities(Arc<[CertificateDer<'static>]>);

/// Why a file of certificates cannot be used.
#[derive(Debug, Error)]
pub(super) enum AuthoritiesError {
    /// The system does not let us.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// It is larger than any collection of certificates.
    #[error("is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    /// It holds no certificate at all.
    #[error("holds no certificate")]
    Empty,
    /// Something in it looks like a certificate and is none.
    #[error("holds something that is not a certificate, as number {0}")]
    Broken(usize),
}

impl Authorities {
    /// Reads a file in PEM format.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with the file.
    pub(super) fn read(path: &Path) -> Result<Self, AuthoritiesError> {
        let mut pem = Vec::new();
        let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut pem));
        read.map_err(AuthoritiesError::Unreadable)?;
        if pem.len() as u64 > FILE_BYTES_MAX {
            return Err(AuthoritiesError::TooLarge);
        }
        let mut certificates = Vec::new();
        let mut store = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let broken = || AuthoritiesError::Broken(certificates.len() + 1);
            let certificate = certificate.map_err(|_| broken())?;
            store.add(certificate.clone()).map_err(|_| broken())?;
            certificates.push(certificate);
        }
        if certificates.is_empty() {
            return Err(AuthoritiesError::Empty);
        }
        Ok(Self(certificates.into()))
    }

    /// Returns the certificates.
    pub fn certificates(&self) -> impl Iterator<Item = CertificateDer<'static>> {
        self.0.iter().cloned()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorities({})", self.0.len())
    }
}
