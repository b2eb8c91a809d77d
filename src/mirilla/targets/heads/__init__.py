"""The target `onnx-heads`: the raw maps of each head, for compilers of vendors that quantise them themselves."""
