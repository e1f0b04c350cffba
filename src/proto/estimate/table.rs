//! The layout of every vendored message, written by `build.rs`.
//!
//! Called by: `Shape`.

#![allow(non_upper_case_globals, deprecated, clippy::all)]

use super::Shape;
use super::shape::{Field, Kind, Label, MessageShape, Shaped};

include!(concat!(env!("OUT_DIR"), "/shapes.rs"));
