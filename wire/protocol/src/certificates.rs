//! How a host renews its certificate before it ends, over the link that the present one holds open.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Certify my key anew.
///
/// From: any host, about itself. To: `certificates` of a control host. Overload: shed, the host asks another one. The key must
/// be the one that the host's name is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewCertificate {
    /// PKCS #10, PEM, at most 16 KiB.
    pub request: String,
}

/// The answer to `RenewCertificate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewedCertificate {
    /// PEM.
    pub certificate: String,
    /// The authorities that the cluster trusts from now on, PEM.
    pub ca: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum RenewError {
    /// Asking again changes nothing.
    #[error("the certificate is not renewed: {why}")]
    Refused { why: String },
    /// Another control host may do it.
    #[error("no certificate could be issued: {why}")]
    Unavailable { why: String },
}

/// When a certificate that is good from `from` until `until` is renewed: after two thirds of its time.
pub fn renew_at(from: Timestamp, until: Timestamp) -> Timestamp {
    let time_ms = until.0.saturating_sub(from.0);
    Timestamp(from.0.saturating_add(time_ms - time_ms / 3))
}

#[cfg(test)]
mod tests {
    use super::renew_at;
    use crate::time::Timestamp;

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_time_and_a_wrong_one_at_once() {
        assert_eq!(renew_at(Timestamp(1_000), Timestamp(4_000)), Timestamp(3_000));
        assert_eq!(renew_at(Timestamp(5_000), Timestamp(4_000)), Timestamp(5_000));
        assert_eq!(renew_at(Timestamp(0), Timestamp(u64::MAX)).0 % 2, 0);
    }
}
