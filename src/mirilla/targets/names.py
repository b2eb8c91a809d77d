"""Names of the targets of `mirilla export --to`, without importing them."""

from __future__ import annotations

# name -> (module of mirilla.targets, name of the Target in it)
TARGETS: dict[str, tuple[str, str]] = {
    "onnx": ("onnx_file", "ONNX"),
    "onnx-heads": ("heads.onnx_heads", "ONNX_HEADS"),
    "opencv-yunet": ("opencv_yunet", "OPENCV_YUNET"),
    "openvino-ssd": ("openvino_ssd", "OPENVINO_SSD"),
    "ncnn": ("ncnn_file", "NCNN"),
    "web": ("web.web_file", "WEB"),
    "tflite": ("tflite.floats", "TFLITE"),
    "tflite-fp16": ("tflite.floats", "TFLITE_FP16"),
    "tflite-int8": ("tflite.integers", "TFLITE_INT8"),
    "tflite-detect": ("tflite.detections", "TFLITE_DETECT"),
    "edgetpu": ("micro.edgetpu", "EDGETPU"),
    "ethos-u": ("micro.ethos_u", "ETHOS_U"),
    "c": ("micro.c_source", "C"),
}
TOLERANCE = 0.02  # the AP that an exported file may lose
EXAMPLE = "example.py"  # in each target's folder: a short program that runs the file
