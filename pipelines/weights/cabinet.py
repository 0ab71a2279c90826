"""What passports there are, and verifying and fetching the checkpoints that they are about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import RadtransferError, WeightsError
from pipelines.paths import weights_folder
from pipelines.weights.adding import Description, add, normalised, plain
from pipelines.weights.summaries import Entry, Listing, Verification, Verified

if TYPE_CHECKING:
    from pipelines.models.provenance import Passport

CHECKPOINTS = (".pth", ".pt", ".safetensors", ".ckpt", ".bin")


def catalogue(backbone: str | None = None) -> Listing:
    """Every passport, of the table and of the weights folder, or those that fit `backbone`.

    Raises:
        ConfigurationError: there is no such backbone.
    """
    entries = [_entry(passport) for passport in _passports() if backbone in (None, passport.backbone)]
    if backbone and not entries:
        from pipelines.models import backbones

        backbones.resolve(backbone, "--backbone")
    order = ("here", "absent", "wanted")
    return Listing(str(weights_folder()), tuple(sorted(entries, key=lambda item: order.index(item.state))), _unusable())


def verify(names: Iterable[str] = ()) -> Verification:
    """Hold checkpoints against their passports and the publishers' networks: those named, or all that are here.

    A source names those that were added of it, and the published ones whose files are here. An added one whose file is gone is a
    failure; without names, so is a passport that cannot be read.

    Raises:
        WeightsError: there is no passport of a name, or no file of a source.
    """
    from pipelines.models import passports as known

    wanted, folder = tuple(names), weights_folder()
    passports = _passports(*wanted)
    meant = {name: known.answering(name, passports) for name in wanted}
    if unknown := [name for name, answering in meant.items() if not answering]:
        raise WeightsError(f"no passport is called {', '.join(unknown)}; see `radtransfer weights list`")
    asked = [passport for passport in passports if not wanted or any(passport in answering for answering in meant.values())]
    added = [passport for passport in asked if passport not in known.PASSPORTS]
    here = [passport for passport in asked if passport in added or passport.name in wanted or (folder / passport.file).is_file()]
    if absent := [name for name, answering in meant.items() if not any(passport in here for passport in answering)]:
        raise WeightsError(f"no file of {', '.join(absent)} is in {folder}; see `radtransfer weights list`")
    unread = () if wanted else tuple(_failed(reason, name) for name, reason in known.broken(folder).items())
    checked = tuple(_verified(passport, folder / passport.file) for passport in here) + unread
    return Verification(all(not item.failure for item in checked), checked)


def fetch(name: str, backbone: str | None = None) -> Verification:
    """Download a checkpoint by its passport's name, by source and backbone, or as `timm:NAME`, and verify it.

    timm publishes no hashes: that of what comes first is written into the passport, and holds from then on.

    Raises:
        WeightsError: nothing answers to the name, it has no address, cannot be downloaded, or has another hash.
    """
    from pipelines.models import passports
    from pipelines.models.families import timm_nets

    if name.startswith(timm_nets.PREFIX):
        return _fetched_from_timm(name)
    answering = passports.answering(name, (item for item in _passports(name) if backbone in (None, item.backbone)))
    if not answering:
        where = f" for {backbone}" if backbone else ""
        raise WeightsError(f"no passport is called {name}{where}; see `radtransfer weights list`")
    if len({passport.backbone for passport in answering}) > 1:
        known = ", ".join(dict.fromkeys(passport.backbone for passport in answering))
        raise WeightsError(f"{name}: several networks have it; name one with --backbone: {known}")
    found = passports.find(name, answering[0].backbone, key=f"weights fetch {name}")
    checked = _verified(found.passport, found.path)
    return Verification(not checked.failure, (checked,))


def _fetched_from_timm(backbone: str) -> Verification:
    """Download what timm names, and add it."""
    from pipelines.models import backbones, passports
    from pipelines.models.families import timm_nets

    name = backbone.removeprefix(timm_nets.PREFIX)
    backbones.resolve(backbone, f"weights fetch {backbone}")
    constants = timm_nets.constants(name)
    hub = constants.get("hf_hub_id")
    url = f"https://huggingface.co/{hub}/resolve/main/model.safetensors" if hub else constants.get("url")
    if not url or constants.get("custom_load"):
        raise WeightsError(f"{backbone}: timm names no address of a state dict; get one and `radtransfer weights add` it")
    tag = constants.get("tag") or ""
    label = f"timm-{plain(name if not tag or name.endswith(tag) else f'{name}.{tag}')}"
    pinned = next((passport for passport in _passports(label) if passport.name == label), None)
    if pinned:
        found = passports.find(label, backbone)
        checked = _verified(found.passport, found.path)
        return Verification(not checked.failure, (checked,))
    target = weights_folder() / f"{label}{Path(url).suffix}"
    passports.fetch_file(url, target, f"download it elsewhere, and `radtransfer weights add FILE --backbone {backbone}`")
    notes = "timm publishes no hash: this is that of the file as it was first downloaded"
    try:
        added = add(target, Description(backbone=backbone, name=label, layout="timm", url=url, notes=notes))
    except BaseException:
        target.unlink(missing_ok=True)  # nothing would ever be about it
        raise
    told = tuple(replace(checked, assumed="") for checked in added.checkpoints)  # timm says it of this very file
    return replace(added, checkpoints=told)


def _passports(*named: str) -> list[Passport]:
    from pipelines.models import passports

    folder = weights_folder()
    beside = [passport for name in named or ("",) for passport in passports.beside(folder, name)]
    return list({(passport.name, passport.file): passport for passport in (*passports.PASSPORTS, *beside)}.values())


def _unusable() -> tuple[str, ...]:
    from pipelines.models import passports

    folder, known = weights_folder(), {passport.file for passport in _passports()}
    files = sorted(path.name for path in folder.glob("*") if path.suffix in CHECKPOINTS and path.name not in known)
    strays = (f"{name}: no readable passport is about it; `radtransfer weights add {folder / name}` writes one" for name in files)
    return (*passports.broken(folder).values(), *strays)


def _entry(passport: Passport) -> Entry:
    here = (weights_folder() / passport.file).is_file()
    state = "here" if here else "absent" if passport.url else "wanted"
    return Entry(passport.name, passport.backbone, passport.source, passport.file, state, passport.licence)


def _verified(passport: Passport, path: Path) -> Verified:
    """Load it as a training would, then compare with the publisher's network; a failure is told, not raised."""
    from pipelines.models import backbones, checkpoints, passports, references, renaming

    if not path.is_file():
        return _failed(_gone(passport, path), passport.name, passport)
    try:
        backbones.resolve(passport.backbone, f"passport {passport.name}: backbone")
        network = backbones.build(passport.backbone, outputs=1, dropout=0, normalisation=passport.normalisation)
        report = passports.load(network, passports.Found(passport, path))
        state, aside = renaming.renamed(checkpoints.tensors(checkpoints.read(path), path, passport.within), passport.renames)
        compared = references.compare(network, passport, state)
    except RadtransferError as error:
        return _failed(str(error), passport.name, passport)
    return Verified(
        *(passport.name, passport.backbone, passport.file, report.sha256, passport.licence, passport.trained_on),
        *(report.matched, report.missing, (*report.left_over, *aside), bool(passport.golden), compared),
        normalised=normalised(passport),
    )


def _gone(passport: Passport, path: Path) -> str:
    from pipelines.models import passports

    again = f"`radtransfer weights fetch {passport.name}`" if passport.url else "copy it there"
    remedy = again if passport in passports.PASSPORTS else f"{again}, or delete {passport.name}.json beside it"
    return f"expected {path}, it is not there; {remedy}"


def _failed(reason: str, name: str, passport: Passport | None = None) -> Verified:
    """A checkpoint that cannot be used; without `passport`, because that cannot be read."""
    if passport is None:
        return Verified(name, *("",) * 5, 0, (), (), False, None, reason)
    said = (passport.backbone, passport.file, passport.sha256, passport.licence, passport.trained_on)
    return Verified(name, *said, 0, (), (), bool(passport.golden), None, reason)
