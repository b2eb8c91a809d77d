/* Convolutions for WebAssembly's 128-bit SIMD. Maps are float32, channels innermost.

   kernels.wasm is made from this file; tests/test_targets_web_kernels.py makes it again and compares:

     clang --target=wasm32 -O3 -msimd128 -nostdlib -Wl,--no-entry -Wl,--import-memory -Wl,--strip-all \
       -Wl,--export=conv -Wl,--export=depthwise -Wl,-z,stack-size=16384 -o kernels.wasm kernels.c

   `in` points at the first value that the window of output (0, 0) reads; around a map lie the zeros of its padding.
   in_row and out_row are the distances of rows, in floats. Results are clamped to low..high. */

typedef float Vector __attribute__((vector_size(16), aligned(4)));

enum { LANES = 4, BLOCK = 8, TILE = 4 };

static inline __attribute__((always_inline)) void store(float *out, Vector sum, int channels, float low, float high) {
  sum = __builtin_wasm_pmin_f32x4(__builtin_wasm_pmax_f32x4(sum, (Vector){low, low, low, low}),
                                  (Vector){high, high, high, high});
  if (channels >= LANES) {
    *(Vector *)out = sum;
    return;
  }
  if (channels > 0) out[0] = sum[0];
  if (channels > 1) out[1] = sum[1];
  if (channels > 2) out[2] = sum[2];
}

/* `pixels` neighbours in a row of the output, BLOCK of their channels. */
static inline __attribute__((always_inline)) void tile(int pixels, const float *restrict in, int in_row, int in_step,
                                                       float *restrict out, const float *restrict weights,
                                                       const float *restrict bias, int in_channels, int out_channels,
                                                       int first, int kernel_rows, int kernel_columns, float low,
                                                       float high) {
  Vector left[TILE], right[TILE];
  for (int i = 0; i < pixels; i++) left[i] = *(Vector *)bias, right[i] = *(Vector *)(bias + LANES);
  for (int row = 0; row < kernel_rows; row++) {
    const float *from = in + row * in_row; /* a row of the window is kernel_columns * in_channels values on end */
    for (int k = 0; k < kernel_columns * in_channels; k++, from++, weights += BLOCK) {
      Vector w_left = *(Vector *)weights, w_right = *(Vector *)(weights + LANES);
      for (int i = 0; i < pixels; i++) {
        float x = from[i * in_step];
        left[i] += x * w_left;
        right[i] += x * w_right;
      }
    }
  }
  for (int i = 0; i < pixels; i++) {
    float *to = out + i * out_channels + first;
    store(to, left[i], out_channels - first, low, high);
    store(to + LANES, right[i], out_channels - first - LANES, low, high);
  }
}

/* Weights [output channels / BLOCK][kernel rows][kernel columns][input channels][BLOCK], filled up with zeros. */
void conv(const float *in, int in_row, float *out, int out_row, const float *weights, const float *bias, int rows,
          int columns, int in_channels, int out_channels, int kernel_rows, int kernel_columns, int stride_rows,
          int stride_columns, float low, float high) {
  int block_size = kernel_rows * kernel_columns * in_channels * BLOCK, step = stride_columns * in_channels;
  for (int y = 0; y < rows; y++)
    for (int first = 0; first < out_channels; first += BLOCK) {
      const float *from = in + y * stride_rows * in_row, *block = weights + first / BLOCK * block_size;
      float *to = out + y * out_row;
      int x = 0;
      for (; x + TILE <= columns; x += TILE)
        tile(TILE, from + x * step, in_row, step, to + x * out_channels, block, bias + first, in_channels,
             out_channels, first, kernel_rows, kernel_columns, low, high);
      for (; x < columns; x++)
        tile(1, from + x * step, in_row, step, to + x * out_channels, block, bias + first, in_channels, out_channels,
             first, kernel_rows, kernel_columns, low, high);
    }
}

static inline __attribute__((always_inline)) void depthwise_rows(
    const float *restrict in, int in_row, float *restrict out, int out_row, const float *restrict weights,
    const float *restrict bias, int rows, int columns, int channels, int kernel_rows, int kernel_columns,
    int stride_rows, int stride_columns, float low, float high) {
  int step = (channels + LANES - 1) / LANES * LANES; /* of the weights */
  for (int y = 0; y < rows; y++)
    for (int first = 0; first < channels; first += LANES)
      for (int x = 0; x < columns; x++) {
        const float *from = in + y * stride_rows * in_row + x * stride_columns * channels + first;
        Vector sum = *(Vector *)(bias + first);
        for (int row = 0; row < kernel_rows; row++)
          for (int column = 0; column < kernel_columns; column++)
            sum += *(Vector *)(from + row * in_row + column * channels) *
                   *(Vector *)(weights + (row * kernel_columns + column) * step + first);
        store(out + y * out_row + x * channels + first, sum, channels - first, low, high);
      }
}

/* Weights [kernel rows][kernel columns][channels, filled up to a multiple of LANES with zeros]. */
void depthwise(const float *in, int in_row, float *out, int out_row, const float *weights, const float *bias, int rows,
               int columns, int channels, int kernel_rows, int kernel_columns, int stride_rows, int stride_columns,
               float low, float high) {
  if (kernel_rows == 3 && kernel_columns == 3) /* the common case: its loops are unrolled */
    depthwise_rows(in, in_row, out, out_row, weights, bias, rows, columns, channels, 3, 3, stride_rows, stride_columns,
                   low, high);
  else
    depthwise_rows(in, in_row, out, out_row, weights, bias, rows, columns, channels, kernel_rows, kernel_columns,
                   stride_rows, stride_columns, low, high);
}
