//! The packets of a track that a subscriber may still ask for.
