"""What an operator is: a frozen dataclass whose fields are its parameters on the wire.

One law binds every operator, built in or plugged in: *tiled equals whole, bit for bit*. `whole`
says what the whole is; a stage of operators run tile by tile and merged must equal it.

| method        | runs                    | sees                                   |
|---------------|-------------------------|----------------------------------------|
| output        | both, before any pixel  | the Spec; refuses what it cannot take  |
| prepare       | gateway, once per job   | the whole image and the job's original |
| process       | device, per tile        | core + halo, clipped at the border     |
| process_tile  | device, last of a stage | the same, and where the core is        |
| placed        | gateway, per tile       | where the tile lies in the image       |
| merger        | gateway                 | the results, by tile                   |
| whole         | one machine             | the whole image                        |

What gives facts instead of an image derives from `Measuring` (fogmqtt/operators/api/measuring/py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from math import lcm
from typing import Any, ClassVar, Protocol, Self, TypeVar

import numpy as np

from fogmqtt.core.geometry import Rect, Seams, Tile
from fogmqtt.errors import OperatorError, PipelineError
from fogmqtt.images.source import ArrayImage, ImageBuffer, whole
from fogmqtt.images.spec import Image, Spec

#: Float arithmetic rounds differently in the vector body and in the tail of a row: tiles that
#: begin and end at multiples of this many pixels have the whole image's (research: exact tiling).
FLOAT_ALIGN = 64

#: What a measuring operator gives: a JSON object, in whole-image coordinates.
Facts = dict[str, Any]
#: What comes out of a pipeline.
Made = Image | Facts
#: Parameters of several calls.
Samples = Sequence[Mapping[str, Any]]

_LEARNED = "learned"


def learned() -> Any:
    """A field that `prepare` fills in: it travels with the others, but nobody writes it."""
    return field(default=None, repr=False, metadata={_LEARNED: True})


def is_learned(one: Field[Any]) -> bool:
    """Whether a field was made by `learned`."""
    return _LEARNED in one.metadata


def by_build(what: str) -> str:
    """For `exactness`: what OpenCV does in float arithmetic that its builds order differently."""
    return f"{what} as this OpenCV build and processor round; devices that differ get no tiles"


class Merger(Protocol):
    """Puts results together. `paste` may run on several threads at once for different tiles."""

    def paste(self, tile: Tile, result: Any, /) -> None:
        """Take one tile's result: pixels of the core's height and width, or a part of facts.

        A tile may be pasted again; its newest result counts.
        """

    def finish(self) -> Made:
        """Return the whole image, or the facts, after every tile was pasted."""


class PasteMerger:
    """Writes each tile's pixels to the tile's core: the merger of most operators.

    The result is an image of `output`. It is written to `image`, which must be of that spec, or
    to a new array if `image` is not given.
    """

    def __init__(self, output: Spec, image: ImageBuffer | None = None) -> None:
        self._image = ArrayImage.zeros(output) if image is None else image

    def paste(self, tile: Tile, pixels: Image, /) -> None:
        """Write the pixels of a tile's core. Raises ImageError for a wrong shape or dtype."""
        self._image.write(tile.core, pixels)

    def finish(self) -> Image:
        """Return the whole image; with an `ImageBuffer` in a file, whatever its `read` returns."""
        return self._image.read(whole(self._image.spec))


@dataclass(frozen=True)
class Operator:
    """Base of all operators. Subclasses are frozen dataclasses registered under `name`."""

    #: How it is written in a pipeline.
    name: ClassVar[str] = ""
    #: Tiles begin and end at multiples of this many pixels: 1 for integer arithmetic,
    #: FLOAT_ALIGN for float. Float images raise it by themselves, see `alignment`.
    align: ClassVar[int] = 1
    #: What people must know of how exact it is, beyond the law: a sentence, or nothing.
    exactness: ClassVar[str] = ""
    #: True: it gives facts, not an image; see `Measuring`.
    measures: ClassVar[bool] = False
    #: False: it needs the image whole and runs on the gateway.
    tiled: ClassVar[bool] = True
    #: True: `prepare` looks at the image, so what stands before it must be merged first.
    begins_stage: ClassVar[bool] = False
    #: True: `merger` does more than paste, so what stands behind it needs the merged image.
    ends_stage: ClassVar[bool] = False
    #: True: per pixel, exact and cheap, with fewer bytes out than in: the gateway runs it while
    #: it cuts, so that a colour photo for a gray pipeline travels as one channel.
    narrows: ClassVar[bool] = False
    #: How results travel; a codec of fogmqtt.images.codec.
    result_codec: ClassVar[str] = "raw"
    #: Parameters of the calls by whose results two devices are compared: one of each way that the
    #: work takes through OpenCV. None: the versions of OpenCV and the kind of machine decide.
    samples: ClassVar[Samples] = ({},)

    @property
    def halo(self) -> int:
        """How many pixels around itself a result pixel depends on. Parameters only."""
        return 0

    def alignment(self, spec: Spec) -> int:
        """`align` for images of `spec`: all arithmetic on float pixels is float arithmetic."""
        return lcm(self.align, FLOAT_ALIGN) if spec.dtype.startswith("float") else self.align

    def variant(self, spec: Spec) -> str:
        """What sets these parameters apart from others that more devices agree about."""
        del spec
        return ""

    def ability(self, spec: Spec) -> str:
        """What a device must have, in the gateway's rounding, to do this to images of `spec`.

        `gaussian/uint8`, or with a variant `gaussian/uint8/k15`.
        """
        return "/".join(filter(None, (self.name, spec.dtype, self.variant(spec))))

    def output(self, spec: Spec) -> Spec:
        """What comes out for `spec`. Raises OperatorError for what this operator cannot take."""
        return spec

    def prepare(self, image: Image, original: Image) -> Self:
        """Learn what only the whole image tells; `original` is what the job came with.

        Both are whole arrays in memory: an `ImageSource` must be read as a whole first.
        """
        del image, original
        return self

    def placed(self, outer: Rect, size: tuple[int, int]) -> Self:
        """This operator for a tile that lies there, halo and all, in an image of this size."""
        del outer, size
        return self

    def process(self, image: Image) -> Image:
        """The work: pure, on a tile with its halo as on a whole image; keeps height and width."""
        raise NotImplementedError

    def process_tile(self, image: Image, core: Rect, seams: Seams) -> Image:
        """As `process`, for the core alone; `core` is in the tile's own coordinates."""
        del seams
        return checked(self, self.process(image), self.output(Spec.of(image)))[core.slices]

    def merger(self, output: Spec) -> Merger:
        """What puts tiles' results together into an image of `output`.

        Tiles may be of any sizes; all of them together cover the image once.
        """
        return PasteMerger(output)

    def whole(self, image: Image) -> Image:
        """The same on one machine: OpenCV's own answer for the whole image.

        `image` is a whole array in memory: an `ImageSource` must be read as a whole first.
        """
        return self.process(image)

    def params(self) -> dict[str, Any]:
        """The parameters that differ from their defaults, as they travel and are written."""
        return {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if one.init and getattr(self, one.name) != one.default
        }

    def __str__(self) -> str:
        unwritten = {one.name for one in fields(self) if is_learned(one)}
        written = (f"{k}={_written(v)}" for k, v in self.params().items() if k not in unwritten)
        return " ".join((self.name, *written))

    # What subclasses use to check their parameters and images.

    def _need(self, holds: bool, parameter: str, expected: str) -> None:
        """Raise PipelineError unless `holds`; for __post_init__."""
        if not holds:
            value = getattr(self, parameter)
            raise PipelineError(f"{self.name}: {parameter}={_written(value)}: {expected}")

    def _take(
        self, spec: Spec, *, dtypes: tuple[str, ...] = (), channels: tuple[int, ...] = ()
    ) -> None:
        """Raise OperatorError unless the image is of these dtypes and channel counts."""
        if dtypes and spec.dtype not in dtypes:
            wanted = " or ".join(dtypes)
            raise OperatorError(f"{self.name} takes {wanted}, not {spec}{_to_dtype(spec, dtypes)}")
        if channels and spec.channels not in channels:
            wanted = " or ".join(str(count) for count in channels)
            hint = _to_channels(spec, channels)
            raise OperatorError(f"{self.name} takes {wanted} channel(s), not {spec}{hint}")


#: What the operators take that make other dtypes.
_CONVERTED = ("uint8", "uint16", "float32")


def _to_dtype(spec: Spec, dtypes: tuple[str, ...]) -> str:
    """What to put before an operator that takes these, if anything helps."""
    if spec.dtype not in _CONVERTED:
        return ""
    makers = {"uint8": "to8bit", "float32": "tofloat"}
    useful = [f"'{maker}'" for dtype, maker in makers.items() if dtype in dtypes]
    return f"; put {' or '.join(useful)} before it" if useful else ""


def _to_channels(spec: Spec, channels: tuple[int, ...]) -> str:
    if 1 in channels:
        narrower = "gray" if spec.channels == 3 and spec.dtype in _CONVERTED else "channel which=0"
        return f"; put '{narrower}' before it"
    return "; it needs a colour image"


_T = TypeVar("_T")


def prepared(operator: Operator, value: _T | None) -> _T:
    """What the operator learned of the whole image.

    Raises OperatorError if `prepare` was never called.
    """
    if value is None:
        raise OperatorError(f"{operator.name} was not prepared: it must see the whole image first")
    return value


def checked(operator: Operator, given: object, expected: Spec) -> Image:
    """What an operator gave, if it is the image that it said it would give.

    Raises OperatorError that names the operator and what it gave: the next one, or the gateway,
    would stumble over it without knowing whose it is.
    """
    if not isinstance(given, np.ndarray):
        raise OperatorError(f"{operator.name} gave a {type(given).__name__}, not {expected}")
    if given.ndim not in (2, 3):
        raise OperatorError(f"{operator.name} gave an array of {given.shape}, not {expected}")
    spec = Spec.of(given)
    if spec != expected:
        raise OperatorError(f"{operator.name} gave {spec}, not {expected}")
    return given


def _written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
