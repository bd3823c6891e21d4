"""Gantt charts: every tile in its lane, at its time, in SVG and in PNG."""

import io
import re
from xml.etree import ElementTree

import pytest
from PIL import Image

from fogmqtt.images.drawing import Box, Drawing, Label, Line, png, svg
from fogmqtt.simulate.fleet import DeviceSpec, Faults, FleetSpec, Outage
from fogmqtt.simulate.gantt import Chart, gantt
from fogmqtt.simulate.outcome import simulate
from fogmqtt.simulate.record import EventMark, Span, SpanState
from fogmqtt.simulate.work import even_job


def span(device, begin_s, end_s, *, worker=0, state=SpanState.KEPT, hedge=False, tile=0):
    return Span(device, worker, "job", tile, 1, 1000, hedge, begin_s, end_s, state)


def boxes(spans, *, lanes=(("a", 1), ("b", 2)), marks=(), end_s=10.0):
    """The boxes of the lanes, without the legend."""
    shapes = gantt(Chart("title", lanes, spans, marks, end_s, 8.0)).shapes
    return [shape for shape in shapes if isinstance(shape, Box) and shape.y > 60]


def test_a_tile_is_a_box_as_long_as_it_took():
    short, long = boxes([span("a", 0, 1, tile=1), span("a", 2, 5, tile=2)])
    assert long.width == pytest.approx(3 * short.width, rel=0.02)
    assert long.x - short.x == pytest.approx(2 * (short.width + 0.5), rel=0.02)
    assert "tile 2" in long.tip


def test_devices_have_lanes_and_workers_rows_in_them():
    a, first, second = boxes(
        [span("a", 0, 1), span("b", 0, 1), span("b", 0, 1, worker=1)],
    )
    assert a.y + a.height < first.y
    assert second.y == pytest.approx(first.y + first.height)
    assert a.height == pytest.approx(2 * first.height)


def test_work_for_nothing_is_hatched_and_a_faster_copy_has_a_colour_of_its_own():
    kept, hedge, wasted, cut = boxes(
        [
            span("a", 0, 1),
            span("a", 1, 2, hedge=True),
            span("a", 2, 3, state=SpanState.WASTED),
            span("a", 3, 4, state=SpanState.CUT),
        ]
    )
    assert [bool(box.hatch) for box in (kept, hedge, wasted, cut)] == [False, False, True, True]
    assert len({box.fill for box in (kept, hedge, wasted, cut)}) == 4


def test_an_absence_lies_under_the_lane_until_the_device_is_back():
    (away,) = boxes([], marks=[EventMark("a", 2.0, "crash", 3.0)])
    (day,) = boxes([span("a", 2.0, 5.0)])
    assert away.width == pytest.approx(day.width, abs=1)
    assert "crash at 2.00 s" in away.tip


def test_ten_thousand_tiles_in_a_lane_become_as_many_boxes_as_can_be_seen():
    spans = [span("a", index / 1000, (index + 1) / 1000) for index in range(10_000)]
    assert len(boxes(spans)) < 1500


def test_many_devices_get_thin_lanes():
    lanes = [(f"d{index}", 1) for index in range(1000)]
    drawing = gantt(Chart("title", lanes, [], [], 1.0, 1.0))
    assert drawing.height < 2000


def test_a_chart_of_a_run_is_an_xml_file_and_a_picture():
    fleet = FleetSpec(
        (DeviceSpec("a<b", 1e6, faults=Faults(crashes=(Outage(0.5, 1.0),))), DeviceSpec("c", 1e6))
    )
    outcome = simulate(fleet, [even_job("job", 30, 100_000)], 1)
    record = outcome.record
    lanes = [("a<b", 1), ("c", 1)]
    chart = Chart("x & y", lanes, record.spans, record.marks, outcome.makespan_s, outcome.bound_s)
    drawing = gantt(chart)
    root = ElementTree.fromstring(svg(drawing))  # noqa: S314  # we wrote it
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"a<b", "c", "x & y", "crash"} <= set(words)
    assert Image.open(io.BytesIO(png(drawing))).size == (2 * drawing.width, 2 * drawing.height)


def test_the_same_shapes_are_drawn_in_both_formats():
    shapes = (
        Box(10, 10, 20, 10, "#ff0000"),
        Box(40, 10, 20, 10, "#ffffff", "#0000ff"),
        Line(10, 30, 60, 30, "#00ff00", 2),
        Line(10, 34, 60, 34, "#00ff00", 2, dashed=True),
        Label(10, 60, "word", anchor="start"),
    )
    drawing = Drawing(80, 70, shapes)
    picture = Image.open(io.BytesIO(png(drawing)))
    assert picture.getpixel((40, 30)) == (255, 0, 0)
    hatched = picture.crop((80, 20, 120, 40))
    assert {(255, 255, 255), (0, 0, 255)} <= {colour for _, colour in hatched.getcolors()}
    assert picture.getpixel((60, 60)) == (0, 255, 0)
    assert len(re.findall("<rect", svg(drawing))) == 4


def test_a_picture_nobody_could_open_is_drawn_smaller():
    picture = Image.open(io.BytesIO(png(Drawing(20_000, 10, ()))))
    assert picture.size == (16_000, 8)
