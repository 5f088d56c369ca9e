// shoal._native's equations: Philox noise, GAE, n-step and Q(lambda) returns, V-trace.
#include <cmath>
#include <string>
#include <vector>

#include "bind/arrays.hpp"
#include "core/preprocessed.hpp"
#include "math/philox.hpp"
#include "math/scan.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace shoal {
namespace {

using Noise2d = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

/// A new array that owns its memory.
Noise2d make_array(std::size_t rows, std::size_t columns) {
  auto* data = new float[rows * columns + 1];
  const nb::capsule owner(data, [](void* memory) noexcept { delete[] static_cast<float*>(memory); });
  return Noise2d(data, {rows, columns}, owner);
}

void fill_noise(std::uint64_t seed, std::uint32_t stream, const std::int64_t* rows, const std::int64_t* steps,
                std::size_t count, std::size_t size, bool normal, float* out) {
  for (std::size_t first = 0; first < count; first += philox_rows) {
    const std::size_t many = count - first < philox_rows ? count - first : philox_rows;
    for (std::size_t j = 0; j < size; j += 4) {
      PhiloxWords words;
      philox_words(seed, stream, static_cast<std::uint32_t>(j / 4), rows + first, steps + first, static_cast<int>(many),
                   words);
      for (std::size_t i = 0; i < many; ++i) {
        float noise[4];
        for (int w = 0; w < 4; ++w) {
          noise[w] = philox_to_uniform(words.word[w][i]);
        }
        if (normal) {
          philox_to_normal(words.word[0][i], words.word[1][i], noise[0], noise[1]);
          philox_to_normal(words.word[2][i], words.word[3][i], noise[2], noise[3]);
        }
        for (std::size_t w = 0; w < 4 && j + w < size; ++w) {
          out[(first + i) * size + j + w] = noise[w];
        }
      }
    }
  }
}

/// Row numbers as int64, whether they come as int64 or uint32.
std::vector<std::int64_t> row_numbers(const ArrayIn& rows) {
  const std::size_t count = axis(rows, "rows", 1, 0);
  if (rows.dtype() == nb::dtype<std::uint32_t>()) {
    const std::uint32_t* from = numbers<std::uint32_t>(rows, "rows", {count});
    return {from, from + count};
  }
  const std::int64_t* from = numbers<std::int64_t>(rows, "rows", {count});
  for (std::size_t i = 0; i < count; ++i) {
    if (from[i] < 0 || from[i] > std::int64_t{0xFFFFFFFF}) {
      throw std::invalid_argument("rows must lie between 0 and 4294967295, not " + std::to_string(from[i]));
    }
  }
  return {from, from + count};
}

Noise2d philox(std::uint64_t seed, std::uint32_t stream, const ArrayIn& rows, const ArrayIn& steps, std::size_t size,
               bool normal) {
  constexpr std::uint32_t num_streams = 1U << 16;
  constexpr std::size_t max_size = 4U << 16;
  if (stream >= num_streams) {
    throw std::invalid_argument("stream must be below 65536, not " + std::to_string(stream));
  }
  if (size > max_size) {
    throw std::invalid_argument("size must be at most 262144, not " + std::to_string(size));
  }
  const std::vector<std::int64_t> row = row_numbers(rows);
  const std::int64_t* step = numbers<std::int64_t>(steps, "steps", {row.size()});
  Noise2d out = make_array(row.size(), size);
  const nb::gil_scoped_release released;
  fill_noise(seed, stream, row.data(), step, row.size(), size, normal, out.data());
  return out;
}

/// The arrays that the scans read.
struct ScanArrays {
  std::size_t agents;
  std::size_t steps;
  std::size_t rows;
  ScanInput first;
};

ScanArrays scan_arrays(const ArrayIn& reward, const ArrayIn& value, const ArrayIn& next_value,
                       const ArrayIn& terminated, const ArrayIn& ended, const ArrayIn& valid) {
  ScanArrays arrays{axis(reward, "reward", 3, 0), axis(reward, "reward", 3, 1), axis(reward, "reward", 3, 2), {}};
  const std::initializer_list<std::size_t> shape = {arrays.agents, arrays.steps, arrays.rows};
  arrays.first = {
      static_cast<std::ptrdiff_t>(arrays.steps),       static_cast<std::ptrdiff_t>(arrays.rows),
      numbers<float>(reward, "reward", shape),         numbers<float>(value, "value", shape),
      numbers<float>(next_value, "next_value", shape), numbers<std::uint8_t>(terminated, "terminated", shape),
      numbers<std::uint8_t>(ended, "ended", shape),    numbers<std::uint8_t>(valid, "valid", shape)};
  return arrays;
}

void bind_gae(const ArrayIn& reward, const ArrayIn& value, const ArrayIn& next_value, const ArrayIn& terminated,
              const ArrayIn& ended, const ArrayIn& valid, const ArrayIn& gamma, const ArrayIn& gae_lambda,
              const ArrayOut& advantage_out) {
  const ScanArrays in = scan_arrays(reward, value, next_value, terminated, ended, valid);
  const double* discounts = numbers<double>(gamma, "gamma", {in.agents});
  const double* lambdas = numbers<double>(gae_lambda, "gae_lambda", {in.agents});
  float* out = numbers<float>(advantage_out, "advantage_out", {in.agents, in.steps, in.rows});
  std::vector<float> carry(in.rows);
  const nb::gil_scoped_release released;
  for (std::size_t m = 0; m < in.agents; ++m) {
    gae(in.first.agent(static_cast<std::ptrdiff_t>(m)), discounts[m], lambdas[m], carry.data(),
        out + m * in.steps * in.rows);
  }
}

void bind_n_step(const ArrayIn& reward, const ArrayIn& next_value, const ArrayIn& terminated, const ArrayIn& ended,
                 const ArrayIn& valid, const ArrayIn& gamma, std::int64_t n, const ArrayOut& target_out) {
  if (n < 1) {
    throw std::invalid_argument("n must be at least 1, not " + std::to_string(n));
  }
  const ScanArrays in = scan_arrays(reward, next_value, next_value, terminated, ended, valid);
  const double* discounts = numbers<double>(gamma, "gamma", {in.agents});
  float* out = numbers<float>(target_out, "target_out", {in.agents, in.steps, in.rows});
  const nb::gil_scoped_release released;
  for (std::size_t m = 0; m < in.agents; ++m) {
    n_step(in.first.agent(static_cast<std::ptrdiff_t>(m)), discounts[m], n, out + m * in.steps * in.rows);
  }
}

void bind_q_lambda(const ArrayIn& reward, const ArrayIn& next_value, const ArrayIn& terminated, const ArrayIn& ended,
                   const ArrayIn& valid, const ArrayIn& gamma, const ArrayIn& lambda, const ArrayOut& target_out) {
  const ScanArrays in = scan_arrays(reward, next_value, next_value, terminated, ended, valid);
  const double* discounts = numbers<double>(gamma, "gamma", {in.agents});
  const double* lambdas = numbers<double>(lambda, "q_lambda", {in.agents});
  float* out = numbers<float>(target_out, "target_out", {in.agents, in.steps, in.rows});
  std::vector<float> carry(in.rows);
  std::vector<std::uint8_t> going(in.rows);
  const nb::gil_scoped_release released;
  for (std::size_t m = 0; m < in.agents; ++m) {
    q_lambda(in.first.agent(static_cast<std::ptrdiff_t>(m)), discounts[m], lambdas[m], carry.data(), going.data(),
             out + m * in.steps * in.rows);
  }
}

void bind_vtrace(const ArrayIn& reward, const ArrayIn& value, const ArrayIn& next_value, const ArrayIn& terminated,
                 const ArrayIn& ended, const ArrayIn& valid, const ArrayIn& rho, const ArrayIn& c, const ArrayIn& gamma,
                 const ArrayIn& lambda, const ArrayOut& advantage_out, const ArrayOut& error_out) {
  const ScanArrays in = scan_arrays(reward, value, next_value, terminated, ended, valid);
  const std::initializer_list<std::size_t> shape = {in.agents, in.steps, in.rows};
  const TraceWeights weights{numbers<float>(rho, "rho", shape), numbers<float>(c, "c", shape)};
  const double* discounts = numbers<double>(gamma, "gamma", {in.agents});
  const double* lambdas = numbers<double>(lambda, "vtrace_lambda", {in.agents});
  float* advantage = numbers<float>(advantage_out, "advantage_out", shape);
  float* error = numbers<float>(error_out, "error_out", shape);
  std::vector<TraceCarry> carry(in.rows);
  const nb::gil_scoped_release released;
  for (std::size_t m = 0; m < in.agents; ++m) {
    const auto skip = static_cast<std::ptrdiff_t>(m * in.steps * in.rows);
    vtrace(in.first.agent(static_cast<std::ptrdiff_t>(m)), weights.shifted(skip), discounts[m], lambdas[m],
           carry.data(), advantage + skip, error + skip);
  }
}

/// Which rows stick to their previous action: bool [rows], of each one's seed and steps since.
nb::ndarray<nb::numpy, bool> sticky_rows(const ArrayIn& seeds, const ArrayIn& steps, double probability) {
  const std::size_t rows = seeds.ndim() == 1 ? seeds.shape(0) : 0;
  const std::uint64_t* seed = numbers<std::uint64_t>(seeds, "seeds", {rows});
  const std::int64_t* step = numbers<std::int64_t>(steps, "steps", {rows});
  auto* data = new bool[rows];
  const nb::capsule owner(data, [](void* held) noexcept { delete[] static_cast<bool*>(held); });
  for (std::size_t i = 0; i < rows; ++i) {
    data[i] = sticks(seed[i], step[i], probability);
  }
  return {data, {rows}, owner};
}

}  // namespace
}  // namespace shoal

void bind_math(nb::module_& module) {
  using shoal::ArrayIn;
  module.def("sticky_rows", &shoal::sticky_rows, "seeds"_a.noconvert(), "steps"_a.noconvert(), "probability"_a,
             "Which rows stick to their previous action: of the seed of each and its steps since.");
  module.def(
      "philox_uniform",
      [](std::uint64_t seed, std::uint32_t stream, const ArrayIn& rows, const ArrayIn& steps, std::size_t size) {
        return shoal::philox(seed, stream, rows, steps, size, false);
      },
      "seed"_a, "stream"_a, "rows"_a.noconvert(), "steps"_a.noconvert(), "size"_a,
      "Uniform float32 in [0, 1), [rows, size]: Philox4x32-10 of (seed, stream, row, row_step).");
  module.def(
      "philox_normal",
      [](std::uint64_t seed, std::uint32_t stream, const ArrayIn& rows, const ArrayIn& steps, std::size_t size) {
        return shoal::philox(seed, stream, rows, steps, size, true);
      },
      "seed"_a, "stream"_a, "rows"_a.noconvert(), "steps"_a.noconvert(), "size"_a,
      "Standard normal float32, [rows, size]: Philox4x32-10 of (seed, stream, row, row_step), by Box and Muller.");
  module.def("gae", &shoal::bind_gae, "reward"_a.noconvert(), "value"_a.noconvert(), "next_value"_a.noconvert(),
             "terminated"_a.noconvert(), "ended"_a.noconvert(), "valid"_a.noconvert(), "gamma"_a.noconvert(),
             "gae_lambda"_a.noconvert(), "advantage_out"_a.noconvert(),
             "Generalised advantage estimation (Schulman et al. 2016) over [M, T, B]; gamma, gae_lambda float64 [M].");
  module.def("n_step", &shoal::bind_n_step, "reward"_a.noconvert(), "next_value"_a.noconvert(),
             "terminated"_a.noconvert(), "ended"_a.noconvert(), "valid"_a.noconvert(), "gamma"_a.noconvert(), "n"_a,
             "target_out"_a.noconvert(), "n-step returns within a rollout over [M, T, B]; gamma float64 [M].");
  module.def("q_lambda", &shoal::bind_q_lambda, "reward"_a.noconvert(), "next_value"_a.noconvert(),
             "terminated"_a.noconvert(), "ended"_a.noconvert(), "valid"_a.noconvert(), "gamma"_a.noconvert(),
             "q_lambda"_a.noconvert(), "target_out"_a.noconvert(),
             "Q(lambda) returns (Peng and Williams 1996) over [M, T, B]; gamma, q_lambda float64 [M].");
  module.def("vtrace", &shoal::bind_vtrace, "reward"_a.noconvert(), "value"_a.noconvert(), "next_value"_a.noconvert(),
             "terminated"_a.noconvert(), "ended"_a.noconvert(), "valid"_a.noconvert(), "rho"_a.noconvert(),
             "c"_a.noconvert(), "gamma"_a.noconvert(), "vtrace_lambda"_a.noconvert(), "advantage_out"_a.noconvert(),
             "error_out"_a.noconvert(),
             "V-trace (Espeholt et al. 2018, eq. 1) over [M, T, B], error_out being target - value; gamma, "
             "vtrace_lambda float64 [M].");
}
