#!/usr/bin/env bash
# tests/gpu/stand-in/run.sh COMMAND...: runs a command whose CUDA device is the processor. The stand-ins for driver, compiler and
# cuBLASLt, and the kernels that they compile, go to target/stand-in (or $STAND_IN_FOLDER), where they are found again.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${STAND_IN_FOLDER:-$here/../../../target/stand-in}
# Kernels are those of these sources.
kernels=kernels-$(cat "$here"/{device.h,threads.h,compiler.c} | cksum | cut -d" " -f1)
mkdir -p "$folder/$kernels" "$folder/cuda/include"
folder=$(cd "$folder" && pwd)
# Jumps between stacks are what threads.c does; some systems check them by default.
build() { cc -O2 -U_FORTIFY_SOURCE -Wall -Wextra -Werror -std=gnu11 -fPIC -shared -fvisibility=hidden -o "$folder/$1" "${@:2}"; }
build libcuda64.so "$here/driver.c" "$here/threads.c" -lpthread -ldl
build libnvrtc64.so "$here/compiler.c"
build libcublasLt64.so "$here/cublaslt.c"
# A device is opened where a toolkit has these; device.h stands for them.
touch "$folder/cuda/include/cuda_bf16.h" "$folder/cuda/include/mma.h"
# What CubeCL keeps of what it compiled names libraries of this folder.
cache=$(mktemp -d)
trap 'rm -rf "$cache"' EXIT
STAND_IN_RUNS=1 STAND_IN_KERNELS=$folder/$kernels STAND_IN_HEADERS=$here STAND_IN_SM=${STAND_IN_SM:-90a} XDG_CACHE_HOME=$cache \
    CUDA_PATH=$folder/cuda LD_LIBRARY_PATH=$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} "$@"
