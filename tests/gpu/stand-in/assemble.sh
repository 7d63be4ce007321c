#!/usr/bin/env bash
# Assembles the PTX that the stand-in driver kept, and says how many kernels there are and what the largest take.
# assemble.sh PTXAS FOLDER [sm_90a]
set -euo pipefail
ptxas=$1
folder=$2
export gpu=${3:-sm_90a}
cd "$folder"
began=$SECONDS
one() {
    local said
    if ! said=$("$1" --gpu-name "$gpu" --verbose --output-file /dev/null "$2" 2>&1); then
        echo "$2 does not assemble: $said" >&2
        return 1
    fi
    # Function, registers, bytes spilled, bytes of shared memory.
    echo "$said" | awk -v file="$2" '
        /Compiling entry function/ { split($0, quoted, "\x27"); name = quoted[2] }
        /bytes spill stores/ { for (i = 2; i <= NF; i++) if ($i == "bytes" && $(i + 1) == "spill" && $(i + 2) ~ /^stores/) spilled = $(i - 1) }
        /Used .* registers/ {
            for (i = 2; i <= NF; i++) { if ($i ~ /^registers/) registers = $(i - 1); if ($i == "smem") shared = $(i - 2) }
            print name "\t" registers + 0 "\t" spilled + 0 "\t" shared + 0 "\t" file
        }'
}
export -f one
printf 'function\tregisters\tspilled\tshared\tfile\n' >assembled.tsv
find . -maxdepth 1 -name '*.ptx' -printf '%f\n' | sort -n | xargs -P 2 -I{} bash -c 'one "$0" {}' "$ptxas" >>assembled.tsv
kernels=$(($(wc -l <assembled.tsv) - 1))
modules=$(find . -maxdepth 1 -name '*.ptx' | wc -l)
if [ "$kernels" -lt "$modules" ] || [ "$modules" -eq 0 ]; then
    echo "$modules modules were loaded and $kernels functions assembled" >&2
    exit 1
fi
echo "$kernels kernels assembled for $gpu in $((SECONDS - began)) s; registers, bytes spilled and shared of each: $folder/assembled.tsv"
awk -F'\t' 'NR > 1 && $3 > 0 { spilling++ } END { print spilling + 0 " of them spill registers" }' assembled.tsv
