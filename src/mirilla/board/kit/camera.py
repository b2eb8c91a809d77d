"""The kit's camera as a source of frames."""

import io
import os
from collections.abc import Callable

from .bonnet import Bonnet, Frame
from .errors import Fault, KitError, explain


class Camera:
    """The camera, which must be open while the bonnet uses it; it also provides live JPEG pictures.

    Without picamera (when an emulator answers) it opens nothing and provides no pictures.
    """

    SENSOR_MODE, SIZE_PX, LIVE_PX = 4, (1640, 1232), (640, 480)  # the mode that the bonnet's firmware expects
    ends = True  # with --once, after any frame

    def __init__(self, framerate: int, log: "Callable[[str], None]"):
        self._framerate, self._camera, self._live = framerate, None, None
        try:
            import picamera

            self._module = picamera
        except (ImportError, OSError) as error:
            if os.uname()[4].startswith("arm"):
                raise KitError(
                    "picamera cannot be imported (%s). Install it with 'sudo apt-get install python3-picamera'." % error
                )
            log("picamera is not installed: using the bonnet's own camera, without a live picture")
            self._module = None

    def open(self) -> None:
        """Open the camera."""
        self.close()
        if self._module is None:
            return
        try:
            self._camera = self._module.PiCamera(
                sensor_mode=self.SENSOR_MODE, resolution=self.SIZE_PX, framerate=self._framerate
            )
        except Exception as error:
            raise Fault(
                "the camera does not open: %s (check its cable, and that no other program uses it)" % explain(error)
            )

    def start(self, bonnet: Bonnet) -> None:
        """Start the bonnet's inference on the camera's pictures."""
        bonnet.start_camera()

    def read(self, bonnet: Bonnet, live: "Callable[[bytes], None] | None") -> Frame:
        """The next frame.

        Args:
            live: receives JPEG pictures of the camera until it is None.
        """
        self._stream_to(live)
        return bonnet.camera_frame()

    def skip_after_fault(self, connected: bool) -> None:
        """Nothing to skip: the next frame is another picture anyway."""

    def jpeg(self, frame: Frame) -> "bytes | None":
        """A picture taken now; None without picamera."""
        if self._camera is None:
            return None
        buffer = io.BytesIO()
        try:
            self._camera.capture(buffer, format="jpeg", use_video_port=True, resize=self.LIVE_PX, quality=80)
        except Exception as error:
            raise Fault("the camera delivers no picture: %s" % explain(error))
        return buffer.getvalue()

    def _stream_to(self, sink: "Callable[[bytes], None] | None") -> None:
        """Start or stop the MJPEG recording, which the GPU encodes."""
        if self._camera is None or (sink is None) == (self._live is None):
            return
        try:
            if sink is None:
                self._camera.stop_recording(splitter_port=2)
                self._live = None
            else:
                self._live = MjpegSplitter(sink)
                self._camera.start_recording(
                    self._live, format="mjpeg", resize=self.LIVE_PX, splitter_port=2, bitrate=6000000
                )
        except Exception as error:
            raise Fault("the camera's live picture failed: %s" % explain(error))

    def close(self) -> None:
        """Close the camera. Never raises."""
        camera, self._camera, self._live = self._camera, None, None
        if camera is not None:
            try:
                camera.close()
            except Exception:
                pass


class MjpegSplitter:
    """A file object for picamera's MJPEG: sends each JPEG to `sink`, once the next one starts."""

    def __init__(self, sink: "Callable[[bytes], None]"):
        self._sink, self._parts = sink, []

    def write(self, part: bytes) -> int:
        if part[:2] == b"\xff\xd8" and self._parts:
            self._sink(b"".join(self._parts))
            self._parts = []
        self._parts.append(bytes(part))
        return len(part)

    def flush(self) -> None:
        pass
