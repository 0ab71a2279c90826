"""The passports of published checkpoints, as a table, and the words for sources."""

from __future__ import annotations

from functools import partial

from pipelines.models.provenance import Passport
from pipelines.records import SELF_SUPERVISED

SCRATCH = "scratch"  # the source that holds no weights
SOURCES = ("imagenet", "radimagenet", "medical", "timm", SELF_SUPERVISED, SCRATCH)
"""What `train.weights` may name that is no checkpoint's own name: what weights come from, in one word."""

IMAGENET = "ImageNet-1k, 1.28 million photographs, 1000 classes"
TERMS = "ImageNet's own terms allow research and education only"
HALF = (0.5, 0.5, 0.5)

_torchvision = partial(
    Passport,
    source="imagenet",
    licence=f"BSD-3-Clause (torchvision); {TERMS}, so check before other use",
    trained_on=IMAGENET,
)


def _published(backbone: str, version: str, file: str, key_map: str, *, theirs: str | None = None, **other: object) -> Passport:
    """Of torchvision's: its own network is called as ours unless `theirs` says otherwise."""
    return _torchvision(
        name=f"torchvision-{backbone}-v{version[-1]}",
        backbone=backbone,
        architecture=f"torchvision {theirs or backbone}, IMAGENET1K_{version}",
        file=file,
        sha256=file.removesuffix(".pth")[-8:],
        key_map=f"torchvision-{key_map}",
        url=f"https://download.pytorch.org/models/{file}",
        **other,  # type: ignore[arg-type]
    )


_WIGHTMAN = {"notes": "trained by Ross Wightman (timm, Apache-2.0), ported by torchvision"}

PASSPORTS: tuple[Passport, ...] = (
    _published("resnet18", "V1", "resnet18-f37072fd.pth", "resnet"),
    _published("resnet34", "V1", "resnet34-b627a593.pth", "resnet"),
    _published("resnet50", "V1", "resnet50-0676ba61.pth", "resnet"),
    _published("resnet50", "V2", "resnet50-11ad3fa6.pth", "resnet"),
    _published("resnet101", "V1", "resnet101-63fe2227.pth", "resnet"),
    _published("resnet101", "V2", "resnet101-cd907fc2.pth", "resnet"),
    _published("densenet121", "V1", "densenet121-a639ec97.pth", "densenet"),
    _published("densenet169", "V1", "densenet169-b2777c0a.pth", "densenet"),
    _published("densenet201", "V1", "densenet201-c1103571.pth", "densenet"),
    _published("efficientnet_b0", "V1", "efficientnet_b0_rwightman-7f5810bc.pth", "efficientnet_b0", **_WIGHTMAN),
    _published("efficientnet_b1", "V1", "efficientnet_b1_rwightman-bac287d4.pth", "efficientnet_b1", input_size=240, **_WIGHTMAN),
    _published("efficientnet_b1", "V2", "efficientnet_b1-c27df63c.pth", "efficientnet_b1", input_size=240),
    _published("efficientnet_b2", "V1", "efficientnet_b2_rwightman-c35c1473.pth", "efficientnet_b2", input_size=288, **_WIGHTMAN),
    _published("efficientnet_b3", "V1", "efficientnet_b3_rwightman-b3899882.pth", "efficientnet_b3", input_size=300, **_WIGHTMAN),
    _published("efficientnet_b4", "V1", "efficientnet_b4_rwightman-23ab8bcd.pth", "efficientnet_b4", input_size=380, **_WIGHTMAN),
    _published("vit_b16", "V1", "vit_b_16-c867db91.pth", "vit", theirs="vit_b_16", reduction=16),
    _published("vgg16", "V1", "vgg16-397923af.pth", "vgg16"),
    _published(
        "inception_v3",
        "V1",
        "inception_v3_google-0cc3c7bd.pth",
        "inception_v3",
        input_size=299,
        reduction=64,
        mean=HALF,
        std=HALF,
        notes="Google's, from TensorFlow; torchvision's transform_input undoes ImageNet's normalisation for -1 to 1, as here",
    ),
    _published("mobilenet_v2", "V1", "mobilenet_v2-b0353104.pth", "mobilenet_v2"),
    _published("mobilenet_v2", "V2", "mobilenet_v2-7ebf99e0.pth", "mobilenet_v2"),
    Passport(
        name="timm-seresnet50",
        backbone="seresnet50",
        source="imagenet",
        architecture="timm legacy_seresnet50 (Cadene's se_resnet50)",
        file="se_resnet50-ce0d4300.pth",
        sha256="ce0d4300",
        licence=f"BSD-3-Clause (Cadene), Apache-2.0 (timm); {TERMS}",
        key_map="timm-seresnet50",
        trained_on=IMAGENET,
        url="https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-cadene/se_resnet50-ce0d4300.pth",
    ),
    Passport(
        name="mobilenet_v2-imagenet1k",
        backbone="mobilenet_v2",
        source="imagenet",
        architecture="mobilenet_v2 in torchvision's layout, width 1.0, 1000 classes",
        file="mobilenet_v2-imagenet1k.safetensors",
        sha256="ce1d501696f7ca82ed55dda84b70e34ad5eac0315f6cf240c6d70cb0de446c91",
        licence=f"Apache-2.0 (google-coral/test_data); {TERMS}",
        key_map="torchvision-mobilenet_v2",
        trained_on=IMAGENET,
        mean=HALF,
        std=HALF,
        golden=(0.383033, 0.303865, 0.317720, 0.376578, 0.250223, 0.252219, 0.283112, 0.400261),
        notes="tf2_mobilenet_v2_1.0_224_ptq.tflite, dequantised from int8, batch-norm statistics re-estimated; "
        "not measured on the ImageNet validation set",
    ),
)
