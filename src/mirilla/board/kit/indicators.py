"""The button's light, the buzzer and a GPIO pin."""

import threading
from collections.abc import Callable

from .errors import explain

BUZZER_GPIO = 22  # the Vision Kit's buzzer
COLOURS = {"running": (0, 255, 0), "alert": (255, 0, 0), "fault": (255, 160, 0)}


class Indicators:
    """The requested outputs. An output that cannot be opened is logged and left out."""

    def __init__(self, led: bool, buzzer: bool, pin: "int | None", log: "Callable[[str], None]"):
        self._log = log
        self._state = None
        self._leds = self._try("the LED", _open_leds) if led else None
        self._buzzer = self._try("the buzzer", _open_buzzer) if buzzer else None
        self._pin = self._try("pin %d" % pin, lambda: _open_pin(pin)) if pin is not None else None

    def _try(self, what: str, open_it: "Callable"):
        try:
            return open_it()
        except Exception as error:
            self._log("%s cannot be used: %s" % (what, explain(error)))
            return None

    def show(self, state: str) -> None:
        """Show 'running' (green), 'alert' (red, pin high), 'fault' (yellow) or 'off'."""
        if state == self._state:
            return
        self._state = state
        try:
            if self._leds is not None:
                from aiy.leds import Leds

                self._leds.update(Leds.rgb_on(COLOURS[state]) if state in COLOURS else Leds.rgb_off())
            if self._pin is not None:
                self._pin.value = state == "alert"
        except Exception as error:
            self._log("the LED or the pin failed: %s" % explain(error))

    def sound(self) -> None:
        """Sound the buzzer, on a thread of its own."""
        if self._buzzer is not None:
            threading.Thread(target=self._play, args=(self._buzzer,), daemon=True).start()

    def _play(self, buzzer) -> None:
        try:
            buzzer.play("C5e", "r", "C5e")
        except Exception as error:
            self._log("the buzzer failed: %s" % explain(error))

    def close(self) -> None:
        self.show("off")


def _open_leds():
    from aiy.leds import Leds

    return Leds()


def _open_buzzer():
    from aiy.toneplayer import TonePlayer

    return TonePlayer(BUZZER_GPIO, bpm=60)


def _open_pin(pin: "int | None"):
    from gpiozero import DigitalOutputDevice

    return DigitalOutputDevice(pin)
