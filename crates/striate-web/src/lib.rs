//! Striate's page, and what stands behind it.
//!
//! * [`studio`] answers what the page asks of a model: numbers, and pictures that the library drew. It knows nothing of
//!   networks, so that it can also run where the page runs.
//! * [`server`] predicts over HTTP, and serves the page with its studio.
//! * [`local`] is the engine of the page as a static site: the same studio, and real training, in WebAssembly.
//! * [`mnist`] is the data that is built in.
//! * [`page`] is the page's files.

pub mod local;
pub mod mnist;
pub mod page;
#[cfg(not(target_family = "wasm"))]
pub mod server;
pub mod studio;

pub use studio::{Studio, StudioError};
