"""The FusedLoss concept: a whole header compiles, an incomplete one names what it lacks."""

import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[1] / "native"
HEADER = """
#include "net/fused.hpp"
namespace shoal::SHOAL_ISA {
struct Mine {
  static constexpr const char* name = "my_loss";
  struct Columns { static constexpr const char* names[] = {"target"}; Vec target; };
  struct Settings { static constexpr const char* names[] = {"vf_coef"}; float vf_coef; };
  struct Stats { static constexpr const char* names[] = {"value"}; Vec value; };
  Settings set;
  explicit Mine(const Settings& settings) noexcept : set(settings) {}
  int least_samples() const noexcept { return 2; }
  void prepare(const Minibatch& batch) noexcept { set.vf_coef /= column_moments(batch, 0).inv_std; }
  ActorSlope actor(Vec weight, Vec, Vec, const Columns&, Stats&) const noexcept { return {weight, weight}; }
  Vec critic(Vec weight, Vec, const Columns& in, Stats&) const noexcept { return set.vf_coef * weight * in.target; }
};
static_assert(require_fused_loss<Mine>());
static_assert(place_of<Mine::Columns>("target") == 0);
}
"""


def compile_header(source: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = folder / "mine.cpp"
    path.write_text(source, encoding="utf-8")
    options = ["-std=c++20", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wno-psabi", "-fsyntax-only"]
    command = ["g++", *options, "-DSHOAL_ISA=mine", f"-I{NATIVE}", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_complete_header_compiles(tmp_path: Path) -> None:
    assert compile_header(HEADER, tmp_path).stderr == ""


@pytest.mark.parametrize("header", sorted((NATIVE / "losses").glob("*.hpp")), ids=lambda path: path.stem)
def test_every_loss_compiles_alone(header: Path, tmp_path: Path) -> None:
    type_name = "".join(word.capitalize() for word in header.stem.split("_"))
    asserted = f"static_assert(shoal::mine::require_fused_loss<shoal::mine::{type_name}>());"
    check = f'#include "losses/{header.name}"\n{asserted}\n'
    assert compile_header(check, tmp_path).stderr == ""


@pytest.mark.parametrize(
    ("start", "instead", "message"),
    [
        ("  static constexpr const char* name ", "", "FusedLoss: `static constexpr const char* name` is missing"),
        ("  struct Columns", "  using Columns = int;", "FusedLoss: `struct Columns` of Vec with `static constexpr"),
        ("  struct Stats", "  struct Stats {};", "FusedLoss: `struct Stats` of Vec with `static constexpr"),
        (
            "  struct Stats",
            '  struct Stats { static constexpr const char* names[] = {"a", "b"}; Vec value; };',
            "FusedLoss: `struct Stats` of Vec with `static constexpr",
        ),
        ("  explicit Mine", "  Mine() = default;", "FusedLoss: `struct Settings` of float with `static constexpr"),
        ("  ActorSlope actor", "", "FusedLoss: `ActorSlope actor(Vec weight, Vec log_prob, Vec entropy,"),
        ("  Vec critic", "", "FusedLoss: `Vec critic(Vec weight, Vec value, const Columns&, Stats&) const noexcept`"),
        ("  void prepare", "  void prepare() noexcept {}", "HasPrepare: `void prepare(const Minibatch&) noexcept` is"),
        (
            "  int least_samples",
            "  void least_samples() {}",
            "HasLeastSamples: `int least_samples() const noexcept` is",
        ),
    ],
)
def test_an_incomplete_header_names_the_concept(start: str, instead: str, message: str, tmp_path: Path) -> None:
    lines = list[str](HEADER.splitlines())
    (at,) = (i for i, line in enumerate(lines) if line.startswith(start))
    lines[at] = instead
    result = compile_header("\n".join(lines) + "\n", tmp_path)
    assert result.returncode != 0
    assert f"concept shoal::{message}" in result.stderr
