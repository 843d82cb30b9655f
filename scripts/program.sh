# Sourced by the trials from the project's root: builds the program, and says in $striate where it is, whatever
# CARGO_TARGET_DIR or Cargo's configuration say.
cargo build --release --quiet
striate="$(cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release/striate"
