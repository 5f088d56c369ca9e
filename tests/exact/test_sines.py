"""The vector sines and cosines of native/math/lanes.hpp equal libm's, bit for bit, on 40 million angles."""

import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[2] / "native"
PROGRAM = """
#include "math/lanes.hpp"
#include "math/pcg64.hpp"

using namespace shoal;

int main() {
  Pcg64 rng(0);
  static SineBlock<256> block;
  for (int round = 0; round < 156'250; ++round) {
    for (double& angle : block.angle) {
      const double unit = rng.uniform(-1, 1);
      const int exponent = static_cast<int>(rng.next_u64() % 60);
      angle = round % 4 == 0 ? std::ldexp(unit, -exponent) : unit * 0.221;
    }
    for (std::size_t i = 0; i < 256; i += 8) {
      if (round % 2 == 0) {
        block.compute<Lanes8>(i);
      } else {
        block.compute<Lanes4>(i);
        block.compute<Lanes4>(i + 4);
      }
    }
    block.settle(256);
    for (std::size_t i = 0; i < 256; ++i) {
      const double sine = std::sin(block.angle[i]);
      const double cosine = std::cos(block.angle[i]);
      if (std::memcmp(&sine, &block.sine[i], 8) != 0 || std::memcmp(&cosine, &block.cosine[i], 8) != 0) {
        return 1;
      }
    }
  }
  return 0;
}
"""


@pytest.mark.timeout(60)
def test_sines_equal_libm(tmp_path: Path) -> None:
    source, program = tmp_path / "sines.cpp", tmp_path / "sines"
    source.write_text(PROGRAM, encoding="utf-8")
    options = ["-std=c++20", "-O2", "-ffp-contract=off", f"-I{NATIVE}"]
    subprocess.run(["g++", *options, str(source), "-o", str(program)], check=True)
    assert subprocess.run([program], check=False).returncode == 0
