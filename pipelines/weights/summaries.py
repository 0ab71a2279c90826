"""What the commands on weights answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A passport in the list.

    Attributes:
        state: `here`, `absent` (it can be fetched), or `wanted` (no address: put it there).
    """

    name: str
    backbone: str
    source: str
    file: str
    state: str
    licence: str


@dataclass(frozen=True)
class Listing:
    """Every passport, those whose file is here first.

    Attributes:
        unusable: what else is in the folder: passports that cannot be read, and why; checkpoints that no passport is about.
    """

    folder: str
    passports: tuple[Entry, ...]
    unusable: tuple[str, ...] = ()

    def describe(self) -> str:
        from rich.markup import escape

        signs = {"here": "[green]✓[/green]", "absent": "[yellow]·[/yellow]", "wanted": "[red]✗[/red]"}
        width = max((len(item.name) for item in self.passports), default=0)
        lines = [
            f"{signs[item.state]} {escape(item.name):<{width}}  {escape(item.backbone):<16} {escape(item.source):<12} "
            f"{escape(item.file)}"
            for item in self.passports
        ]
        lines += [f"[red]![/red] {escape(what)}" for what in self.unusable]
        here = sum(item.state == "here" for item in self.passports)
        return "\n".join([*lines, f"{here} of {len(self.passports)} in {escape(self.folder)}; `radtransfer weights fetch NAME`"])


@dataclass(frozen=True)
class Verified:
    """What holding one checkpoint against its passport came to.

    Attributes:
        trained_on: the images that the passport says they learned from.
        matched: tensors of the backbone that were filled.
        missing: tensors of the backbone that the file lacks and nothing reads.
        left_over: tensors of the file that were left out on purpose.
        golden: whether the passport records golden activations, which came out.
        difference: largest difference from the publisher's own network, in units of its largest feature; None where that
            network is not at hand.
        failure: why the checkpoint cannot be used; nothing if it can.
        normalised: how images are brought to what the weights learned from.
        assumed: what nobody has said, and was taken from the layout; with how to say it.
    """

    name: str
    backbone: str
    file: str
    sha256: str
    licence: str
    trained_on: str
    matched: int
    missing: tuple[str, ...]
    left_over: tuple[str, ...]
    golden: bool
    difference: float | None
    failure: str = ""
    normalised: str = ""
    assumed: str = ""

    def describe(self) -> str:
        from rich.markup import escape

        from pipelines.models.checkpoints import listed

        if self.failure:
            return f"[red]✗ {escape(self.name)}[/red]  {escape(self.failure)}"
        known = "the publisher's network is not at hand to compare with"
        compared = known if self.difference is None else f"the publisher's network's features within {self.difference:.1g}"
        golden = "golden activations came out" if self.golden else "no golden activations on record"
        return (
            f"[green]✓ {escape(self.name)}[/green] for {escape(self.backbone)}: {escape(self.file)}, {self.sha256[:12]}…\n"
            f"  {self.matched} tensors matched; missing {escape(listed(self.missing))}; "
            f"left over {escape(listed(self.left_over))}\n"
            f"  {golden}; {compared}\n"
            f"  images: {escape(self.normalised)}\n"
            f"  trained on: {escape(self.trained_on)}\n"
            f"  licence: {escape(self.licence)}"
            + (f"\n  [yellow]assumed[/yellow]: {escape(self.assumed)}" if self.assumed else "")
        )


@dataclass(frozen=True)
class Verification:
    """Several of them; `passed` where each can be used."""

    passed: bool
    checkpoints: tuple[Verified, ...]

    def describe(self) -> str:
        return (
            "\n".join(item.describe() for item in self.checkpoints)
            or "nothing to verify: the weights folder holds no checkpoint with a passport; see `radtransfer weights list`"
        )
