//! Transport-wide arrival register and its feedback.
