"""How fast radiographs are prepared, against what people use now, on the same files in one run.

    OMP_NUM_THREADS=1 python benchmarks/prepare.py            # writes benchmarks/prepare.md

Every reader takes a file to a grey image of 512 pixels (longer side), in one thread; rounds are interleaved, so that what
else the machine does falls on all of them, and medians are compared. The full-size image is made of a genuine radiograph
(`conformance/RG2_RLE`), enlarged to 2500 × 2000 with 12 bits and detector noise, in each transfer syntax; the mix is of
`paediatric_cxr`. Both are looked for in ../shared/data, or RADTRANSFER_SHARED.

MONAI, pydicom, pylibjpeg and OpenCV come with `make setup`. The other peers are the extra `bench`, kept out of the lock's
environment, e.g.:

    uv pip install --target PEERS --no-deps SimpleITK torchxrayvision dicomsdl scikit-image lazy-loader imageio tifffile
    PYTHONPATH=PEERS python benchmarks/prepare.py

A peer that is not installed is said to be absent. The readers do less than `prepare`: MONAI skips window and polarity,
torchxrayvision the window, and none checks the stream, notices padding or takes fingerprints.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from pipelines.imaging import picture
from pipelines.imaging.decode import decode
from pipelines.imaging.radiograph import Recipe, prepare, read
from pipelines.imaging.workers import prepare_files

SIZE, SMALL = 512, 224
OURS, FLOOR = "radtransfer", "raw decoder + cv2.resize (INTER_AREA)"
JPEG = "1.2.840.10008.1.2.4."
HERE = Path(__file__).parent
SHARED = Path(os.environ.get("RADTRANSFER_SHARED", HERE.parents[1] / "shared")) / "data"

Image = NDArray[Any]
Reader = Callable[[Path], Image]


def _jpeg_2000(pixels: Image) -> bytes:
    return imagecodecs.jpeg2k_encode(pixels, level=0, reversible=True, codecformat="J2K", bitspersample=12)


def _lossy_jpeg_2000(pixels: Image) -> bytes:
    return imagecodecs.jpeg2k_encode(pixels, level=60, reversible=False, codecformat="J2K", bitspersample=12)


def _jpeg_8(pixels: Image) -> bytes:
    return imagecodecs.jpeg8_encode((pixels >> 4).astype(np.uint8), level=95)


SYNTAXES: dict[str, tuple[str, Callable[[Image], bytes] | None, int]] = {
    "J2K": (JPEG + "90", _jpeg_2000, 12),
    "J2K lossy": (JPEG + "91", _lossy_jpeg_2000, 12),
    "HTJ2K": (JPEG + "201", imagecodecs.htj2k_encode, 12),
    "JPEG-LS": (JPEG + "80", imagecodecs.jpegls_encode, 12),
    "JPEG lossless": (
        JPEG + "70",
        lambda pixels: imagecodecs.jpeg8_encode(pixels, bitspersample=12, lossless=True, predictor=1),
        12,
    ),
    "RLE": ("1.2.840.10008.1.2.5", None, 12),
    "uncompressed": ("1.2.840.10008.1.2.1", None, 12),
    "JPEG 8": (JPEG + "50", _jpeg_8, 8),
    "JPEG 12": (JPEG + "51", lambda pixels: imagecodecs.jpeg8_encode(pixels, bitspersample=12, level=95), 12),
}
DECODERS: dict[str, Callable[[bytes], Any]] = {
    "50": imagecodecs.jpeg8_decode,
    "51": imagecodecs.jpeg8_decode,
    "57": imagecodecs.jpeg8_decode,
    "70": imagecodecs.jpeg8_decode,
    "80": imagecodecs.jpegls_decode,
    "81": imagecodecs.jpegls_decode,
    "90": imagecodecs.jpeg2k_decode,
    "91": imagecodecs.jpeg2k_decode,
    "201": imagecodecs.htj2k_decode,
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--mix", type=int, default=120, help="images of paediatric_cxr")
    arguments.add_argument("--memory", type=int, default=10_000, help="files of the memory run")
    arguments.add_argument("--memory-only", action="store_true", help="do the memory run, in this process, and print it")
    options = arguments.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        arguments.error("expected OMP_NUM_THREADS=1 in the environment, so that every reader has one thread")
    warnings.simplefilter("ignore")
    cv2.setNumThreads(1)
    mix = _spread(sorted((SHARED / "paediatric_cxr").rglob("*.dcm")), options.mix)
    if options.memory_only:
        print("\n".join(_memory(mix, options.memory)))
        return
    readers, absent = _readers(SIZE)
    with tempfile.TemporaryDirectory() as folder:
        files = _full_size(Path(folder))
        full = {name: _timed(readers, [path], options.rounds) for name, path in files.items()}
        mixed = {
            f"mix to {SIZE}": _timed(readers, mix, max(2, options.rounds // 2)),
            f"mix to {SMALL}": _timed(_readers(SMALL)[0], mix, max(2, options.rounds // 2)),
        }
        memory = [sys.executable, __file__, "--memory-only", "--memory", str(options.memory), "--mix", str(options.mix)]
        text = "\n".join(
            [
                *_heading(options.rounds, len(mix), absent),
                *_table({**full, **mixed}, readers),
                *_fidelity(files, mix),
                *_scaling([files["J2K"]] * 32, mix * 2),
                subprocess.run(memory, check=True, stdout=subprocess.PIPE, text=True).stdout.rstrip(),
            ]
        )
    (HERE / "prepare.md").write_text(text + "\n")
    print(text)


def _readers(size: int) -> tuple[dict[str, Reader], list[str]]:
    """The readers that are installed, and the names of the others."""
    recipe = Recipe(size, "uint8", (0.5, 99.5))
    readers: dict[str, Reader] = {OURS: lambda path: prepare(read(path), recipe).array}
    absent = []
    for name, make in PEERS.items():
        try:
            readers[name] = make(size)
        except ImportError:
            absent.append(name)
    return {**readers, FLOOR: lambda path: _resized(_decoder(path), size), "raw decoder alone": _decoder}, absent


def _monai(size: int) -> Reader:
    import torch
    from monai.data import PydicomReader
    from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Resized, ScaleIntensityd

    torch.set_num_threads(1)
    chain = Compose(
        [
            LoadImaged("image", reader=PydicomReader(swap_ij=False)),
            EnsureChannelFirstd("image"),
            Resized("image", size, size_mode="longest", mode="area"),
            ScaleIntensityd("image"),
        ]
    )
    return lambda path: chain({"image": path})["image"].numpy()[0]


def _torchxrayvision(size: int) -> Reader:
    import torchxrayvision as xrv

    resizer = xrv.datasets.XRayResizer(size, engine="cv2")
    return lambda path: resizer(xrv.utils.read_xray_dcm(str(path))[None])[0]


def _pydicom(size: int) -> Reader:
    import pylibjpeg  # noqa: F401  # pydicom takes it where it is installed

    def show(path: Path) -> Image:
        dataset = dcmread(path)
        values = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
        return _resized(values.max() - values if dataset.PhotometricInterpretation == "MONOCHROME1" else values, size)

    return show


def _simpleitk(size: int) -> Reader:
    import SimpleITK as sitk  # noqa: N813  # its own name for itself

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return lambda path: _resized(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).squeeze().astype(np.float32), size)


def _dicomsdl(size: int) -> Reader:
    import dicomsdl

    return lambda path: _resized(dicomsdl.open(str(path)).pixelData(storedvalue=True).astype(np.float32), size)


PEERS: dict[str, Callable[[int], Reader]] = {
    "MONAI LoadImaged + Resized + ScaleIntensityd": _monai,
    "torchxrayvision read_xray_dcm + XRayResizer": _torchxrayvision,
    "pydicom + pylibjpeg + OpenCV": _pydicom,
    "SimpleITK + OpenCV": _simpleitk,
    "dicomsdl + OpenCV": _dicomsdl,
}


def _decoder(path: Path) -> Image:
    """Stored values from a frame that is found with as little as possible: what no reader can do without."""
    dataset = dcmread(path)
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        cells = np.frombuffer(dataset.PixelData, f"u{dataset.BitsAllocated // 8}", dataset.Rows * dataset.Columns)
    elif syntax == "1.2.840.10008.1.2.5":
        cells = np.frombuffer(imagecodecs.dicomrle_decode(_first(dataset), "<u2"), "<u2")
    else:
        cells = DECODERS[syntax.rpartition(".")[2]](_first(dataset))
    return cells.reshape(dataset.Rows, dataset.Columns)


def _first(dataset: Dataset) -> bytes:
    return get_frame(dataset.PixelData, 0, number_of_frames=1)


def _resized(values: Image, size: int) -> Image:
    scale = size / max(values.shape)
    return cv2.resize(values, (round(values.shape[1] * scale), round(values.shape[0] * scale)), interpolation=cv2.INTER_AREA)


def _full_size(folder: Path) -> dict[str, Path]:
    stored = decode(read(SHARED / "conformance" / "RG2_RLE.dcm")).astype(np.float32)
    noise = np.random.default_rng(1).normal(0, 4, (2500, 2000))
    enlarged = cv2.resize(stored, (2000, 2500), interpolation=cv2.INTER_CUBIC) * 4 + noise
    pixels = np.clip(np.rint(enlarged), 0, 4095).astype(np.uint16)
    return {name: _written(folder / f"{number}.dcm", pixels, *SYNTAXES[name]) for number, name in enumerate(SYNTAXES)}


def _written(path: Path, pixels: Image, syntax: str, encode: Callable[[Image], bytes] | None, bits: int) -> Path:
    dataset, meta = Dataset(), FileMetaDataset()
    meta.TransferSyntaxUID = "1.2.840.10008.1.2.1" if encode is None else syntax
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = "2.25.1"
    dataset.file_meta, dataset.Modality, dataset.PatientID = meta, "DX", "bench"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 if bits == 8 else 16, bits, bits - 1
    dataset.WindowCenter, dataset.WindowWidth = 1 << (bits - 1), 1 << bits
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    dataset.PixelData = pixels.tobytes() if encode is None else encapsulate([encode(pixels)])
    dataset["PixelData"].VR = "OW" if encode is None else "OB"
    dataset["PixelData"].is_undefined_length = encode is not None
    if syntax == "1.2.840.10008.1.2.5":
        dataset.compress(syntax, generate_instance_uid=False)
    dcmwrite(path, dataset, enforce_file_format=True)
    return path


def _spread(paths: list[Path], count: int) -> list[Path]:
    return [paths[place] for place in np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int)]


Times = dict[str, tuple[float, float]]


def _timed(readers: dict[str, Reader], paths: list[Path], rounds: int) -> Times:
    """Median CPU and wall milliseconds for an image, by reader; NaN for a reader that cannot read one of them."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in readers}
    for number in range(rounds + 1):  # the first round warms up
        for name, reader in readers.items():
            started = time.process_time(), time.perf_counter()
            try:
                for path in paths:
                    reader(path)
            except Exception as error:
                print(f"{name}: {type(error).__name__}", file=sys.stderr)
                spent[name].append((float("nan"), float("nan")))
                continue
            ended = time.process_time(), time.perf_counter()
            if number:
                spent[name].append(tuple((b - a) * 1000 / len(paths) for a, b in zip(started, ended, strict=True)))
    return {name: tuple(statistics.median(column) for column in zip(*times, strict=True)) for name, times in spent.items()}


def _heading(rounds: int, mixed: int, absent: list[str]) -> Iterator[str]:
    yield f"""# Speed of prepare

Processor milliseconds for an image, in one thread: medians of {rounds} interleaved rounds ({max(2, rounds // 2)} of the mix), and
in brackets how many times the time of `radtransfer` that is (processor / wall). Columns: one radiograph of 2500 × 2000
pixels with 12 bits, in each transfer syntax, to {SIZE} pixels; and {mixed} images of `paediatric_cxr` (long side 768, six
syntaxes), to {SIZE} and to {SMALL} pixels, which is the default. `radtransfer` reads the header, checks the stream, decodes,
resamples, applies modality LUT, window and polarity, and takes both fingerprints. The peers do less: MONAI neither window nor
polarity, torchxrayvision no window, SimpleITK and dicomsdl here only stored values and a resize. Made by
`benchmarks/prepare.py`, which says how to install the peers; the machine is shared, so compare within a column."""
    if absent:
        yield f"\nAbsent in this run: {', '.join(absent)}."
    yield ""


def _table(columns: dict[str, Times], readers: dict[str, Reader]) -> Iterator[str]:
    yield "| | " + " | ".join(columns) + " |"
    yield "|---|" + "---|" * len(columns)
    for name in readers:
        cells = []
        for times in columns.values():
            cpu, wall = times[name]
            ratio = "" if name == OURS else f" (× {cpu / times[OURS][0]:.1f} / {wall / times[OURS][1]:.1f})"
            cells.append("–" if np.isnan(cpu) else f"{cpu:.1f}{ratio}")
        yield f"| {name} | " + " | ".join(cells) + " |"
    peers = [name for name in readers if name in PEERS]
    yield "\nTimes faster than the fastest peer, by processor time: " + ", ".join(
        f"{column} {np.nanmin([times[name][0] for name in peers]) / times[OURS][0]:.1f}" for column, times in columns.items()
    )
    yield f"\nTime as a multiple of {FLOOR}: " + ", ".join(
        f"{column} {times[OURS][0] / times[FLOOR][0]:.2f}" for column, times in columns.items()
    )


def _fidelity(files: dict[str, Path], mix: list[Path]) -> Iterator[str]:
    yield "\n## Fidelity of reading at a lower resolution\n"
    yield "PSNR, in decibels, of the prepared image (65,536 levels) against that of full decoding and area resampling."
    yield "Several images: lowest, median. Syntaxes and sizes at which the image is decoded in full do not appear.\n"
    yield "| file | 224 | 512 |\n|---|---|---|"
    genuine = {path.stem: [path] for path in sorted((SHARED / "conformance").glob("*J2K*.dcm"))}
    whole = {
        folder: sorted((SHARED / folder).rglob("*.dcm")) if folder == "adult_cxr" else mix
        for folder in ("paediatric_cxr", "adult_cxr")
    }
    for name, paths in ({name: [path] for name, path in files.items()} | genuine | whole).items():
        cells = [_psnr(paths, size) for size in (224, 512)]
        if any(cells):
            yield f"| {name} | " + " | ".join(cell or "–" for cell in cells) + " |"


def _psnr(paths: list[Path], size: int) -> str:
    recipe, found, halved = Recipe(size, "uint16", (0.5, 99.5)), [], set()
    for path in paths:
        dataset = read(path)
        reduced = prepare(dataset, recipe)
        if reduced.reduction == 1:
            continue
        with mock.patch.object(picture, "of_stream", return_value=None):
            full = prepare(dataset, recipe)
        error = np.mean((reduced.array.astype(float) - full.array) ** 2)
        found.append(10 * np.log10(65535**2 / error))
        halved.add(f"1/{reduced.reduction:.0f}")
    if len(found) < 2:
        return "".join(f"{value:.1f} ({', '.join(halved)})" for value in found)
    return f"{min(found):.1f}, {statistics.median(found):.1f} ({', '.join(sorted(halved))}; {len(found)} images)"


def _scaling(large: list[Path], mix: list[Path]) -> Iterator[str]:
    yield f"""
## Cores

By `prepare_files` to {SIZE} pixels, medians of three, one thread a process: images a second in wall time, and processor
milliseconds for an image, of all processes together. This machine has {os.cpu_count()} cores, which other work shares, so
the second says more: with two processes an image costs as much as with one, and nothing waits but for a core.

| files | 1 process | 2 processes | gain | processor time, 1 process | 2 processes |
|---|---|---|---|---|---|"""
    for name, paths in (("2500 × 2000, J2K", large), ("mix", mix)):
        runs: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
        for _ in range(3):
            for workers, results in runs.items():
                results.append(_run(paths, workers))
        (one, one_cpu), (two, two_cpu) = (map(statistics.median, zip(*runs[workers], strict=True)) for workers in (1, 2))
        yield f"| {name} | {one:.0f} | {two:.0f} | × {two / one:.2f} | {one_cpu:.1f} ms | {two_cpu:.1f} ms |"


def _run(paths: list[Path], workers: int) -> tuple[float, float]:
    """Images a second, and processor milliseconds for an image, once the processes have started."""
    outcomes = prepare_files(paths, Recipe(SIZE, "uint8", (0.5, 99.5)), workers)
    next(outcomes)
    started, busy = time.perf_counter(), _busy()
    count = sum(1 for _ in islice(outcomes, len(paths) - 2))  # not the last one, at which the processes end
    rate, spent = count / (time.perf_counter() - started), (_busy() - busy) * 1000 / count
    outcomes.close()
    return rate, spent


def _busy() -> float:
    """Processor seconds of this process and those below it, so far."""
    ticks = 0
    for pid in _tree(os.getpid()):
        with contextlib.suppress(OSError):
            ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _memory(mix: list[Path], count: int) -> Iterator[str]:
    """Through the stage itself: a workspace whose manifest names `count` files."""
    import pandas as pd

    from pipelines.config import Config, PrepareSection
    from pipelines.paths import Paths
    from pipelines.records import MANIFEST
    from pipelines.stages.prepare import run

    held: list[float] = []
    threading.Thread(target=_watch, args=(held,), daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        paths = Paths(Path(folder))
        (paths.data / "dicom").mkdir(parents=True)
        rows = []
        for number in range(count):
            (paths.data / f"dicom/{number}.dcm").symlink_to(mix[number % len(mix)].resolve())
            rows.append({**dict.fromkeys(MANIFEST), "image": f"2.25.{number}", "file": f"dicom/{number}.dcm"})
        pd.DataFrame(rows).to_parquet(paths.manifest)
        summary = run(Config(prepare=PrepareSection(size=SIZE, workers=2)), paths)
    speed, early, most = f"{summary.images_per_second:,.0f} images/s", held[len(held) // 4], max(held)
    yield f"""
## Memory

{summary.images:,} files at {SIZE} pixels through the stage in 2 processes ({speed} in wall time): all processes
together, shared pages counted once, held {early:,.0f} MB after a quarter of the time and {most:,.0f} MB at most."""


def _watch(held: list[float]) -> None:
    """Twice a second, what this process and those below it hold (proportional set size), in MB."""
    while True:
        held.append(sum(_held(pid) for pid in _tree(os.getpid())))
        time.sleep(0.5)


def _tree(root: int) -> list[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = [root]
    for pid in found:  # grows as it is walked
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _held(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


if __name__ == "__main__":
    main()
