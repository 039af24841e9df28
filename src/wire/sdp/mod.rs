//! SDP attributes as WebRTC uses them.
