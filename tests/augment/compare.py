"""RandAugment, crop and erasing of a clip: our program against Pillow and PyTorch, same draws, same pixels, CPU time.

    cargo build --release -p vjepa-data --example augment_clip
    python tests/augment/compare.py target/release/examples/augment_clip [--seeds 40]

Needs numpy, Pillow and torch. The Python side is the usual one: frames as PIL images, operations of PIL, then tensors.
Both sides get decoded RGB frames and give the normalised f32 clip [3, T, S, S]; only that is timed, as CPU time of the
process, on one thread, the two sides in turns.
"""

import argparse
import math
import random
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1, 1)
AFFINE = {"resample": Image.BICUBIC, "fillcolor": (128, 128, 128)}


def signed(value):
    return -value if random.random() > 0.5 else value


def warp(image, *matrix):
    return image.transform(image.size, Image.AFFINE, matrix, **AFFINE)


def solarize_add(image, add):
    return image.point([min(255, x + add) if x < 128 else x for x in range(256)] * 3)


# The operation and the argument that a magnitude of 0 to 10 gives it.
OPERATIONS = [
    (lambda im, _: ImageOps.autocontrast(im), lambda m: None),
    (lambda im, _: ImageOps.equalize(im), lambda m: None),
    (lambda im, _: ImageOps.invert(im), lambda m: None),
    (lambda im, a: im.rotate(a, **AFFINE), lambda m: signed(m / 10 * 30)),
    (lambda im, a: ImageOps.posterize(im, a) if a else Image.new("RGB", im.size), lambda m: 4 - int(m / 10 * 4)),
    (ImageOps.solarize, lambda m: 256 - int(m / 10 * 256)),
    (solarize_add, lambda m: min(128, int(m / 10 * 110))),
    (lambda im, a: ImageEnhance.Color(im).enhance(a), lambda m: 1 + signed(m / 10 * 0.9)),
    (lambda im, a: ImageEnhance.Contrast(im).enhance(a), lambda m: 1 + signed(m / 10 * 0.9)),
    (lambda im, a: ImageEnhance.Brightness(im).enhance(a), lambda m: 1 + signed(m / 10 * 0.9)),
    (lambda im, a: ImageEnhance.Sharpness(im).enhance(a), lambda m: 1 + signed(m / 10 * 0.9)),
    (lambda im, a: warp(im, 1, a, 0, 0, 1, 0), lambda m: signed(m / 10 * 0.3)),
    (lambda im, a: warp(im, 1, 0, 0, a, 1, 0), lambda m: signed(m / 10 * 0.3)),
    (lambda im, a: warp(im, 1, 0, a * im.size[0], 0, 1, 0), lambda m: signed(m / 10 * 0.45)),
    (lambda im, a: warp(im, 1, 0, 0, 0, 1, a * im.size[1]), lambda m: signed(m / 10 * 0.45)),
]


def rand_augment(images):
    for index in np.random.choice(len(OPERATIONS), 4):
        if random.random() > 0.5:
            continue
        operation, level = OPERATIONS[index]
        argument = level(min(10, max(0, random.gauss(7, 0.5))))
        images = [operation(image, argument) for image in images]
    return images


def crop_box(height, width):
    for _ in range(10):
        np.random.uniform()
        area = random.uniform(0.08, 1) * height * width
        aspect = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return random.randint(0, height - h), random.randint(0, width - w), h, w
    raise SystemExit("no box fits: give frames that are nearly square")


def erase(clip, size):
    if random.random() > 0.25:
        return
    for _ in range(100):
        area = random.uniform(0.02, 1 / 3) * size * size
        aspect = math.exp(random.uniform(math.log(0.3), math.log(1 / 0.3)))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if w < size and h < size:
            top, left = random.randint(0, size - h), random.randint(0, size - w)
            for t in range(clip.shape[1]):
                clip[:, t, top : top + h, left : left + w] = torch.empty(3, h, w).normal_()
            return


def transform(frames, size):
    images = rand_augment([Image.fromarray(frame) for frame in frames])
    clip = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(3, 0, 1, 2).float() / 255
    clip = (clip - MEAN) / STD
    top, left, h, w = crop_box(*frames.shape[1:3])
    clip = clip[:, :, top : top + h, left : left + w]
    clip = torch.nn.functional.interpolate(clip, size=(size, size), mode="bilinear", align_corners=False)
    erase(clip, size)
    return clip


def make_clip(frames, height, width):
    """Smooth colours with fine grain that drift, as bytes [T, H, W, 3]."""
    generator = np.random.default_rng(0)
    coarse = Image.fromarray((generator.random((9, 12, 3)) * 255).astype(np.uint8))
    picture = np.asarray(coarse.resize((width + 2 * frames, height), Image.BICUBIC)).astype(np.int16)
    picture = np.clip(picture + generator.normal(size=picture.shape) * 8, 0, 255).astype(np.uint8)
    return np.stack([picture[:, 2 * t : 2 * t + width] for t in range(frames)])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--size", type=int, default=224)
    given = parser.parse_args()
    torch.set_num_threads(1)
    clip = make_clip(given.frames, given.height, given.width)
    ours, theirs, differences = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "clip", Path(folder) / "out"
        source.write_bytes(clip.tobytes())
        transform(clip, given.size)
        for seed in range(given.seeds):
            random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
            begin = time.process_time()
            wanted = transform(clip, given.size)
            theirs.append((time.process_time() - begin) * 1e3)
            sizes = [str(n) for n in (given.frames, given.height, given.width, given.size, seed, 1)]
            done = subprocess.run([given.program, source, *sizes, out], check=True, capture_output=True, text=True)
            ours.append(float(done.stdout))
            got = torch.from_numpy(np.fromfile(out, dtype=np.float32)).view_as(wanted)
            differences.append((got - wanted).abs().max().item())
    for name, times in (("ours", ours), ("Pillow and PyTorch", theirs)):
        print(f"{name}: mean {statistics.mean(times):.1f} ms, median {statistics.median(times):.1f} ms a clip (CPU)")
    print(f"ratio of the sums {sum(ours) / sum(theirs):.3f}; largest difference {max(differences):.2e} of {given.seeds} seeds")
    worst = max(range(given.seeds), key=lambda i: ours[i] / theirs[i])
    print(f"worst ratio {ours[worst] / theirs[worst]:.3f} (seed {worst}: {ours[worst]:.1f} against {theirs[worst]:.1f} ms)")
    # 1e-5 is rounding of f32; the noise of erased boxes goes through other sines.
    if max(differences) > 1e-4:
        raise SystemExit("the pixels differ")


if __name__ == "__main__":
    main()
