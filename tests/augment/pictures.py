"""Makes tests/golden/pictures: small pictures in every form that is read, each with what Pillow makes of it (*.out.png).

    python tests/augment/pictures.py tests/golden/pictures
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

folder = Path(sys.argv[1])
random = np.random.default_rng(3)
noise = np.clip(random.normal(size=(6, 7, 3)) * 60 + 128, 0, 255).astype(np.uint8)
picture = Image.fromarray(noise).resize((45, 33), Image.BICUBIC)
alpha = Image.fromarray((random.random((33, 45)) * 255).astype(np.uint8))
see_through = picture.copy()
see_through.putalpha(alpha)


def save(name, image, **options):
    image.save(folder / name, **options)
    Image.open(folder / name).convert("RGB").save(folder / f"{name}.out.png")


save("rgb.png", picture)
save("rgba.png", see_through)
save("grey.png", picture.convert("L"))
save("la.png", see_through.convert("LA"))
save("palette.png", picture.quantize(13))
save("one.png", picture.convert("1"))
save("half.jpg", picture, quality=90)
save("full.jpg", picture, quality=90, subsampling=0)
save("grey.jpg", picture.convert("L"), quality=90)
save("cmyk.jpg", picture.convert("CMYK"), quality=90)
save("progressive.jpg", picture, quality=90, progressive=True)
