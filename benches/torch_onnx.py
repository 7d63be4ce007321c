"""Exports a plain PyTorch V-JEPA encoder with an attentive probe through both of torch.onnx's exporters.

Written for the comparison in docs/onnx-forms.md from the model's description; weights are those `vjepa` was given, so that
all sides hold the same numbers.

Usage: torch_onnx.py --encoder ENCODER.safetensors --probe PROBE.safetensors --heads 12 [--frames 16] [--size 224] --out FOLDER

Writes FOLDER/dynamo.onnx and FOLDER/torchscript.onnx, the batch of any size, and prints their node counts. Run them beside
ours: `vjepa bench infer --onnx ort=ours.onnx --onnx ort=FOLDER/dynamo.onnx ...`.
"""

import argparse
import json
import struct
from pathlib import Path

import onnx
import torch
import torch.nn.functional as F
from torch import nn

from torch_step import Encoder


def read(path, prefix):
    """The tensors of a safetensors file under a prefix (f32)."""
    raw = Path(path).read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if name.startswith(prefix):
            start, end = entry["data_offsets"]
            data = torch.frombuffer(bytearray(raw[8 + length + start : 8 + length + end]), dtype=torch.float32)
            tensors[name[len(prefix) :]] = data.reshape(entry["shape"]).clone()
    return tensors


class CrossAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.q, self.kv, self.proj = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)

    def forward(self, query, x):
        batch, tokens, width = x.shape
        size = width // self.heads
        q = self.q(query).view(batch, 1, self.heads, size).transpose(1, 2)
        k, v = self.kv(x).view(batch, tokens, 2, self.heads, size).permute(2, 0, 3, 1, 4).unbind(0)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, 1, width)


class CrossBlock(nn.Module):
    def __init__(self, width, heads, hidden):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-5), nn.LayerNorm(width, eps=1e-5)
        self.xattn = CrossAttention(width, heads)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})

    def forward(self, query, x):
        q = query + self.xattn(query, self.norm1(x))
        return q + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(q))))


class Pooler(nn.Module):
    def __init__(self, width, heads, hidden):
        super().__init__()
        self.query_tokens = nn.Parameter(torch.zeros(1, 1, width))
        self.cross_attention_block = CrossBlock(width, heads, hidden)

    def forward(self, x):
        return self.cross_attention_block(self.query_tokens.expand(x.shape[0], -1, -1), x)


class Classifier(nn.Module):
    def __init__(self, width, heads, hidden, classes):
        super().__init__()
        self.pooler, self.linear = Pooler(width, heads, hidden), nn.Linear(width, classes)

    def forward(self, x):
        return self.linear(self.pooler(x).squeeze(1))


class Deployed(nn.Module):
    def __init__(self, encoder, probe):
        super().__init__()
        self.encoder, self.probe = encoder, probe

    def forward(self, clip):
        return self.probe(self.encoder(clip))


def build(args):
    encoder, probe = read(args.encoder, "encoder."), read(args.probe, "probe.")
    width, channels, tubelet, patch, _ = encoder["patch_embed.proj.weight"].shape
    hidden = encoder["blocks.0.mlp.fc1.weight"].shape[0]
    depth = 1 + max(int(name.split(".")[1]) for name in encoder if name.startswith("blocks."))
    sizes = {
        "channels": channels, "width": width, "tubelet": tubelet, "patch": patch, "frames": args.frames,
        "height": args.size, "size": args.size, "heads": args.heads, "hidden": hidden, "depth": depth,
    }
    model = Deployed(Encoder(sizes), Classifier(width, args.heads, hidden, probe["linear.weight"].shape[0]))
    model.encoder.load_state_dict(encoder, strict=True)
    model.probe.load_state_dict(probe, strict=True)
    return model.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--probe", required=True)
    parser.add_argument("--heads", type=int, required=True)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    model = build(args)
    clip = torch.randn(2, 3, args.frames, args.size, args.size)
    names = {"input_names": ["clip"], "output_names": ["logits"]}
    with torch.inference_mode():
        torch.onnx.export(
            model, (clip,), str(out / "dynamo.onnx"), dynamo=True, optimize=True, external_data=False,
            dynamic_shapes={"clip": {0: torch.export.Dim("batch", min=1, max=64)}}, **names,
        )
        torch.onnx.export(
            model, (clip,), str(out / "torchscript.onnx"), dynamo=False, opset_version=20, do_constant_folding=True,
            dynamic_axes={"clip": {0: "batch"}, "logits": {0: "batch"}}, **names,
        )
    for name in ["dynamo", "torchscript"]:
        graph = onnx.load(str(out / f"{name}.onnx"), load_external_data=False).graph
        print(f"{name}: {len(graph.node)} nodes")


if __name__ == "__main__":
    main()
