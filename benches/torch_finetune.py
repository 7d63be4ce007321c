"""The fine-tuning step of ViT-S beside PyTorch's, interleaved: time per step and peak memory.

    python benches/torch_finetune.py --vjepa target/release/vjepa --rounds 3

Each side runs in a process of its own, in turns: `vjepa finetune` on the carried clips (decoding and augmentation are on the
training thread, and their time is taken off the step's), and a PyTorch model written for this comparison: the same sizes, scaled dot
product attention, drop path, dropout, soft targets, AdamW over groups with layer decay, f32, as many threads as there are
processors. The first step of each process is not counted. Processor time per step is the difference between a process of
`--steps` steps and one of a single step, and says more than the clock on a machine that does other work. Memory is the largest
resident set of the process.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

DIM, DEPTH, HEADS, PATCH, TUBELET, CLASSES = 384, 12, 6, 16, 2, 8


def model(torch, frames, size):
    nn, F = torch.nn, torch.nn.functional
    rates = torch.linspace(0, 0.2, DEPTH).tolist()

    def drop(x, rate, training):
        if rate == 0.0 or not training:
            return x
        kept = torch.empty(x.shape[0], 1, 1).bernoulli_(1 - rate) / (1 - rate)
        return x * kept

    class Block(nn.Module):
        def __init__(self, rate):
            super().__init__()
            self.rate = rate
            self.norm1, self.norm2 = nn.LayerNorm(DIM, eps=1e-6), nn.LayerNorm(DIM, eps=1e-6)
            self.qkv, self.proj = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
            self.fc1, self.fc2 = nn.Linear(DIM, 4 * DIM), nn.Linear(4 * DIM, DIM)

        def forward(self, x):
            b, n, d = x.shape
            q, k, v = self.qkv(self.norm1(x)).view(b, n, 3, HEADS, d // HEADS).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d)
            x = x + drop(self.proj(y), self.rate, self.training)
            return x + drop(self.fc2(F.gelu(self.fc1(self.norm2(x)))), self.rate, self.training)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            step = (TUBELET, PATCH, PATCH)
            self.embed = nn.Conv3d(3, DIM, step, step)
            tokens = frames // TUBELET * (size // PATCH) ** 2
            self.register_buffer("pos", torch.randn(1, tokens, DIM) * 0.02)
            self.blocks = nn.ModuleList(Block(rate) for rate in rates)
            self.norm, self.drop, self.head = nn.LayerNorm(DIM, eps=1e-6), nn.Dropout(0.5), nn.Linear(DIM, CLASSES)

        def forward(self, x):
            x = self.embed(x).flatten(2).transpose(1, 2) + self.pos
            for block in self.blocks:
                x = block(x)
            return self.head(self.drop(self.norm(x.mean(1))))

    return Net()


def torch_side(steps, batch, frames, size):
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count())
    net = model(torch, frames, size).train()
    groups = {}
    for name, p in net.named_parameters():
        layer = 0 if name.startswith("embed") else int(name.split(".")[1]) + 1 if name.startswith("blocks") else DEPTH + 1
        groups.setdefault((layer, p.ndim > 1), []).append(p)
    groups = [
        {"params": ps, "lr": 1e-4 * 0.8 ** (DEPTH + 1 - layer), "weight_decay": 0.05 if decays else 0.0}
        for (layer, decays), ps in groups.items()
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8)
    clip = torch.randn(batch, 3, frames, size, size)
    target = torch.softmax(torch.randn(batch, CLASSES), 1)
    times = []
    for _ in range(steps):
        began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = -(target * torch.log_softmax(net(clip), 1)).sum(1).mean()
        loss.backward()
        optimizer.step()
        times.append(1e3 * (time.perf_counter() - began))
    print(json.dumps({"ms": times[1:]}))


def encoder(path, frames, size):
    import torch
    from safetensors.torch import save_file

    tokens = frames // TUBELET * (size // PATCH) ** 2
    shapes = {"pos_embed": (1, tokens, DIM), "patch_embed.proj.weight": (DIM, 3, TUBELET, PATCH, PATCH),
              "patch_embed.proj.bias": (DIM,), "norm.weight": (DIM,), "norm.bias": (DIM,)}
    for i in range(DEPTH):
        block = {"norm1.weight": (DIM,), "norm1.bias": (DIM,), "attn.qkv.weight": (3 * DIM, DIM), "attn.qkv.bias": (3 * DIM,),
                 "attn.proj.weight": (DIM, DIM), "attn.proj.bias": (DIM,), "norm2.weight": (DIM,), "norm2.bias": (DIM,),
                 "mlp.fc1.weight": (4 * DIM, DIM), "mlp.fc1.bias": (4 * DIM,), "mlp.fc2.weight": (DIM, 4 * DIM),
                 "mlp.fc2.bias": (DIM,)}
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    save_file({f"target_encoder.{name}": 0.02 * torch.randn(shape) for name, shape in shapes.items()}, path)


CONFIG = """
data: {{num_frames: {frames}, tubelet_size: 2, crop_size: {size}, patch_size: 16, sampling_rate: 1, batch_size: {batch}, num_workers: 0}}
model: {{model_name: vit_small}}
finetune: {{num_sample: 1}}
optimization: {{steps: {steps}, warmup_steps: 1}}
logging: {{metrics_every: 1, checkpoint_every: 1000000}}
meta: {{dtype: float32}}
"""


# Runs a command, its output into a file, and prints its largest resident set in MB and its processor seconds: those of the only
# child of a fresh process.
MEASURE = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[2:], stdout=open(sys.argv[1], 'w'), stderr=subprocess.DEVNULL,"
    " check=True); u = resource.getrusage(resource.RUSAGE_CHILDREN); print(u.ru_maxrss / 1024, u.ru_utime + u.ru_stime)"
)


def measured(command, output):
    done = subprocess.run([sys.executable, "-c", MEASURE, output, *command], capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def ours(args, folder, steps, number):
    data = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../assets/textures/labels.csv")
    run = f"{folder}/run{number}-{steps}"
    command = [args.vjepa, "finetune", "--config", f"{folder}/run.yaml", "--checkpoint", f"{folder}/encoder.safetensors"]
    command += ["--data", data, "--set", f"logging.folder={run}", "--stop-at", str(steps)]
    mb, seconds = measured(command, os.devnull)
    with open(f"{run}/finetune-metrics.csv") as file:
        rows = list(csv.DictReader(file))
    return [float(row["step_ms"]) - float(row["data_ms"]) for row in rows[1:]], mb, seconds


def theirs(args, folder, steps, number):
    sizes = [f"--{name}={getattr(args, name)}" for name in ["batch", "frames", "size"]]
    result = f"{folder}/torch.json"
    mb, seconds = measured([sys.executable, os.path.abspath(__file__), "--side", "torch", f"--steps={steps}", *sizes], result)
    with open(result) as file:
        return json.load(file)["ms"], mb, seconds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--vjepa", default="target/release/vjepa")
    for name, default in [("rounds", 3), ("steps", 4), ("batch", 2), ("frames", 16), ("size", 224)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--side", choices=["torch"])
    args = parser.parse_args()
    if args.side == "torch":
        return torch_side(args.steps, args.batch, args.frames, args.size)
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/run.yaml", "w") as file:
            file.write(CONFIG.format(**vars(args)))
        encoder(f"{folder}/encoder.safetensors", args.frames, args.size)
        sides = {"vjepa": ours, "torch": theirs}
        all_ms, all_mb, all_cpu = ({side: [] for side in sides} for _ in range(3))
        for number in range(args.rounds):
            for side, run in sides.items():
                ms, mb, seconds = run(args, folder, args.steps, number)
                all_ms[side] += ms
                all_mb[side].append(mb)
                all_cpu[side].append((seconds - run(args, folder, 1, number)[2]) / (args.steps - 1))
        for side, ms in all_ms.items():
            fastest, median, mb = min(ms), statistics.median(ms), max(all_mb[side])
            cpu = statistics.median(all_cpu[side])
            print(f"{side:6} {fastest:8.0f} ms fastest, {median:8.0f} ms median, {cpu:6.2f} s of processors, {mb:7.0f} MB")
        of = lambda figure, all: figure(all["vjepa"]) / figure(all["torch"])
        fastest, median, memory = of(min, all_ms), of(statistics.median, all_ms), of(max, all_mb)
        print(f"ratios: fastest {fastest:.2f}, median {median:.2f}, processors {of(statistics.median, all_cpu):.2f}, memory {memory:.2f}")


main()
