"""The base class of operators: a frozen dataclass whose fields are its parameters on the wire.

Every operator, built in or plugged in, must satisfy one rule: *tiled equals whole, bit for bit*.
The method `whole` defines the result for a whole image. The same operators, run tile by tile and
merged, must give the same bits.

| method        | runs on                 | receives                                    |
|---------------|-------------------------|---------------------------------------------|
| output        | both, before any pixel  | the Spec; refuses what it cannot take       |
| prepare       | gateway, once per job   | the whole image and the job's original      |
| for_tile      | gateway, per tile       | the tile's position in the image            |
| process       | device, per tile        | core + halo, clipped at the image's border  |
| process_tile  | device, last of a stage | the same, and the position of the core      |
| merger        | gateway                 | the results, by tile                        |
| whole         | one machine             | the whole image                             |

An operator that gives facts instead of an image derives from `Measuring`
(fogmqtt/operators/api/measuring.py), and one that looks at earlier frames of a stream from
`MemoryOperator` (fogmqtt/operators/api/memory.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from math import lcm
from typing import Any, ClassVar, NamedTuple, Protocol, Self, TypeVar

import numpy as np

from fogmqtt.core.geometry import Rect, Seams, Tile
from fogmqtt.errors import OperatorError, PipelineError
from fogmqtt.images.source import ArrayImage, ImageBuffer, whole
from fogmqtt.images.spec import Image, Spec

#: Float arithmetic rounds differently in the vectorised part and in the remainder of a row. Tiles
#: that begin and end at multiples of this many pixels round like the whole image.
FLOAT_ALIGN = 64

#: The result of a measuring operator: a JSON object, in coordinates of the whole image.
Facts = dict[str, Any]
#: The result of a stage or of a pipeline: an image, or facts.
StageOutput = Image | Facts
#: Parameters of several calls of one operator.
Samples = Sequence[Mapping[str, Any]]

_LEARNED = "learned"


def learned() -> Any:
    """Return a dataclass field that `prepare` fills in.

    The field is sent to devices like a parameter, but cannot be written in a pipeline. Its value
    is None until `prepare` or `for_tile` sets it.
    """
    return field(default=None, repr=False, metadata={_LEARNED: True})


def is_learned(one: Field[Any]) -> bool:
    """Return whether a field was made by `learned`."""
    return _LEARNED in one.metadata


def build_dependent(what: str) -> str:
    """Return the `exactness` of float arithmetic that builds of OpenCV do in different orders.

    `what` names the case, for example "float32".
    """
    return f"{what} as this OpenCV build and processor round; devices that differ get no tiles"


class Merger(Protocol):
    """Combines the tiles' results. Several threads may call `paste` at once for different tiles."""

    def paste(self, tile: Tile, result: Any, /) -> None:
        """Add one tile's result: pixels of the core's height and width, or a `Part` of facts.

        A tile may be pasted again; its latest result counts.
        """

    def finish(self) -> StageOutput:
        """Return the whole image, or the facts. Call it once, after every tile was pasted."""


class PasteMerger:
    """Writes each tile's pixels to the tile's core: the merger of most operators.

    The result is an image of `output`. It is written to `image`, which must be of that spec, or
    to a new array if `image` is None.
    """

    def __init__(self, output: Spec, image: ImageBuffer | None = None) -> None:
        self._image = ArrayImage.zeros(output) if image is None else image

    def paste(self, tile: Tile, pixels: Image, /) -> None:
        """Write the pixels of a tile's core. Raises ImageError for a wrong shape or dtype."""
        self._image.write(tile.core, pixels)

    @property
    def so_far(self) -> ImageBuffer:
        """What is pasted so far, with zeros elsewhere; to look at, from any thread."""
        return self._image

    def finish(self) -> Image:
        """Return the whole image; with an `ImageBuffer` in a file, whatever its `read` returns."""
        return self._image.read(whole(self._image.spec))


class ProbedVariant(NamedTuple):
    """A variant of an operator that needs a package which not every machine has."""

    #: Packages whose releases decide what `probe_variant` does not show.
    libraries: tuple[str, ...]
    #: What a machine lacks without it, and the way out; it follows the subject of a sentence.
    advice: str


@dataclass(frozen=True)
class Operator:
    """Base of all operators. Subclasses are frozen dataclasses registered under `name`."""

    #: The name in a pipeline.
    name: ClassVar[str] = ""
    #: Tiles begin and end at multiples of this many pixels: 1 for integer arithmetic,
    #: FLOAT_ALIGN for float arithmetic. For float images FLOAT_ALIGN is implied, see `alignment`.
    align: ClassVar[int] = 1
    #: What users must know about exactness beyond "tiled equals whole": a sentence, or nothing.
    exactness: ClassVar[str] = ""
    #: True: the result is facts, not an image; see `Measuring`.
    measures: ClassVar[bool] = False
    #: True: the result depends on earlier frames of a stream; see `MemoryOperator`.
    has_memory: ClassVar[bool] = False
    #: False: the operator needs the whole image and runs on the gateway.
    tiled: ClassVar[bool] = True
    #: True: `prepare` reads the image, so the results of the operators before must be merged first.
    #: If that depends on parameters, define `reads_image` instead.
    begins_stage: ClassVar[bool] = False
    #: True: `merger` does more than paste, so the operators behind need the merged image.
    ends_stage: ClassVar[bool] = False
    #: True: works per pixel, is exact and cheap, and gives fewer bytes than it takes. The gateway
    #: runs it before it sends a tile, so that a gray pipeline's tiles have one channel.
    reduces_bytes: ClassVar[bool] = False
    #: How results are encoded on the wire; a codec of fogmqtt.images.codec.
    result_codec: ClassVar[str] = "raw"
    #: Parameters of the calls by which the rounding of two devices is compared: one call for each
    #: code path in OpenCV. Empty, or without parameters that suffice: see `probe`.
    samples: ClassVar[Samples] = ({},)
    #: Parameters of a call that works, if neither the defaults nor `samples` do.
    example_call: ClassVar[Mapping[str, Any]] = {}
    #: Packages whose releases decide what `probe` does not show.
    libraries: ClassVar[tuple[str, ...]] = ("opencv",)
    #: The variants that `probe_variant` knows; each is an ability of its own.
    probed_variants: ClassVar[Mapping[str, ProbedVariant]] = {}

    @property
    def halo(self) -> int:
        """How many pixels on each side of it a result pixel depends on.

        It follows from the parameters alone.
        """
        return 0

    @property
    def reads_image(self) -> bool:
        """Whether `prepare` reads the image with these parameters, so that a stage begins here."""
        return self.begins_stage

    def alignment(self, spec: Spec) -> int:
        """Return `align` for images of `spec`; for float pixels it is raised to FLOAT_ALIGN."""
        return lcm(self.align, FLOAT_ALIGN) if spec.dtype.startswith("float") else self.align

    def variant(self, spec: Spec) -> str:
        """Return a short name for parameters that round differently on more devices than others.

        It becomes part of the ability. Empty for all other parameters.
        """
        del spec
        return ""

    def ability(self, spec: Spec) -> str:
        """Return the name under which devices announce that they do this to images of `spec`.

        For example `hsv/uint8`, or with a variant `hsv/uint8/back`. A device gets tiles
        only if its fingerprint of this ability equals the gateway's.
        """
        return "/".join(filter(None, (self.name, spec.dtype, self.variant(spec))))

    @classmethod
    def probe(cls) -> bytes:
        """Return what this machine computes of input that the operator brings along.

        It is for operators without `samples`, which the images of other operators say nothing
        about. Devices with equal bytes and equal releases of `libraries` count as equal. Empty: the
        operator brings none, and the kind of processor is compared instead.
        """
        return b""

    @classmethod
    def probe_variant(cls, variant: str) -> bytes:
        """Return the same for one of `probed_variants`.

        Raises OperatorError if this machine cannot do it.
        """
        raise OperatorError(f"{cls.name}: {variant} is no variant of it")

    def output(self, spec: Spec) -> Spec:
        """Return the result's spec for an image of `spec`.

        Raises OperatorError for an image that this operator cannot take.
        """
        return spec

    def gives_bgr(self, *, before: bool) -> bool:
        """Return whether three channels of the result are blue, green and red.

        `before`: whether those of the image that it gets are.
        """
        return before

    def prepare(self, image: Image, original: Image) -> Self:
        """Return this operator with the learned fields set, which depend on the whole image.

        `image` is the image that this operator gets, `original` the one that the job came with.
        Both are whole arrays in memory: an `ImageSource` must be read as a whole first.
        """
        del image, original
        return self

    def for_tile(self, outer: Rect, size: tuple[int, int]) -> Self:
        """Return this operator for one tile.

        `outer` is the tile with its halo, in an image of `size` (height, width).
        """
        del outer, size
        return self

    def process(self, image: Image) -> Image:
        """Return the result for a tile with its halo, or for a whole image.

        It has the height and width of `image` if the operator is tiled. A pure function: it must
        not change `image`, and depends on nothing but `image` and the fields.
        """
        raise NotImplementedError

    def process_tile(self, image: Image, core: Rect, seams: Seams) -> Image:
        """Return the result for the core alone.

        `image` is a tile with its halo, `core` its core in the tile's own coordinates, and `seams`
        says which sides of the core are not the image's border.
        """
        del seams
        return check_output(self, self.process(image), self.output(Spec.of(image)))[core.slices]

    def merger(self, output: Spec) -> Merger:
        """Return a new merger that makes an image of `output` from the tiles' results.

        Tiles may have any sizes; their cores together cover the image once.
        """
        return PasteMerger(output)

    def whole(self, image: Image) -> Image:
        """Return the result for a whole image on one machine; by default that of `process`.

        `image` is a whole array in memory: an `ImageSource` must be read as a whole first.
        """
        return self.process(image)

    @classmethod
    def missing_method(cls) -> str:
        """Return the name of a method that a subclass must define and this one does not, or ""."""
        if cls.process is not Operator.process:
            return ""
        is_cut = cls.tiled and cls.process_tile is Operator.process_tile
        return "process" if is_cut or cls.whole is Operator.whole else ""

    def params(self) -> dict[str, Any]:
        """Return the parameters that differ from their defaults, learned ones too."""
        return {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if one.init and getattr(self, one.name) != one.default
        }

    def __str__(self) -> str:
        hidden = {one.name for one in fields(self) if is_learned(one)}
        shown = (f"{k}={_format(v)}" for k, v in self.params().items() if k not in hidden)
        return " ".join((self.name, *shown))

    # Subclasses use these methods to check their parameters and images.

    def _require(self, holds: bool, parameter: str, expected: str) -> None:
        """Raise PipelineError unless `holds`; for `__post_init__`.

        The error names the parameter, its value and what was `expected`.
        """
        if not holds:
            value = getattr(self, parameter)
            raise PipelineError(f"{self.name}: {parameter}={_format(value)}: {expected}")

    def _accept(
        self, spec: Spec, *, dtypes: tuple[str, ...] = (), channels: tuple[int, ...] = ()
    ) -> None:
        """Raise OperatorError unless `spec` has one of these dtypes and channel counts.

        An empty tuple accepts all.
        """
        if dtypes and spec.dtype not in dtypes:
            wanted = " or ".join(dtypes)
            raise OperatorError(f"{self.name} takes {wanted}, not {spec}{_to_dtype(spec, dtypes)}")
        if channels and spec.channels not in channels:
            wanted = " or ".join(str(count) for count in channels)
            hint = _to_channels(spec, channels)
            raise OperatorError(f"{self.name} takes {wanted} channel(s), not {spec}{hint}")


#: Dtypes that the converting operators to8bit and tofloat take.
_CONVERTIBLE = ("uint8", "uint16", "float32")


def _to_dtype(spec: Spec, dtypes: tuple[str, ...]) -> str:
    """Return a hint which converting operator to put before one that takes `dtypes`; or nothing."""
    if spec.dtype not in _CONVERTIBLE:
        return ""
    makers = {"uint8": "to8bit", "float32": "tofloat"}
    useful = [f"'{maker}'" for dtype, maker in makers.items() if dtype in dtypes]
    return f"; put {' or '.join(useful)} before it" if useful else ""


def _to_channels(spec: Spec, channels: tuple[int, ...]) -> str:
    if 1 in channels:
        converter = (
            "gray" if spec.channels == 3 and spec.dtype in _CONVERTIBLE else "channel which=0"
        )
        return f"; put '{converter}' before it"
    return "; it needs a colour image"


_T = TypeVar("_T")


def require_prepared(operator: Operator, value: _T | None) -> _T:
    """Return the value of a learned field. Raises OperatorError if it is None."""
    if value is None:
        raise OperatorError(f"{operator.name} was not prepared: it must see the whole image first")
    return value


def check_output(operator: Operator, result: object, expected: Spec) -> Image:
    """Return an operator's result if it is an image of the spec that its `output` promised.

    Raises OperatorError, which names the operator and its result. Without this check the next
    operator or the gateway would fail, and not name the operator at fault.
    """
    if not isinstance(result, np.ndarray):
        raise OperatorError(f"{operator.name} gave a {type(result).__name__}, not {expected}")
    if result.ndim not in (2, 3):
        raise OperatorError(f"{operator.name} gave an array of {result.shape}, not {expected}")
    spec = Spec.of(result)
    if spec != expected:
        raise OperatorError(f"{operator.name} gave {spec}, not {expected}")
    return result


def _format(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
