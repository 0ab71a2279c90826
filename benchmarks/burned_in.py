"""Burned-in text: how much of it is found and blanked, what is blanked by mistake, and what it costs.

    python benchmarks/burned_in.py [--drawn 300] [--every 1] > benchmarks/burned_in.md

Real radiographs of ../shared, on some of which names are burned in (BurnedInAnnotation YES). Times of day and study IDs stand on
others, whose headers do not say so: those lists were made by eye. On top of that, invented names, dates and IDs are drawn into
children's radiographs in which nothing is found. The thresholds were chosen on such drawings, with other random numbers but
on the same radiographs and in some of the same fonts, and with an eye on the false alarms and the study IDs below: no figure
here is that of a radiograph never seen.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipelines.dicom.burned_in import Kind, clean, find
from pipelines.dicom.deidentify import Accept, deidentify
from pipelines.dicom.markers import harmless
from pipelines.dicom.pseudonyms import Pseudonyms
from pipelines.dicom.text_lines import find_lines, working_images
from pipelines.dicom.text_reading import detect, read_line
from pipelines.errors import RefusedFileError
from pipelines.imaging.decode import decode

SHARED = Path(os.environ.get("RADTRANSFER_SHARED") or Path(__file__).parents[2] / "shared")
TRUETYPE = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
FONTS = (
    *("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf", "DejaVuSerif-BoldItalic.ttf"),
    *(cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX),
)
NAMES = ("MUELLER ANNA", "Okafor, Chidi", "SMITH^JOHN", "Ferreira da Silva", "NGUYEN THI LAN", "Kowalska Ewa", "Haddad Omar")
HEIGHTS = (9, 11, 14, 18, 24, 34, 48)  # of a capital, in pixels of an image of 768
STYLES = ("white", "black", "faint white", "faint black", "white on black", "black on white")
FAINT = 0.14  # of the range between the 0.5th and the 99.5th percentile
TURNS = {0: "left to right", 1: "upwards", 3: "downwards"}
SHOWS = 0.02  # of that range, by which ink differs from what is under it; black on black does not
BLANKED = 0.98  # of the ink of a drawn text, for it to count as gone

# Text that no header admits to, found by eye; the files of paediatric_cxr by the end of their UIDs.
TIMES = "902314907751 898985255859 302835485296 843314848408 013150678871 007977923132 781614732594 641358018988 943781361938"
STUDY_IDS = (
    "709264011710 187250764224 386858935629 040342513636 763415585813 814571220316 656980676680 149103646541 684425359159 "
    "116110632404 258451612700 272464085802 560215848975 269677683992 382261717231 915576983635 434422223587 433807358180"
)
NUMBERS = "483257251015"

Pixels = NDArray[Any]


@dataclass(frozen=True)
class Radiograph:
    """One image: its stored values, and what is known of text in it."""

    name: str
    stored: Pixels
    text: str


@dataclass(frozen=True)
class Drawn:
    """An image with an invented text, which pixels its ink changes, and what it looks like."""

    stored: Pixels
    ink: NDArray[np.bool_]
    look: dict[str, str]


def radiographs(folder: str, every: int) -> list[Radiograph]:
    known = {
        stem: text for stems, text in ((TIMES, "time"), (STUDY_IDS, "study ID"), (NUMBERS, "number")) for stem in stems.split()
    }
    found = []
    for path in sorted((SHARED / "data" / folder).rglob("*.dcm"))[::every]:
        dataset = pydicom.dcmread(path)
        text = "name" if dataset.get("BurnedInAnnotation") == "YES" else known.get(path.stem, "")
        found.append(Radiograph(path.stem, decode(dataset), text))
    return found


def draw(image: Pixels, random: np.random.Generator) -> Drawn:
    """Draw an invented text somewhere."""
    height, style = int(random.choice(HEIGHTS)), str(random.choice(STYLES))
    turns, font = int(random.choice((0, 0, 1, 3))), FONTS[random.integers(len(FONTS))]
    size = max(8, round(height * max(image.shape) / 768))
    covered = np.rot90(lettering(invented(random), font, size), turns)
    while covered.shape[0] > 0.9 * image.shape[0] or covered.shape[1] > 0.9 * image.shape[1]:
        height, size = height * 2 // 3, size * 2 // 3
        covered = np.rot90(lettering(invented(random), font, size), turns)
    border = bool(random.random() < 0.5)
    top, left = (place(whole, part, border, random) for whole, part in zip(image.shape, covered.shape, strict=True))
    window = (slice(top, top + covered.shape[0]), slice(left, left + covered.shape[1]))
    drawn = image.astype(np.float64)
    drawn[window] = printed(drawn[window], covered, style, image)
    ink = np.zeros(image.shape, bool)
    ink[window] = (covered > 0.5) & (np.abs(drawn - image)[window] >= SHOWS * contrast_of(image))
    look = {"capitals": f"{height} px", "style": style, "direction": TURNS[turns], "font": Path(str(font)).stem}
    place_name = "border" if border else "anatomy"
    return Drawn(np.rint(drawn).astype(image.dtype), ink, {**look, "place": place_name})


def invented(random: np.random.Generator) -> str:
    name = NAMES[random.integers(len(NAMES))]
    year, month, day = random.integers(1930, 2024), random.integers(1, 13), random.integers(1, 29)
    number = random.integers(10**6, 10**8)
    texts = (
        name,
        f"{year}-{month:02}-{day:02}",
        f"{number}",
        f"{name} {year}",
        f"ID: {number}",
        f"DOB {day:02}.{month:02}.{year}",
    )
    return texts[random.integers(len(texts))]


def lettering(text: str, font: str | int, height: int) -> NDArray[np.float64]:
    """How much of each pixel (rows, columns) is ink."""
    if isinstance(font, int):
        scale, thick = cv2.getFontScaleFromHeight(font, height, 1), max(1, round(height / 10))
        (wide, high), below = cv2.getTextSize(text, font, scale, thick)
        canvas = np.zeros((high + below + 6, wide + 6), np.uint8)
        return cv2.putText(canvas, text, (3, high + 3), font, scale, (255,), thick, cv2.LINE_AA) / 255
    face = ImageFont.truetype(TRUETYPE / font, height / 0.73)
    left, top, right, bottom = face.getbbox(text)
    picture = Image.new("L", (round(right - left) + 4, round(bottom - top) + 4))
    ImageDraw.Draw(picture).text((2 - left, 2 - top), text, 255, font=face)
    return np.asarray(picture) / 255


def place(whole: int, part: int, border: bool, random: np.random.Generator) -> int:
    if not border:
        return int(random.integers(whole // 6, max(whole // 6 + 1, whole * 5 // 6 - part)).clip(0, whole - part))
    near = int(random.integers(2, max(3, whole // 20)))
    return min(max(near if random.random() < 0.5 else whole - part - near, 0), whole - part)


def printed(under: NDArray[np.float64], covered: NDArray[np.float64], style: str, image: Pixels) -> NDArray[np.float64]:
    low, high = float(image.min()), float(image.max())
    if " on " in style:
        paper, ink = (low, high) if style.startswith("white") else (high, low)
        return paper + (ink - paper) * covered
    middle = float(np.median(under))
    contrast = contrast_of(image)
    if style.startswith("faint"):
        step = FAINT * contrast * (1 if style.endswith("white") else -1)
        return np.clip(under + (step if low <= middle + step <= high else -step) * covered, low, high)
    ink = high if style == "white" else low
    if abs(ink - middle) < FAINT * contrast:
        ink = low + high - ink
    return under + (ink - under) * covered


def contrast_of(image: Pixels) -> float:
    return float(np.subtract(*np.percentile(image, (99.5, 0.5))))


def removed(drawn: Drawn) -> tuple[bool, bool]:
    """Whether something was blanked where the text is, and whether nothing of it was left out, or the image is refused."""
    cleaned = clean(drawn.stored)
    changed = (cleaned.stored != drawn.stored).astype(np.uint8)
    # Ink on a surrounding of its own value does not change: what lies between changed pixels was blanked, too.
    rows, columns = np.nonzero(drawn.ink)
    across = max(15, min(int(np.ptp(rows)), int(np.ptp(columns))) | 1)
    blanked = cv2.morphologyEx(changed, cv2.MORPH_CLOSE, np.ones((across, across), np.uint8))
    share = float(blanked[drawn.ink].mean())
    return share > 0.2, cleaned.left > 0 or share >= BLANKED


def reads(image: Pixels) -> bool:
    """The usual way: PP-OCRv6's detector over the whole image, and everything that it finds is read."""
    for working in working_images(image):
        for box in detect(working.gray):
            reading = read_line(working.gray[box.top : box.bottom, box.left : box.right])
            if reading.confidence >= 0.5 and not harmless(reading.text) and sum(map(str.isalnum, reading.text)) > 1:
                return True
    return False


WAYS: dict[str, Callable[[Pixels], bool]] = {
    "rows of strokes, then the recogniser (what ingest does)": lambda image: any(r.kind is not Kind.MARKER for r in find(image)),
    "rows of strokes alone": lambda image: any(find_lines(w.gray, 0.0) for w in working_images(image)),
    "PP-OCRv6's detector, then the recogniser": reads,
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--drawn", type=int, default=300, help="images to draw invented text on")
    arguments.add_argument("--every", type=int, default=1, help="take every n-th real radiograph")
    options = arguments.parse_args()
    cv2.setNumThreads(1)
    sets = {folder: radiographs(folder, options.every) for folder in ("paediatric_cxr", "adult_cxr")}
    print(f"# Burned-in text\n\n{(__doc__ or '').split(chr(10) * 2)[2].strip()}\n")
    on_real(sets)
    clear = [image for image in sets["paediatric_cxr"] if not image.text and not find(image.stored)]
    on_drawn(clear, options.drawn)
    on_ingest()
    print("\nRun again: `python benchmarks/burned_in.py > benchmarks/burned_in.md`.")


def on_real(sets: dict[str, list[Radiograph]]) -> None:
    print("Real radiographs: images in which text other than markers and exposure technique is found, and CPU ms per image,")
    print("decoding not counted. Most of what is found in the adults' images is lead letters with a technologist's initials.\n")
    print("| | " + " | ".join(WAYS) + " |\n|---|" + "---|" * len(WAYS))
    groups = [
        (f"{folder}, {text or 'none known'}", [image for image in images if image.text == text])
        for folder, images in sets.items()
        for text in ("name", "time", "study ID", "number", "")
    ]
    for label, images in groups:
        if images:
            cells = [counted(way, images) for way in WAYS.values()]
            print(f"| {label} | " + " | ".join(cells) + " |", flush=True)


def counted(way: Callable[[Pixels], bool], images: Sequence[Radiograph]) -> str:
    way(images[0].stored)
    found, spent = 0, []
    for image in images:
        start = time.process_time()
        found += way(image.stored)
        spent.append(1000 * (time.process_time() - start))
    return f"{found} of {len(images)}; {statistics.median(spent):.0f} ms, mean {statistics.mean(spent):.0f}"


def on_drawn(clear: Sequence[Radiograph], number: int) -> None:
    random = np.random.default_rng(20_260_000)
    total, found, gone = Counter[str](), Counter[str](), Counter[str]()
    for index in range(number):
        drawn = draw(clear[index % len(clear)].stored, random)
        touched, safe = removed(drawn)
        for name in ("all", *(f"{kind}: {value}" for kind, value in drawn.look.items())):
            total[name] += 1
            found[name] += touched
            gone[name] += safe
    print(f"\nInvented text on {number} radiographs without text: found; and all ink that shows blanked, or the image refused.\n")
    print("| | found | gone |\n|---|---|---|")
    for name in sorted(total, key=lambda name: (name != "all", name.split(":")[0], len(name), name)):
        print(f"| {name} | {found[name]} of {total[name]} | {gone[name]} |")


def on_ingest() -> None:
    """What it costs a whole ingest: header, decoding, search, and where something is found, blanking and proof."""
    keyed = Pseudonyms(b"a key for this benchmark")
    print("\nDe-identification of every fifth file, one core.\n")
    print("| | quarantine | clean |\n|---|---|---|")
    for folder in ("paediatric_cxr", "adult_cxr"):
        contents = [path.read_bytes() for path in sorted((SHARED / "data" / folder).rglob("*.dcm"))[::5]]
        cells = [ingested(contents, keyed, Accept(("CR", "DX", "RG"), mode)) for mode in ("quarantine", "clean")]
        print(f"| {folder}, {len(contents)} files | " + " | ".join(cells) + " |", flush=True)


def ingested(contents: Sequence[bytes], keyed: Pseudonyms, accept: Accept) -> str:
    start, blanked, refused = time.process_time(), 0, 0
    for content in contents:
        try:
            done = deidentify(BytesIO(content), keyed, accept)
            blanked += done is not None and done.blanked
        except RefusedFileError:
            refused += 1
    spent = (time.process_time() - start) / len(contents)
    return f"{1000 * spent:.1f} ms a file, {1 / spent:.0f} files per CPU second; {blanked} blanked, {refused} refused"


if __name__ == "__main__":
    main()
