//! A setting that nobody may read in a log.
//!
//! Promises: `Debug` does not show it, and comparing takes the same time whatever was guessed.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};

/// A password, token or key.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// What it is: for what signs or sends it, never for a log.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether this is what was shown.
    pub fn is(&self, shown: &str) -> bool {
        // Digests have one length, so that not even the secret's is told.
        let [own, shown] = [self.0.as_bytes(), shown.as_bytes()].map(|text| digest(&SHA256, text));
        verify_slices_are_equal(own.as_ref(), shown.as_ref()).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_compared_and_not_shown() {
        let secret = Secret::from("harbour");
        assert!(secret.is("harbour"));
        assert!(!secret.is("harbou") && !secret.is("harbours") && !secret.is(""));
        assert_eq!(format!("{:?}", Some(secret)), "Some([secret])");
    }
}
