"""Where cargo puts what it builds."""

import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]


def built(name, workspace=ROOT):
    """A program of a release build: `striate`, `examples/step_time`."""
    return workspace / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / name
