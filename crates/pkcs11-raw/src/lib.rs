//! A thin safe layer.
