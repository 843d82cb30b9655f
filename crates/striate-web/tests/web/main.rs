//! The server and its page from outside.

mod browser;
mod common;
mod page;
mod server;
