"""The main program of a stream's process: reads one source, and gives its newest picture away.

Cameras are strangers, and FFmpeg can hang or crash. Then only this process ends, which the program
that started it replaces. It loads FFmpeg through `av`, and never OpenCV, which has another FFmpeg.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import av
import av.logging
import msgspec

from fogmqtt.process_tuning import keep_frames
from fogmqtt.streams.clocks import Moment
from fogmqtt.streams.decoding import Converter, Stills
from fogmqtt.streams.memory import Slots
from fogmqtt.streams.messages import (
    MAX_SLOTS,
    REPORT_S,
    Answer,
    AtEnd,
    Command,
    Failed,
    Form,
    Given,
    OpenSource,
    Push,
    Release,
    SourceReport,
    Started,
    Taken,
    Want,
)
from fogmqtt.streams.newest import Damaged, NewestPicture, Picture
from fogmqtt.streams.readers.addresses import open_file, open_rtsp, open_webcam
from fogmqtt.streams.readers.container import read_file, read_live, read_webcam
from fogmqtt.streams.readers.folder import read_folder
from fogmqtt.streams.readers.http import offer_file, read_http
from fogmqtt.streams.readers.picamera import read_picamera
from fogmqtt.streams.reasons import in_words
from fogmqtt.streams.settings import SourceSettings, kind_of
from fogmqtt.workers.channel import WorkerChannel
from fogmqtt.workers.process import connect_to_parent


class SourceServer:
    """One source. The main thread receives commands, one reads, and one gives pictures away."""

    def __init__(self, channel: WorkerChannel, settings: SourceSettings, *, records: bool) -> None:
        self._channel = channel
        self._settings = settings
        self._newest = NewestPicture(keeps_all=settings.keep == "all", records=records)
        self._slots = Slots(MAX_SLOTS)
        self._converter = Converter()
        self._stills = Stills.of_jpegs()
        self._encoder = msgspec.msgpack.Encoder()
        self._sending = threading.Lock()
        self._codec, self._width, self._height = "", 0, 0
        self._reported_at = 0.0

    def start(self) -> None:
        """Open the source, or wait for pictures that are pushed."""
        threading.Thread(target=self._give_always, name="giver", daemon=True).start()
        if kind_of(self._settings.source) == "mqtt":
            self._newest.opened(fps=self._settings.fps)
        else:
            self.read()

    def read(self) -> None:
        """Open the source, again if it was lost."""
        threading.Thread(target=self._read, name="reader", daemon=True).start()

    def handle(self, command: Command, file: int | None) -> None:
        """Do what the program says."""
        match command:
            case Want(form):
                self._newest.want(form)
            case Release(slot):
                self._slots.give_back(slot)
            case Push():
                if file is not None:
                    self._take_pushed(command, file)
            case OpenSource():
                self.read()

    def _read(self) -> None:
        try:
            _read_source(self._settings, self._newest)
        except Exception as problem:  # noqa: BLE001  # a reader of others may raise anything
            self._newest.end(in_words(problem))
        else:
            self._newest.end("")

    def _take_pushed(self, push: Push, file: int) -> None:
        with open(file, "rb", closefd=False) as opened:
            data = opened.read()
        moment = Moment(push.captured_at, push.captured_utc, push.clock)
        offer_file(data, moment, self._stills, self._newest)
        self._send(Taken())

    def _give_always(self) -> None:
        try:
            while True:
                self._step()
        except BrokenPipeError:
            os._exit(0)  # the program is gone

    def _step(self) -> None:
        taken = self._newest.take(REPORT_S)
        if taken is not None:
            self._give(*taken)
            return
        reason = self._newest.taken_end()
        if reason is None:
            self._report()
        elif reason:
            self._send(Failed(reason, self._newest.tally()))
        else:
            self._send(AtEnd(self._newest.tally()))

    def _report(self) -> None:
        self._reported_at = time.monotonic()
        size = self._codec, self._width, self._height
        self._send(SourceReport(self._newest.tally(), self._newest.alive_at, *size))

    def _give(self, number: int, picture: Picture, form: Form) -> None:
        slot = self._slots.take()
        try:
            given, file = self._fill(slot, number, picture, form)
        except Damaged:
            self._slots.give_back(slot)
            self._newest.was_damaged()
            if time.monotonic() >= self._reported_at + REPORT_S:
                self._report()  # one damaged picture after the other leaves no other time for it
            return
        except OSError as problem:  # no memory
            self._slots.give_back(slot)
            self._newest.was_damaged()
            self._newest.end(in_words(problem))
            return
        try:
            self._send(given, file)
        finally:
            if file is not None:
                os.close(file)

    def _fill(
        self, slot: int, number: int, picture: Picture, form: Form
    ) -> tuple[Given, int | None]:
        """Write a picture to a slot. Raises Damaged, and OSError if no memory is left."""
        original, height, width, channels, pixel_bytes = picture.original, 0, 0, 0, 0
        frame, began_at = None, time.monotonic()
        if form == "pixels":
            frame = picture.decode()
            height, width, channels = self._converter.size(frame, self._settings.convert)
            pixel_bytes = height * width * channels
            self._width, self._height = width, height
        elif not original:
            frame = picture.decode()
            original = self._converter.jpeg(frame)
        memory, file = self._slots.memory(slot, pixel_bytes + len(original))
        if frame is not None and form == "pixels":
            self._converter.write_pixels(frame, self._settings.convert, memory)
        self._newest.decoded(time.monotonic() - began_at)
        memory[pixel_bytes : pixel_bytes + len(original)] = original
        self._codec = picture.codec
        moment = picture.moment
        return Given(
            slot,
            file is not None,
            number,
            moment.at,
            moment.utc,
            moment.clock,
            width,
            height,
            channels,
            pixel_bytes,
            len(original),
            picture.codec,
            self._newest.taken_decode_s(),
            self._newest.was_given(),
        ), file

    def _send(self, answer: Answer, file: int | None = None) -> None:
        with self._sending:
            self._channel.send_message(
                self._encoder.encode(answer), () if file is None else (file,)
            )


def main() -> None:
    """Run the process. The arguments come from `ChildProcess`."""
    channel, _ = connect_to_parent()
    keep_frames()
    av.logging.set_level(None)
    # Libraries write to descriptor 2, also addresses with passwords. Python's stderr stays.
    sys.stderr = os.fdopen(os.dup(2), "w")
    with Path(os.devnull).open("wb") as devnull:
        os.dup2(devnull.fileno(), 2)
    encoder, decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(Command)
    channel.send_message(encoder.encode(Started()))
    server: SourceServer | None = None
    while (received := channel.receive_message_and_file()) is not None:
        message, file = received
        try:
            command: Command = decoder.decode(message)
            if server is not None:
                server.handle(command, file)
            elif isinstance(command, OpenSource):
                server = SourceServer(channel, command.settings, records=command.records)
                server.start()
        finally:
            if file is not None:
                os.close(file)


def _read_source(settings: SourceSettings, newest: NewestPicture) -> None:
    """Read a source to its end. Raises what readers raise."""
    match kind_of(settings.source):
        case "rtsp":
            with closing(open_rtsp(settings)) as container:
                read_live(container, settings, newest)
        case "http":
            read_http(settings, newest)
        case "v4l2":
            with closing(open_webcam(settings)) as container:
                read_webcam(container, settings, newest)
        case "picamera":
            read_picamera(settings, newest)
        case "folder":
            read_folder(settings, newest)
        case "file":
            with closing(open_file(settings)) as container:
                read_file(container, settings, newest)


if __name__ == "__main__":
    main()
