#!/usr/bin/env bash
# A run left alone: tests/unattended/run.sh VJEPA FOLDER [MINUTES]. Trains on the carried videos with one in twenty broken, kills
# the program at random moments and resumes, and writes its memory over time to FOLDER/memory.csv (seconds, process, KiB). At the
# end the program is told to stop (SIGTERM), must save, and memory and data waits are summed up.
set -euo pipefail
vjepa=$(realpath "${1:?give the program}")
root=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "${2:?give a folder}/videos"
folder=$(realpath "$2")
minutes=${3:-60}

cp "$root"/assets/textures/*.mp4 "$root"/assets/textures/*.webm "$folder/videos" 2>/dev/null || cp "$root"/assets/textures/*.mp4 "$folder/videos"
: >"$folder/list.csv"
number=0
for file in "$folder"/videos/*; do
    case $((number % 60)) in
        10) truncate -s $(($(stat -c %s "$file") / 2)) "$file" ;;
        30) printf '<html>404 Not Found</html>' >"$file" ;;
        50) truncate -s 0 "$file" ;;
    esac
    echo "$file 0" >>"$folder/list.csv"
    number=$((number + 1))
done

settings=(--config "$root/configs/quickstart.yaml" --set data.dataset_type=VideoDataset --set "data.datasets=[$folder/list.csv]"
    --set optimization.steps=1000000 --set logging.checkpoint_every=50 --set logging.diagnostics_every=100
    --set "logging.folder=$folder/run")
: >"$folder/memory.csv"
: >"$folder/log"
kills=0
# Bash's own counter starts at nothing; `jobs` have only this child.
RANDOM=7
while [ $SECONDS -lt $((60 * minutes)) ]; do
    resume=()
    if compgen -G "$folder/run/jepa-*.safetensors" >/dev/null; then resume=(--resume); fi
    "$vjepa" train "${settings[@]}" "${resume[@]}" >>"$folder/log" 2>&1 &
    child=$!
    until=$((SECONDS + 60 + RANDOM % 480))
    if [ $until -gt $((60 * minutes)) ]; then until=$((60 * minutes)); fi
    while [ $SECONDS -lt $until ]; do
        sleep 5
        if ! kill -0 "$child" 2>/dev/null; then
            echo "the run ended by itself after $SECONDS s: $(tail -n 3 "$folder/log")" >&2
            exit 1
        fi
        echo "$SECONDS,$child,$(awk '/VmRSS/ { print $2 }' "/proc/$child/status")" >>"$folder/memory.csv"
    done
    if [ $SECONDS -ge $((60 * minutes)) ]; then
        kill -TERM "$child"
    else
        kill -KILL "$child"
        kills=$((kills + 1))
    fi
    wait "$child" || last=$?
done
echo "$minutes minutes, $kills kills, at SIGTERM it left with ${last:-0}"
# Memory of each process in its second minute and at its end.
awk -F, '{ n[$2]++; if (n[$2] == 24) first[$2] = $3; last[$2] = $3; if ($3 > most) most = $3 }
    END { for (p in first) printf "process %s: %.0f MB after two minutes, %.0f MB at the end\n", p, first[p] / 1024, last[p] / 1024; printf "most: %.0f MB\n", most / 1024 }' \
    "$folder/memory.csv"
# What share of the time of all steps was spent waiting for data.
awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
    { waited += $column["data_ms"]; took += $column["step_ms"]; steps++ }
    END { printf "%d steps; %.2f %% of their time waited for data\n", steps, 100 * waited / took }' "$folder/run/jepa-metrics.csv"
