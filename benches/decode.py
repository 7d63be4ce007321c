"""Other video decoders: the other side of `vjepa bench decode`.

Usage: decode.py decord|torchcodec|pyav

Says first which library answers (`ready`) or why none does (`missing`). Then it reads one request a line from standard input
and answers each with one line of JSON. A request names a file, clips (`frames`, ascending, and `crop` as top, left, height,
width, and `flip`) and a task: `rgb` decodes the frames as RGB, `clip` also crops them, resizes them bilinearly to `size`,
mirrors and normalises them, `look` decodes and describes each picture by means of its green channel over blocks. The time is
this process's own processor time, all threads together, without the describing.
"""
import json
import sys
import time

import torch

ROWS, COLUMNS = 10, 16


def decord_reader():
    import decord
    decord.bridge.set_bridge("torch")

    def read(path, wanted):
        return decord.VideoReader(path, num_threads=1).get_batch(wanted).permute(0, 3, 1, 2)
    return f"decord {decord.__version__}", read


def torchcodec_reader():
    import importlib.metadata
    from torchcodec.decoders import VideoDecoder

    def read(path, wanted):
        return VideoDecoder(path, num_ffmpeg_threads=1, seek_mode="exact").get_frames_at(wanted).data
    return f"torchcodec {importlib.metadata.version('torchcodec')}", read


def pyav_reader():
    import av

    def read(path, wanted):
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            rate, base, origin = stream.average_rate, stream.time_base, stream.start_time or 0
            # PyAV knows no frame numbers, only times: right for constant rates.
            times = [origin + int(round(i / rate / base)) for i in wanted]
            near = max(1, int(1 / rate / base / 2))
            container.seek(times[0], stream=stream)
            found = {}
            for frame in container.decode(stream):
                for i, at in zip(wanted, times):
                    if i not in found and abs(frame.pts - at) < near:
                        found[i] = torch.from_numpy(frame.to_ndarray(format="rgb24"))
                if len(found) == len(set(wanted)):
                    break
            return torch.stack([found[i] for i in wanted]).permute(0, 3, 1, 2)
    return f"PyAV {av.__version__}", read


READERS = {"decord": decord_reader, "torchcodec": torchcodec_reader, "pyav": pyav_reader}
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1) * 255
DEVIATION = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1) * 255


def prepare(pictures, clip, size):
    top, left, height, width = clip["crop"]
    crop = pictures[:, :, top:top + height, left:left + width].float()
    out = torch.nn.functional.interpolate(crop, (size, size), mode="bilinear", align_corners=False)
    return ((out.flip(3) if clip["flip"] else out) - MEAN) / DEVIATION


def describe(pictures):
    means = torch.nn.functional.adaptive_avg_pool2d(pictures[:, 1:2].float(), (ROWS, COLUMNS))
    return means.flatten(1).round().int().tolist()


def answer(read, request):
    looks, started = [], time.process_time()
    for clip in request["clips"]:
        pictures = read(request["path"], clip["frames"])
        if request["task"] == "clip":
            prepare(pictures, clip, request["size"])
        elif request["task"] == "look":
            looks += describe(pictures)
    return {"seconds": time.process_time() - started, "looks": looks}


def main():
    torch.set_num_threads(1)
    say = lambda value: print(json.dumps(value), flush=True)
    try:
        about, read = READERS[sys.argv[1]]()
    except Exception as error:
        say({"missing": f"{type(error).__name__}: {error}".splitlines()[0]})
        return
    say({"ready": about})
    for line in sys.stdin:
        try:
            say(answer(read, json.loads(line)))
        except Exception as error:
            say({"error": f"{type(error).__name__}: {error}".splitlines()[0]})


main()
