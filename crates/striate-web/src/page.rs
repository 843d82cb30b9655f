//! The page's files, which are part of the program, and what browsers may load for it.

/// Name and contents.
macro_rules! files {
    ($($name:literal),+ $(,)?) => { &[$(($name, include_str!(concat!("../page/", $name)))),+] };
}

/// Every file of the page, wherever its engine is.
pub const FILES: &[(&str, &str)] = files![
    "index.html",
    "style.css",
    "app.js",
    "dom.js",
    "engine.js",
    "input.js",
    "words.js",
    "views/filters.js",
    "views/layers.js",
    "views/mistakes.js",
    "views/network.js",
    "views/similar.js",
    "views/training.js",
    "views/why.js",
    "icon.svg",
];

/// What the page needs beside them where its engine is a worker.
pub const WORKER: &[(&str, &str)] = files!["worker.js"];

macro_rules! policy {
    ($scripts:literal, $more:literal) => {
        concat!(
            "default-src 'none'; script-src 'self'",
            $scripts,
            "; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; media-src 'self' blob:; manifest-src 'self'; \
             base-uri 'none'; form-action 'none'; ",
            $more
        )
    };
}

/// The page loads nothing but its own files and stands in no other page.
pub const SERVED: &str = policy!("", "frame-ancestors 'none'");

/// The same for a static site, whose scripts may besides compile WebAssembly. A server may send it as a header, with
/// `frame-ancestors` added, which counts in headers only.
pub const STATIC: &str = policy!(" 'wasm-unsafe-eval'", "worker-src 'self'");
