#!/usr/bin/env python3
"""check_frames.py RGB_FRAMES CLIP...: frames and colours of both decoders against the ffmpeg command line.

RGB_FRAMES is the program `rgb_frames` of crates/video, built with the feature `ffmpeg`. For each clip and each decoder that
reads it: the number of frames is ffmpeg's, frame `i` is nearest to ffmpeg's frame `i`, in sequence and at random, and colours
lie within one level of ffmpeg's `-pix_fmt rgb24` on average (which converts by the file's own matrix and range).
"""
import random
import subprocess
import sys

import numpy as np


def ours(program, clip, decoder, indices=()):
    done = subprocess.run([program, clip, decoder, *map(str, indices)], capture_output=True)
    lines = done.stderr.decode().strip().splitlines()
    if done.returncode:
        return None, lines[-1]
    width, height = map(int, lines[0].split()[1:3])
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3).astype(np.int16), lines[0]


def ffmpeg(clip, height, width):
    command = ["ffmpeg", "-v", "error", "-i", clip, "-map", "0:v:0", "-f", "rawvideo", "-pix_fmt", "rgb24", "-vsync", "passthrough", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3).astype(np.int16)


def main():
    program, clips = sys.argv[1], sys.argv[2:]
    failed = 0
    for clip in clips:
        for decoder in ("pure", "ffmpeg"):
            got, said = ours(program, clip, decoder)
            if got is None:
                # The pure decoders may refuse; ffmpeg's must not.
                print(f"{'FAIL' if decoder == 'ffmpeg' else 'none'} {decoder:6} {clip}: {said[:110]}")
                failed += decoder == "ffmpeg"
                continue
            want = ffmpeg(clip, *got.shape[1:3])
            faults = []
            if len(got) != len(want):
                faults.append(f"{len(got)} frames, ffmpeg has {len(want)}")
            n = min(len(got), len(want))
            mean = [float(np.abs(got[i] - want[i]).mean()) for i in range(n)]
            if max(mean) > 1:
                faults.append(f"frame {int(np.argmax(mean))} is {max(mean):.2f} levels off")
            for i in range(0, n, max(1, n // 24)):
                nearest = min(range(max(0, i - 3), min(n, i + 4)), key=lambda j: float(np.abs(got[i] - want[j]).mean()))
                if nearest != i:
                    faults.append(f"frame {i} is nearer to ffmpeg's {nearest}")
            numbers = random.Random(1)
            indices = [numbers.randrange(len(got)) for _ in range(6)]
            for i in indices[:3]:
                alone, _ = ours(program, clip, decoder, [i])
                if alone is None or not np.array_equal(alone[0], got[i]):
                    faults.append(f"frame {i} alone differs from frame {i} in sequence")
            colour = said.split("ColorSpace")[-1].strip()
            print(f"{'FAIL' if faults else 'ok  '} {decoder:6} {clip}: {len(got)} frames, mean {np.mean(mean):.3f}, max {np.max(np.abs(got[:n] - want[:n]))} {colour} {'; '.join(faults)}")
            failed += bool(faults)
    sys.exit(f"{failed} failed" if failed else None)


if __name__ == "__main__":
    main()
