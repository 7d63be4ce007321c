#!/bin/sh
# Makes the clips of this folder anew: renders them, then encodes half as H.264 in mp4 and half as VP9 in webm.
# A tool for development only; it needs ffmpeg with libx264 and libvpx. Run it from the repository's root:
#   sh assets/textures/encode.sh
#
# The noise in the clips is part of the data, hence the high quality. One thread, no metadata and bit-exact flags make the
# files depend on the encoders' versions alone; H.264's user-data message (type 6), which names the encoder, is cut out.
set -eu
here=$(dirname "$0")
raw=$(mktemp -d)
trap 'rm -rf "$raw"' EXIT
cargo run --release --example render_textures -- "$raw"
cp "$raw/labels.csv" "$raw/labels_motion.csv" "$here/"

common="-map_metadata -1 -fflags +bitexact -flags:v +bitexact -threads 1 -pix_fmt yuv420p -color_range tv"
while read -r name _; do
    stem=${name%.*}
    case $name in
    *.mp4)
        codec="-c:v libx264 -preset veryslow -crf 16 -bf 0 -g 8 -bsf:v filter_units=remove_types=6 -movflags +faststart"
        ;;
    *)
        codec="-c:v libvpx-vp9 -b:v 0 -crf 14 -deadline good -cpu-used 0 -g 8 -auto-alt-ref 0 -lag-in-frames 0"
        ;;
    esac
    # The options are lists of words on purpose.
    # shellcheck disable=SC2086
    ffmpeg -nostdin -loglevel error -y -i "$raw/$stem.y4m" $codec $common "$here/$name"
done <"$raw/labels.csv"
du -cb "$here"/*.mp4 "$here"/*.webm | tail -1
