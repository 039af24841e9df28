//! Payload descriptors: where keyframes begin.
