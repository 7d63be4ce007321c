"""Starts `vjepa serve` on free ports for the scripts beside this one."""

import contextlib
import json
import os
import subprocess
import sys


def fail(sentence):
    sys.exit(f"error: {sentence}")


@contextlib.contextmanager
def served(vjepa, model, *arguments):
    """Yields the server's first line: model, runtime, http and grpc addresses."""
    command = [vjepa, "serve", model, "--port", "0", "--grpc-port", "0", "--json", *arguments]
    if not os.access(vjepa, os.X_OK):
        fail(f"{vjepa} is no program; build it with `cargo build --release`, or give --vjepa")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        if not line:
            fail(f"`{' '.join(command)}` did not start")
        yield json.loads(line)
    finally:
        process.terminate()
        if process.wait(timeout=60) != 0:
            fail(f"the server ended with {process.returncode}")
