#!/usr/bin/env bash
# Install what the tests need, then run them: bash scripts/test.sh [pytest's flags]
set -euo pipefail
cd "$(dirname "$0")/.."

source scripts/common/setup_environment.sh
setup_environment train,report,dev
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# files go to workers whole, so that their fixtures are made once; -n 0 runs all in this process
exec python -m pytest -q -n "${TEST_WORKERS:-2}" --dist loadfile "$@"
