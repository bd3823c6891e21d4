"""A network finds the same objects for any tiling, thread and process; models have hashes."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fogmqtt.config import load_device
from fogmqtt.core.geometry import Grid, Rect
from fogmqtt.errors import OperatorError, PipelineError
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api import pipeline, registry
from fogmqtt.operators.detection.dnn import Detection, Dnn
from fogmqtt.operators.support import models, onnx_runtime
from fogmqtt.operators.support.boxes import Boxes, parse_output, suppress_overlaps
from fogmqtt.operators.support.onnx_file import external_files
from fogmqtt.setup.operators import set_model_folder
from tests.drawn import images, plans
from tests.networks import PROBE, SIDE, WINDOW, probe, squares, squares_apart
from tests.tiling import tiled


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    path = tmp_path_factory.mktemp("network") / "squares.onnx"
    return path, squares(path)


Detector = Callable[..., Dnn]


@pytest.fixture
def detector(network: tuple[Path, str]) -> Detector:
    def made(**params: Any) -> Dnn:
        path, sha256 = network
        built = registry.build(
            "dnn", {"model": str(path), "sha256": sha256, "window": WINDOW, **params}
        )
        assert isinstance(built, Dnn)
        return built

    return made


def table(height: int, width: int, *places: tuple[int, int]) -> Image:
    """A gray image with white squares at these rows and columns."""
    image = np.full((height, width, 3), 90, np.uint8)
    for top, left in places:
        image[top : top + SIDE, left : left + SIDE] = 255
    return image


def whole(operator: Dnn, image: Image) -> Any:
    return pipeline.run_whole((operator,), image, image)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_tiles_give_the_facts_of_the_whole_image(
    network: tuple[Path, str], data: st.DataObject
) -> None:
    image = data.draw(images(("uint8",)))
    for _ in range(data.draw(st.integers(0, 5))):
        top, left = (data.draw(st.integers(0, extent - 1)) for extent in image.shape[:2])
        image[top : top + SIDE, left : left + SIDE] = data.draw(st.sampled_from([0, 255]))
    path, sha256 = network
    operator = Dnn(
        model=str(path),
        sha256=sha256,
        window=WINDOW,
        stride=data.draw(st.sampled_from([0, 8, 24, 33, 47, 64])),
        score=data.draw(st.sampled_from([0.05, 0.25, 0.6])),
        nms=data.draw(st.sampled_from([0.0, 0.2, 0.45, 1.0])),
        classes=data.draw(st.sampled_from(["", "bright,dark"])),
    )
    assert tiled((operator,), image, data.draw(plans(image))) == whole(operator, image)


@pytest.mark.parametrize("place", [(97, 145), (93, 141), (89, 147), (99, 151)])
def test_an_object_on_the_corner_of_four_tiles_is_found_once(
    detector: Detector, place: tuple[int, int]
) -> None:
    image = table(200, 300, place)
    found = tiled((detector(classes="bright,dark", score=0.5),), image, Grid(2, 2))
    assert found == {
        "objects": [{"class": "bright", "score": 0.6471, "box": [place[1], place[0], 8.0, 8.0]}],
        "left_out": 0,
    }


def test_objects_in_the_corners_and_in_images_smaller_than_a_window_are_found(
    detector: Detector,
) -> None:
    corners = ((1, 1), (1, 131), (91, 1), (91, 131), (45, 67))
    found = whole(detector(score=0.5), table(100, 140, *corners))["objects"]
    assert {(one["box"][1], one["box"][0]) for one in found} == set(corners)
    small = whole(detector(score=0.5), table(30, 20, (9, 7)))["objects"]
    assert [one["box"] for one in small] == [[7.0, 9.0, 8.0, 8.0]]


def test_a_gray_image_and_its_colour_version_give_the_same_objects(detector: Detector) -> None:
    image = table(150, 150, (33, 77), (101, 5))
    assert whole(detector(), image[..., 0].copy()) == whole(detector(), image)


def test_a_box_cut_by_its_window_is_removed_for_the_whole_object() -> None:
    operator = Dnn(model="x.onnx", sha256="0" * 64, window=100, stride=50)
    windows = Rect(0, 0, 100, 100), Rect(0, 50, 100, 100)
    piece = Detection(9000, 0, 6000, 1000, 10_000, 5000)  # better, but cut off at column 100
    complete = Detection(8000, 0, 1000, 1000, 9500, 5000)  # the same object, up to column 145
    facts = operator.merge([(windows[0], piece), (windows[1], complete)], (100, 150))
    assert [one["box"] for one in facts["objects"]] == [[60.0, 10.0, 85.0, 40.0]]
    alone = operator.merge([(windows[0], piece)], (100, 150))
    assert len(alone["objects"]) == 1


def test_of_overlapping_boxes_the_best_of_each_class_remains() -> None:
    places = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [1, 0, 11, 10], [30, 0, 40, 10]])
    boxes = Boxes(places, np.array([50, 90, 40, 90]), np.array([0, 0, 1, 0]))
    assert suppress_overlaps(boxes, 0.45, 9).tolist() == [1, 3, 2]
    assert suppress_overlaps(boxes, 0.45, 1).tolist() == [1, 3, 2], "0 lies in 1"
    assert suppress_overlaps(boxes, 0.9, 9).tolist() == [1, 3, 0, 2]


def test_boxes_beyond_a_thousand_in_a_window_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is detected by a network that sees 1 500 objects; none of them goes unmentioned."""
    at = np.arange(1500)
    left, top = 16 * (at % 40), 16 * (at // 40)
    rows = np.stack([left, top, left + 9, top + 9, 0.9 - at / 10_000, 0 * at], axis=1)
    monkeypatch.setattr(Dnn, "_outputs", lambda *_: [rows[None].astype(np.float32)])
    operator = Dnn(model="x.onnx", sha256="0" * 64, window=640, stride=640, format="boxes")
    facts = operator.measure_whole(np.zeros((640, 640), np.uint8))
    assert len(facts["objects"]) == 1000
    assert facts["left_out"] == 500
    assert "500 more are not listed" in facts["note"]
    assert "1000 at most" in facts["note"]


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 60)] * 4, st.integers(1, 3), st.integers(0, 1))))
def test_suppression_equals_opencv_and_does_not_depend_on_the_order(rows: list[Any]) -> None:
    table = np.array([(x, y, x + w + 1, y + h + 1, s, c) for x, y, w, h, s, c in rows], np.int64)
    table = np.unique(table.reshape(-1, 6), axis=0)
    boxes = Boxes(table[:, :4], table[:, 4], table[:, 5])
    kept = {tuple(table[i]) for i in suppress_overlaps(boxes, 0.45, 1000)}
    turned = table[::-1]
    backwards = Boxes(turned[:, :4], turned[:, 4], turned[:, 5])
    assert kept == {tuple(turned[i]) for i in suppress_overlaps(backwards, 0.45, 1000)}
    ordered = table[boxes.order()]
    sizes = np.hstack([ordered[:, :2], ordered[:, 2:4] - ordered[:, :2]])
    # Falling scores without ties, so that OpenCV has no choice.
    scores = np.linspace(1, 0.5, len(ordered)).astype(np.float32)
    theirs = cv2.dnn.NMSBoxesBatched(
        sizes.astype(float).tolist(), scores.tolist(), ordered[:, 5].astype(np.int32), 0.1, 0.45
    )
    assert kept == {tuple(ordered[i]) for i in np.array(theirs, np.int64).ravel()}


def test_the_formats_give_the_same_boxes() -> None:
    eight = np.array([[20, 30, 10, 20, 0.1, 0.8], [50, 60, 8, 8, 0.4, 0.2]], np.float32)
    eight = np.vstack([eight, np.zeros((8, 6), np.float32)])
    five = np.hstack([eight[:, :4], np.full((10, 1), 0.5, np.float32), eight[:, 4:] * 2])
    plain = np.array([[15, 20, 25, 40, 0.8, 1], [46, 56, 54, 64, 0.4, 0]], np.float32)
    answers = [
        parse_output("yolov8", [eight.T[np.newaxis]], 0.25, 2),
        parse_output("yolov5", [five[np.newaxis]], 0.25, 0),
        parse_output("boxes", [plain[np.newaxis]], 0.25, 7),
    ]
    for boxes in answers:
        assert boxes.places.tolist() == [[1500, 2000, 2500, 4000], [4600, 5600, 5400, 6400]]
        assert boxes.scores.tolist() == [8000, 4000]
        assert boxes.classes.tolist() == [1, 0]


def test_nan_and_infinity_give_no_box() -> None:
    rows = np.zeros((12, 6), np.float32)
    rows[:, 4] = [np.nan, np.inf, -np.inf, 0.9, 0.9, 0.9, 7, 0, 0, 0, 0, 0]
    rows[3:6, 0] = [np.nan, np.inf, -3e30]
    boxes = parse_output("yolov8", [rows.T[np.newaxis]], 0.25, 0)
    assert boxes.scores.tolist() == [10_000, 10_000]


@pytest.mark.parametrize(
    ("form", "shapes", "classes", "sentence"),
    [
        ("yolov8", [(1, 100, 84)], 0, "the output is 1x100x84, not yolov8's 1 x (4 + classes)"),
        ("yolov8", [(1, 7, 100)], 2, "the output is 1x7x100, not yolov8's"),
        ("yolov8", [(1, 4, 100)], 0, "the output is 1x4x100"),
        ("yolov8", [(2, 84, 100)], 0, "the output is 2x84x100"),
        ("yolov8", [(1, 84, 100), (1, 32)], 0, "the output is 1x84x100, 1x32"),
        ("yolov5", [(1, 84, 100)], 0, "not yolov5's 1 x boxes x (5 + classes)"),
        ("yolov5", [(1, 100, 85)], 3, "for 3 classes"),
        ("boxes", [(1, 100, 7)], 0, "not 1 x boxes x (left, top, right, bottom, score, class)"),
        ("boxes", [(100, 6)], 0, "the output is 100x6"),
    ],
)
def test_an_output_of_another_form_is_refused(
    form: str, shapes: list[tuple[int, ...]], classes: int, sentence: str
) -> None:
    with pytest.raises(OperatorError, match=re.escape(sentence)):
        parse_output(form, [np.zeros(shape, np.float32) for shape in shapes], 0.25, classes)


SAME = """
import hashlib, sys, threading
from fogmqtt.images.cv import cv2
from fogmqtt.operators.api import registry
from fogmqtt.operators.api import pipeline
from tests.property.test_dnn import scene
cv2.setNumThreads(int(sys.argv[1]))
answers = []
def work():
    params = dict(model=sys.argv[2], sha256=sys.argv[3], window=64, score=0.02)
    operator = registry.build("dnn", params)
    answers.append(str(pipeline.run_whole((operator,), scene(), scene())))
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(set(answers)) == 1
print(hashlib.sha256(answers[0].encode()).hexdigest())
"""


def scene() -> Image:
    rng = np.random.default_rng(8)
    noise = cv2.GaussianBlur(rng.random((200, 300, 3)), (0, 0), 3)
    return ((noise - noise.min()) / np.ptp(noise) * 255).astype(np.uint8)


def test_threads_and_processes_do_not_matter(network: tuple[Path, str]) -> None:
    path, sha256 = network
    there = subprocess.run(
        [sys.executable, "-c", SAME, "1", str(path), sha256],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    operator = Dnn(model=str(path), sha256=sha256, window=WINDOW, score=0.02)
    cv2.setNumThreads(3)
    here = str(whole(operator, scene()))
    cv2.setNumThreads(-1)
    assert there == hashlib.sha256(here.encode()).hexdigest()
    assert here.count("'class'") > 5


def test_a_model_is_found_in_the_working_directory_and_in_the_configured_folder(
    network: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sha256 = network
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(models.FOLDER_VARIABLE, "")
    with pytest.raises(OperatorError) as refusal:
        models.find_file("a.onnx")
    assert f"{tmp_path / 'a.onnx'}, {tmp_path / 'models/a.onnx'}" in str(refusal.value)
    set_model_folder(load_device(None, {"FOGMQTT_MODELS": "shelf"}).models, only=False)
    for place in ("shelf/a.onnx", "a.onnx"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(path.read_bytes())
        assert models.find_file("a.onnx") == tmp_path / place
    assert models.file_digest("a.onnx") == sha256


@pytest.mark.parametrize(
    "model",
    [
        "/etc/passwd",
        "/proc/self/environ",
        "../secret.onnx",
        "x/../../secret.onnx",
        "secret.onnx",
        "{folder}-else/secret.onnx",
    ],
)
def test_where_others_name_the_models_nothing_is_told_of_other_files(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shelf = tmp_path / "shelf"
    for folder in (tmp_path, tmp_path / "shelf-else"):
        folder.mkdir(exist_ok=True)
        (folder / "secret.onnx").write_bytes(b"secret")
    shelf.mkdir()
    monkeypatch.setenv(models.FOLDER_VARIABLE, str(shelf))
    monkeypatch.setenv(models.ONLY_FOLDER_VARIABLE, "1")
    with pytest.raises(PipelineError) as refusal:
        pipeline.parse(f"dnn model={model.format(folder=shelf)}")
    assert hashlib.sha256(b"secret").hexdigest() not in str(refusal.value)
    with pytest.raises(OperatorError, match="in the folder of the setting `models`"):
        Dnn(model=model.format(folder=shelf), sha256="0" * 64).output(Spec(9, 9))
    (shelf / "own.onnx").write_bytes(b"own")
    assert models.find_file("own.onnx") == models.find_file(str(shelf / "own.onnx"))
    assert Dnn.probe()


def test_a_model_is_loaded_once_and_again_after_its_file_changed(
    network: tuple[Path, str], tmp_path: Path
) -> None:
    path, sha256 = network
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(path.read_bytes())
    first = models.network(str(copy), sha256, "opencv")
    assert models.network(str(copy), sha256, "opencv") is first
    copy.write_bytes(b"another")
    with pytest.raises(OperatorError, match=r"is another file: its hash is [0-9a-f]{64}, expected"):
        models.network(str(copy), sha256, "opencv")


def test_a_file_that_is_not_a_model_or_does_not_fit_the_window_is_named(
    detector: Detector, tmp_path: Path
) -> None:
    image = table(100, 100)
    with pytest.raises(OperatorError, match=r"OpenCV .* cannot run it on window=96"):
        whole(detector(window=96), image)
    with pytest.raises(OperatorError, match="dnn: the output is 1x6x784, not yolov5's"):
        whole(detector(format="yolov5"), image)
    text = tmp_path / "text.onnx"
    text.write_text("no model")
    fake = detector(model=str(text), sha256=models.file_digest(str(text)))
    with pytest.raises(
        OperatorError, match=r"text.onnx is not an ONNX model that OpenCV .* can load"
    ):
        whole(fake, image)
    with pytest.raises(OperatorError, match="no such file; looked for"):
        whole(detector(model="nowhere.onnx"), image)


def test_a_missing_model_or_a_wrong_hash_is_refused_before_cutting(
    detector: Detector,
) -> None:
    with pytest.raises(OperatorError, match=r"dnn: model nowhere.onnx: no such file; looked for"):
        pipeline.split_stages((detector(model="nowhere.onnx"),), Spec(9, 9))
    with pytest.raises(OperatorError, match=r"dnn: model .* is another file: its hash is"):
        pipeline.split_stages((detector(sha256="0" * 64),), Spec(9, 9))


def test_the_error_for_a_missing_hash_gives_it(network: tuple[Path, str]) -> None:
    path, sha256 = network
    for given_hash in ("", " sha256=abc"):
        with pytest.raises(PipelineError, match=f"the one here is sha256={sha256}"):
            pipeline.parse(f"dnn model={path}{given_hash}")
    with pytest.raises(
        PipelineError, match=r"all devices have the same no.onnx; model no.onnx: no"
    ):
        pipeline.parse("dnn model=no.onnx")


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("", "model=: name an ONNX file"),
        ("model=x window=15", "window=15: expected 16 to 4096 pixels"),
        ("model=x window=64 stride=7", "stride=7: expected 8 to 64 pixels, or 0 for half"),
        ("model=x window=64 stride=65", "stride=65: expected 8 to 64"),
        ("model=x format=ssd", "format=ssd: expected yolov8, yolov5, boxes"),
        ("model=x score=0", "score=0: expected over 0 to 1"),
        ("model=x nms=1.1", "nms=1.1: expected 0 to 1"),
        ("model=x classes=a,,b", "classes=a,,b: expected names with commas"),
    ],
)
def test_wrong_parameters_are_named(written: str, sentence: str) -> None:
    with pytest.raises(PipelineError) as refusal:
        pipeline.parse(f"dnn {written}")
    assert sentence in str(refusal.value)


def test_sixteen_bits_are_refused_with_a_correction(detector: Detector) -> None:
    with pytest.raises(OperatorError, match="put 'to8bit' before it"):
        pipeline.split_stages((detector(),), Spec(9, 9, 3, "uint16"))


def test_a_drawing_frames_the_objects(detector: Detector) -> None:
    image = table(200, 200, (101, 81))
    operator = detector(score=0.5)
    drawn = operator.draw(image.copy(), whole(operator, image))
    changed = np.argwhere((drawn != image).any(axis=2))
    assert changed.min(axis=0)[1] in range(77, 82)
    assert changed.max(axis=0)[0] in range(108, 113)


ENGINES = ("opencv", "onnx")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_with_its_weights_in_another_file_finds_the_same(
    detector: Detector, tmp_path: Path, engine: str
) -> None:
    path = tmp_path / "split.onnx"
    sha256 = squares(path, weights="split.onnx.data")
    assert external_files(path.read_bytes()) == ["split.onnx.data"]
    split = detector(model=str(path), sha256=sha256, engine=engine)
    pipeline.split_stages((split,), Spec(9, 9))
    image = table(100, 140, (1, 1), (45, 67))
    assert whole(split, image) == whole(detector(engine=engine), image)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_hash_covers_weights_in_another_file(
    detector: Detector, tmp_path: Path, engine: str
) -> None:
    """Otherwise two devices might have different ones."""
    path, weights = tmp_path / "split.onnx", tmp_path / "split.onnx.data"
    split = detector(model=str(path), sha256=squares(path, weights=weights.name), engine=engine)
    data = weights.read_bytes()
    weights.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(
        OperatorError, match=r"another file: .*cat split.onnx split.onnx.data \| sha"
    ):
        whole(split, table(9, 9))
    weights.unlink()
    with pytest.raises(OperatorError, match=r"split.onnx.data, which is missing beside it; copy"):
        pipeline.split_stages((split,), Spec(9, 9))


@pytest.mark.parametrize("place", ["../weights.bin", "/var/weights.bin"])
def test_weights_anywhere_else_are_refused_with_the_way_out(
    detector: Detector, tmp_path: Path, place: str
) -> None:
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / "split.onnx"
    path.write_bytes(squares_apart(place))
    with pytest.raises(
        OperatorError, match=r"not in the model's folder; .*save it as a single file"
    ):
        pipeline.split_stages((detector(model=str(path), sha256="0" * 64),), Spec(9, 9))


@settings(deadline=None, max_examples=8)
@given(data=st.data())
def test_tiles_by_onnx_runtime_give_the_facts_of_the_whole_image(
    network: tuple[Path, str], data: st.DataObject
) -> None:
    image = data.draw(images(("uint8",)))
    path, sha256 = network
    stride = data.draw(st.sampled_from([0, 24, 47]))
    operator = Dnn(
        model=str(path), sha256=sha256, engine="onnx", window=WINDOW, stride=stride, score=0.05
    )
    assert tiled((operator,), image, data.draw(plans(image))) == whole(operator, image)


def test_both_engines_find_the_same_squares(detector: Detector) -> None:
    image = table(150, 200, (33, 77), (101, 5))
    boxes = [
        {tuple(one["box"]) for one in whole(detector(score=0.5, engine=engine), image)["objects"]}
        for engine in ENGINES
    ]
    assert boxes[0] == boxes[1] == {(77.0, 33.0, 8.0, 8.0), (5.0, 101.0, 8.0, 8.0)}


def test_onnx_runtime_gives_the_bits_of_the_model_as_it_is_written(tmp_path: Path) -> None:
    """Its last level of optimisation does not: it chooses a layout for the processor at hand."""
    levels = onnxruntime.GraphOptimizationLevel
    pixels = np.random.default_rng(7).random((1, 3, PROBE, PROBE), np.float32)
    (ours,) = onnx_runtime.session(probe(), {})(pixels)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = levels.ORT_DISABLE_ALL
    plain = onnxruntime.InferenceSession(probe(), options, providers=["CPUExecutionProvider"])
    assert ours.tobytes() == plain.run(None, {"images": pixels})[0].tobytes()


def test_each_engine_is_an_ability_of_its_own(detector: Detector) -> None:
    spec = Spec(100, 100, 3, "uint8")
    abilities = [detector(engine=engine).ability(spec) for engine in ENGINES]
    assert abilities == ["dnn/uint8", "dnn/uint8/onnx"]


def test_what_onnx_runtime_cannot_load_or_run_is_named(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("no model")
    fake = detector(model=str(path), sha256=models.file_digest(str(path)), engine="onnx")
    with pytest.raises(OperatorError, match=r"^dnn: .*not an ONNX model that ONNX Runtime [0-9.]+"):
        whole(fake, table(9, 9))
    with pytest.raises(OperatorError, match=r"window=96: ONNX Runtime [0-9.]+ cannot run it"):
        whole(detector(engine="onnx", window=96), table(9, 9))
    with pytest.raises(PipelineError, match="engine"):
        detector(engine="tensorrt")


def test_without_the_package_the_way_out_is_the_extra(detector: Detector) -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "import numpy as np\n"
        "from fogmqtt.conformance.fingerprint import check_operator\n"
        "from fogmqtt.operators.api import pipeline\n"
        "print(sorted(one for one in check_operator('dnn').fingerprints if 'onnx' in one))\n"
        f"pixels = np.zeros(({WINDOW}, {WINDOW}, 3), np.uint8)\n"
        f"pipeline.run_whole(pipeline.parse({str(detector(engine='onnx'))!r}), pixels, pixels)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n"
    assert "dnn: model" in done.stderr
    assert (
        "engine=onnx: this machine has no ONNX Runtime: pip install 'fogmqtt[onnx]'" in done.stderr
    )


def test_a_whole_a_cut_and_a_strange_file_need_no_other(network: tuple[Path, str]) -> None:
    data = network[0].read_bytes()
    for some in (data, data[: len(data) // 2], b"", b"no model", bytes(range(256))):
        assert external_files(some) == []
