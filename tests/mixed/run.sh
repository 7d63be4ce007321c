#!/usr/bin/env bash
# Trains a ViT-T at 16x112x112 on the videos of make.sh: tests/mixed/run.sh VJEPA FOLDER [STEPS] (VJEPA built with the feature
# `ffmpeg`). Says which share of the steps waited for data, how memory went (FOLDER/memory.csv: seconds, KiB), and which of the broken
# videos were met.
set -euo pipefail
vjepa=$(realpath "${1:?give the program}")
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(realpath "${2:?give the folder that make.sh filled}")
steps=${3:-400}

rm -rf "$folder/run"
: >"$folder/memory.csv"
"$vjepa" train --config "$root/configs/tiny.yaml" --set "data.datasets=[$folder/list.csv]" \
    --set data.num_frames=16 --set data.crop_size=112 --set data.patch_size=16 --set data.batch_size=4 \
    --set "optimization.steps=$steps" --set optimization.warmup_steps=20 --set logging.metrics_every=1 \
    --set logging.checkpoint_every=1000000 --set logging.diagnostics_every=1000000 --set "logging.folder=$folder/run" \
    >"$folder/log" 2>&1 &
child=$!
trap 'kill "$child" 2>/dev/null || true' EXIT
while kill -0 "$child" 2>/dev/null; do
    memory=$(awk '/VmRSS/ { print $2 }' "/proc/$child/status" 2>/dev/null || true)
    [ -z "$memory" ] || echo "$SECONDS,$memory" >>"$folder/memory.csv"
    sleep 2
done
trap - EXIT
wait "$child" || { tail -n 5 "$folder/log" >&2; exit 1; }
tail -n 12 "$folder/log"
# A tenth of the way in, half way and at the end, each the mean of a twentieth of the samples.
awk -F, '{ kib[NR] = $2; if ($2 > most) most = $2 }
    function mean(from, wide, sum, i) { for (i = from; i < from + wide; i++) sum += kib[i]; return sum / wide / 1024 }
    END { wide = int(NR / 20) + 1
        printf "memory: %.0f MiB a tenth of the way, %.0f MiB half way, %.0f MiB at the end, at most %.0f MiB\n",
            mean(int(NR / 10) + 1, wide), mean(int(NR / 2), wide), mean(NR - wide, wide), most / 1024 }' "$folder/memory.csv"
# The first steps wait until the loader has begun.
awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
    { waited += $column["data_ms"]; took += $column["step_ms"]; steps++ }
    steps > 10 { later_waited += $column["data_ms"]; later_took += $column["step_ms"] }
    END { printf "%d steps of %.0f ms; waited for data: %.2f %% of all, %.2f %% from the 11th on\n",
        steps, took / steps, 100 * waited / took, 100 * later_waited / later_took }' "$folder/run/jepa-metrics.csv"
