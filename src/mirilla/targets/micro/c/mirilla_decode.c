#include "mirilla_decode.h"

#include <math.h>

#include "mirilla_model.h"

static float limited(float value) { return value < 0.0f ? 0.0f : value > 1.0f ? 1.0f : value; }

static mirilla_box decoded(const int8_t *code, const float *anchor) {
  float real[4];
  for (int i = 0; i < 4; ++i) real[i] = (float)(code[i] - MIRILLA_CODE_ZERO) * MIRILLA_CODE_SCALE;
  const float y = real[0] / MIRILLA_Y_SCALE * anchor[2] + anchor[0];
  const float x = real[1] / MIRILLA_X_SCALE * anchor[3] + anchor[1];
  const float height = expf(real[2] / MIRILLA_HEIGHT_SCALE) * anchor[2];
  const float width = expf(real[3] / MIRILLA_WIDTH_SCALE) * anchor[3];
  const mirilla_box box = {y - height / 2, x - width / 2, y + height / 2, x + width / 2, 0.0f, 0};
  return box;
}

static float area(const mirilla_box *box) { return (box->ymax - box->ymin) * (box->xmax - box->xmin); }

static int overlap(const mirilla_box *a, const mirilla_box *b) {
  const float height = fminf(a->ymax, b->ymax) - fmaxf(a->ymin, b->ymin);
  const float width = fminf(a->xmax, b->xmax) - fmaxf(a->xmin, b->xmin);
  const float shared = height > 0.0f && width > 0.0f ? height * width : 0.0f;
  return shared > MIRILLA_IOU * (area(a) + area(b) - shared);
}

/* Whether a box overlaps one of `count` better boxes of its label, or the label has all its boxes. */
static int suppressed(const mirilla_box *box, const mirilla_box *better, int count) {
  int same = 0;
  for (int i = 0; i < count; ++i) {
    if (better[i].label != box->label) continue;
    if (++same == MIRILLA_BOXES_PER_LABEL || overlap(box, &better[i])) return 1;
  }
  return 0;
}

int mirilla_decode(const int8_t *codes, const int8_t *scores, float threshold, mirilla_box *found, int room) {
  int count = 0, kept = 0;
  /* going through the levels of the scores, the best first, needs no sorting */
  for (int level = 127; level >= -128 && count < room; --level) {
    const float score = (float)(level - MIRILLA_SCORE_ZERO) * MIRILLA_SCORE_SCALE;
    if (score < threshold || score <= MIRILLA_MIN_SCORE) break;
    for (int label = 0; label < MIRILLA_CLASSES; ++label) {
      for (int i = 0; i < MIRILLA_ANCHORS && count < room; ++i) {
        if (scores[i * MIRILLA_CLASSES + label] != level) continue;
        mirilla_box box = decoded(codes + 4 * i, mirilla_anchors[i]);
        box.score = score;
        box.label = label;
        if (!suppressed(&box, found, count)) found[count++] = box;
      }
    }
  }
  for (int i = 0; i < count; ++i) {
    mirilla_box box = found[i];
    box.ymin = limited(box.ymin);
    box.xmin = limited(box.xmin);
    box.ymax = limited(box.ymax);
    box.xmax = limited(box.xmax);
    if (area(&box) > 0.0f) found[kept++] = box;
  }
  return kept;
}
