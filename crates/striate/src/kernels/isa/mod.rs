//! Instruction sets (being written).
/// Runs `body` compiled for the machine's widest vectors.
#[inline(always)]
pub fn vectorize<T>(body: impl FnOnce() -> T) -> T {
    body()
}
