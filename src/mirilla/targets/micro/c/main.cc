// An example: finds the boxes in one picture from the standard input, MIRILLA_HEIGHT x MIRILLA_WIDTH x 3 bytes, RGB.
// On a board, read a camera instead. To build it on a computer, with TFLM, the sources of TensorFlow Lite for
// Microcontrollers (github.com/tensorflow/tflite-micro), and their library:
//
//   cc -std=c99 -c mirilla_decode.c mirilla_anchors.c
//   c++ -std=c++17 -DTF_LITE_STATIC_MEMORY -I TFLM -I FLATBUFFERS/include main.cc mirilla_detect.cc mirilla_model.cc
//       mirilla_decode.o mirilla_anchors.o libtensorflow-microlite.a -o detect
#include <cstdio>

#include "mirilla_detect.h"

int main() {
  if (mirilla_begin() != 0) return 1;
  int8_t *image = mirilla_input();
  for (int i = 0; i < MIRILLA_HEIGHT * MIRILLA_WIDTH * 3; ++i) {
    const int byte = std::getchar();
    if (byte == EOF) return 2;
    image[i] = static_cast<int8_t>(byte - 128);
  }
  static mirilla_box boxes[100];
  const int count = mirilla_run(MIRILLA_THRESHOLD, boxes, 100);
  for (int i = 0; i < count; ++i) {
    const mirilla_box &box = boxes[i];
    std::printf("%s %.3f  y %.3f to %.3f, x %.3f to %.3f\n", mirilla_labels[box.label], static_cast<double>(box.score),
                static_cast<double>(box.ymin), static_cast<double>(box.ymax), static_cast<double>(box.xmin),
                static_cast<double>(box.xmax));
  }
  return count < 0 ? 3 : 0;
}
