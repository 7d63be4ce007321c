"""Opens a session and hands it to forked workers, as gunicorn's --preload and multiprocessing do:
preload.py LIBRARY MODEL RUNTIME THREADS prints what each worker gets."""

import multiprocessing
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import classify  # noqa: E402

HEIGHT, WIDTH, FRAMES = 36, 44, 4
library, model, runtime, threads = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
pixels = [bytes((i * 31 + t) % 251 for i in range(HEIGHT * WIDTH * 3)) for t in range(FRAMES)]
session = classify.Session(library, model, runtime, threads)
before = session.classify(pixels, HEIGHT, WIDTH)


def work(_):
    try:
        return "same" if session.classify(pixels, HEIGHT, WIDTH) == before else "other"
    except classify.Error as error:
        own = classify.Session(library, model, runtime, threads)
        found = own.classify(pixels, HEIGHT, WIDTH)
        return f"{error}; its own: {'same' if found == before else 'other'}"


if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(3) as pool:
        for line in pool.map_async(work, range(6), chunksize=2).get(timeout=60):
            print(line)
