"""Runs a detector on an AIY Vision Kit.

    __main__    signals and exit codes
    options     the command line
    program     the main loop
    model       model.json and the compiled model
    bonnet      the connection to the bonnet, through Google's aiy.vision
    result      the bonnet's response -> detections
    decode      box decoding and NMS in plain Python
    camera      the camera as a source of frames
    pictures    picture files as a source of frames
    alert       when to raise an alert; command and webhook
    indicators  button light, buzzer and GPIO pin
    snapshots   JPEG files of what was detected
    output      lines on standard output and standard error
    status      what the web page shows
    web         the web page's server
    watchdog    messages to systemd; ends a stalled program
    errors      exceptions

These modules run on the kit: Python 3.5 or later, the standard library, and what the kit's image has (aiy.vision,
picamera, Pillow, gpiozero). They import nothing else of Mirilla, which copies them to the kit as one zip archive,
mirilla_kit.py. On any machine other than a Raspberry Pi, aiy.vision connects to VISION_BONNET_HOST and
VISION_BONNET_PORT, where `mirilla emulate` can respond. docs/kit-program.md describes the program.
"""
