"""TensorFlow Lite files, written from the deploy graph: float32, float16 weights, and 8-bit integers."""
