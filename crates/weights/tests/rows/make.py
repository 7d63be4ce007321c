"""Makes tables as other programs write them, which are refused: python make.py FOLDER (pyarrow 26)."""

import pathlib
import sys

import pyarrow as pa
import pyarrow.parquet as pq

folder = pathlib.Path(sys.argv[1])
values = {
    "path": ["a.mp4", "a.mp4", "b.mp4"],
    "window": [0, 1, 0],
    "time": [0.0, 0.5, 0.0],
    "features": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
}


def schema(nullable: bool) -> pa.Schema:
    """Columns as ours, or each perhaps without a value."""
    element = pa.field("element", pa.float32(), nullable)
    columns = [("path", pa.string()), ("window", pa.int64()), ("time", pa.float64()), ("features", pa.list_(element))]
    return pa.schema([pa.field(name, kind, nullable) for name, kind in columns], {"vjepa.shape.features": "[2]"})


for name, nullable, how in [
    ("refused-optional", True, {"compression": "none", "use_dictionary": False}),
    ("refused-compressed", False, {"compression": "snappy", "use_dictionary": False}),
    ("refused-dictionary", False, {"compression": "none", "use_dictionary": ["path"]}),
]:
    pq.write_table(pa.table(values, schema(nullable)), folder / f"{name}.parquet", store_schema=False, **how)
