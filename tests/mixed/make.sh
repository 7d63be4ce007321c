#!/usr/bin/env bash
# Makes a data set of 200 short videos of every kind that people have, one in twenty broken: tests/mixed/make.sh FOLDER.
# H.264, HEVC, AV1, MPEG-4 in AVI and VP9, several sizes and rates, by the system's ffmpeg (libx264, libx265, libaom-av1,
# libvpx-vp9); each kind has broken ones: cut off, overwritten, no video. `list.csv` names all with labels 0 to 4.
set -euo pipefail
folder=${1:?give a folder}
count=${2:-200}
mkdir -p "$folder"
sizes=(320x240 426x240 340x256 256x340)
rates=(24 25 30 30000/1001)
: >"$folder/list.csv"
for number in $(seq 0 $((count - 1))); do
    kind=$((number % 5))
    size=${sizes[$((number / 5 % 4))]}
    rate=${rates[$((number / 20 % 4))]}
    case $kind in
        0) name=h264.mp4 codec=(-c:v libx264 -preset veryfast -g 250) ;;
        1) name=hevc.mp4 codec=(-c:v libx265 -preset ultrafast -tag:v hvc1 -x265-params log-level=error) ;;
        2) name=av1.mp4 codec=(-c:v libaom-av1 -cpu-used 8 -usage realtime -b:v 400k) ;;
        3) name=mpeg4.avi codec=(-c:v mpeg4 -q:v 4) ;;
        4) name=vp9.webm codec=(-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -b:v 400k) ;;
    esac
    file=$(printf '%03d-%s' "$number" "$name")
    if [ ! -e "$folder/$file" ]; then
        # Moving colours and test pictures, others for each number.
        source="gradients=size=$size:rate=$rate:seed=$number:speed=0.02:nb_colors=6"
        [ $((number % 2)) -eq 0 ] || source="testsrc2=size=$size:rate=$rate,rotate=0.0$((1 + number % 9))*n"
        ffmpeg -nostdin -v error -y -f lavfi -i "$source" -t 4 -threads 2 -pix_fmt yuv420p "${codec[@]}" "$folder/new-$file"
        bytes=$(stat -c %s "$folder/new-$file")
        # One in twenty, of each kind in turn: cut off in the middle, begun with zeros, or a page of text.
        broken=none
        [ $((number % 20)) -ne $((number / 20 % 20)) ] || broken=$((number / 20 % 3))
        case $broken in
            0) truncate -s $((bytes / 2)) "$folder/new-$file" ;;
            1) dd if=/dev/zero of="$folder/new-$file" bs="$((bytes / 4))" count=1 conv=notrunc status=none ;;
            2) printf '<html>404 Not Found</html>%.0s\n' $(seq 200) >"$folder/new-$file" ;;
        esac
        mv "$folder/new-$file" "$folder/$file"
    fi
    echo "$file $kind" >>"$folder/list.csv"
done
