"""V-JEPA's training step and encoder in plain PyTorch: the other side of `vjepa bench`.

Written for this comparison from the model's description. Attention is `scaled_dot_product_attention`; targets are under
`no_grad`; AdamW is PyTorch's fused one, the moving average `_foreach_lerp_`: what a careful user would write today.

Usage: torch_step.py CASE.json [--compile] [--device cpu|cuda] [--dtype f32|bf16] [--threads N]

Reads one command a line from standard input (`run I`, `memory`, `products`, `quit`) and answers each with one line of JSON. CASE.json
and the files it names are written by `vjepa bench`; I is the number of a set of masks.
"""

import argparse
import json
import math
import os
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, width, heads, hidden):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})

    def forward(self, x):
        batch, tokens, width = x.shape
        qkv = self.attn["qkv"](self.norm1(x)).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        x = x + self.attn["proj"](y)
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


def pick(x, index):
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


class Encoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        tubelet, patch, width = c["tubelet"], c["patch"], c["width"]
        step = (tubelet, patch, patch)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv3d(c["channels"], width, step, step)})
        tokens = (c["frames"] // tubelet) * (c["height"] // patch) * (c["size"] // patch)
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, width), requires_grad=False)
        self.blocks = nn.ModuleList(Block(width, c["heads"], c["hidden"]) for _ in range(c["depth"]))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, clip, index=None):
        x = self.patch_embed["proj"](clip).flatten(2).transpose(1, 2) + self.pos_embed
        if index is not None:
            x = pick(x, index)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Predictor(nn.Module):
    def __init__(self, c):
        super().__init__()
        width = c["width"]
        self.predictor_embed = nn.Linear(c["encoder_width"], width)
        self.mask_tokens = nn.ParameterList(torch.zeros(1, 1, width) for _ in range(c["mask_tokens"]))
        self.predictor_pos_embed = nn.Parameter(torch.zeros(1, c["tokens"], width), requires_grad=False)
        self.predictor_blocks = nn.ModuleList(Block(width, c["heads"], c["hidden"]) for _ in range(c["depth"]))
        self.predictor_norm = nn.LayerNorm(width, eps=1e-6)
        self.predictor_proj = nn.Linear(width, c["encoder_width"])

    def forward(self, features, context, target, i):
        pos = self.predictor_pos_embed.expand(features.shape[0], -1, -1)
        x = self.predictor_embed(features) + pick(pos, context)
        x = torch.cat([x, self.mask_tokens[i] + pick(pos, target)], dim=1)
        for block in self.predictor_blocks:
            x = block(x)
        return self.predictor_proj(self.predictor_norm(x)[:, features.shape[1] :])


class Step:
    def __init__(self, case, folder, args):
        self.case, self.args, self.device = case, args, torch.device(args.device)
        if self.device.type == "cuda":
            # Burn's f32 products are TF32 on CUDA: like with like.
            torch.set_float32_matmul_precision("high")
        self.encoder, self.target = Encoder(case["encoder"]), Encoder(case["encoder"])
        self.predictor = Predictor(case["predictor"])
        models = {"encoder.": self.encoder, "predictor.": self.predictor, "target_encoder.": self.target}
        raw = {}
        for name, entry in case["tensors"].items():
            path = os.path.join(folder, entry["file"])
            kind = torch.int32 if entry["dtype"] == "i32" else torch.float32
            raw[name] = torch.from_file(path, size=math.prod(entry["shape"]), dtype=kind).reshape(entry["shape"]).clone()
        for prefix, model in models.items():
            own = {name[len(prefix) :]: value for name, value in raw.items() if name.startswith(prefix)}
            model.load_state_dict(own, strict=True)
            model.to(self.device)
        self.target.requires_grad_(False)
        # Clips come from the host in every step, on all sides.
        self.host_clip = raw["clip"].pin_memory() if self.device.type == "cuda" else raw["clip"]
        self.masks = [
            [tuple(raw[name].long().to(self.device) for name in pair) for pair in pairs] for pairs in case["masks"]
        ]
        decay, flat = [], []
        for name, p in [*self.encoder.named_parameters(), *self.predictor.named_parameters()]:
            if p.requires_grad:
                (flat if "bias" in name or p.ndim == 1 else decay).append(p)
        rates = case["rates"]
        groups = [{"params": decay, "weight_decay": rates["wd"]}, {"params": flat, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=rates["lr"], betas=(0.9, 0.999), eps=1e-8, fused=True)
        self.loss_of = torch.compile(self.objective) if args.compile else self.objective

    def objective(self, clip, masks):
        with torch.no_grad():
            h = self.target(clip)
            h = F.layer_norm(h, h.shape[-1:])
        losses, spread = [], []
        for i, (context, target) in enumerate(masks):
            z = self.predictor(self.encoder(clip, context), context, target, i)
            losses.append((z - pick(h, target)).abs().mean())
            spread.append((z.var(dim=1) + 1e-4).sqrt())
        reg = F.relu(1.0 - sum(spread) / len(spread)).mean()
        return sum(losses) / len(losses) + self.case["rates"]["reg_coeff"] * reg

    def sync(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def run(self, i):
        self.sync()
        cpu, start = time.process_time(), time.perf_counter()
        bf16 = self.args.dtype == "bf16"
        clip = self.host_clip.to(self.device, non_blocking=True)
        if self.case["what"] == "encoder":
            with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                loss = self.forward(clip).float().abs().mean()
        else:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                loss = self.loss_of(clip, self.masks[i])
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            with torch.no_grad():
                targets = [p for n, p in self.target.named_parameters() if "pos_embed" not in n]
                sources = [p for n, p in self.encoder.named_parameters() if "pos_embed" not in n]
                torch._foreach_lerp_(targets, sources, 1.0 - self.case["rates"]["momentum"])
        self.sync()
        wall = time.perf_counter() - start
        return {"ms": 1e3 * wall, "cpu_ms": 1e3 * (time.process_time() - cpu), "loss": loss.item() if loss.isfinite() else None}

    def products(self):
        """FLOP/s of plain matrix products on the device, in the precision compared."""
        side, count = 8192, 20
        dtype = torch.bfloat16 if self.args.dtype == "bf16" else torch.float32
        a, b = (torch.randn(side, side, device=self.device, dtype=dtype) for _ in range(2))
        best = math.inf
        for _ in range(3):
            self.sync()
            start = time.perf_counter()
            for _ in range(count):
                a @ b
            self.sync()
            best = min(best, (time.perf_counter() - start) / count)
        return 2.0 * side**3 / best

    def forward(self, clip):
        if not hasattr(self, "compiled"):
            self.compiled = torch.compile(self.encoder) if self.args.compile else self.encoder
        return self.compiled(clip)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    with open(args.case, encoding="utf-8") as file:
        case = json.load(file)
    step = Step(case, os.path.dirname(args.case), args)
    about = f"PyTorch {torch.__version__}"
    if step.device.type == "cuda":
        about += f" on {torch.cuda.get_device_name(step.device)}, products of f32 as TF32"
    print(json.dumps({"ready": about}), flush=True)
    for line in sys.stdin:
        words = line.split()
        if not words or words[0] == "quit":
            break
        if words[0] == "products":
            print(json.dumps({"flops": step.products()}), flush=True)
        elif words[0] == "memory":
            peak = torch.cuda.max_memory_allocated() if step.device.type == "cuda" else None
            print(json.dumps({"peak_bytes": peak}), flush=True)
        else:
            print(json.dumps(step.run(int(words[1]))), flush=True)


if __name__ == "__main__":
    main()
