#!/usr/bin/env python3
"""decode.py DECODE_CLIPS CLIP... [--rounds N] [--what rgb|clip]: clips per processor second, ours beside other decoders.

DECODE_CLIPS is the program `decode_clips` of crates/data, built with the feature `ffmpeg`. A clip is: open the file, 16
frames at step 4 from a random start as RGB; with `clip` also a crop resized to 224, mirrored now and then and normalised.
Everybody gets the same starts and crops and one thread. In each round every decoder runs once, each in a process of its own
that counts its own processor time after its imports; figures are medians of the rounds and ratios are taken round by round,
so that a busy machine spoils none of them. Needs decord, torchcodec, av, torch and numpy for `--worker`; those that cannot
be imported are left out.
"""
import os
import statistics
import subprocess
import sys
import time

MASK = (1 << 64) - 1
COUNT = 8


def numbers(seed, clip):
    state = ((seed * 1000 + clip) * 0x9E3779B97F4A7C15 & MASK) | 1

    def below(n):
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) & MASK
        return (state >> 33) % max(n, 1)

    return below


def decord_frames():
    import decord
    decord.bridge.set_bridge("torch")

    def read(path, choose):
        reader = decord.VideoReader(path, num_threads=1)
        return reader.get_batch(choose(len(reader))).permute(0, 3, 1, 2)
    return read


def torchcodec_frames():
    from torchcodec.decoders import VideoDecoder

    def read(path, choose):
        decoder = VideoDecoder(path, num_ffmpeg_threads=1, seek_mode="exact")
        return decoder.get_frames_at(choose(len(decoder))).data
    return read


def pyav_frames():
    import av
    import numpy as np
    import torch

    def read(path, choose):
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            frames = stream.frames or round(float(container.duration / 1e6 * stream.average_rate))
            wanted = choose(frames)
            # Constant rates only, as all these clips have.
            at = lambda i: int(round(i / stream.average_rate / stream.time_base)) + (stream.start_time or 0)
            container.seek(at(wanted[0]), stream=stream)
            times, found = {at(i): i for i in wanted}, {}
            close = max(1, int(1 / stream.average_rate / stream.time_base / 2))
            for frame in container.decode(stream):
                for time_, i in times.items():
                    if abs(frame.pts - time_) < close and i not in found:
                        found[i] = torch.from_numpy(frame.to_ndarray(format="rgb24"))
                if len(found) == len(times):
                    break
            return torch.stack([found[i] for i in wanted]).permute(0, 3, 1, 2)
    return read


READERS = {"decord": decord_frames, "torchcodec": torchcodec_frames, "PyAV": pyav_frames}


def worker(name, what, path, seed, count):
    import torch
    torch.set_num_threads(1)
    read = READERS[name]()
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1) * 255
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1) * 255
    started = time.process_time()
    for number in range(count):
        below = numbers(seed, number)

        def choose(frames):
            start = below(max(frames - 61, 0))
            return [min(start + 4 * i, frames - 1) for i in range(16)]

        clip = read(path, choose)
        if what == "rgb":
            continue
        height, width = clip.shape[2:]
        side = min(height, width)
        h, w = side // 2 + below(side // 2), side // 2 + below(side // 2)
        top, left = below(height - h + 1), below(width - w + 1)
        crop = clip[:, :, top:top + h, left:left + w].float()
        out = torch.nn.functional.interpolate(crop, (224, 224), mode="bilinear", align_corners=False)
        out = out.flip(3) if below(2) else out
        out = (out - mean) / deviation
    print(count, time.process_time() - started)


def one(command):
    """Clips a second, or why there are none."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        return None, done.stderr.strip().splitlines()[-1:] or ["failed"]
    count, seconds = done.stdout.split()[-3 if command[0] != sys.executable else -2:][:2]
    return int(count) / float(seconds), None


def main():
    arguments = sys.argv[1:]
    option = lambda name, default: arguments[arguments.index(name) + 1] if name in arguments else default
    rounds, what = int(option("--rounds", "5")), option("--what", "rgb")
    values = {option("--rounds", None), option("--what", None)}
    program, *clips = [a for a in arguments if not a.startswith("--") and a not in values]
    for clip in clips:
        rates = {}
        for turn in range(rounds):
            contenders = {"ours, ffmpeg": [program, "ffmpeg", what, clip], "ours, pure": [program, "pure", what, clip]}
            contenders |= {name: [sys.executable, __file__, "--worker", name, what, clip] for name in READERS}
            for name, command in contenders.items():
                rate, why = one(command + [str(turn), str(COUNT)])
                if rate is None:
                    if turn == 0:
                        print(f"  {name}: {why[0][:100]}")
                    continue
                rates.setdefault(name, []).append(rate)
        print(f"{os.path.basename(clip)} ({what}): " + ", ".join(f"{name} {statistics.median(r):.1f}" for name, r in rates.items()))
        for mine in ("ours, ffmpeg", "ours, pure"):
            for other in READERS:
                pairs = [a / b for a, b in zip(rates.get(mine, []), rates.get(other, []))]
                if pairs:
                    print(f"  {mine} / {other}: {statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})")
        sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        name, what, clip, seed, count = sys.argv[2:]
        worker(name, what, clip, int(seed), int(count))
    else:
        main()
