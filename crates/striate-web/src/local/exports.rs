//! The door to JavaScript. Text goes in and out by one buffer: `room(length)` makes it and says where it is, `answer()` takes
//! the request out of it, puts the answer in and gives its length, `place()` says where that is. The page's worker
//! gives the clock and takes last words.
//!
//! Names that are exported and imported are all the unsafe there is: no block, no pointer is followed on this side.
#![allow(unsafe_code)]

use super::Local;
use std::cell::RefCell;
use striate::clock;

#[link(wasm_import_module = "host")]
unsafe extern "C" {
    /// Milliseconds since any fixed moment.
    safe fn now() -> f64;
    /// Why the engine ends.
    safe fn complain(text: *const u8, length: usize);
}

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static LOCAL: RefCell<Option<Local>> = const { RefCell::new(None) };
}

/// Room for a request of so many bytes.
#[unsafe(no_mangle)]
extern "C" fn room(length: usize) -> *mut u8 {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        buffer.resize(length, 0);
        buffer.as_mut_ptr()
    })
}

/// Answers the request; the answer has so many bytes.
#[unsafe(no_mangle)]
extern "C" fn answer() -> usize {
    let request = BUFFER.take();
    let answer = LOCAL.with_borrow_mut(|place| {
        if place.is_none() {
            clock::set(|| now());
            std::panic::set_hook(Box::new(|panic| {
                let text = panic.to_string();
                complain(text.as_ptr(), text.len());
            }));
            *place = Local::new().ok();
        }
        place
            .as_mut()
            .map_or_else(|| br#"{"error":"no engine","going":false}"#.to_vec(), |local| local.answer(&request))
    });
    let length = answer.len();
    BUFFER.set(answer);
    length
}

/// Where the answer is.
#[unsafe(no_mangle)]
extern "C" fn place() -> *const u8 {
    BUFFER.with_borrow(|buffer| buffer.as_ptr())
}
