"""Nudged elastic bands: the images of a step are computed together.

`ase.mep.NEB` asks one image's calculator after the other. Here the first that is asked in a step
asks for all images that have moved, as futures of one client, so that no thread is needed and a
failure is raised; with ``NEB(parallel=True)`` it would be lost in its thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ase import Atoms
from ase.calculators.calculator import all_changes

from aserpc.client import Client
from aserpc.client.arguments import optimizer_maker, positive
from aserpc.parallel.asking import Asking, FutureCalculator, asking, with_results
from aserpc.parallel.relaxations import step_limit


class Band(list[Atoms]):
    """The images of a band.

    Attributes
    ----------
    converged : bool
        Whether its forces came below `fmax`.
    steps : int
        The steps of its optimizer.
    """

    def __init__(self, images: Iterable[Atoms], converged: bool, steps: int) -> None:
        super().__init__(images)
        self.converged, self.steps = converged, steps


class ImageCalculator(FutureCalculator):
    """The calculator of one image of several that are computed together."""

    def __init__(self, asked: Asking, images: Sequence[Atoms]) -> None:
        super().__init__(asked)
        self.images = images

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute this image, and those that have moved too."""
        assert atoms is not None
        moved = [image for image in self.images if image.calc.moved(image, self)]
        futures = [image.calc.submit(image) for image in moved]
        super().calculate(atoms, properties, system_changes)
        for image, future in zip(moved, futures, strict=True):
            image.calc.take(image, future.result())

    def moved(self, image: Atoms, asked: ImageCalculator) -> bool:
        """Whether to compute an image because another one is asked for; forget what was known."""
        if self is asked or not self.check_state(image):  # type: ignore[no-untyped-call]
            return False
        self.reset()  # type: ignore[no-untyped-call]
        return True


def neb(
    images: Sequence[Atoms],
    calculator: str | None = None,
    *,
    client: Client | None = None,
    fmax: float = 0.05,
    steps: int | None = None,
    optimizer: Callable[..., Any] | None = None,
    method: str = "improvedtangent",
    **options: Any,
) -> Band:
    """Relax a nudged elastic band, its images in parallel.

    Parameters
    ----------
    images : sequence of ase.Atoms
        Three or more: the relaxed ends, and between them a first guess, such as
        `ase.mep.interpolate` makes. They are not changed.
    calculator : str, optional
        Name of the calculator; that of the images' `RemoteCalculator` by default.
    client : Client, optional
        Asks the service; by default one is made from the settings.
    fmax : float
        Where to stop, eV/Å.
    steps : int, optional
        The most steps; as many as it takes by default.
    optimizer : callable, optional
        ASE's optimizer, `ase.optimize.BFGS` by default; called with the band and
        ``logfile=None``.
    method : str
        Of `ase.mep.NEB`.
    **options
        Further ones of `ase.mep.NEB`, such as ``climb=True`` or ``k=0.1``.

    Returns
    -------
    Band
        A list of the images with their results, as `ase.mep.NEBTools` takes it; ``converged``
        and ``steps`` tell how it ended.

    Raises
    ------
    ValueError
        If there are fewer than three images, or they have not the same atoms.
    """
    from ase.mep import NEB

    given = list(images)
    _check_images(given)
    positive("fmax", fmax)
    limit = step_limit(steps)
    make: Any = optimizer
    if optimizer is None:
        from ase.optimize import BFGS

        make = BFGS
    optimizer_maker("optimizer", make)
    for name in ("parallel", "allow_shared_calculator"):
        if name in options:
            raise TypeError(f"{name} is not for aserpc.parallel.neb: each image is asked for alone")
    with asking(given, calculator, client) as asked:
        band = [image.copy() for image in given]
        for image in band:
            image.calc = ImageCalculator(asked, band)
        with make(NEB(band, method=method, **options), logfile=None) as optimizing:
            converged = bool(optimizing.run(fmax=fmax, **limit))
        for image in band:
            image.get_forces()
            image.get_potential_energy()
        for image in band:
            with_results(image, asked.name, image.calc.results)
    return Band(band, converged, optimizing.nsteps)


def _check_images(images: list[Atoms]) -> None:
    if len(images) < 3:
        raise ValueError(f"a band has three or more images, not {len(images)}")
    for number, image in enumerate(images):
        if not isinstance(image, Atoms):
            raise TypeError(f"a structure is an ase.Atoms, not {image!r}")
        if image.get_chemical_symbols() != images[0].get_chemical_symbols():
            raise ValueError(
                f"image {number} ({image.get_chemical_formula()}) has not the atoms of image 0 "
                f"({images[0].get_chemical_formula()}) in their order"
            )
    if len({*map(id, images)}) < len(images):
        raise ValueError("one structure is several of the images; give each a copy()")
