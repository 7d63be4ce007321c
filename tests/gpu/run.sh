#!/usr/bin/env bash
# Checks and measures vjepa on an NVIDIA GPU, without Rust: see README.md beside this file.
#
#   tests/gpu/run.sh [BINARY or BINARY.xz]
#
# One JSON file a stage goes to $OUT as the stages end, and a line a stage to $OUT/stages.jsonl. Every stage has a time
# limit, and all of them together $TOTAL seconds. DRY=1, or a machine without a GPU, runs the same stages on the CPU with
# tiny sizes.
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
binary=$(realpath "${1:-${VJEPA:-$root/build/gpu/vjepa}}" 2>/dev/null)
python=${PYTHON:-python3}
# A packed program is a quarter of the size to carry; it is unpacked beside itself.
if [ -f "$binary" ] && [ "${binary%.xz}" != "$binary" ]; then
    "$python" -c 'import lzma, shutil, sys
with lzma.open(sys.argv[1]) as packed, open(sys.argv[1][:-3], "wb") as program: shutil.copyfileobj(packed, program)' "$binary" || exit 2
    binary=${binary%.xz} && chmod +x "$binary"
fi
mkdir -p "${OUT:=$root/build/gpu/out}" && OUT=$(realpath "$OUT")
total=${TOTAL:-570}
began=$SECONDS

if [ ! -x "$binary" ]; then
    echo "there is no program at ${binary:-${1:-$root/build/gpu/vjepa}}: build it with --features cuda (README.md)" >&2
    exit 2
fi

# Without a GPU every stage still runs: what breaks here would break there.
if [ "${DRY:-0}" = 1 ] || ! command -v nvidia-smi >/dev/null 2>&1 || ! nvidia-smi -L >/dev/null 2>&1; then
    device=cpu dry=true scale=(--model tiny --frames 4 --size 64 --batch 2 --pred-depth 1)
    infer=(--model tiny --frames 4 --size 64 --batch 2)
    rounds=(--rounds 2 --warmup 1)
    relax_f32=1
    echo "dry run on the CPU with tiny sizes"
else
    device=${DEVICE:-cuda:0} dry=false
    scale=(--model "${MODEL:-large}" --size "${SIZE:-224}" --batch "${BATCH:-24}" --pred-width 384 --pred-depth 12)
    infer=(--model "${MODEL:-large}" --size "${SIZE:-224}" --batch "${BATCH:-24}")
    rounds=(--rounds "${ROUNDS:-6}" --warmup "${WARMUP:-3}")
    # f32 products are TF32 on the tensor cores: ten bits of mantissa.
    relax_f32=${RELAX:-500}
fi
relax_bf16=3000

# Kernels are compiled where they run: the back end wants the toolkit's headers, and the loader libnvrtc.
if [ "$dry" = false ]; then
    if [ -z "${CUDA_PATH:-}" ] && [ ! -e /usr/local/cuda ] && nvcc=$(command -v nvcc); then
        CUDA_PATH=$(dirname "$(dirname "$(realpath "$nvcc")")") && export CUDA_PATH
    fi
    wheels=$("$python" -c 'import glob, site
print(":".join(d for s in site.getsitepackages() for d in glob.glob(s + "/nvidia/cu*/lib") + glob.glob(s + "/nvidia/cuda_nvrtc/lib")))' 2>/dev/null)
    export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}${CUDA_PATH:-/usr/local/cuda}/lib64${wheels:+:$wheels}"
fi

# Compiled kernels and tuning results are kept from stage to stage (and call to call, on a machine that stays).
work=${WORK:-$(mktemp -d)} && mkdir -p "$work" && cd "$work" || exit 2
cat >cubecl.toml <<TOML
[compilation]
cache = true
[autotune]
level = "${TUNE:-minimal}"
[environment]
path = { directory = "$work/cubecl" }
TOML

: >"$OUT/stages.jsonl"
failed=0

# stage NAME SECONDS COMMAND...: runs it, its output to NAME.log, and notes how it ended.
stage() {
    local name=$1 limit=$2 left=$((total - (SECONDS - began))) start=$SECONDS status=ok rc
    shift 2
    if [ -n "${STAGES:-}" ] && [[ " $STAGES " != *" $name "* ]]; then return 0; fi
    [ "$limit" -gt "$left" ] && limit=$left
    if [ "$limit" -lt 5 ]; then
        echo "{\"stage\": \"$name\", \"status\": \"skipped\", \"why\": \"out of time\"}" >>"$OUT/stages.jsonl"
        printf '%-18s skipped: out of time\n' "$name"
        return 1
    fi
    timeout --kill-after=5 "$limit" "$@" >"$OUT/$name.log" 2>&1
    rc=$?
    case $rc in
        0) ;;
        124 | 137) status="timed out" ;;
        *) status=failed ;;
    esac
    echo "{\"stage\": \"$name\", \"status\": \"$status\", \"rc\": $rc, \"seconds\": $((SECONDS - start)), \"limit\": $limit}" >>"$OUT/stages.jsonl"
    printf '%-18s %s (%d s of %d)\n' "$name" "$status" $((SECONDS - start)) "$limit"
    if [ "$rc" != 0 ]; then
        failed=1
        tail -n 5 "$OUT/$name.log" | sed 's/^/    /'
    fi
    return "$rc"
}

# bench NAME SECONDS WHAT PRECISION FLAGS...: figures go to NAME.json.
bench() {
    local name=$1 limit=$2 what=$3 precision=$4
    shift 4
    stage "$name" "$limit" "$binary" bench "$what" --device "$device" --precision "$precision" --no-burn \
        "${rounds[@]}" --out "$OUT/$name.json" "$@" && [ -f "$OUT/$name.log" ] && tail -n 8 "$OUT/$name.log"
}

# Exported models through the ONNX Runtime of this Python: on the CPU, and with CUDA and TensorRT where its build has them.
onnx() {
    local library runtimes=ort size=224 model=vit_base precision
    library=$("$python" -c 'import glob, os, onnxruntime
print(sorted(glob.glob(os.path.join(os.path.dirname(onnxruntime.__file__), "capi", "libonnxruntime.so.*")))[-1])' 2>/dev/null)
    if [ -z "$library" ]; then
        echo "no ONNX Runtime for $python: exported models are left out"
        return
    fi
    if [ "$dry" = true ]; then
        model=vit_tiny size=64
    else
        case $("$python" -c 'import onnxruntime; print(*onnxruntime.get_available_providers())' 2>/dev/null) in
            *Tensorrt*CUDA* | *CUDA*Tensorrt*) runtimes=ort,cuda,tensorrt ;;
            *CUDA*) runtimes=ort,cuda ;;
            *) echo "this ONNX Runtime has no CUDA: exported models run on the CPU only" ;;
        esac
    fi
    printf 'model: {model_name: %s}\ndata: {num_frames: 16, crop_size: %d}\n' "$model" "$size" >exported.yaml
    for precision in f32 f16; do
        stage "onnx-$precision" 60 "$binary" compile --random-weights 1 --config exported.yaml --head features \
            --export tensorrt --precision "$precision" --batches 1:4:8 --ort-lib "$library" --out "$precision.onnx" &&
            stage "onnx-bench-$precision" 90 "$binary" bench infer "$precision.onnx" --runtime "$runtimes" --batches 1:4:8 \
                --batch 4 "${rounds[@]}" --ort-lib "$library" --engine-cache engines --out "$OUT/onnx-$precision.json" &&
            [ -f "$OUT/onnx-bench-$precision.log" ] && cat "$OUT/onnx-bench-$precision.log"
    done
    # The server under load, on the fastest runtime there is; bursts fill its batches.
    local fastest=${runtimes##*,} seconds=20
    if [ "$dry" = true ]; then seconds=3; fi
    [ -f f16.onnx ] && stage serve 90 "$python" "$here/load.py" "$binary" f16.onnx --runtime "$fastest" --clients 16 \
        --seconds "$seconds" --out "$OUT/serve.json" -- --ort-lib "$library" --batches 1:8:8 --engine-cache engines \
        --max-batch 8 && tail -n 1 "$OUT/serve.log"
}

golden=$root/tests/golden/tiny
torch=()
if "$python" -c 'import torch' >/dev/null 2>&1; then torch=(--torch "$python"); else echo "no PyTorch for $python: its sides are left out"; fi
eager=() compiled=()
if [ ${#torch[@]} -gt 0 ]; then eager=("${torch[@]}" --no-torch-compile) compiled=("${torch[@]}"); fi

driver() {
    if [ "$dry" = false ]; then nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader; fi
    "$binary" doctor
}
export -f driver && export binary dry
stage driver 30 bash -c driver

# Parity, the narrow arithmetic with Burn's flash attention and, where that is wrong, without.
stage parity-f32 90 "$binary" verify golden "$golden" --device "$device" --relax "$relax_f32" --json
parity_bf16=("$binary" verify golden "$golden" --device "$device" --precision bf16 --relax "$relax_bf16" --json)
if ! stage parity-bf16 90 "${parity_bf16[@]}"; then
    export VJEPA_FLASH=0
    echo "going on with VJEPA_FLASH=0"
    stage parity-bf16-plain 60 "${parity_bf16[@]}"
fi

# What matters most first: what is not reached in time is missing, the rest is there.
bench step-bf16 200 step bf16 "${scale[@]}" --mask-sets 2 "${eager[@]}"
bench infer-bf16 100 infer bf16 "${infer[@]}" "${eager[@]}"
onnx
bench step-f32 150 step f32 "${scale[@]}" --mask-sets 2 "${eager[@]}"
if [ ${#compiled[@]} -gt 0 ]; then
    bench step-compile 240 step bf16 "${scale[@]}" --mask-sets 1 "${compiled[@]}"
    bench infer-compile 150 infer bf16 "${infer[@]}" "${compiled[@]}"
fi
# Our kernels one by one beside the library's operations, and NCCL, which `vjepa doctor` tries on one GPU.
kernels() { "$binary" bench kernels --device "$device" --rounds 6 --json >"$OUT/kernels.json"; }
# NVIDIA's products beside the library's, where cuBLASLt is found.
products() { VJEPA_KERNELS=+linear,+matmul "$binary" bench kernels --device "$device" --rounds 6 --json >"$OUT/products.json"; }
nccl() { "$binary" doctor --json | tee "$OUT/doctor.json" | grep -q '"nccl"'; }
export -f kernels nccl products && export OUT device
if [ "$dry" = false ]; then
    stage kernels 90 bash -c kernels
    stage products 60 bash -c products
    stage nccl 30 bash -c nccl
fi
bench infer-f32 90 infer f32 "${infer[@]}" "${eager[@]}"
if [ "$dry" = false ]; then
    stage recorded 90 "$python" "$here/recorded.py" "$binary" "$root/configs/quickstart.yaml" "$device" "$OUT/recorded.json" &&
        tail -n 1 "$OUT/recorded.log"
fi

[ -n "${WORK:-}" ] || rm -rf "$work"
echo "results in $OUT, $((SECONDS - began)) s"
exit "$failed"
