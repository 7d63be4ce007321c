#!/usr/bin/env python3
"""Checks exported models: `check.py MODEL.onnx...`.

For each model: the ONNX checker with full checks, strict shape inference, ONNX Runtime against the simplified model on
random clips of batch 1 and 3, and the node counts of onnxslim and onnxsim, which must find nothing to remove.
Exit code 1 when a model fails.
"""

import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import onnxsim
import onnxslim


def operators(model):
    return Counter(node.op_type for node in model.graph.node)


def outputs(path, batch):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(batch)
    feeds = {}
    for entry in session.get_inputs():
        shape = [size if isinstance(size, int) else batch for size in entry.shape]
        if entry.type == "tensor(float)":
            feeds[entry.name] = random.standard_normal(shape, dtype=np.float32)
        else:
            feeds[entry.name] = random.integers(0, 4, shape, dtype=np.int32)
    return session.run(None, feeds)


def check(path):
    """The faults found, in sentences."""
    faults = []
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(str(path))
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    for output in inferred.graph.output:
        first = output.type.tensor_type.shape.dim[0]
        if first.dim_param != "batch":
            faults.append(f"dimension 0 of {output.name} is not named batch")
    if any(not node.name for node in model.graph.node):
        faults.append("a node has no name")
    before = operators(model)
    slim = onnxslim.slim(model)
    simple, valid = onnxsim.simplify(onnx.load(str(path)))
    if not valid:
        faults.append("onnxsim's check of its own result failed")
    for tool, after in [("onnxslim", operators(slim)), ("onnxsim", operators(simple))]:
        if sum(after.values()) < sum(before.values()):
            faults.append(f"{tool} removed {dict(before - after)} and added {dict(after - before)}")
    with tempfile.TemporaryDirectory() as folder:
        simplified = Path(folder) / "simplified.onnx"
        onnx.save(simple, str(simplified))
        for batch in (1, 3):
            for ours, theirs in zip(outputs(path, batch), outputs(simplified, batch), strict=True):
                if ours.shape[0] != batch:
                    faults.append(f"batch {batch} gives an output of shape {ours.shape}")
                if not np.allclose(ours, theirs, rtol=1e-4, atol=1e-4):
                    faults.append(f"the simplified model differs by {np.abs(ours - theirs).max():g}")
    counts = f"{sum(before.values())} nodes, onnxslim {sum(operators(slim).values())}, "
    print(f"{path}: {counts}onnxsim {sum(operators(simple).values())}: {'FAILED' if faults else 'ok'}")
    for fault in faults:
        print(f"  {fault}")
    return faults


def main():
    paths = [Path(argument) for argument in sys.argv[1:]]
    if not paths:
        sys.exit("usage: check.py MODEL.onnx...")
    if any([check(path) for path in paths]):
        sys.exit(1)


if __name__ == "__main__":
    main()
