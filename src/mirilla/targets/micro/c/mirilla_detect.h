/* Detect objects with TensorFlow Lite for Microcontrollers.

     if (mirilla_begin() != 0) { ... }                     once
     int8_t *image = mirilla_input();                      MIRILLA_HEIGHT x MIRILLA_WIDTH x 3, RGB
     image[i] = (int8_t)(pixel - 128);                     for each byte of the photo, resized
     mirilla_box boxes[10];
     int count = mirilla_run(MIRILLA_THRESHOLD, boxes, 10);  -1: the model did not run
*/
#ifndef MIRILLA_DETECT_H
#define MIRILLA_DETECT_H

#include "mirilla_decode.h"
#include "mirilla_model.h"

#ifdef __cplusplus
extern "C" {
#endif

int mirilla_begin(void);
int8_t *mirilla_input(void);
int mirilla_run(float threshold, mirilla_box *found, int room);

#ifdef __cplusplus
}
#endif

#endif
