"""libvips by its Python binding, as fast as it goes: shrunk while it is loaded, and the small one made of the larger.

Reads one job a line as JSON on standard input, and answers each with a line. `benches/images` is the other side, which
also has a process of this as the judge of what all contenders made: references and differences are computed here.
"""

import array
import itertools
import json
import math
import os
import resource
import sys
import time

import pyvips

QUALITY = 80

# What is cached is of no use for pictures given as bytes.
pyvips.cache_set_max(0)


def sized(image, size):
    """The exact size: else 16:9 pictures come out a pixel higher or lower than ours."""
    width, height = size
    return image.thumbnail_image(width, height=height, size="force")


def preview(data, job):
    width, height = job["preview"]
    return pyvips.Image.thumbnail_buffer(
        data, width, height=height, size="force", output_profile="srgb"
    ).copy_memory()


def variants(data, job):
    large = preview(data, job)
    small = sized(large, job["thumbnail"])
    return {
        "preview.jpg": large.jpegsave_buffer(Q=QUALITY, keep="none"),
        "thumbnail.jpg": small.jpegsave_buffer(Q=QUALITY, keep="none"),
    }


def full(data, job):
    """The original as sharp's `mozjpeg: true` has it."""
    made = variants(data, job)
    header = pyvips.Image.new_from_buffer(data, "")
    is_upright = "orientation" not in header.get_fields() or header.get("orientation") == 1
    image = pyvips.Image.new_from_buffer(data, "", access="sequential" if is_upright else "random").autorot()
    if "icc-profile-data" in image.get_fields():
        image = image.icc_transform("srgb", embedded=True)
    made["original.jpg"] = image.jpegsave_buffer(
        Q=QUALITY,
        keep="none",
        trellis_quant=True,
        overshoot_deringing=True,
        optimize_scans=True,
        optimize_coding=True,
        interlace=True,
        quant_table=3,
    )
    return made


def png(data, job):
    """The preview without loss, for its colours."""
    return {"preview.png": preview(data, job).pngsave_buffer(compression=1, keep="none")}


# === the judge


def source(path, intent="relative"):
    """All pixels of a file, upright, in sRGB of 8 bits."""
    image = pyvips.Image.new_from_file(path).autorot()
    if "icc-profile-data" in image.get_fields():
        image = image.icc_transform("srgb", embedded=True, intent=intent)
    elif image.interpretation != "b-w" or image.format != "uchar":
        image = image.colourspace("srgb")
    return image.colourspace("srgb").cast("uchar")


def scaled(image, size):
    """Lanczos3 in floating point over all pixels."""
    image = image.premultiply() if image.hasalpha() else image.cast("float")
    image = image.reduce(image.width / size[0], image.height / size[1], kernel="lanczos3", gap=0)
    image = image.unpremultiply() if image.hasalpha() else image
    return image.rint().cast("uchar").copy(interpretation="srgb")


def reference(job):
    image = source(job["input"], job.get("intent", "relative")).copy_memory()
    files = {}
    for name in ("preview", "thumbnail"):
        made = scaled(image, job[name])
        assert [made.width, made.height] == job[name], "the reference has another size"
        files[name] = os.path.join(job["output"], f"{name}.png")
        made.pngsave(files[name], compression=1, keep="none")
    return {"files": files}


def luma(path):
    """Y of ITU-R BT.601."""
    image = source(path)
    image = image.flatten(background=255) if image.hasalpha() else image
    return image.cast("float").recomb([[0.299, 0.587, 0.114]]).copy(interpretation="b-w").copy_memory()


def ssim(job):
    """Structural similarity as its authors define it: 11 × 11 gaussian window of σ 1.5, K 0.01 and 0.03, whole windows."""
    a, b = luma(job["reference"]), luma(job["input"])
    if (a.width, a.height) != (b.width, b.height):
        raise ValueError("the pictures have different sizes")
    weights = [math.exp(-((at - 5) ** 2) / (2 * 1.5**2)) for at in range(11)]
    window = pyvips.Image.new_from_array([[weight / sum(weights) for weight in weights]])

    def mean(image):
        blurred = image.convsep(window, precision="float")
        return blurred.crop(5, 5, image.width - 10, image.height - 10)

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = mean(a), mean(b)
    variance_a, variance_b = mean(a * a) - mean_a * mean_a, mean(b * b) - mean_b * mean_b
    covariance = mean(a * b) - mean_a * mean_b
    of_luminance = (2 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1)
    of_structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return {"ssim": (of_luminance * of_structure).avg()}


def difference(job):
    """Of samples of 8 bits: mean, 99th percentile, greatest."""
    a, b = (
        image.flatten(background=255) if image.hasalpha() else image
        for image in (source(job["reference"]), source(job["input"]))
    )
    if (a.width, a.height) != (b.width, b.height):
        raise ValueError("the pictures have different sizes")
    samples = pyvips.Image.arrayjoin((a.cast("float") - b.cast("float")).abs().bandsplit(), across=1)
    samples = samples.cast("uchar").copy(interpretation="b-w")
    counts = array.array("I", bytes(samples.hist_find().write_to_memory()))
    running = itertools.accumulate(counts)
    p99 = next(level for level, count in enumerate(running) if count >= 0.99 * sum(counts))
    return {"mean": samples.avg(), "p99": p99, "max": samples.max()}


MADE = {"variants": variants, "full": full, "png": png}
JUDGED = {"reference": reference, "ssim": ssim, "difference": difference}


def cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def answer(job):
    if job["kind"] in JUDGED:
        return JUDGED[job["kind"]](job)
    cpu, wall = cpu_seconds(), time.perf_counter()
    with open(job["input"], "rb") as file:
        data = file.read()
    made = MADE[job["kind"]](data, job)
    cpu, wall = cpu_seconds() - cpu, time.perf_counter() - wall
    files = {}
    for name, data in made.items():
        path = os.path.join(job["output"], name)
        files[name.split(".")[0]] = path
        with open(path, "wb") as file:
            file.write(data)
    return {"cpu_ms": cpu * 1e3, "wall_ms": wall * 1e3, "files": files}


def say(line):
    print(json.dumps(line), flush=True)


version = ".".join(str(pyvips.version(part)) for part in range(3))
say({"version": f"libvips {version} (pyvips {pyvips.__version__})"})
for line in sys.stdin:
    try:
        say(answer(json.loads(line)))
    except Exception as error:  # Whatever it is, the bench is to hear of it.
        say({"error": f"{type(error).__name__}: {error}"})
