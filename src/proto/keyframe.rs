//! When a publisher is asked for a keyframe.
