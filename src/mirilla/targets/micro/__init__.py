"""Files for microcontrollers and small accelerators, made from the file of `tflite-int8`."""
