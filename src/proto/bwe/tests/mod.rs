//! The estimator on virtual paths, and in bad company.

mod bench;
mod hostile;
mod scenarios;
