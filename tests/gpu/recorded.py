"""The first steps of a configuration with launches one by one and recorded: the same losses, and how long a step takes.

    python recorded.py VJEPA CONFIG DEVICE OUT.json [STEPS]
"""

import json
import subprocess
import sys
import tempfile
import time


def train(binary, config, device, steps, flags):
    """Losses, seconds of the steps after the first half, and what the run says of its launches."""
    with tempfile.TemporaryDirectory() as folder:
        sets = [f"logging.folder={folder}", "logging.diagnostics_every=null", "optimization.mask_buckets=16"]
        command = [binary, "train", "--config", config, "--device", device, "--json", "--stop-at", str(steps), *flags]
        command += [word for key in sets for word in ("--set", key)]
        run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        losses, half, summary = [], None, {}
        for line in run.stdout:
            said = json.loads(line)
            if "step" in said and "loss" in said:
                losses.append(said["loss"])
                if len(losses) == steps // 2:
                    half = time.monotonic()
            else:
                summary = said
        took = (time.monotonic() - half) if half else None
        if run.wait() != 0:
            sys.exit(f"{' '.join(command)} ended with {run.returncode}")
        return losses, took, summary.get("launches")


def main():
    binary, config, device, out = sys.argv[1:5]
    steps = int(sys.argv[5]) if len(sys.argv) > 5 else 120
    plain, plain_seconds, _ = train(binary, config, device, steps, [])
    recorded, recorded_seconds, launches = train(binary, config, device, steps, ["--record-launches"])
    result = {
        "steps": steps,
        "same_losses": plain == recorded,
        "ms": 1e3 * plain_seconds / (steps - steps // 2),
        "recorded_ms": 1e3 * recorded_seconds / (steps - steps // 2),
        "launches": launches,
    }
    with open(out, "w") as file:
        json.dump(result, file)
    print(json.dumps(result))
    if plain != recorded:
        sys.exit("recorded steps have other losses")


main()
