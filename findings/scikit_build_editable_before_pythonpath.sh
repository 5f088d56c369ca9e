#!/bin/sh
# An editable install by scikit-build-core wins over PYTHONPATH; one by setuptools, of the same files, does not.
#
# setuptools puts the source folder on sys.path by a .pth file, behind what PYTHONPATH names: a second checkout of the
# package that PYTHONPATH names is imported. scikit-build-core installs a finder at the front of sys.meta_path that knows
# the package's name and its files: PYTHONPATH, sys.path.insert(0, ...) and the current folder are not asked, and the
# first checkout is imported without a word. Whoever tests a second working tree of a project with compiled parts in the
# environment of the first (git worktrees, a bisection, two branches side by side) tests the wrong code.
#
# Run by hand: sh findings/scikit_build_editable_before_pythonpath.sh. It needs no compiler (the project below has no
# compiled part). It fails where the behavior has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

for backend in scikit_build_core setuptools; do
  mkdir -p "$backend/first/src/pond" "$backend/second/src/pond"
  echo 'WHICH = "first checkout"' > "$backend/first/src/pond/__init__.py"
  echo 'WHICH = "second checkout"' > "$backend/second/src/pond/__init__.py"
done
cat > scikit_build_core/first/pyproject.toml <<'TOML'
[build-system]
requires = ["scikit-build-core"]
build-backend = "scikit_build_core.build"
[project]
name = "pond"
version = "1.0"
[tool.scikit-build]
wheel.cmake = false
wheel.packages = ["src/pond"]
TOML
cat > setuptools/first/pyproject.toml <<'TOML'
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "pond"
version = "1.0"
[tool.setuptools.packages.find]
where = ["src"]
TOML

for backend in scikit_build_core setuptools; do
  python3 -m venv "venv_$backend"
  pip="venv_$backend/bin/python -m pip --disable-pip-version-check"
  $pip install -q 'scikit-build-core==1.1.2' 'setuptools==84.2.1' 2>/dev/null
  $pip install -q --no-build-isolation -e "$backend/first" 2>/dev/null
  $pip list --format=freeze | grep -i -E '^(scikit.build.core|setuptools)=='
  said=$(PYTHONPATH="$folder/$backend/second/src" "venv_$backend/bin/python" -c '
import sys
sys.path.insert(0, sys.argv[1])
import pond
print(pond.WHICH)' "$folder/$backend/second/src")
  echo "$backend: with PYTHONPATH and sys.path[0] at the second checkout, imported: $said"
  echo "$said" > "$backend.txt"
done
test "$(cat scikit_build_core.txt)" = "first checkout" || { echo "the behavior has changed"; exit 1; }
test "$(cat setuptools.txt)" = "second checkout" || { echo "the behavior has changed"; exit 1; }
echo "as described"
