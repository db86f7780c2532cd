#!/bin/sh
# Formatting of all C++ sources against .clang-format. Exit 77 (skipped) without clang-format.
cd "$(dirname "$0")/../.." || exit 1
if ! command -v clang-format >/dev/null; then
  echo "skip format: clang-format is not installed (apt-get install clang-format)"
  exit 77
fi
git ls-files -co --exclude-standard '*.cpp' '*.h' | xargs -r clang-format --dry-run -Werror
