"""Makes the files of this folder from `model.onnx`, which the test writes with UPDATE_TOUCHED=1:

    pip install -r tests/onnx/requirements.txt
    UPDATE_TOUCHED=1 cargo test --release -p vjepa-runtime --test touched files_of_other_tools
    python runtime/tests/touched/make.py
"""

from pathlib import Path

import onnx
import onnxruntime
import onnxsim
import onnxslim
from onnx import version_converter

HERE = Path(__file__).parent
SOURCE = HERE / "model.onnx"


def optimised(name, level):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(HERE / name)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(SOURCE), options, providers=["CPUExecutionProvider"])


def main():
    model = onnx.load(SOURCE)
    onnxslim.slim(str(SOURCE), str(HERE / "onnxslim.onnx"))
    simplified, sound = onnxsim.simplify(model)
    assert sound
    onnx.save(simplified, HERE / "onnxsim.onnx")
    onnx.save(onnx.shape_inference.infer_shapes(model, data_prop=True), HERE / "inferred.onnx")
    for opset in (21, 22, 23):
        converted = version_converter.convert_version(model, opset)
        onnx.save(onnx.shape_inference.infer_shapes(converted), HERE / f"opset{opset}.onnx")
    levels = onnxruntime.GraphOptimizationLevel
    optimised("ort-basic.onnx", levels.ORT_ENABLE_BASIC)
    optimised("ort-extended.onnx", levels.ORT_ENABLE_EXTENDED)
    optimised("ort-all.onnx", levels.ORT_ENABLE_ALL)


if __name__ == "__main__":
    main()
