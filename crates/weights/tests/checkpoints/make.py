#!/usr/bin/env python3
"""Writes the checkpoint matrix: the same small weights by every writer people use, and what cannot be read.

    python make.py            # PyTorch 2.6 or later, safetensors, numpy

The files beside this script are its output with PyTorch 2.15; `../matrix.rs` reads them. Every value is exact in float16 and
bfloat16, so that each file that is read has to give the same numbers, bit for bit.
"""

import collections
import json
import os
import pathlib
import shutil
import zipfile

import numpy
import safetensors.torch
import torch
from torch import nn

HERE = pathlib.Path(__file__).parent
SHAPES = {
    "pos_embed": (1, 4, 6),
    "patch_embed.proj.weight": (6, 3, 2, 2, 2),
    "patch_embed.proj.bias": (6,),
    "blocks.0.norm1.weight": (6,),
    "blocks.0.norm1.bias": (6,),
    "blocks.0.attn.qkv.weight": (18, 6),
    "blocks.0.attn.qkv.bias": (18,),
    "norm.weight": (6,),
    "norm.bias": (6,),
}
PREDICTOR = {
    "predictor_pos_embed": (1, 4, 4),
    "predictor_embed.weight": (4, 6),
    "predictor_embed.bias": (4,),
    "mask_tokens.0": (1, 1, 4),
    "predictor_norm.weight": (4,),
    "predictor_norm.bias": (4,),
}


def values(shape, seed):
    """Element i is ((i * 37 + seed * 11) % 251 - 125) / 64: 7 bits and a sign."""
    count = int(numpy.prod(shape))
    i = torch.arange(count, dtype=torch.int64)
    return (((i * 37 + seed * 11) % 251 - 125).to(torch.float32) / 64).reshape(shape)


def encoder(dtype=torch.float32):
    return {name: values(shape, k).to(dtype) for k, (name, shape) in enumerate(SHAPES.items())}


def predictor():
    return {name: values(shape, 100 + k) for k, (name, shape) in enumerate(PREDICTOR.items())}


def under(prefix, tensors):
    return {prefix + name: tensor for name, tensor in tensors.items()}


def target(prefix="module.backbone.", **kwargs):
    return {"target_encoder": under(prefix, encoder(**kwargs))}


class Tree(nn.Module):
    """A module whose state dict has the names of these tensors."""

    def __init__(self, tensors):
        super().__init__()
        children = collections.OrderedDict()
        for name, tensor in tensors.items():
            first, _, rest = name.partition(".")
            if rest:
                children.setdefault(first, collections.OrderedDict())[rest] = tensor
            else:
                self.register_parameter(first, nn.Parameter(tensor))
        for name, inside in children.items():
            self.add_module(name, Tree(inside))
        self.register_buffer("cache", torch.zeros(2), persistent=False)

    def forward(self, x):
        return x


def save(name, value, **kwargs):
    torch.save(value, HERE / name, **kwargs)


def layouts():
    save("zip-f32.pth.tar", target())
    save("legacy-f32.pth.tar", target(), _use_new_zipfile_serialization=False)
    for name, dtype in [("f16", torch.float16), ("bf16", torch.bfloat16), ("f64", torch.float64)]:
        save(f"zip-{name}.pt", target(dtype=dtype))
        save(f"legacy-{name}.pt", target(dtype=dtype), _use_new_zipfile_serialization=False)
    mixed = [torch.float32, torch.bfloat16, torch.float64, torch.float16]
    tensors = {name: t.to(mixed[k % 4]) for k, (name, t) in enumerate(encoder().items())}
    save("mixed-types.pt", {"target_encoder": tensors})
    for protocol in [3, 4, 5]:
        save(f"protocol-{protocol}.pt", target(), pickle_protocol=protocol)
    save("protocol-4-legacy.pt", target(), pickle_protocol=4, _use_new_zipfile_serialization=False)
    torch.serialization.set_crc32_options(False)
    save("no-checksums.pt", target())
    torch.serialization.set_crc32_options(True)

    # All parameters are views of one storage, as optimisers that flatten them leave it.
    for name, kwargs in [("shared-storage.pt", {}), ("shared-storage-legacy.pt", {"_use_new_zipfile_serialization": False})]:
        plain = encoder()
        flat = torch.cat([t.flatten() for t in plain.values()])
        views, at = {}, 0
        for key, tensor in plain.items():
            views[key] = flat[at : at + tensor.numel()].view(tensor.shape)
            at += tensor.numel()
        save(name, {"target_encoder": views}, **kwargs)
    # The same tensors twice, and typed views of one untyped storage.
    one = encoder()
    save("same-tensors-twice.pt", {"encoder": one, "target_encoder": one})
    strided = encoder()
    strided["patch_embed.proj.weight"] = strided["patch_embed.proj.weight"].to(memory_format=torch.channels_last_3d)
    strided["blocks.0.attn.qkv.weight"] = strided["blocks.0.attn.qkv.weight"].t().contiguous().t()
    strided["pos_embed"] = torch.stack([strided["pos_embed"]] * 2, -1)[..., 1]
    save("strides.pt", {"target_encoder": strided})
    save("parameters.pt", {"target_encoder": {k: nn.Parameter(v) for k, v in encoder().items()}})


def wrappers():
    model = Tree(encoder())
    save("bare.pt", model.state_dict())
    save("module.pt", model)
    save("data-parallel.pt", nn.DataParallel(model).state_dict())
    save("compiled.pt", torch.compile(model).state_dict())
    save("compiled-data-parallel.pt", torch.compile(nn.DataParallel(model)).state_dict())
    lightning = {
        "epoch": 3, "global_step": 900, "pytorch-lightning_version": "2.5.0", "loops": {"fit_loop": {}},
        "state_dict": collections.OrderedDict(under("model.", encoder())),
        "hyper_parameters": {"lr": 1e-3, "path": pathlib.PurePosixPath("runs")},
    }
    save("lightning.ckpt", lightning)
    fsdp = {name.replace("blocks.0.", "blocks.0._fsdp_wrapped_module."): t for name, t in encoder().items()}
    save("fsdp-full.pt", {"model": under("_fsdp_wrapped_module.", fsdp)})
    # What else people keep beside the weights.
    save("extra-keys.pt", {
        **target(), "loss": numpy.float64(0.5), "args": collections.namedtuple("Args", "lr")(0.1)._asdict(),
        "rng": torch.get_rng_state(), "numpy": numpy.arange(3), "amp": {"scale": 65536.0},
        "ema": {"decay": 0.99, "shadow": {"head.weight": torch.ones(2)}},
    })
    save("official.pth.tar", official())


def official():
    """A whole official checkpoint: four groups of AdamW, two of them without decay, after three steps."""
    enc, pred = Tree(encoder()), Tree(predictor())
    enc.pos_embed.requires_grad = False
    pred.predictor_pos_embed.requires_grad = False
    no_decay = lambda n, p: "bias" in n or p.dim() == 1
    groups = [{"params": [p for n, p in m.named_parameters() if not no_decay(n, p)]} for m in (enc, pred)]
    groups += [
        {"params": [p for n, p in m.named_parameters() if no_decay(n, p)], "WD_exclude": True, "weight_decay": 0}
        for m in (enc, pred)
    ]
    opt = torch.optim.AdamW(groups, lr=1e-3)
    seed = 1000
    for step in range(3):
        for m in (enc, pred):
            for p in m.parameters():
                if p.requires_grad:
                    p.grad = values(p.shape, seed)
                    seed += 1
        opt.step()
    # By identity, not by number: what the reader has to find.
    moments = {}
    for model, m in [("encoder", enc), ("predictor", pred)]:
        for n, p in m.named_parameters():
            if p in opt.state:
                moments[f"adam.m.{model}.{n}"] = opt.state[p]["exp_avg"]
                moments[f"adam.v.{model}.{n}"] = opt.state[p]["exp_avg_sq"]
                moments[f"{model}.{n}"] = p.detach()
    safetensors.torch.save_file(moments, HERE / "official.expected.safetensors")
    return {
        "encoder": under("module.backbone.", enc.state_dict()),
        "predictor": under("module.backbone.", pred.state_dict()),
        "opt": opt.state_dict(),
        "scaler": torch.amp.GradScaler("cpu").state_dict(),
        "target_encoder": under("module.backbone.", encoder()),
        "epoch": 3, "loss": 0.7316322326660156, "batch_size": 24, "world_size": 2, "lr": 0.000625,
    }


def safetensors_files():
    save_file = safetensors.torch.save_file
    save_file(under("target_encoder.", encoder()), HERE / "plain.safetensors", metadata={"format": "pt"})
    save_file(under("target_encoder.", encoder(torch.bfloat16)), HERE / "bf16.safetensors")
    mixed = {name: t.to([torch.float16, torch.float64][k % 2]) for k, (name, t) in enumerate(encoder().items())}
    save_file(mixed, HERE / "mixed.safetensors")
    tensors = under("target_encoder.module.backbone.", encoder())
    half = {name: "model-0000%d-of-00002.safetensors" % (1 + k % 2) for k, name in enumerate(tensors)}
    for part in sorted(set(half.values())):
        save_file({name: t for name, t in tensors.items() if half[name] == part}, HERE / part)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": half}
    (HERE / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    half = {name: "pytorch_model-0000%d-of-00002.bin" % (1 + k % 2) for k, name in enumerate(encoder())}
    for part in sorted(set(half.values())):
        save(part, {name: t for name, t in encoder().items() if half[name] == part})
    (HERE / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": half}, indent=1))


def refused():
    flat = torch.cat([t.flatten() for t in encoder().values()])
    save("refused-fsdp-flat.pt", {"model": {"_fsdp_wrapped_module._flat_param": flat}})
    sharded_folder()
    from torch.distributed.tensor import DTensor, Shard

    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
    tensors = {n: DTensor.from_local(t, mesh, [Shard(0)]) for n, t in encoder().items()}
    save("refused-fsdp-sharded.pt", {"model": tensors})
    script = torch.jit.trace(Tree(encoder()), torch.zeros(1))
    torch.jit.save(script, HERE / "refused-torchscript.pt")
    exported = torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(exported, HERE / "refused-export.pt2")
    # Both keep where their source was.
    for name, kept in [("refused-torchscript.pt", "debug_pkl"), ("refused-export.pt2", "models/")]:
        with zipfile.ZipFile(HERE / name) as source:
            entries = {entry: source.read(entry) for entry in source.namelist() if kept not in entry}
        with zipfile.ZipFile(HERE / name, "w", zipfile.ZIP_STORED) as stripped:
            for entry, content in entries.items():
                stripped.writestr(zipfile.ZipInfo(entry), content)
    with zipfile.ZipFile(HERE / "zip-f32.pth.tar") as source:
        with zipfile.ZipFile(HERE / "refused-compressed.pt", "w", zipfile.ZIP_DEFLATED) as packed:
            for name in source.namelist():
                packed.writestr(name, source.read(name))
    name = "blocks.0.attn.qkv.weight"
    for file, change in [
        ("quantised", lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)),
        ("float8", lambda t: t.to(torch.float8_e4m3fn)),
        ("int8", lambda t: t.to(torch.int8)),
        ("complex", lambda t: t.to(torch.complex64)),
        ("sparse", lambda t: t.to_sparse()),
        ("meta", lambda t: t.to("meta")),
    ]:
        tensors = encoder()
        tensors[name] = change(tensors[name])
        save(f"refused-{file}.pt", {"target_encoder": tensors})
    save("refused-other-model.pt", nn.Linear(2, 2).state_dict())
    save("refused-pickle.pt", {"a": 1})
    tensors = encoder()
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    safetensors.torch.save_file(tensors, HERE / "refused-float8.safetensors")
    amsgrad = official()
    amsgrad["opt"]["param_groups"][0]["amsgrad"] = True
    save("refused-amsgrad.pth.tar", amsgrad)
    sgd = official()
    for state in sgd["opt"]["state"].values():
        state["momentum_buffer"] = state.pop("exp_avg")
        del state["exp_avg_sq"]
    save("refused-sgd.pth.tar", sgd)
    regrouped = official()
    first, second = regrouped["opt"]["param_groups"][:2]
    second["params"].append(first["params"].pop())
    save("refused-regrouped.pth.tar", regrouped)


def sharded_folder():
    """What FSDP and torch.distributed.checkpoint write: a folder of shards. One process is enough for the format."""
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp

    folder = HERE / "refused-sharded-folder"
    shutil.rmtree(folder, ignore_errors=True)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    dcp.save({"model": encoder()}, checkpoint_id=str(folder))


if __name__ == "__main__":
    torch.manual_seed(0)
    os.chdir(HERE)
    layouts()
    wrappers()
    safetensors_files()
    refused()
    sizes = [p.stat().st_size for p in HERE.rglob("*") if p.is_file()]
    print(f"{len(sizes)} files, {sum(sizes)} bytes, PyTorch {torch.__version__}")
