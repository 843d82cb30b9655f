//! The server and its page from outside.

mod browser;
mod common;
mod local;
mod page;
mod server;
