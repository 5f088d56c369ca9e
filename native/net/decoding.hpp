// Attention of a language model that draws one more token of each answer: queries of one token each, over cached keys.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "net/functions.hpp"
#include "net/kernels.hpp"

namespace shoal::SHOAL_ISA {

constexpr float unseen = -1e30F;  ///< the score of a key that does not count

template <int... I>
SHOAL_INLINE Vec swap_pairs(Vec x, std::integer_sequence<int, I...> /*lanes*/) noexcept {
  return __builtin_shufflevector(x, x, (I ^ 1)...);
}

template <int... I>
SHOAL_INLINE Int lane_numbers(std::integer_sequence<int, I...> /*lanes*/) noexcept {
  return Int{I...};
}

SHOAL_INLINE float sum_of_lanes(Vec x) noexcept {
  float sum = 0.0F;
  for (int i = 0; i < vec_lanes; ++i) {
    sum += x[i];
  }
  return sum;
}

/// A query's or key's head: normalized where `norm` is given, turned to its position, times `scale`.
SHOAL_INLINE void turn_head(const float* head, const float* norm, const float* turns, std::ptrdiff_t size, float eps,
                            float scale, float* out) noexcept {
  if (norm != nullptr) {
    Vec squares{};
    for (std::ptrdiff_t i = 0; i < size; i += vec_lanes) {
      squares += load(head + i) * load(head + i);
    }
    scale /= __builtin_sqrtf(sum_of_lanes(squares) / static_cast<float>(size) + eps);
  }
  for (std::ptrdiff_t i = 0; i < size; i += vec_lanes) {
    Vec x = load(head + i) * scale;
    if (norm != nullptr) {
      x *= load(norm + i);
    }
    store(out + i, x * load(turns + i) + swap_pairs(x, LaneIndex{}) * load(turns + size + i));
  }
}

/// Scores of `seen` keys [.., size] for one query, up to a whole vector; and the largest.
SHOAL_INLINE float score_keys(const float* query, const float* keys, std::ptrdiff_t seen, std::ptrdiff_t size,
                              float* scores) noexcept {
  const Int lane = lane_numbers(LaneIndex{});
  Vec most = splat(unseen);
  for (std::ptrdiff_t t = 0; t < seen; t += vec_lanes) {
    Vec products[vec_lanes];
    for (std::ptrdiff_t i = 0; i < vec_lanes; ++i) {
      const float* key = keys + (t + i) * size;
      products[i] = load(query) * load(key);
      for (std::ptrdiff_t j = vec_lanes; j < size; j += vec_lanes) {
        products[i] += load(query + j) * load(key + j);
      }
    }
    const Int left = splat(static_cast<std::int32_t>(seen - t));
    const Vec score = lane < left ? lane_sums(products) : splat(unseen);
    store(scores + t, score);
    most = larger(most, score);
  }
  float largest = most[0];
  for (int i = 1; i < vec_lanes; ++i) {
    largest = most[i] > largest ? most[i] : largest;
  }
  return largest;
}

/// Scores as probabilities.
SHOAL_INLINE void soften(float* scores, std::ptrdiff_t seen, float largest) noexcept {
  Vec sum{};
  for (std::ptrdiff_t t = 0; t < seen; t += vec_lanes) {
    const Vec score = load(scores + t);
    const Vec share = score > splat(0.5F * unseen) ? exponential(score - largest) : Vec{};
    store(scores + t, share);
    sum += share;
  }
  const float scale = 1.0F / sum_of_lanes(sum);
  for (std::ptrdiff_t t = 0; t < seen; t += vec_lanes) {
    store(scores + t, load(scores + t) * scale);
  }
}

/// Of H heads, W vectors of their outputs: sums of values [.., size] weighted by shares, `room` apart.
template <int H, int W>
SHOAL_INLINE void weigh_values(const float* shares, std::ptrdiff_t room, const float* values, std::ptrdiff_t seen,
                               std::ptrdiff_t size, float* out) noexcept {
  Vec sums[H][W] = {};
  for (std::ptrdiff_t t = 0; t < seen; ++t) {
#pragma GCC unroll 4
    for (int w = 0; w < W; ++w) {
      const Vec value = load(values + t * size + w * vec_lanes);
#pragma GCC unroll 4
      for (int h = 0; h < H; ++h) {
        sums[h][w] += value * shares[h * room + t];
      }
    }
  }
  for (int h = 0; h < H; ++h) {
    for (int w = 0; w < W; ++w) {
      store(out + h * size + w * vec_lanes, sums[h][w]);
    }
  }
}

template <int H>
SHOAL_INLINE void weigh_heads(const float* shares, std::ptrdiff_t room, const float* values, std::ptrdiff_t seen,
                              std::ptrdiff_t size, float* out) noexcept {
  std::ptrdiff_t at = 0;
  for (; at + 2 * vec_lanes <= size; at += 2 * vec_lanes) {
    weigh_values<H, 2>(shares, room, values + at, seen, size, out + at);
  }
  for (; at < size; at += vec_lanes) {
    weigh_values<H, 1>(shares, room, values + at, seen, size, out + at);
  }
}

/// One token of one answer, the heads that share one head of keys and values.
SHOAL_INLINE void attend_group(const DecodeShape& shape, const float* queries, const float* keys, const float* values,
                               std::ptrdiff_t seen, float* scores, float* out) noexcept {
  const std::ptrdiff_t room = score_room(shape);
  const std::ptrdiff_t group = shape.heads / shape.kv_heads;
  for (std::ptrdiff_t h = 0; h < group; ++h) {
    float* of_head = scores + h * room;
    soften(of_head, seen, score_keys(queries + h * shape.size, keys, seen, shape.size, of_head));
  }
  std::ptrdiff_t h = 0;
  for (; h + 4 <= group; h += 4) {
    weigh_heads<4>(scores + h * room, room, values, seen, shape.size, out + h * shape.size);
  }
  scores += h * room;
  out += h * shape.size;
  switch (group - h) {
    case 3:
      return weigh_heads<3>(scores, room, values, seen, shape.size, out);
    case 2:
      return weigh_heads<2>(scores, room, values, seen, shape.size, out);
    case 1:
      return weigh_heads<1>(scores, room, values, seen, shape.size, out);
    default:
      return;
  }
}

inline void decode_attention(const DecodeShape& shape, const DecodeIn& in, float* key_cache, float* value_cache,
                             float* scratch, float* out) noexcept {
  const std::ptrdiff_t size = shape.size;
  const std::ptrdiff_t group = shape.heads / shape.kv_heads;
  const std::ptrdiff_t per_head = shape.capacity * size;
  const float scale = 1.0F / __builtin_sqrtf(static_cast<float>(size));
  float* queries = scratch;
  float* scores = scratch + group * size;
  for (std::ptrdiff_t row = 0; row < shape.rows; ++row) {
    const std::ptrdiff_t position = in.position[row];
    const float* turns = in.turns + position * 2 * size;
    const float* heads = in.qkv + row * (shape.heads + 2 * shape.kv_heads) * size;
    const float* key = heads + shape.heads * size;
    const float* value = key + shape.kv_heads * size;
    for (std::ptrdiff_t kv = 0; kv < shape.kv_heads; ++kv) {
      float* keys = key_cache + (row * shape.kv_heads + kv) * per_head;
      float* values = value_cache + (row * shape.kv_heads + kv) * per_head;
      const float* norm = in.norm;
      for (std::ptrdiff_t h = 0; h < group; ++h) {
        const std::ptrdiff_t at = (kv * group + h) * size;
        turn_head(heads + at, norm == nullptr ? nullptr : norm + at, turns, size, shape.eps, scale, queries + h * size);
      }
      const std::ptrdiff_t at = (shape.heads + kv) * size;
      turn_head(key + kv * size, norm == nullptr ? nullptr : norm + at, turns, size, shape.eps, 1.0F,
                keys + position * size);
      for (std::ptrdiff_t i = 0; i < size; i += vec_lanes) {
        store(values + position * size + i, load(value + kv * size + i));
      }
      attend_group(shape, queries, keys, values, position + 1, scores, out + (row * shape.heads + kv * group) * size);
    }
  }
}

}  // namespace shoal::SHOAL_ISA
