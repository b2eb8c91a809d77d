#include "mirilla_detect.h"

#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

#ifndef MIRILLA_ARENA_BYTES
#error "The arena was not measured. Export again with tflite-micro installed, or define MIRILLA_ARENA_BYTES."
#endif

namespace {
alignas(16) uint8_t arena[MIRILLA_ARENA_BYTES];
tflite::MicroMutableOpResolver<MIRILLA_OPS> resolver;
tflite::MicroInterpreter *interpreter = nullptr;
}  // namespace

extern "C" int mirilla_begin(void) {
  if (interpreter != nullptr) return 0;
  MIRILLA_ADD_OPS(resolver)
  static tflite::MicroInterpreter made(tflite::GetModel(mirilla_model), resolver, arena, MIRILLA_ARENA_BYTES);
  if (made.AllocateTensors() != kTfLiteOk) return -1;
  interpreter = &made;
  return 0;
}

extern "C" int8_t *mirilla_input(void) { return interpreter->input(0)->data.int8; }

extern "C" int mirilla_run(float threshold, mirilla_box *found, int room) {
  if (interpreter == nullptr || interpreter->Invoke() != kTfLiteOk) return -1;
  return mirilla_decode(interpreter->output(0)->data.int8, interpreter->output(1)->data.int8, threshold, found, room);
}
