//! to come
pub(crate) const MAX_CLASSES: usize = 256;
pub(crate) const MAX_CLASS_NAME: usize = 256;
pub(crate) fn type_name(_: u8) -> &'static str {
    ""
}
