/* Boxes from the two outputs of the model: plain C99, no memory but its arguments, no library but <math.h>. */
#ifndef MIRILLA_DECODE_H
#define MIRILLA_DECODE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  float ymin, xmin, ymax, xmax; /* normalised to the model's input, 0 to 1 */
  float score;
  int label; /* index into mirilla_labels */
} mirilla_box;

/* Decode, keep scores from `threshold` and suppress overlapping boxes of one label.
   codes: MIRILLA_ANCHORS x 4, scores: MIRILLA_ANCHORS x MIRILLA_CLASSES, both as the model gives them.
   Writes at most `room` boxes to `found`, best first; returns how many. Boxes wholly beyond the picture take room as
   well, and are removed at the end. */
int mirilla_decode(const int8_t *codes, const int8_t *scores, float threshold, mirilla_box *found, int room);

#ifdef __cplusplus
}
#endif

#endif
