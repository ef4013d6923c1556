"""Videos and cameras: frames with their times in, frames with the sound of their source out.

    with VideoReader("clip.mp4") as video:
        for frame in video:
            frame.image, frame.time       # (H, W, 3) uint8 RGB upright, seconds

Files go through PyAV: it gives each frame's own time, the rotation that telephones write beside the picture, and the
sound's packets; OpenCV's reader has no sound, and its writer one fixed frame rate. Cameras go through OpenCV, which
knows them by number on every system.
"""

import contextlib
import math
import threading
import time
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

# Rotation of a frame (degrees, counter-clockwise) that its file asks for -> how OpenCV does it.
TURNS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}

# Where neither frames nor the file tell a frame rate (a bare H.264 stream): what FFmpeg takes too.
DEFAULT_RATE = Fraction(25)

# Of a camera's frames, times are milliseconds.
CAMERA_TIME_BASE = Fraction(1, 1000)

# Sound that players find in an .mp4; other kinds (PCM of .avi, Vorbis of .webm) are encoded anew as AAC.
MP4_SOUND = {"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"}

# FFmpeg's name of a layout that a file does not name -> the usual one of so many channels.
UNNAMED_LAYOUTS = {
    **{"1 channels": "mono", "2 channels": "stereo", "4 channels": "quad"},
    **{"6 channels": "5.1", "8 channels": "7.1"},
}

# x264's constant rate factor: 18 is taken for visually lossless, 23 is its default.
QUALITY = "20"


class UnreadableVideo(ValueError):
    """A file or address that gives no video; the message is one sentence that names it."""


@dataclass
class Frame:
    """One frame. image: (H, W, 3) uint8 RGB, upright; None for a frame whose data are broken, and `message` says why.

    time: seconds from the beginning of the file (of all its streams), or since a camera was opened.
    """

    image: np.ndarray | None
    time: float
    message: str = ""


class VideoReader:
    """The frames of a file or a network address, in order of display; iterate once.

    A frame that cannot be decoded comes out in its place without an image; data that end before the file's own count of
    frames come out as one last frame without an image. Nothing is asked of the source but to be read on: a pipe or a
    live stream without a length does as well.

    Attributes:
        frames: how many the file says it holds, or None. rate: mean frame rate. time_base: unit of its times, seconds.
        pixel_aspect: width over height of a pixel, of the last frame that came out.
    Raises:
        UnreadableVideo: it cannot be opened, or holds no video.
    """

    def __init__(self, path: str | Path):
        self.path = str(path)
        av.logging.set_level(av.logging.PANIC)  # what is wrong is told once, in this module's words
        try:
            self._container = av.open(self.path)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UnreadableVideo(f"{self.path}: cannot be opened as a video ({reason})") from error
        if not self._container.streams.video:
            self._container.close()
            raise UnreadableVideo(f"{self.path}: holds no video stream")
        self._stream = self._container.streams.video[0]
        self.frames: int | None = self._stream.frames or None
        self.rate: Fraction = self._stream.average_rate or self._stream.guessed_rate or DEFAULT_RATE
        self.time_base: Fraction = self._stream.time_base
        self.start = Fraction(self._container.start_time or 0, av.time_base)
        self.pixel_aspect = Fraction(1)
        self._stored = 0  # frames whose data were read; a trimmed file shows fewer

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        lost: list[float] = []  # times of frames that broke in the decoder, which gives others late (B-frames)
        count, last = 0, None
        for decoded in self._decode():
            moment = self._time(decoded.pts, count, last)
            if isinstance(decoded, _Broken):
                lost.append(moment)
                continue
            for at in sorted(t for t in lost if t < moment):
                yield Frame(None, at, "the frame's data are broken")
                count, lost = count + 1, [t for t in lost if t != at]
            if decoded.is_corrupt:
                yield Frame(None, moment, "the frame's data are broken")
            else:
                own = self._stream.sample_aspect_ratio or Fraction(1)
                self.pixel_aspect = 1 / own if round(decoded.rotation / 90) % 2 else own
                yield Frame(upright(decoded.to_ndarray(format="rgb24"), decoded.rotation), moment)
            count, last = count + 1, moment
        for at in sorted(lost):
            yield Frame(None, at, "the frame's data are broken")
            count, last = count + 1, at
        if self.frames and self._stored < self.frames and not self._reached(last or 0.0):
            message = f"the data end after {self._stored} frames; the file says {self.frames}"
            yield Frame(None, self._time(None, count, last), message)

    def _decode(self) -> Iterator["av.VideoFrame | _Broken"]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.error.FFmpegError, OSError):  # the rest cannot be told apart: the decoder gives what it has
                packet = None
            self._stored += packet is not None and packet.size > 0
            try:
                yield from self._stream.decode(packet)
            except EOFError:
                return
            except av.error.FFmpegError:
                yield _Broken(packet.pts if packet is not None else None)
            if packet is None:
                return

    def _reached(self, moment: float) -> bool:
        """Whether a frame at that time is the file's last: a trimmed one counts the frames that it leaves out."""
        duration = self._stream.duration
        return duration is not None and moment + 1.5 / float(self.rate) >= float(duration * self.time_base)

    def _time(self, pts: int | None, count: int, last: float | None) -> float:
        """Seconds of a frame; by the frame rate where it has no time, or one before the last (old .avi)."""
        if pts is None:
            return float(count / self.rate) if last is None else last + float(1 / self.rate)
        moment = float(pts * self.time_base - self.start)
        return moment if last is None or moment > last else last + float(1 / self.rate)


@dataclass
class _Broken:
    """Stands for a frame that the decoder could not make."""

    pts: int | None


def upright(image: np.ndarray, rotation: int) -> np.ndarray:
    """Turn a stored picture as its file asks, `rotation` degrees counter-clockwise."""
    turn = TURNS.get(round(rotation / 90) * 90 % 360)
    return image if turn is None else cv2.rotate(image, turn)


class Camera:
    """Frames of a camera as they come, each the newest there is: frames that nobody had time for are left out.

    Args:
        which: the camera's number, or what else OpenCV opens (a device, an address).
    Raises:
        UnreadableVideo: it cannot be opened.
    """

    frames, rate, time_base, pixel_aspect = None, DEFAULT_RATE, CAMERA_TIME_BASE, Fraction(1)

    def __init__(self, which: str | int):
        self.path = f"camera {which}"
        self._capture = cv2.VideoCapture(int(which) if str(which).isdigit() else str(which))
        if not self._capture.isOpened():
            raise UnreadableVideo(f"{self.path}: cannot be opened; is it connected, and not in use by another program?")
        self._newest: Frame | None = None
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._grab, name="camera", daemon=True)

    def __enter__(self) -> "Camera":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self._ended = True
        if self._thread.is_alive():
            self._thread.join()
        self._capture.release()

    def __iter__(self) -> Iterator[Frame]:
        self._thread.start()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest is not None or self._ended)
                frame, self._newest = self._newest, None
            if frame is None:
                return
            frame.image = cv2.cvtColor(frame.image, cv2.COLOR_BGR2RGB)
            yield frame

    def _grab(self) -> None:
        start = time.monotonic()
        while not self._ended:
            good, image = self._capture.read()
            with self._changed:
                if good:
                    self._newest = Frame(image, time.monotonic() - start)
                self._ended = self._ended or not good
                self._changed.notify()


class VideoWriter:
    """Write frames at their own times as an .mp4 (H.264), with the sound of the video they came from.

    The file has a temporary name until `close`. Frames of another size than the first are scaled to it.

    Args:
        path: of the .mp4; its folder is made.
        source: what the frames come from; sound is read from a VideoReader's file anew, when that can be read twice.
    """

    def __init__(self, path: Path, source: "VideoReader | Camera"):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = path.with_name(f".{uuid.uuid4().hex}.mp4")
        self._source = source
        self._container = None
        self._sound: _Sound | None = None
        self._last = -1

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def write(self, image: np.ndarray, moment: float) -> None:
        """Add a picture (H, W, 3) uint8 RGB at a time in seconds, later than the last one's."""
        if self._container is None:
            self._open(image)
        if image.shape != self._shape:
            image = cv2.resize(image, self._shape[1::-1], interpolation=cv2.INTER_AREA)
        height, width = image.shape[:2]
        if height % 2 or width % 2:  # H.264 as players know it halves the colours' sides
            image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
        frame.time_base = self._source.time_base
        frame.pts = self._last = max(round(Fraction(moment) / self._source.time_base), self._last + 1)
        if self._sound:
            self._sound.copy(self._container, until=moment)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """End the file and give it its name; without a frame there is none."""
        if self._container is None:
            return
        try:
            self._container.mux(self._stream.encode(None))
            if self._sound:
                self._sound.copy(self._container, until=float(self._last * self._source.time_base) + 1)
                self._sound.close(self._container)
            self._container.close()
            self._temporary.replace(self.path)
        finally:
            self._container = None
            self._temporary.unlink(missing_ok=True)

    def _open(self, image: np.ndarray) -> None:
        self._shape = image.shape
        container = av.open(str(self._temporary), "w", options={"movflags": "faststart"})
        try:
            self._stream = container.add_stream("libx264", rate=self._source.rate, options={"crf": QUALITY})
        except (av.error.FFmpegError, ValueError):  # a PyAV without that encoder
            container.close()
            self._temporary.unlink(missing_ok=True)
            raise
        self._container = container
        self._stream.height, self._stream.width = (side + side % 2 for side in image.shape[:2])
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.time_base, context.sample_aspect_ratio = self._source.time_base, self._source.pixel_aspect
        # told, or players take small videos for BT.601 and large ones for BT.709
        context.colorspace = context.color_primaries = context.color_trc = Colorspace.ITU709
        context.color_range = ColorRange.MPEG
        if isinstance(self._source, VideoReader) and Path(self._source.path).is_file():
            self._sound = _Sound.of(self._source, self._container)


class _Sound:
    """The sound of a video, copied packet by packet; encoded anew where an .mp4 cannot hold its kind."""

    def __init__(self, source: "av.container.InputContainer", start: Fraction, out: "av.container.OutputContainer"):
        self._source, self._start = source, start
        self._from = source.streams.audio[0]
        self._copies = _is_copied(self._from)
        if self._copies:
            self._to = out.add_stream_from_template(self._from)
        else:
            layout = _layout(self._from)
            self._from.codec_context.layout = layout
            self._to = out.add_stream("aac", rate=self._from.rate, layout=layout)
        self._packets = source.demux(self._from)
        self._waiting = None
        self._last, self._length = -math.inf, 1  # of the sound written so far, in its time base

    @classmethod
    def of(cls, video: VideoReader, out: "av.container.OutputContainer") -> "_Sound | None":
        source = av.open(video.path)
        if source.streams.audio:
            if complaint := _complaint(source.streams.audio[0]):
                warnings.warn(f"{video.path}: the video is written without its sound: {complaint}", stacklevel=2)
            else:
                return cls(source, video.start, out)
        source.close()
        return None

    def copy(self, out: "av.container.OutputContainer", until: float) -> None:
        """Write the sound up to a time in seconds."""
        while True:
            try:
                packet = self._waiting or next(self._packets)
            except (StopIteration, av.error.FFmpegError, OSError):  # broken sound ends where it breaks
                return
            self._waiting = None
            if packet.pts is None:
                continue
            if packet.pts * packet.time_base - self._start > until:
                self._waiting = packet
                return
            self._write(packet, out)

    def _write(self, packet: "av.Packet", out: "av.container.OutputContainer") -> None:
        shift = round(self._start / packet.time_base)
        with contextlib.suppress(av.error.FFmpegError):  # a broken piece of sound is left out
            if self._copies:
                packet.pts = packet.dts = self._after(packet.pts - shift, packet.duration or 0)
                packet.stream = self._to
                out.mux(packet)
                return
            for frame in packet.decode():
                length = round(frame.samples / frame.sample_rate / packet.time_base)
                frame.pts = None if frame.pts is None else self._after(frame.pts - shift, length)
                out.mux(self._to.encode(frame))

    def _after(self, pts: int, length: int) -> int:
        """A time later than the one before: in files joined end to end they start anew, and an .mp4 has none twice."""
        if pts <= self._last:
            pts = self._last + self._length
        self._last, self._length = pts, max(length, 1)
        return pts

    def close(self, out: "av.container.OutputContainer") -> None:
        if not self._copies:
            out.mux(self._to.encode(None))
        self._source.close()


def _is_copied(sound: "av.AudioStream") -> bool:
    return sound.codec_context.name in MP4_SOUND


def _layout(sound: "av.AudioStream") -> str:
    """The channels' layout; PCM may count its channels without saying which is which."""
    return UNNAMED_LAYOUTS.get(sound.layout.name, sound.layout.name)


def _complaint(sound: "av.AudioStream") -> str:
    """Why a sound cannot be in an .mp4, or "". Asked first: a stream cannot be taken out of a file again."""
    if _is_copied(sound):
        return ""
    trial = av.CodecContext.create("aac", "w")
    trial.sample_rate, trial.format = sound.rate, "fltp"
    try:
        trial.layout = _layout(sound)
        trial.open()
    except (av.error.FFmpegError, ValueError) as error:
        return f"no AAC of {sound.rate} Hz, {sound.layout.name} ({error})"
    return ""
