"""Rates of the official pre-training recipes, from their YAML files by the formulas of the official code (written from its
description, without this project's code): `python rates.py CONFIGS [GOLDEN] > rates.json`, with PyYAML.

GOLDEN is a schedules.json recorded from the official code; its ViT-L rows are compared with what comes of the formulas here.
"""

import json
import math
import sys
from pathlib import Path

import yaml

NAMES = ["vitl16", "vith16", "vith16_384"]
ITERATIONS = [0, 1, 2, 100, 5999, 11998, 11999, 12000, 12001, 45000, 67500, 89998, 89999]


def row(recipe, iteration):
    """Iteration 0 is the first: schedules have been stepped once before it."""
    ipe, epochs = recipe["ipe"], recipe["epochs"]
    warmup, whole = recipe["warmup"] * ipe, int(recipe["ipe_scale"] * epochs * ipe)
    step = iteration + 1
    if step < warmup:
        lr = recipe["start_lr"] + step / warmup * (recipe["lr"] - recipe["start_lr"])
    else:
        part = (step - warmup) / (whole - warmup)
        lr = max(recipe["final_lr"], recipe["final_lr"] + (recipe["lr"] - recipe["final_lr"]) * (1 + math.cos(math.pi * part)) / 2)
    first, last = recipe["weight_decay"], recipe["final_weight_decay"]
    wd = last + (first - last) * (1 + math.cos(math.pi * step / whole)) / 2
    low, high = recipe["ema"]
    momentum = low + iteration * (high - low) / (ipe * epochs * recipe["ipe_scale"])
    return {"itr": iteration, "lr": lr, "wd": min(wd, last) if first <= last else max(wd, last), "momentum": momentum}


def of(path):
    config = yaml.safe_load(path.read_text())
    recipe = config["optimization"]
    rows = [row(recipe, iteration) for iteration in ITERATIONS]
    clips = config["nodes"] * config["tasks_per_node"] * config["data"]["batch_size"]
    return {"steps": recipe["ipe"] * recipe["epochs"], "clips_per_step": clips, "rows": rows}


def main():
    configs = Path(sys.argv[1])
    found = {name: of(configs / f"{name}.yaml") for name in NAMES}
    for golden in sys.argv[2:]:
        recorded = json.loads(Path(golden).read_text())["vitl16"]["rows"]
        for ours, theirs in zip(found["vitl16"]["rows"], recorded, strict=True):
            for key, value in theirs.items():
                assert math.isclose(ours[key], value, rel_tol=1e-12), (key, ours, theirs)
    json.dump(found, sys.stdout, indent=1)
    print()


main()
