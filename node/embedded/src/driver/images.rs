//! Errors of images in the words of drivers, and who uses which image.

use kactor_drivers::DriverError;
use kactor_drivers::error::PullRetry;
use kactor_images::ImageError;

use super::Inner;

pub fn error(reference: &str, error: ImageError) -> DriverError {
    let reference = reference.to_owned();
    let why = error.to_string();
    match error {
        ImageError::BadReference { .. } | ImageError::BadDigest { .. } => {
            DriverError::BadReference { reference, why }
        }
        ImageError::NotFound { .. } => DriverError::NoImage { reference },
        ImageError::InUse { n_users, .. } => DriverError::ImageInUse { reference, n_users },
        ImageError::Refused { why, .. } => {
            DriverError::Pull { reference, why, retry: PullRetry::Refused }
        }
        ImageError::Fetch { why, .. } => {
            DriverError::Pull { reference, why, retry: PullRetry::Later }
        }
        ImageError::DiskFull { .. } => {
            DriverError::DiskFull { doing: format!("{reference}: {why}") }
        }
        ImageError::Io { doing, source } => {
            DriverError::io(format!("{reference}: {doing}"), source)
        }
        _ => DriverError::BadImage { reference, why },
    }
}

impl Inner {
    /// The image id of each container.
    pub(super) fn image_users(&self) -> Result<Vec<String>, DriverError> {
        let containers = self.list()?.into_iter().flat_map(|it| it.containers);
        Ok(containers.map(|it| it.image_id).collect())
    }
}
