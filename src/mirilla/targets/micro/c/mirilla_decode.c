#include "mirilla_decode.h"

#include <math.h>

#include "mirilla_model.h"

#ifndef MIRILLA_CANDIDATES
#define MIRILLA_CANDIDATES 256
#endif

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

static float overlap(const mirilla_box *a, const mirilla_box *b) {
  const float height = fminf(a->ymax, b->ymax) - fmaxf(a->ymin, b->ymin);
  const float width = fminf(a->xmax, b->xmax) - fmaxf(a->xmin, b->xmin);
  if (height <= 0.0f || width <= 0.0f) return 0.0f;
  return height * width / (area(a) + area(b) - height * width);
}

int mirilla_decode(const int8_t *codes, const int8_t *scores, float threshold, mirilla_box *found, int room) {
  static mirilla_box best[MIRILLA_CANDIDATES]; /* by score, falling */
  int count = 0, kept = 0;
  for (int i = 0; i < MIRILLA_ANCHORS; ++i) {
    for (int label = 0; label < MIRILLA_CLASSES; ++label) {
      const float score = (float)(scores[i * MIRILLA_CLASSES + label] - MIRILLA_SCORE_ZERO) * MIRILLA_SCORE_SCALE;
      if (score < threshold || (count == MIRILLA_CANDIDATES && score <= best[count - 1].score)) continue;
      int place = count < MIRILLA_CANDIDATES ? count++ : count - 1;
      for (; place > 0 && best[place - 1].score < score; --place) best[place] = best[place - 1];
      best[place] = decoded(codes + 4 * i, mirilla_anchors[i]);
      best[place].score = score;
      best[place].label = label;
    }
  }
  for (int i = 0; i < count && kept < room; ++i) {
    int is_new = 1;
    for (int j = 0; j < i && is_new; ++j) { /* a suppressed box has score 0 */
      is_new = best[j].score <= 0.0f || best[j].label != best[i].label || overlap(&best[j], &best[i]) <= MIRILLA_IOU;
    }
    if (!is_new) {
      best[i].score = 0.0f;
      continue;
    }
    found[kept] = best[i];
    found[kept].ymin = limited(best[i].ymin);
    found[kept].xmin = limited(best[i].xmin);
    found[kept].ymax = limited(best[i].ymax);
    found[kept].xmax = limited(best[i].xmax);
    ++kept;
  }
  return kept;
}
