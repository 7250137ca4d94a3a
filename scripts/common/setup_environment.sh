# shellcheck shell=bash
# Sourced: makes .venv when no virtual environment is active, and installs the package with pinned versions, once.
# Usage: source scripts/common/setup_environment.sh; setup_environment EXTRAS   (for example train,report,dev)

export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}
export TOKENIZERS_PARALLELISM=${TOKENIZERS_PARALLELISM:-false}

setup_environment() {
    local extras=$1 python=${PYTHON:-python3} stamp wanted
    if [ -z "${VIRTUAL_ENV:-}" ]; then
        if [ ! -x .venv/bin/python ]; then
            echo "== making .venv"
            "$python" -m venv .venv
        fi
        # shellcheck disable=SC1091
        source .venv/bin/activate
    fi
    stamp="$VIRTUAL_ENV/llava-installed"
    wanted=$(cat pyproject.toml constraints.txt | sha256sum | cut -c1-16)-$extras-$PWD
    if [ -f "$stamp" ] && grep -qxF "$wanted" "$stamp"; then
        return
    fi
    echo "== installing into $VIRTUAL_ENV (a few minutes the first time)"
    if ! python -c 'import torch' 2>/dev/null; then # first and alone: later packages then keep this build
        pip install --quiet --disable-pip-version-check "$(grep -i '^torch==' constraints.txt)" -c constraints.txt
    fi
    pip install --quiet --disable-pip-version-check setuptools wheel
    case ",$extras," in
    *,train,*) # DeepSpeed is built from source and asks for torch while it is built
        pip install --quiet --disable-pip-version-check ninja packaging psutil py-cpuinfo -c constraints.txt
        DS_BUILD_OPS=0 pip install --quiet --disable-pip-version-check --no-build-isolation -c constraints.txt deepspeed
        ;;
    esac
    pip install --quiet --disable-pip-version-check --no-build-isolation -c constraints.txt -e ".[$extras]"
    echo "$wanted" >>"$stamp"
}
