"""Copies a program or a library with its `cpuid` instructions replaced by `int3; nop`, which mask.c answers.

python3 benches/avx2/patch.py FILE COPY
"""

import os
import re
import shutil
import subprocess
import sys


def loaded(path):
    """(offset in the file, address, bytes) of each part that is loaded."""
    said = subprocess.run(["readelf", "-lW", path], check=True, capture_output=True, text=True).stdout
    fields = (line.split() for line in said.splitlines())
    return [tuple(int(field, 16) for field in (f[1], f[2], f[4])) for f in fields if f[:1] == ["LOAD"]]


def addresses(path):
    """Where the disassembler finds `cpuid`; its bytes alone are found in other instructions, too."""
    with subprocess.Popen(["objdump", "-d", "--no-show-raw-insn", path], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            found = re.match(r"\s*([0-9a-f]+):\s+cpuid\b", line)
            if found:
                yield int(found[1], 16)


def main():
    source, target = sys.argv[1:]
    part = f"{target}.part"
    shutil.copyfile(source, part)
    shutil.copymode(source, part)
    parts, count = loaded(source), 0
    with open(part, "r+b") as file:
        for address in addresses(source):
            at = next(address - start + offset for offset, start, size in parts if start <= address < start + size)
            file.seek(at)
            if file.read(2) != b"\x0f\xa2":
                sys.exit(f"{source}: no cpuid at {address:#x}")
            file.seek(at)
            file.write(b"\xcc\x90")
            count += 1
    if not count:
        sys.exit(f"{source}: no cpuid instruction; it chooses no path by itself")
    os.replace(part, target)
    print(f"{target}: {count} cpuid instructions are answered by mask.c", file=sys.stderr)


main()
