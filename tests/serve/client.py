#!/usr/bin/env python3
"""Triton's own clients against `vjepa serve`, over HTTP and gRPC, compared with onnxruntime on the same model.

    python3 -m venv venv && venv/bin/pip install 'tritonclient[http,grpc]' onnxruntime
    venv/bin/python tests/serve/client.py quickstart/textures.onnx [--runtime tract|ort]
"""

import argparse
import sys

try:
    import numpy as np
    import onnxruntime
    import tritonclient.grpc
    import tritonclient.http
    from tritonclient.utils import InferenceServerException
except ImportError as error:
    sys.exit(f"error: {error}; install it with: pip install 'tritonclient[http,grpc]' onnxruntime")

from served import served

TOLERANCE = 1e-4


def inputs_of(module, tensor, name, **how):
    value = module.InferInput(name, list(tensor.shape), "FP32")
    value.set_data_from_numpy(tensor, **how)
    return [value]


def refused(call, *words):
    try:
        call()
    except InferenceServerException as error:
        text = error.message()
        assert all(word in text for word in words), f"{words} not in {text!r}"
        return text
    raise AssertionError(f"nothing was refused: {words}")


def check(client, module, about, expected, clips, how):
    name, tensor = about["model"], about["input"]
    for batch in (1, 3):
        for arguments in how:
            result = client.infer(name, inputs_of(module, clips[:batch], tensor, **arguments), request_id="7")
            for output, wanted in expected.items():
                got = result.as_numpy(output)
                far = float(np.abs(got - wanted[:batch]).max())
                assert got.shape == wanted[:batch].shape and far < TOLERANCE, (output, got.shape, far)
                print(f"    {output} {list(got.shape)} {arguments or ''}: max |difference| {far:.1e}")
    good = inputs_of(module, clips[:1], tensor, **how[0])
    print("    refused:", refused(lambda: client.infer("other", good), "there is no model"))
    wrong = inputs_of(module, clips[:1, :, :, :1], tensor, **how[0])
    print("    refused:", refused(lambda: client.infer(name, wrong), "has the shape"))
    outputs = [module.InferRequestedOutput("nothing")]
    print("    refused:", refused(lambda: client.infer(name, good, outputs=outputs), "is not an output"))
    print("    refused:", refused(lambda: client.infer(name, good, timeout=1), "not finished within"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--vjepa", default="target/release/vjepa")
    parser.add_argument("--runtime", default="tract")
    arguments = parser.parse_args()
    session = onnxruntime.InferenceSession(arguments.model, providers=["CPUExecutionProvider"])
    feed = session.get_inputs()[0]
    shape = [3] + [size for size in feed.shape[1:]]
    clips = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    names = [output.name for output in session.get_outputs()]
    expected = dict(zip(names, session.run(names, {feed.name: clips})))

    with served(arguments.vjepa, arguments.model, "--runtime", arguments.runtime) as server:
        about = {"model": server["model"], "input": feed.name}
        print(f"{server['model']} on {server['runtime']}")
        for protocol, module, how in (
            ("http", tritonclient.http, [{"binary_data": True}, {"binary_data": False}]),
            ("grpc", tritonclient.grpc, [{}]),
        ):
            with module.InferenceServerClient(server[protocol]) as client:
                assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(about["model"])
                as_json = {"as_json": True} if protocol == "grpc" else {}
                metadata = client.get_model_metadata(about["model"], **as_json)
                assert [tensor["name"] for tensor in metadata["outputs"]] == names, metadata
                config = client.get_model_config(about["model"], **as_json)
                config = config.get("config", config)
                assert int(config["max_batch_size"]) == 8, config
                print(f"  {protocol}: {metadata['platform']}, inputs {metadata['inputs']}")
                check(client, module, about, expected, clips, how)
                statistics = client.get_inference_statistics(about["model"], **as_json)["model_stats"][0]
                print(f"    statistics: {statistics['inference_count']} clips in {statistics['execution_count']} runs")
    print("all as onnxruntime has it")


if __name__ == "__main__":
    main()
