#!/usr/bin/env python3
"""What a run leaves, read by others: its event files by TensorBoard's own reader, its report by a headless Chromium.

    python3 -m venv venv && venv/bin/pip install -r tests/sight/requirements.txt
    venv/bin/python tests/sight/check.py runs/mine                              # event files against the metrics
    apt-get install chromium
    venv/bin/python tests/sight/check.py runs/mine --report report.html [--screenshot DIR]
"""

import argparse
import csv
import json
import math
import shutil
import struct
import sys
from pathlib import Path

try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError as error:
    sys.exit(f"error: {error}; install it with: pip install -r tests/sight/requirements.txt")


def rows(folder):
    [file] = sorted(folder.glob("*-metrics.csv"))
    with open(file, newline="") as text:
        return list(csv.DictReader(text))


def read(folder):
    # 0 keeps everything; by default the reader draws a sample.
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    events.Reload()
    return events


def check_events(folder):
    events, metrics = read(folder), rows(folder)
    tags = events.Tags()
    assert "loss" in tags["scalars"], tags
    found = [(event.step, event.value) for event in events.Scalars("loss")]
    steps = [step for step, _ in found]
    assert steps == sorted(set(steps)), "a step is there twice, or out of order"
    losses = dict(found)
    for row in metrics:
        step, loss = int(row["step"]), float(row["loss"])
        assert math.isclose(losses[step], loss, rel_tol=1e-6), (step, losses[step], loss)
    # The last step is in the event file, whether or not it was due in the metrics.
    extra = set(steps) - {int(row["step"]) for row in metrics}
    assert len(extra) <= 1, extra
    config = events.Tensors("config")[-1].tensor_proto.string_val[0].decode()
    assert "batch_size" in config, config
    starts = json.loads((folder / "run.json").read_text())["starts"]
    print(f"{folder}: {len(tags['scalars'])} scalars, loss at {len(steps)} steps from {steps[0]} to {steps[-1]}, "
          f"{len(starts)} starts")
    for name in tags["images"]:
        images = events.Images(name)
        for image in images:
            assert image.encoded_image_string[:8] == b"\x89PNG\r\n\x1a\n", name
            size = struct.unpack(">II", image.encoded_image_string[16:24])
            assert size == (image.width, image.height), (name, size)
        print(f"    picture {name}: steps {[image.step for image in images]}, {size[0]} by {size[1]}")
    return starts


def check_cut(folder):
    """A file that ends anywhere, as after a kill, is read up to its last whole record."""
    file = max(folder.glob("events.out.tfevents.*"))
    whole = file.read_bytes()
    copy = folder / "cut"
    copy.mkdir(exist_ok=True)
    try:
        seen = []
        for length in (len(whole) - 1, len(whole) * 2 // 3, len(whole) // 3):
            (copy / file.name).write_bytes(whole[:length])
            cut = read(copy)
            seen.append(len(cut.Scalars("loss")) if "loss" in cut.Tags()["scalars"] else 0)
        assert seen == sorted(seen, reverse=True), seen
        print(f"    cut anywhere: {seen} steps are read")
    finally:
        shutil.rmtree(copy)


def check_report(report, screenshots):
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        sys.exit(f"error: {error}; install it with: pip install -r tests/sight/requirements.txt")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        sys.exit("error: no Chromium found; install it with: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width in (1280, 390):
            for scheme in ("light", "dark"):
                context = browser.new_context(
                    color_scheme=scheme, viewport={"width": width, "height": 900}, java_script_enabled=False)
                page = context.new_page()
                faults, requests = [], []
                page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
                page.on("request", lambda request: requests.append(request.url))
                page.goto(report.resolve().as_uri())
                assert not faults, faults
                asked = [url for url in requests if not url.startswith(("file:", "data:"))]
                assert not asked, f"the page asks for {asked}"
                assert page.locator("svg").count() > 3
                # The page itself never scrolls sideways; tables and strips of pictures do so inside.
                over = page.locator("html").bounding_box()["width"]
                assert over <= width, (width, over)
                for box in (card.bounding_box() for card in page.locator(".card").all()):
                    assert box["x"] >= 0 and box["x"] + box["width"] <= width + 0.5, (width, box)
                if screenshots:
                    screenshots.mkdir(parents=True, exist_ok=True)
                    page.screenshot(path=screenshots / f"report-{width}-{scheme}.png", full_page=True)
                context.close()
        browser.close()
    print(f"{report}: the page works without JavaScript and network at 1280 and 390 pixels, light and dark")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="+", help="folder of a run")
    parser.add_argument("--report", type=Path, help="page made by `vjepa report`")
    parser.add_argument("--screenshot", type=Path, help="folder for pictures of the page")
    arguments = parser.parse_args()
    for folder in arguments.folder:
        check_events(folder)
        check_cut(folder)
    if arguments.report:
        check_report(arguments.report, arguments.screenshot)


if __name__ == "__main__":
    main()
