"""Reading the text of a radiograph without a network: PP-OCRv6's recogniser and detector, run by OpenCV.

The two models are files of the PyPI package `rapidocr` (Apache-2.0, package and models). Its code is not used, since it may
download; nor is onnxruntime, which keeps a device identifier in the home folder and sends telemetry. What is read stays in the
process: it is compared with a vocabulary and forgotten.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.dicom.text_lines import Box, Gray
from pipelines.errors import WeightsError

RECOGNISER = ("PP-OCRv6_rec_small.onnx", "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884")
DETECTOR = ("PP-OCRv6_det_small.onnx", "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f")

_CHARACTERS = b"\x0a\x09character\x12"
_LINE_HEIGHT = 48  # what the recogniser was trained on
_LINE_WIDTHS = (48, 1600)
_STRIDE = 32  # of the detector
_PROBABLE = 0.3  # DBNet's own thresholds, of a pixel and of a region
_REGION = 0.5
_UNCLIP = 0.45  # it marks a shrunken core of each line; this times its height restores the line


@dataclass(frozen=True, repr=False)
class Reading:
    """What a line says.

    Attributes:
        text: as read; never to be shown, logged or put into an error.
        confidence: mean probability of its characters; 0 where nothing was read.
    """

    text: str
    confidence: float


def check_models() -> None:
    """Make sure that both models are here and are those that the thresholds were measured with.

    Raises:
        WeightsError: the package is not installed, or a file is missing or altered.
    """
    for name, sha256 in (RECOGNISER, DETECTOR):
        _content(name, sha256)


def read_line(gray: Gray) -> Reading:
    """Read one line of text that runs from left to right.

    Args:
        gray: the line with a little of what surrounds it (rows, columns), of either polarity.
    """
    width = round(gray.shape[1] * _LINE_HEIGHT / gray.shape[0])
    line = cv2.resize(_stretched(gray), (min(max(width, _LINE_WIDTHS[0]), _LINE_WIDTHS[1]), _LINE_HEIGHT))
    probability = _run(RECOGNISER, line)[0]
    # Connectionist temporal classification: a character is where the best class changes to one that is not blank.
    best = probability.argmax(axis=1)
    new = (best != 0) & (best != np.concatenate([[0], best[:-1]]))
    characters = _characters()
    text = "".join(characters[index] for index in best[new])
    confidence = float(probability.max(axis=1)[new].mean()) if new.any() else 0.0
    return Reading(text.strip(), confidence)


def detect(gray: Gray, *, trust: float = 1.0) -> list[Box]:
    """Lines of text, wherever they are (Liao et al. 2020, "Real-time scene text detection with differentiable binarization").

    Slower than `text_lines.find_lines` by a factor of ten or more, and independent of it.

    Args:
        trust: divides the detector's thresholds; more than 1 where text is known to be and its faint end is looked for.
    """
    rows, columns = gray.shape
    probability = _text_probability(gray)
    mask = cv2.dilate((probability > _PROBABLE / trust).astype(np.uint8), np.ones((2, 2), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8, ltype=cv2.CV_32S)
    score = np.bincount(labels.ravel(), probability.ravel(), count) / np.maximum(stats[:, cv2.CC_STAT_AREA], 1)
    found = []
    for left, top, width, height in stats[1:][score[1:] >= _REGION / trust][:, :4].tolist():
        if min(width, height) >= 3:
            margin = round(_UNCLIP * min(width, height)) + 1
            found.append(Box(top, left, top + height, left + width).grown(margin, rows, columns))
    return found


def glance(gray: Gray) -> float:
    """The detector's highest probability of text in a small part of an image; several times faster than reading it."""
    return float(_text_probability(_stretched(gray)).max())


def _text_probability(gray: Gray) -> NDArray[Any]:
    rows, columns = gray.shape
    padded = cv2.copyMakeBorder(gray, 0, -rows % _STRIDE, 0, -columns % _STRIDE, cv2.BORDER_REPLICATE)
    probability: NDArray[Any] = _run(DETECTOR, padded)[0, 0, :rows, :columns]
    return probability


def _stretched(gray: Gray) -> Gray:
    low, high = int(gray.min()), int(gray.max())
    factor = 255 / max(high - low, 1)
    stretched: Gray = cv2.convertScaleAbs(gray, alpha=factor, beta=-low * factor)
    return stretched


def _run(model: tuple[str, str], gray: Gray) -> NDArray[Any]:
    network = _network(*model)
    scaled = gray.astype(np.float32) / np.float32(127.5) - np.float32(1)
    network.setInput(np.ascontiguousarray(np.broadcast_to(scaled, (1, 3, *gray.shape))))
    output: NDArray[Any] = network.forward()
    return output


@cache
def _network(name: str, sha256: str) -> cv2.dnn.Net:
    return cv2.dnn.readNetFromONNX(np.frombuffer(_content(name, sha256), np.uint8))


@cache
def _characters() -> tuple[str, ...]:
    """Class → character, out of the model's own metadata; the first is CTC's blank, the last a space.

    The metadata are pairs of a key and a value, tagged and preceded by their lengths (ONNX's `StringStringEntryProto`).
    """
    content = _content(*RECOGNISER)
    start = content.index(_CHARACTERS) + len(_CHARACTERS)
    length = shift = 0
    while True:
        byte = content[start]
        length, shift, start = length | (byte & 0x7F) << shift, shift + 7, start + 1
        if byte < 0x80:
            break
    return ("", *content[start : start + length].decode().split("\n"), " ")


def _content(name: str, sha256: str) -> bytes:
    package = importlib.util.find_spec("rapidocr")
    if package is None or not package.submodule_search_locations:
        raise WeightsError("the models that read burned-in text are not installed; run `pip install rapidocr`")
    path = Path(package.submodule_search_locations[0]) / "models" / name
    if not path.is_file():
        raise WeightsError(f"{name} is missing from the package rapidocr; install it again")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise WeightsError(
            f"{name} of the package rapidocr is not the one that was tested; install the version of requirements.lock"
        )
    return content
