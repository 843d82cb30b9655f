//! Durations, also where the standard library has no clock.
//!
//! Everywhere but in WebAssembly without a system (wasm32-unknown-unknown) [`Instant`] is the standard library's. There the
//! standard one ends the program; this one asks the function that `set` was given, such as one that calls the browser's
//! `performance.now`, and stands still without one. No result depends on it, only what is told of speed.

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub use std::time::Instant;

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
pub use hosted::{Instant, set};

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
mod hosted {
    use std::ops::AddAssign;
    use std::sync::OnceLock;
    use std::time::Duration;

    static CLOCK: OnceLock<fn() -> f64> = OnceLock::new();

    /// Takes the host's clock: milliseconds since any fixed moment. The first one stays.
    pub fn set(milliseconds: fn() -> f64) {
        let _ = CLOCK.set(milliseconds);
    }

    /// A moment.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub struct Instant(Duration);

    impl Instant {
        /// The moment of the call.
        pub fn now() -> Self {
            let seconds = CLOCK.get().map_or(0.0, |clock| clock() / 1000.0);
            Self(Duration::try_from_secs_f64(seconds).unwrap_or_default())
        }

        /// How long ago it was; nothing for moments to come.
        pub fn elapsed(&self) -> Duration {
            Self::now().duration_since(*self)
        }

        /// How much later it was; nothing if it was earlier.
        pub fn duration_since(&self, earlier: Self) -> Duration {
            self.0.saturating_sub(earlier.0)
        }
    }

    impl AddAssign<Duration> for Instant {
        fn add_assign(&mut self, later: Duration) {
            self.0 = self.0.saturating_add(later);
        }
    }
}
