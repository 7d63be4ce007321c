#!/usr/bin/env bash
# Pre-training on machines that reach each other by ssh, over Open MPI: examples/launch/ssh.sh HOSTFILE. A line of the file is
# `node1 slots=2`. The program (--features mpi), data and run folder have the same paths everywhere.
set -euo pipefail
hosts=${1:?give a file of hosts}
folder=${RUN:-runs/vitl16}
ranks=$(awk '!/^ *(#|$)/ { slots = 1; for (i = 2; i <= NF; i++) if (split($i, pair, "=") == 2 && pair[1] == "slots") slots = pair[2]; all += slots } END { print all + 0 }' "$hosts")
if [ "$ranks" -lt 1 ]; then
    echo "$hosts names no host" >&2
    exit 2
fi
resume=()
if compgen -G "$folder/jepa-*.safetensors" >/dev/null; then resume=(--resume); fi

exec mpirun --hostfile "$hosts" -n "$ranks" --map-by socket --bind-to socket -x RAYON_NUM_THREADS="${THREADS:-24}" \
    vjepa train --config configs/vitl16.yaml --set "data.datasets=[${DATA:-k400.csv}]" --set "logging.folder=$folder" \
    --set "optimization.groups=$ranks" "${resume[@]}"
