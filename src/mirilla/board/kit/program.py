"""The main loop: read a frame, act on it, and recover from faults."""

import argparse
import collections
import random
import time
from collections.abc import Sequence

from .alert import Actions, Alert
from .bonnet import Bonnet, Frame
from .camera import Camera
from .decode import Detection
from .errors import Fault, KitError
from .indicators import Indicators
from .model import load_model
from .output import Output
from .pictures import Pictures
from .snapshots import Snapshots
from .status import Status
from .watchdog import Watchdog
from .web import page_address, start_page, web_token

TEMPERATURES_S = 10.0  # between two readings of the temperatures
RATE_FRAMES = 30  # frames over which the rate is measured


class Backoff:
    """The waits between tries: twice as long after each fault in a row, up to a limit."""

    FIRST_S, MAX_S = 0.5, 30.0
    GOOD_S = 10.0  # a connection that lasts this long resets the wait

    def __init__(self):
        self.tries = 0  # faults in a row
        self._wait_s = self.FIRST_S
        self._connected_s = None

    @property
    def connected(self) -> bool:
        return self._connected_s is not None

    def connect(self) -> None:
        """Record that the connection was made."""
        self._connected_s = time.monotonic()

    def fault(self) -> float:
        """Record a fault. Returns the time to wait, in seconds."""
        if self._connected_s is not None and time.monotonic() - self._connected_s > self.GOOD_S:
            self.tries, self._wait_s = 0, self.FIRST_S
        self._connected_s = None
        self.tries += 1
        wait_s = self._wait_s * random.uniform(0.8, 1.2)
        self._wait_s = min(self._wait_s * 2, self.MAX_S)
        return wait_s


class Program:
    """The main loop and everything that it uses.

    Args:
        options: those of `options.parse`.
        out, err: streams instead of standard output and standard error.

    Raises:
        KitError: the model, the source or another option cannot be used.
    """

    def __init__(self, options: argparse.Namespace, out=None, err=None):
        self.options = options
        self.output = output = Output(options.json, options.once, out, err)
        self.model = load_model(options.dir)
        known = sorted(self.model.labels.values())
        for label in options.alert_label:
            if label not in known:
                raise KitError("--alert-label %s: the model's labels are %s." % (label, ", ".join(known)))
        if options.source == "camera":
            self.source = Camera(options.framerate, output.log)
        else:
            self.source = Pictures(options.source, self.model, options.once, output.log)
        threshold = self.model.threshold if options.threshold is None else options.threshold
        self.bonnet = Bonnet(self.model, threshold, output.log, not options.dense)
        self.snapshots = None
        if options.snapshots:
            self.snapshots = Snapshots(options.snapshots, options.snapshots_max, options.snapshots_every, output.log)
        self.alert = Alert(options.alert_min_frames, options.alert_clear_frames, options.alert_every)
        self.actions = Actions(options.alert_command, options.alert_webhook, output.log)
        self.indicators = Indicators(options.led, options.buzzer, options.gpio, output.log)
        self.status = Status(self.model.name)
        self.watchdog = Watchdog(options.stall, output.log)
        self.page = None
        self.frames = self.faults = 0
        self._backoff = Backoff()
        self._times_s = collections.deque(maxlen=RATE_FRAMES)
        self._temperatures_s = -TEMPERATURES_S
        self._no_snapshots_logged = False

    def run(self) -> int:
        """Run until a signal, or the end of --once. Returns the exit code."""
        self.watchdog.start()
        try:
            if self.options.web is not None:
                token = web_token(self.options.web_token_file)
                self.page = start_page(self.options.web_host, self.options.web, token, self.status)
                self.output.log("page: %s" % page_address(self.page))
            while True:
                try:
                    self.open()
                    while not self.step():
                        pass
                    self.actions.finish(Actions.COMMAND_S)
                    return 0
                except Fault as fault:
                    self._recover(str(fault))
        finally:
            self.close()

    def open(self) -> None:
        """Open the source and the bonnet."""
        self.watchdog.alive()
        self.source.open()
        self.bonnet.open()
        self.source.start(self.bonnet)
        self._backoff.connect()
        self.watchdog.alive()

    def step(self) -> bool:
        """Process one frame. Returns whether --once is complete."""
        start_s = time.monotonic()
        watched = self.page is not None and self.status.viewers
        frame = self.source.read(self.bonnet, self.status.set_picture if watched else None)
        if frame is not None:
            self._process(frame)
        if self.options.once and self.source.ends:
            return True
        if frame is not None and self.options.max_rate:
            self._sleep(start_s + 1 / self.options.max_rate - time.monotonic())
        return False

    def close(self) -> None:
        """Close everything."""
        self.watchdog.notify("STOPPING=1")
        self.watchdog.stop()
        self.bonnet.close()
        self.source.close()
        self.indicators.close()
        if self.page is not None:
            self.page.server_close()

    def _recover(self, text: str) -> None:
        """Report a fault, close the connection and wait."""
        self.faults += 1
        self.source.skip_after_fault(self._backoff.connected)
        wait_s = self._backoff.fault()
        self.bonnet.close()
        self.source.close()
        if self.options.tries and self._backoff.tries >= self.options.tries:
            raise KitError("Gave up after %d tries: %s." % (self._backoff.tries, text))
        self.output.log("fault %d: %s; trying again in %.1f s" % (self.faults, text, wait_s))
        self.output.event("fault", message=text, wait_s=round(wait_s, 2))
        self.status.update(state="fault", fault=text, faults=self.faults, rate=0.0, detections=[])
        self.watchdog.notify("STATUS=fault: %s" % text)
        self.indicators.show("fault")
        self._times_s.clear()
        self._sleep(wait_s)

    def _sleep(self, seconds: float) -> None:
        """Sleep, and keep notifying the watchdog."""
        end_s = time.monotonic() + seconds
        while True:
            self.watchdog.alive()
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                return
            time.sleep(min(left_s, 1.0))

    def _process(self, frame: Frame) -> None:
        """Report a frame, and raise alerts and save snapshots."""
        now_s = time.monotonic()
        self.watchdog.alive()
        self.frames += 1
        if self.frames == 1:
            self.watchdog.notify("READY=1\nSTATUS=running %s" % self.model.name)
        if self.status.state()["state"] == "fault":
            self.output.log("running again")
            self.output.event("recovered")
        entry = self._entry(frame, self._rate(now_s))
        wanted = self.options.alert_label
        relevant = [detection for detection in entry["detections"] if not wanted or detection["label"] in wanted]
        self._update_alert(relevant, now_s, entry)
        if relevant:
            self._save_snapshot(frame, now_s, entry)
        state = "alert" if self.alert.on else "running"
        self.indicators.show(state)
        self._update_status(entry, state, now_s)
        self.output.frame(entry, now_s)

    def _rate(self, now_s: float) -> float:
        """Frames per second over the last frames."""
        self._times_s.append(now_s)
        span_s = now_s - self._times_s[0]
        return (len(self._times_s) - 1) / span_s if span_s > 0 else 0.0

    def _entry(self, frame: Frame, rate: float) -> "dict":
        """A frame as it is printed as JSON."""
        entry = {
            "time": round(time.time(), 3),
            "frame": self.frames,
            "width": frame.width,
            "height": frame.height,
            "ms": frame.duration_ms,
            "rate": round(rate, 2),
            "detections": self._plain(frame.detections),
        }
        if frame.name is not None:
            entry["file"] = frame.name
        return entry

    def _plain(self, detections: "Sequence[Detection]") -> "list[dict]":
        """Detections as they are printed as JSON."""
        return [
            {
                "class": detection.class_id,
                "label": self.model.label(detection.class_id),
                "score": round(detection.score, 5),
                "box_yxyx": [round(edge, 5) for edge in detection.box_yxyx],
            }
            for detection in detections
        ]

    def _update_alert(self, relevant: "list[dict]", now_s: float, entry: dict) -> None:
        """Raise or clear the alert, and act on it."""
        change, act = self.alert.update(bool(relevant), now_s)
        if change is not None:
            self.output.alert(change, self.frames)
        if act:
            self.actions.put(dict(entry, event="alert", state="raised", model=self.model.name, detections=relevant))
            self.indicators.sound()

    def _save_snapshot(self, frame: Frame, now_s: float, entry: dict) -> None:
        """Save a snapshot if one is due, and add its name to the entry."""
        if self.snapshots is None or not self.snapshots.is_due(now_s):
            return
        jpeg = self.source.jpeg(frame)
        if jpeg is not None:
            name = self.snapshots.save(jpeg, now_s)
            if name is not None:
                entry["snapshot"] = name
        elif not self._no_snapshots_logged:
            self.output.log("snapshots: this source has no pictures")
            self._no_snapshots_logged = True

    def _update_status(self, entry: dict, state: str, now_s: float) -> None:
        """Show a frame on the page."""
        changes = {key: entry[key] for key in ("detections", "width", "height", "ms", "rate")}
        if now_s - self._temperatures_s > TEMPERATURES_S:
            self._temperatures_s = now_s
            changes.update(bonnet_celsius=self.bonnet.temperature(), cpu_celsius=_cpu_temperature())
        self.status.update(state=state, frames=self.frames, fault=None, **changes)


def _cpu_temperature() -> "float | None":
    """The Raspberry Pi's temperature in degrees Celsius, if it is known."""
    try:
        with open("/sys/class/thermal/thermal_zone0/temp") as file:
            return round(int(file.read()) / 1000, 1)
    except (OSError, ValueError):
        return None
