//! The server and its page from outside.

mod common;
mod page;
mod server;
