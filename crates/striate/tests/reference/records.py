"""Values for the tests of formats/tensorboard.rs, from TensorBoard's own messages and record writer.

    pip install tensorboard
    python records.py > records.json
"""

import importlib.metadata
import io
import json

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


def record(event):
    file = io.BytesIO()
    RecordWriter(file).write(event.SerializeToString(deterministic=True))
    return file.getvalue().hex()


image = Summary.Image(height=1, width=200, colorspace=3, encoded_image_string=bytes([1, 2, 3]))
scalars = [Summary.Value(tag="train/loss", simple_value=0.25), Summary.Value(tag="größe", simple_value=float("nan"))]
print(
    json.dumps(
        {
            "tensorboard": importlib.metadata.version("tensorboard"),
            "version": record(Event(wall_time=1_700_000_000.25, file_version="brain.Event:2")),
            "scalars": record(Event(wall_time=1_700_000_001.5, step=300, summary=Summary(value=scalars))),
            "image": record(
                Event(
                    wall_time=1_700_000_002.0,
                    step=1 << 40,
                    summary=Summary(value=[Summary.Value(tag="filters", image=image)]),
                )
            ),
        },
        indent=1,
    )
)
