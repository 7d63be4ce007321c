#!/usr/bin/env python3
"""make_clips.py OUT [--small]: clips in codecs and containers as people have them, made with the ffmpeg command line.

Every frame carries its number as a barcode in the top tenth: 16 blocks, white, black, 12 bits (least significant first),
white, black; below it colours move, so that a wrong frame or matrix shows. `--small` makes only the clips that
`crates/video/tests/data` carries. Encoders that this ffmpeg lacks are named and left out.
"""
import os
import subprocess
import sys

W, H = 160, 96


def frame(n, width=W, height=H):
    """One picture, RGB bytes."""
    bits = [1, 0] + [n >> i & 1 for i in range(12)] + [1, 0]
    bar = b"".join((b"\xff" if bits[16 * x // width] else b"\x00") * 3 for x in range(width))
    rows = [bar] * (height // 10)
    for y in range(height - len(rows)):
        rows.append(bytes(
            v
            for x in range(width)
            for v in ((2 * x + 5 * n) % 256, (3 * y + 7 * n) % 256, (x + y + 11 * n) % 256 // 2 + 64)
        ))
    return b"".join(rows)


def encode(out, name, args, frames=24, size=(W, H), container=()):
    raw = b"".join(frame(n, *size) for n in range(frames))
    command = ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}", "-r", "25", "-i", "-"]
    path = os.path.join(out, name)
    made = subprocess.run(command + args + ["-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact", *container, path], input=raw, capture_output=True)
    if made.returncode:
        print(f"{name}: left out: {made.stderr.decode().strip().splitlines()[-1]}")
        if os.path.exists(path):
            os.remove(path)


def colours(matrix, full):
    """Convert to this matrix and range, and say so in the file."""
    space, primaries, transfer = {
        "601": ("smpte170m", "smpte170m", "smpte170m"),
        "709": ("bt709", "bt709", "bt709"),
        "2020": ("bt2020nc", "bt2020", "bt2020-10"),
    }[matrix]
    scale = f"scale=out_color_matrix={'bt' + matrix if matrix != '601' else 'bt601'}:out_range={'full' if full else 'limited'}:flags=accurate_rnd+full_chroma_int"
    return ["-vf", scale, "-colorspace", space, "-color_primaries", primaries, "-color_trc", transfer, "-color_range", "pc" if full else "tv"]


def small(out):
    encode(out, "mpeg4.avi", ["-c:v", "mpeg4", "-tag:v", "XVID", "-bf", "2", "-g", "8", "-q:v", "5", "-pix_fmt", "yuv420p"])
    encode(out, "mpeg2.ts", ["-c:v", "mpeg2video", "-bf", "2", "-g", "8", "-q:v", "5", "-pix_fmt", "yuv420p"])
    encode(out, "mpeg2.mpg", ["-c:v", "mpeg2video", "-bf", "2", "-g", "8", "-q:v", "5", "-pix_fmt", "yuv420p"])
    encode(out, "hevc.mp4", ["-c:v", "libx265", "-pix_fmt", "yuv420p", "-x265-params", "log-level=error:keyint=8:bframes=3:open-gop=1:crf=30:pools=1", "-tag:v", "hvc1"])
    encode(out, "av1.webm", ["-c:v", "libaom-av1", "-pix_fmt", "yuv420p", "-g", "8", "-crf", "40", "-b:v", "0", "-cpu-used", "8"])


def everything(out):
    small(out)
    x264 = ["-c:v", "libx264", "-crf", "18", "-g", "12"]
    for matrix in ("601", "709", "2020"):
        for full in (False, True):
            name = f"h264_{matrix}_{'full' if full else 'limited'}.mp4"
            encode(out, name, colours(matrix, full) + x264 + ["-pix_fmt", "yuv420p"])
            name = f"vp9_{matrix}_{'full' if full else 'limited'}.webm"
            encode(out, name, colours(matrix, full) + ["-c:v", "libvpx-vp9", "-crf", "20", "-b:v", "0", "-cpu-used", "8", "-pix_fmt", "yuv420p"])
    encode(out, "hevc10_2020.mp4", colours("2020", False) + ["-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-x265-params", "log-level=error:keyint=12:crf=18", "-tag:v", "hvc1"])
    for pixels in ("yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le"):
        encode(out, f"h264_{pixels}.mp4", x264 + ["-pix_fmt", pixels])
    encode(out, "h264_rgb.mkv", ["-c:v", "libx264rgb", "-crf", "10", "-g", "12"])
    encode(out, "h264_grey.mp4", x264 + ["-pix_fmt", "gray"])
    encode(out, "h264_interlaced.mp4", x264 + ["-pix_fmt", "yuv420p", "-flags", "+ildct+ilme"])
    encode(out, "h264.ts", x264 + ["-pix_fmt", "yuv420p", "-bf", "2"])
    encode(out, "h264.flv", x264 + ["-pix_fmt", "yuv420p", "-bf", "2"])
    encode(out, "h264.avi", x264 + ["-pix_fmt", "yuv420p", "-bf", "2"])
    encode(out, "hevc.ts", ["-c:v", "libx265", "-pix_fmt", "yuv420p", "-x265-params", "log-level=error:keyint=8:bframes=3:open-gop=1"])
    encode(out, "hevc_frag.mp4", ["-c:v", "libx265", "-pix_fmt", "yuv420p", "-x265-params", "log-level=error:keyint=8", "-tag:v", "hev1"], container=["-movflags", "frag_keyframe+empty_moov"])
    encode(out, "hevc.mkv", ["-c:v", "libx265", "-pix_fmt", "yuv420p", "-x265-params", "log-level=error:keyint=8:open-gop=1"])
    encode(out, "prores.mov", ["-c:v", "prores_ks", "-profile:v", "2", "-pix_fmt", "yuv422p10le"])
    encode(out, "prores4444.mov", ["-c:v", "prores_ks", "-profile:v", "4", "-pix_fmt", "yuv444p10le"])
    encode(out, "vp8.webm", ["-c:v", "libvpx", "-g", "12", "-crf", "10", "-b:v", "1M", "-auto-alt-ref", "1", "-lag-in-frames", "16", "-pix_fmt", "yuv420p"])
    encode(out, "mpeg4.mp4", ["-c:v", "mpeg4", "-bf", "2", "-g", "8", "-q:v", "3", "-pix_fmt", "yuv420p"])
    encode(out, "mpeg4.mkv", ["-c:v", "mpeg4", "-bf", "2", "-g", "8", "-q:v", "3", "-pix_fmt", "yuv420p"])
    encode(out, "msmpeg4.avi", ["-c:v", "msmpeg4v3", "-g", "8", "-q:v", "3", "-pix_fmt", "yuv420p"])
    encode(out, "mjpeg.avi", ["-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj420p"])
    encode(out, "mjpeg.mov", ["-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj422p"])
    encode(out, "mpeg1.mpg", ["-c:v", "mpeg1video", "-bf", "2", "-g", "8", "-q:v", "2", "-pix_fmt", "yuv420p"])
    encode(out, "mpeg2_422.ts", ["-c:v", "mpeg2video", "-bf", "2", "-g", "8", "-q:v", "2", "-pix_fmt", "yuv422p"])
    encode(out, "mpeg2_interlaced.ts", ["-c:v", "mpeg2video", "-bf", "2", "-g", "8", "-q:v", "2", "-pix_fmt", "yuv420p", "-flags", "+ildct+ilme"])
    encode(out, "wmv2.wmv", ["-c:v", "wmv2", "-g", "8", "-q:v", "2", "-pix_fmt", "yuv420p"])
    encode(out, "theora.ogv", ["-c:v", "libtheora", "-q:v", "9", "-pix_fmt", "yuv420p"])
    encode(out, "av1.mp4", ["-c:v", "libaom-av1", "-pix_fmt", "yuv420p10le", "-g", "8", "-crf", "20", "-b:v", "0", "-cpu-used", "8"])
    encode(out, "vp8.ivf", ["-c:v", "libvpx", "-g", "12", "-crf", "10", "-b:v", "1M", "-pix_fmt", "yuv420p"])
    encode(out, "raw.avi", ["-c:v", "rawvideo", "-pix_fmt", "bgr24"], frames=12)
    encode(out, "odd.mp4", x264 + ["-pix_fmt", "yuv444p"], size=(161, 97))
    # Rotation, variable rate and several tracks are made from what is there, without encoding again.
    edit = lambda name, args: subprocess.run(["ffmpeg", "-v", "error", "-y", *args, os.path.join(out, name)], check=False)
    here = lambda name: os.path.join(out, name)
    edit("hevc_rotated.mp4", ["-i", here("hevc.mp4"), "-c", "copy", "-metadata:s:v", "rotate=90"])
    edit("hevc_vfr.mkv", ["-i", here("hevc.mp4"), "-c", "copy", "-bsf:v", "setts=pts=PTS+PTS*PTS/900000"])
    edit("two_tracks.mp4", ["-i", here("hevc.mp4"), "-i", here("mpeg4.mp4"), "-map", "0", "-map", "1", "-c", "copy"])


if __name__ == "__main__":
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    small(folder) if "--small" in sys.argv else everything(folder)
