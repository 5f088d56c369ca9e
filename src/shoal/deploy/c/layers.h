/* The arithmetic of the layers, on arrays whose sizes the caller knows. Nothing here allocates. */
#ifndef SHOAL_LAYERS_H
#define SHOAL_LAYERS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __FAST_MATH__
#error "-ffast-math would remove the checks of observations for NaN and infinity; compile without it"
#endif

/* Inlined, so that sizes are constants where the compiler unrolls and vectorizes. */
#if defined(__GNUC__)
#define LAYER static inline __attribute__((always_inline, unused))
#else
#define LAYER static inline
#endif

#define NEVER (-1e30f) /* of an option that a mask takes away */

/* e^x within 2e-7 of itself: 2^n e^r with |r| <= ln 2 / 2, the latter by its series. No branches, so loops vectorize. */
LAYER float exponential(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float half = x < 0.0f ? -0.5f : 0.5f;
  const int32_t n = (int32_t)(x * 1.44269504f + half);
  const float r = (x - (float)n * 0.693359375f) + (float)n * 2.12194440e-4f; /* ln 2 in two parts */
  float series = 1.0f / 5040.0f;
  series = series * r + 1.0f / 720.0f;
  series = series * r + 1.0f / 120.0f;
  series = series * r + 1.0f / 24.0f;
  series = series * r + 1.0f / 6.0f;
  series = series * r + 0.5f;
  series = series * r + 1.0f;
  series = series * r + 1.0f;
  const int32_t bits = (n + 127) * (1 << 23);
  float power;
  memcpy(&power, &bits, sizeof power);
  return power * series;
}

LAYER float hyperbolic_tangent(float x) { return 1.0f - 2.0f / (exponential(2.0f * x) + 1.0f); }

LAYER float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

/* y = x W + b, with W [inputs][outputs]. */
LAYER void dense(const float *restrict x, int inputs, const float *restrict weight, const float *restrict bias,
                 int outputs, float *restrict y) {
  for (int j = 0; j < outputs; j++) y[j] = bias[j];
  for (int i = 0; i < inputs; i++) {
    for (int j = 0; j < outputs; j++) y[j] += x[i] * weight[(size_t)i * outputs + j];
  }
}

LAYER void tanh_each(float *x, int size) {
  for (int i = 0; i < size; i++) x[i] = hyperbolic_tangent(x[i]);
}

LAYER void relu_each(float *x, int size) {
  for (int i = 0; i < size; i++) x[i] = x[i] > 0.0f ? x[i] : 0.0f;
}

LAYER void add_to(float *restrict x, const float *restrict y, int size) {
  for (int i = 0; i < size; i++) x[i] += y[i];
}

/* (x - mean of x) / sqrt(variance of x + eps) * weight + bias; weight and bias [channels] repeat over x. */
LAYER void normalize(float *restrict x, int size, const float *restrict weight, const float *restrict bias,
                     int channels, float eps) {
  double sum = 0.0, squares = 0.0;
  for (int i = 0; i < size; i++) sum += x[i];
  const double mean = sum / size;
  for (int i = 0; i < size; i++) squares += (x[i] - mean) * (x[i] - mean);
  const float scale = (float)(1.0 / sqrt(squares / size + eps));
  for (int i = 0; i < size; i += channels) {
    for (int c = 0; c < channels; c++) x[i + c] = (float)(x[i + c] - mean) * scale * weight[c] + bias[c];
  }
}

/* (x - mean) * inv_std, clipped: the statistics of the observations that the policy was trained with. */
LAYER void standardize(float *restrict x, int size, const float *restrict mean, const float *restrict inv_std,
                       float clip) {
  for (int i = 0; i < size; i++) {
    const float z = (x[i] - mean[i]) * inv_std[i];
    x[i] = z < -clip ? -clip : z > clip ? clip : z;
  }
}

/* A convolution of x [height][width][channels] with weight [side][side][channels][filters]. */
LAYER void convolve(const float *restrict x, int height, int width, int channels, const float *restrict weight,
                    const float *restrict bias, int side, int stride, int padding, int tall, int wide, int filters,
                    float *restrict y) {
  for (int row = 0; row < tall; row++) {
    for (int column = 0; column < wide; column++) {
      float *restrict out = y + ((size_t)row * wide + column) * filters;
      for (int f = 0; f < filters; f++) out[f] = bias[f];
      for (int i = 0; i < side; i++) {
        const int h = row * stride + i - padding;
        if (h < 0 || h >= height) continue;
        for (int j = 0; j < side; j++) {
          const int w = column * stride + j - padding;
          if (w < 0 || w >= width) continue;
          const float *restrict at = x + ((size_t)h * width + w) * channels;
          const float *restrict by = weight + ((size_t)i * side + j) * channels * filters;
          for (int c = 0; c < channels; c++) {
            for (int f = 0; f < filters; f++) out[f] += at[c] * by[(size_t)c * filters + f];
          }
        }
      }
    }
  }
}

/* The greatest of each 3 x 3 places at every second place, with a border of one. */
LAYER void max_pool(const float *restrict x, int height, int width, int channels, int tall, int wide,
                    float *restrict y) {
  for (int row = 0; row < tall; row++) {
    for (int column = 0; column < wide; column++) {
      float *restrict out = y + ((size_t)row * wide + column) * channels;
      for (int c = 0; c < channels; c++) out[c] = -INFINITY;
      for (int h = 2 * row - 1; h <= 2 * row + 1; h++) {
        for (int w = 2 * column - 1; w <= 2 * column + 1; w++) {
          if (h < 0 || h >= height || w < 0 || w >= width) continue;
          const float *restrict at = x + ((size_t)h * width + w) * channels;
          for (int c = 0; c < channels; c++) out[c] = at[c] > out[c] ? at[c] : out[c];
        }
      }
    }
  }
}

/* One step of a GRU on its state h; given and hidden [3 units]: reset, update, new. */
LAYER void gru(float *restrict h, int units, float *restrict given, float *restrict hidden) {
  for (int j = 0; j < units; j++) {
    const float reset = sigmoid(given[j] + hidden[j]);
    const float update = sigmoid(given[units + j] + hidden[units + j]);
    const float candidate = hyperbolic_tangent(given[2 * units + j] + reset * hidden[2 * units + j]);
    h[j] = (1.0f - update) * candidate + update * h[j];
  }
}

/* One step of an LSTM on its state h, c; given and hidden [4 units]: input, forget, cell, output. */
LAYER void lstm(float *restrict h, float *restrict c, int units, float *restrict given, float *restrict hidden) {
  for (int j = 0; j < units; j++) {
    const float input = sigmoid(given[j] + hidden[j]);
    const float forget = sigmoid(given[units + j] + hidden[units + j]);
    const float cell = hyperbolic_tangent(given[2 * units + j] + hidden[2 * units + j]);
    const float output = sigmoid(given[3 * units + j] + hidden[3 * units + j]);
    c[j] = forget * c[j] + input * cell;
    h[j] = output * hyperbolic_tangent(c[j]);
  }
}

/* Values of states and advantages [options][quantiles] to values: value + advantage - mean of the advantages. */
LAYER void duel(float *restrict advantage, const float *restrict value, int options, int quantiles) {
  for (int q = 0; q < quantiles; q++) {
    float sum = 0.0f;
    for (int a = 0; a < options; a++) sum += advantage[a * quantiles + q];
    const float mean = sum / (float)options;
    for (int a = 0; a < options; a++) advantage[a * quantiles + q] += value[q] - mean;
  }
}

/* The mean of each option's quantiles. */
LAYER void average(const float *restrict quantile, int options, int quantiles, float *restrict value) {
  for (int a = 0; a < options; a++) {
    float sum = 0.0f;
    for (int q = 0; q < quantiles; q++) sum += quantile[a * quantiles + q];
    value[a] = sum / (float)quantiles;
  }
}

/* The first of the highest numbers among the options that mask (or NULL) leaves; -1 where it leaves none. */
LAYER int highest(const float *number, const uint8_t *mask, int options) {
  int best = -1;
  for (int a = 0; a < options; a++) {
    if (mask != NULL && !mask[a]) continue;
    if (best < 0 || number[a] > number[best]) best = a;
  }
  return best;
}

/* The option that a uniform number of [0, 1) draws by softmax probabilities, among those that mask (or NULL) leaves. */
LAYER int drawn(const float *logit, const uint8_t *mask, int options, float uniform) {
  const int best = highest(logit, mask, options);
  if (best < 0) return -1;
  double total = 0.0, below = 0.0;
  for (int a = 0; a < options; a++) {
    if (mask == NULL || mask[a]) total += exp((double)logit[a] - logit[best]);
  }
  int last = best;
  for (int a = 0; a < options; a++) {
    if (mask != NULL && !mask[a]) continue;
    below += exp((double)logit[a] - logit[best]);
    last = a;
    if (below > uniform * total) return a;
  }
  return last;
}

/* A log standard deviation that neither dies out nor explodes. */
LAYER float bounded(float log_std) { return log_std < -20.0f ? -20.0f : log_std > 2.0f ? 2.0f : log_std; }

#endif
