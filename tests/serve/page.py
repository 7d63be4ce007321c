#!/usr/bin/env python3
"""The page of `vjepa serve` in a headless Chromium: a video and a file that is none are dropped on it.

    apt-get install chromium
    python3 -m venv venv && venv/bin/pip install playwright
    venv/bin/python tests/serve/page.py quickstart/textures.onnx quickstart/videos/t3_d1_s0.mp4
"""

import argparse
import base64
import shutil
import sys
from pathlib import Path

try:
    from playwright.sync_api import expect, sync_playwright
except ImportError as error:
    sys.exit(f"error: {error}; install it with: pip install playwright")

from served import fail, served

DROP = """([name, data]) => {
    const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
    const carried = new DataTransfer();
    carried.items.add(new File([bytes], name));
    const send = kind => document.getElementById("drop")
        .dispatchEvent(new DragEvent(kind, {dataTransfer: carried, bubbles: true, cancelable: true}));
    send("dragenter"); send("dragover"); send("drop");
}"""


def drop(page, name, content):
    page.evaluate(DROP, [name, base64.b64encode(content).decode()])


def check(page, address, video, errors):
    page.goto(f"http://{address}/")
    expect(page.get_by_role("heading", name="What is in this clip?")).to_be_visible()
    status = page.get_by_role("status")

    drop(page, video.name, video.read_bytes())
    expect(status).to_contain_text("computed in")
    rows = page.get_by_role("row").all_inner_texts()
    assert len(rows) >= 2 and "%" in rows[0], rows
    print("dropped", video.name)
    for row in rows:
        print("   ", " ".join(row.split()))

    drop(page, "notes.txt", b"this is no video at all\n" * 100)
    expect(status).to_have_class("bad")
    assert page.get_by_role("row").count() == 0
    print("dropped notes.txt\n   ", status.inner_text())

    page.get_by_label("Video file").set_input_files(str(video))
    expect(status).to_contain_text("computed in")
    assert page.get_by_role("row").all_inner_texts() == rows
    print("chose", video.name, "and got the same")
    assert not errors, errors


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("video", type=Path)
    parser.add_argument("--vjepa", default="target/release/vjepa")
    parser.add_argument("--screenshot", type=Path, help="folder for pictures of the page, light and dark")
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        fail("no Chromium found; install it with: apt-get install chromium")
    with served(arguments.vjepa, arguments.model) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            page = browser.new_page(color_scheme=scheme, viewport={"width": 720, "height": 640})
            # A 400 is an answer here; everything else that the console says is a fault, the policy's refusals above all.
            errors = []
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("console", lambda message: errors.append(message.text)
                    if message.type == "error" and "status of 400" not in message.text else None)
            check(page, server["http"], arguments.video, errors)
            if arguments.screenshot:
                page.screenshot(path=arguments.screenshot / f"page-{scheme}.png")
        browser.close()
    print("the page works")


if __name__ == "__main__":
    main()
