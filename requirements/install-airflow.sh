#!/usr/bin/env bash
# Makes Airflow's Python environment, .uv/airflow/, from requirements/airflow.txt: Airflow cannot share the pipeline's. Outside
# of the checkout it writes only uv's download cache, like requirements/install.sh, whose functions it uses.
#
#   requirements/install-airflow.sh            set up or repair the environment; do nothing if it matches the lock
#   requirements/install-airflow.sh lock ...   resolve requirements/airflow.txt again; options go to `uv pip compile`
set -euo pipefail
# shellcheck source=requirements/install.sh
source "$(dirname "${BASH_SOURCE[0]}")/install.sh"

AIRFLOW_LOCK=requirements/airflow.txt
AIRFLOW=.uv/airflow
AIRFLOW_PYTHON=$(<airflow/.python-version)
ABSOLUTE_UV=$PWD/$UV

airflow_state() { { pwd && cat "$AIRFLOW_LOCK" airflow/.python-version requirements/install-airflow.sh; } | sha256sum | cut -d ' ' -f 1; }

airflow_is_set_up() { [[ -x $AIRFLOW/bin/python && -f $AIRFLOW/.setup && $(<"$AIRFLOW/.setup") == "$(airflow_state)" ]]; }

# Run in the folder whose .python-version names it: both uv and pyenv's shims use the nearest one.
airflow_python() (
    folder="$PWD/.uv/python"
    log="$PWD/$LOG"
    cd airflow
    if "$ABSOLUTE_UV" python find --system --no-python-downloads "cpython@$AIRFLOW_PYTHON" 2>>"$log"; then return; fi
    "$ABSOLUTE_UV" python install --no-bin --install-dir "$folder" "$AIRFLOW_PYTHON" >>"$log" 2>&1 ||
        die "Airflow needs Python $AIRFLOW_PYTHON, which is not installed, and uv could not download it: see $LOG."
    UV_PYTHON_INSTALL_DIR=$folder "$ABSOLUTE_UV" python find --system --managed-python "cpython@$AIRFLOW_PYTHON"
)

sync_airflow() { UV_COMPILE_BYTECODE=1 "$UV" pip sync --python "$AIRFLOW/bin/python" --require-hashes "$AIRFLOW_LOCK"; }

set_up_airflow() {
    local python
    check_platform
    acquire_lock
    if airflow_is_set_up; then return; fi
    say "$(date '+%F %T')  $PWD, Airflow" >"$LOG"
    install_uv
    adopt_pip_settings
    python=$(airflow_python)
    discard "$AIRFLOW"
    stage "environment: $AIRFLOW with $("$python" -V)" "$UV" venv --quiet --no-project --prompt airflow --python "$python" "$AIRFLOW"
    stage "packages: $(grep -c '==' "$AIRFLOW_LOCK") of $AIRFLOW_LOCK, compiled to bytecode" sync_airflow
    airflow_state >"$AIRFLOW/.setup.new"
    mv "$AIRFLOW/.setup.new" "$AIRFLOW/.setup"
}

resolve_airflow_lock() {
    acquire_lock
    : >"$LOG"
    install_uv
    adopt_pip_settings
    "$UV" pip compile requirements/airflow.in --quiet --python-version "$AIRFLOW_PYTHON" --python-platform x86_64-manylinux_2_28 \
        --generate-hashes --no-emit-index-url --no-header --output-file "$AIRFLOW_LOCK" "$@"
}

case ${1:-} in
    "") airflow_is_set_up || set_up_airflow ;;
    lock) resolve_airflow_lock "${@:2}" ;;
    *) die "unknown argument '$1': use 'lock', or no argument" ;;
esac
