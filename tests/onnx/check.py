#!/usr/bin/env python3
"""Checks exported models: `check.py MODEL.onnx...`.

For each model: the ONNX checker with full checks, strict inference of types and shapes, ONNX Runtime against the
simplified model on random clips of batch 1 and 3, the node counts of onnxslim and onnxsim, which must find nothing to
remove, and what polygraphy reads and runs. In f16 and bf16 models every product is narrow, every norm and softmax is not,
and inputs and outputs are f32. ONNX Runtime has no bfloat16 products for CPUs, so bf16 models are computed by onnx's
reference evaluator instead. Exit code 1 when a model fails.
"""

import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import onnxsim
import onnxslim
from onnx.reference import ReferenceEvaluator

NARROW = {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
FLOATS = NARROW | {onnx.TensorProto.FLOAT}
PRODUCTS = {"Conv", "Gemm", "MatMul"}
WIDE = {"LayerNormalization", "Softmax", "ReduceMean"}


def operators(model):
    return Counter(node.op_type for node in model.graph.node)


def feeds(inputs, batch):
    """Random values for (name, sizes, is_float): the same for a batch at every call."""
    random = np.random.default_rng(batch)
    values = {}
    for name, sizes, is_float in inputs:
        shape = [size if isinstance(size, int) else batch for size in sizes]
        if is_float:
            values[name] = random.standard_normal(shape, dtype=np.float32)
        else:
            values[name] = random.integers(0, 4, shape, dtype=np.int32)
    return values


def outputs(path, batch):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs = [(entry.name, entry.shape, entry.type == "tensor(float)") for entry in session.get_inputs()]
    return session.run(None, feeds(inputs, batch))


def referenced(path, batch):
    """Results of onnx's reference evaluator, which computes bfloat16."""
    model = onnx.load(str(path))
    inputs = []
    for entry in model.graph.input:
        tensor = entry.type.tensor_type
        sizes = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in tensor.shape.dim]
        inputs.append((entry.name, sizes, tensor.elem_type == onnx.TensorProto.FLOAT))
    return ReferenceEvaluator(model).run(None, feeds(inputs, batch))


def types(graph):
    """Element type of every value, as strict inference found them."""
    known = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        known[value.name] = value.type.tensor_type.elem_type
    return known


def type_faults(model):
    """What is not typed, or not as narrow or as wide as it should be; and the narrow types there are."""
    known = types(model.graph)
    faults = [f"{name} has no type" for node in model.graph.node for name in node.output if not known.get(name)]
    products = [node for node in model.graph.node if node.op_type in PRODUCTS]
    used = {known.get(name) for node in products for name in node.input} & NARROW
    if used:
        for node in products:
            if {known.get(name) for name in node.input if name} != used:
                faults.append(f"the product {node.name} is not all narrow")
    for node in model.graph.node:
        ins = {known.get(name) for name in node.input if name} & FLOATS
        if node.op_type in WIDE and ins & NARROW:
            faults.append(f"the {node.op_type} {node.name} is narrow")
        if node.op_type != "Cast" and len(ins) > 1:
            faults.append(f"{node.name} mixes float types")
    for value in [*model.graph.input, *model.graph.output]:
        if value.type.tensor_type.elem_type in NARROW:
            faults.append(f"{value.name} is narrow")
    return faults, used


def polygraphy(*arguments):
    """What the command of this environment prints; what is wrong, else None."""
    command = [str(Path(sys.executable).with_name("polygraphy")), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (result.stdout + result.stderr).strip().splitlines()
    return (result.stdout, None) if result.returncode == 0 else ("", lines[-1] if lines else "no output")


def polygraphy_faults(path, model, runnable):
    """What polygraphy says against the model: it must read as many nodes as there are, and run it to finite numbers."""
    printed, fault = polygraphy("inspect", "model", path)
    found = re.search(r"(\d+) Node\(s\)", printed)
    if fault is None and (found is None or int(found[1]) != len(model.graph.node)):
        fault = "another number of nodes"
    faults = [] if fault is None else [f"polygraphy inspect model: {fault}"]
    if runnable:
        shapes = [
            f"{entry.name}:[" + ",".join(str(dim.dim_value or 2) for dim in entry.type.tensor_type.shape.dim) + "]"
            for entry in model.graph.input
        ]
        _, fault = polygraphy("run", "--onnxrt", "--validate", path, "--input-shapes", *shapes)
        if fault is not None:
            faults.append(f"polygraphy run: {fault}")
    return faults


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
    narrow_faults, narrow = type_faults(inferred)
    faults += narrow_faults
    bfloat16 = onnx.TensorProto.BFLOAT16 in narrow
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
    compute = referenced if bfloat16 else outputs
    with tempfile.TemporaryDirectory() as folder:
        simplified = Path(folder) / "simplified.onnx"
        onnx.save(simple, str(simplified))
        for batch in (1, 3):
            for ours, theirs in zip(compute(path, batch), compute(simplified, batch), strict=True):
                if ours.shape[0] != batch:
                    faults.append(f"batch {batch} gives an output of shape {ours.shape}")
                if ours.dtype != np.float32:
                    faults.append(f"an output is of {ours.dtype}")
                if not np.allclose(ours, theirs, rtol=1e-4, atol=1e-4):
                    faults.append(f"the simplified model differs by {np.abs(ours - theirs).max():g}")
    # polygraphy's own inputs are uniform in [0, 1]; indices of another type it would draw out of range.
    floats = all(entry.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for entry in model.graph.input)
    faults += polygraphy_faults(path, model, runnable=floats and not bfloat16)
    counts = f"{sum(before.values())} nodes, onnxslim {sum(operators(slim).values())}, "
    precision = "".join(f", {onnx.TensorProto.DataType.Name(kind).lower()}" for kind in sorted(narrow))
    print(f"{path}: {counts}onnxsim {sum(operators(simple).values())}{precision}: {'FAILED' if faults else 'ok'}")
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
