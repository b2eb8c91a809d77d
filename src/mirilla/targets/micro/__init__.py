"""Targets for microcontrollers and accelerators, all made from the file of `tflite-int8`."""
