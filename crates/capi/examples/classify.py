#!/usr/bin/env python3
"""Classifies the first clip of raw RGB frames, with nothing but the standard library and libvjepa_capi:

    ffmpeg -i clip.mp4 -f rawvideo -pix_fmt rgb24 clip.rgb
    classify.py --library libvjepa_capi.so MODEL clip.rgb HEIGHT WIDTH
"""

import argparse
import ctypes
import os
import sys

ABI_VERSION = 1
size_t = ctypes.c_size_t


class Prediction(ctypes.Structure):
    _fields_ = [("class_index", size_t), ("probability", ctypes.c_double), ("label", ctypes.c_char_p)]


class Error(Exception):
    """What the library says is wrong."""


class Session:
    """An open model. Use it in a `with` statement; several threads may share it."""

    def __init__(self, library, model, runtime=None, threads=0):
        self.lib = ctypes.CDLL(library)
        if self.lib.vjepa_abi_version() != ABI_VERSION:
            raise Error(f"{library} is of another version than this program; use the one it was made for")
        self.lib.vjepa_last_error.restype = ctypes.c_char_p
        self.lib.vjepa_num_frames.restype = size_t
        self.handle = ctypes.c_void_p()
        path = os.fsencode(model)
        word = runtime and runtime.encode()
        self._check(self.lib.vjepa_open(path, word, None, size_t(threads), ctypes.byref(self.handle)))
        offsets = (size_t * self.lib.vjepa_num_frames(self.handle))()
        self._check(self.lib.vjepa_frame_offsets(self.handle, offsets, size_t(len(offsets))))
        self.offsets = list(offsets)

    def _check(self, status):
        if status != 0:
            raise Error(self.lib.vjepa_last_error().decode())

    def classify(self, frames, height, width, top=5):
        """(label, probability) of the most probable classes; `frames` are the clip's, as bytes of RGB each."""
        pixels = b"".join(frames)
        found = (Prediction * top)()
        count = size_t()
        sizes = [size_t(n) for n in (len(pixels), len(frames), height, width)]
        self._check(self.lib.vjepa_classify(self.handle, pixels, *sizes, found, size_t(top), ctypes.byref(count)))
        return [((p.label or b"?").decode(), p.probability) for p in found[: count.value]]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.lib.vjepa_close(self.handle)
        self.handle = None


def main():
    parser = argparse.ArgumentParser(description="Classifies the first clip of raw RGB frames.")
    parser.add_argument("--library", default="libvjepa_capi.so")
    parser.add_argument("model")
    parser.add_argument("frames")
    parser.add_argument("height", type=int)
    parser.add_argument("width", type=int)
    args = parser.parse_args()
    size = args.height * args.width * 3
    try:
        with Session(args.library, args.model) as session, open(args.frames, "rb") as file:
            clip = []
            for offset in session.offsets:
                file.seek(offset * size)
                clip.append(file.read(size))
            for label, probability in session.classify(clip, args.height, args.width):
                print(f"{100 * probability:6.2f} %  {label}")
    except (Error, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
