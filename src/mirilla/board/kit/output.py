"""The program's output: frames and events on standard output, the log on standard error."""

import collections
import json
import sys
import threading
import time

WHOLE_PICTURE = (0.0, 0.0, 1.0, 1.0)
MAX_OBJECTS = 5  # in a line of text
MIN_LINE_S, MAX_LINE_S = 1.0, 60.0  # between two lines of text


class Output:
    """Both streams, shared by all threads.

    Args:
        as_json: print a JSON line for each frame and event. Otherwise print a line of text when the detected objects
            change, at most one a second, and at least one a minute.
        every_frame: print a line of text for every frame.
    """

    def __init__(self, as_json: bool, every_frame: bool, out=None, err=None):
        self._as_json, self._every_frame = as_json, every_frame
        self._out, self._err = out or sys.stdout, err or sys.stderr
        self._lock = threading.Lock()
        self._labels = None  # of the last line of text, with their counts
        self._line_s = -MAX_LINE_S

    def log(self, text: str) -> None:
        """Print a line of the log."""
        self._write(self._err, "mirilla_kit: " + text)

    def event(self, kind: str, **more) -> None:
        """Print an event, as JSON only."""
        if self._as_json:
            self._write_json(dict(more, event=kind, time=round(time.time(), 3)))

    def alert(self, change: str, frame: int) -> None:
        """Print that the alert was 'raised' or 'cleared'."""
        self.event("alert", state=change, frame=frame)
        if not self._as_json:
            self._write(self._out, "alert %s" % change)

    def frame(self, entry: dict, now_s: float) -> None:
        """Print a frame."""
        if self._as_json:
            self._write_json(entry)
            return
        labels = collections.Counter(detection["label"] for detection in entry["detections"])
        waited_s = now_s - self._line_s
        changed = labels != self._labels
        if self._every_frame or (changed and waited_s >= MIN_LINE_S) or waited_s >= MAX_LINE_S:
            self._labels, self._line_s = labels, now_s
            self._write(self._out, _line(entry))

    def _write_json(self, entry: dict) -> None:
        self._write(self._out, json.dumps(entry, sort_keys=True))

    def _write(self, stream, text: str) -> None:
        encoding = getattr(stream, "encoding", None) or "utf-8"
        with self._lock:
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
            stream.flush()


def _line(entry: dict) -> str:
    """A frame as text: source, then objects with their boxes (xmin, ymin)-(xmax, ymax)."""
    detections = entry["detections"]
    objects = []
    for detection in detections[:MAX_OBJECTS]:
        ymin, xmin, ymax, xmax = detection["box_yxyx"]
        label, percent = detection["label"], detection["score"] * 100
        text = "%s %.0f %%" % (label, percent)
        if (ymin, xmin, ymax, xmax) != WHOLE_PICTURE:  # a classifier's classes have no place
            text += " at (%.2f, %.2f)-(%.2f, %.2f)" % (xmin, ymin, xmax, ymax)
        objects.append(text)
    if len(detections) > MAX_OBJECTS:
        objects.append("and %d more" % (len(detections) - MAX_OBJECTS))
    source = entry.get("file") or "frame %d, %.1f/s" % (entry["frame"], entry["rate"])
    return "%s: %s" % (source, ", ".join(objects) or "nothing")
