#!/usr/bin/env bash
# benches/avx2/run.sh PROGRAM ARGUMENT...: runs a program on an x86-64 processor with AVX-512 as one with AVX2 alone would run it: our
# kernels, matrix products, tract, ONNX Runtime (VJEPA_ORT_DIR, or build/onnxruntime) and PyTorch choose their paths by what mask.c says
# of the processor; libc is told by its own switch. Copies of program and library are made in target/avx2. Linux, binutils, a C compiler.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
program=$1
shift
folder=$here/../../target/avx2/$({ realpath "$program"; cat "$here/patch.py"; } | cksum | cut -d" " -f1)
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
cc -O2 -Wall -Wextra -Werror -shared -fPIC -o "$folder/mask.so" "$here/mask.c"
copy=$folder/$(basename "$program")
if [ "$program" -nt "$copy" ]; then python3 "$here/patch.py" "$program" "$copy"; fi
library=$(find -L "${VJEPA_ORT_DIR:-$here/../../build/onnxruntime}" -name 'libonnxruntime.so*' 2>/dev/null | head -1 || true)
if [ -n "$library" ]; then
    mine=$folder/$(basename "$library")
    if [ "$library" -nt "$mine" ]; then python3 "$here/patch.py" "$library" "$mine"; fi
    export VJEPA_ORT_DIR=$folder ORT_DYLIB_PATH=$mine
fi
export GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX512DQ,-AVX512CD
export ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 ONEDNN_MAX_CPU_ISA=AVX2
LD_PRELOAD=$folder/mask.so exec "$copy" "$@"
