"""Clips a second of `vjepa serve` under load, with the standard library alone.

load.py VJEPA MODEL.onnx --runtime cuda [--clients 16] [--seconds 20] [--out FILE] [-- FLAGS OF THE SERVER]
"""

import argparse
import array
import http.client
import json
import os
import random
import subprocess
import sys
import threading
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vjepa")
    parser.add_argument("model")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--out")
    ours, _, flags = "\0".join(sys.argv[1:]).partition("\0--\0")
    args = parser.parse_args(ours.split("\0"))
    args.flags = flags.split("\0") if flags else []
    command = [args.vjepa, "serve", args.model, "--runtime", args.runtime, "--port", "0", "--no-grpc", "--json", *args.flags]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        if not line:
            sys.exit(f"error: `{' '.join(command)}` did not start")
        figures = load(json.loads(line), args)
    finally:
        server.terminate()
        server.wait(timeout=60)
    print(json.dumps(figures))
    if args.out:
        with open(args.out, "w") as file:
            json.dump(figures, file)


def load(server, args):
    host = server["http"].split("://")[-1]
    name = server["model"]
    link = http.client.HTTPConnection(host, timeout=60)
    link.request("GET", f"/v2/models/{name}")
    tensor = json.loads(link.getresponse().read())["inputs"][0]
    count = 1
    for size in tensor["shape"][1:]:
        count *= size
    if tensor["datatype"] != "FP32" or count < 1:
        sys.exit(f"error: the model takes {tensor}, not clips of f32 of one size")
    random.seed(0)
    clip = array.array("f", (random.gauss(0.0, 1.0) for _ in range(count))).tobytes()
    ends, told, stop = [], [], time.monotonic() + args.seconds

    def client():
        own = http.client.HTTPConnection(host, timeout=60)
        headers = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}
        while time.monotonic() < stop:
            began = time.monotonic()
            own.request("POST", f"/v2/models/{name}/infer", clip, headers)
            answer = own.getresponse()
            body = answer.read()
            if answer.status != 200:
                told.append(f"{answer.status}: {body[:200]!r}")
                return
            ends.append((began, time.monotonic()))

    threads = [threading.Thread(target=client) for _ in range(args.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if told or not ends:
        sys.exit(f"error: {len(told)} clients were refused, the first with {told[:1]}")
    # The first fifth warms up.
    ends.sort(key=lambda both: both[1])
    counted = ends[len(ends) // 5 :]
    took = sorted(end - began for began, end in counted)
    span = counted[-1][1] - counted[0][1]
    at = lambda share: 1e3 * took[min(len(took) - 1, int(share * len(took)))]
    return {
        "model": args.model, "runtime": server.get("runtime"), "clients": args.clients, "requests": len(ends),
        "clips_per_second": (len(counted) - 1) / span if span > 0 else None,
        "p50_ms": at(0.5), "p99_ms": at(0.99), "processors": os.cpu_count(),
    }


if __name__ == "__main__":
    main()
