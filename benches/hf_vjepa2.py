"""Hugging Face's V-JEPA 2 encoder as a side of `vjepa bench infer`, eager or exported and on ONNX Runtime.

    vjepa bench infer --config FILE --beside 'HF eager=python3 benches/hf_vjepa2.py' \
        --beside 'HF ONNX=python3 benches/hf_vjepa2.py --onnx'

hf_vjepa2.py [--onnx] [--threads N] CASE.json, with the case and the commands of torch_step.py. Needs torch and transformers 5, and for
--onnx onnx, onnxscript and onnxruntime. The weights are those of the other sides, under Hugging Face's names.
"""

import argparse
import json
import math
import os
import sys
import tempfile
import time

import torch
import transformers


def read(case, folder):
    tensors = {}
    for name, entry in case["tensors"].items():
        if entry["dtype"] == "f32" and (name == "clip" or name.startswith("encoder.")):
            path = os.path.join(folder, entry["file"])
            values = torch.from_file(path, size=math.prod(entry["shape"]), dtype=torch.float32)
            tensors[name.removeprefix("encoder.")] = values.reshape(entry["shape"]).clone()
    return tensors


def named(tensors):
    """The encoder's weights under Hugging Face's names: queries, keys and values apart."""
    found = {}
    for name, value in tensors.items():
        kind = name.rsplit(".", 1)[-1]
        if name.startswith("patch_embed.proj."):
            found[f"embeddings.patch_embeddings.proj.{kind}"] = value
        elif name.startswith("norm."):
            found[f"layernorm.{kind}"] = value
        elif name.startswith("blocks."):
            _, layer, rest = name.split(".", 2)
            if rest.startswith("attn.qkv."):
                for part, third in zip(("query", "key", "value"), value.chunk(3)):
                    found[f"layer.{layer}.attention.{part}.{kind}"] = third
            else:
                found[f"layer.{layer}.{rest.replace('attn.proj', 'attention.proj')}"] = value
        elif name != "clip":
            sys.exit(f"error: Hugging Face's encoder has no `{name}`: is the configuration one of V-JEPA 2?")
    return found


class Mean(torch.nn.Module):
    """Mean |feature|, so that no side spends its time on copying features."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, pixel_values_videos):
        return self.encoder(pixel_values_videos).last_hidden_state.abs().mean()


def build(case, folder):
    sizes, tensors = case["encoder"], read(case, folder)
    config = transformers.VJEPA2Config(
        patch_size=sizes["patch"], crop_size=sizes["size"], frames_per_clip=sizes["frames"], tubelet_size=sizes["tubelet"],
        hidden_size=sizes["width"], num_attention_heads=sizes["heads"], num_hidden_layers=sizes["depth"],
        mlp_ratio=sizes["hidden"] / sizes["width"], pred_num_hidden_layers=1,
    )
    if sizes["height"] != sizes["size"]:
        sys.exit("error: Hugging Face's model takes square clips")
    encoder = transformers.VJEPA2Model(config).eval().encoder
    encoder.load_state_dict(named(tensors), strict=True)
    # [B, C, T, H, W] to [B, T, C, H, W].
    return Mean(encoder).eval(), tensors["clip"].transpose(1, 2).contiguous()


def exported(model, clip, threads):
    import onnxruntime

    # Removed when the session that reads from it is gone.
    folder = tempfile.TemporaryDirectory()
    path = os.path.join(folder.name, "hf.onnx")
    with torch.inference_mode():
        torch.onnx.export(model, (clip,), path, input_names=["clip"], output_names=["mean"], external_data=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    values = {"clip": clip.numpy()}
    return lambda _=folder: float(session.run(["mean"], values)[0]), f"ONNX Runtime {onnxruntime.__version__}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--onnx", action="store_true")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("case")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with open(args.case, encoding="utf-8") as file:
        case = json.load(file)
    if case["what"] != "encoder":
        sys.exit("error: this is the encoder alone: use it with `vjepa bench infer`")
    model, clip = build(case, os.path.dirname(args.case))
    about = f"transformers {transformers.__version__}, PyTorch {torch.__version__}"

    def eager():
        with torch.inference_mode():
            return model(clip).item()

    run = eager
    if args.onnx:
        # Their messages would be taken for answers.
        answers, sys.stdout = sys.stdout, sys.stderr
        run, on = exported(model, clip, args.threads)
        sys.stdout = answers
        about = f"{about}, exported, on {on}"
    print(json.dumps({"ready": about}), flush=True)
    for line in sys.stdin:
        words = line.split()
        if not words or words[0] == "quit":
            break
        if words[0] == "memory":
            print(json.dumps({"peak_bytes": None}), flush=True)
        else:
            cpu, start = time.process_time(), time.perf_counter()
            loss = run()
            wall = time.perf_counter() - start
            print(json.dumps({"ms": 1e3 * wall, "cpu_ms": 1e3 * (time.process_time() - cpu), "loss": loss}), flush=True)


if __name__ == "__main__":
    main()
