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
# Those that Airflow 3.3 supports. The first is what Airflow's own image has.
AIRFLOW_PYTHONS=(3.12 3.13 3.11 3.14 3.10)

airflow_state() { { pwd && cat "$AIRFLOW_LOCK" requirements/install-airflow.sh; } | cksum; }

airflow_is_set_up() { [[ -x $AIRFLOW/bin/python && -f $AIRFLOW/.setup && $(<"$AIRFLOW/.setup") == "$(airflow_state)" ]]; }

sync_airflow() { UV_COMPILE_BYTECODE=1 "$UV" pip sync --python "$AIRFLOW/bin/python" --require-hashes "$AIRFLOW_LOCK"; }

set_up_airflow() {
    local python
    acquire_lock
    if airflow_is_set_up; then return; fi
    say "$(date '+%F %T')  $PWD, Airflow" >"$LOG"
    adopt_certificates
    install_uv
    adopt_pip_settings
    python=$(starting_python "${AIRFLOW_PYTHONS[@]}")
    if [[ -z $python ]]; then python=$(downloaded_python "${AIRFLOW_PYTHONS[0]}"); fi
    if [[ -z $python ]]; then
        stage "python: ${AIRFLOW_PYTHONS[0]}, downloaded by uv" "$UV" python install --no-bin --install-dir .uv/python "${AIRFLOW_PYTHONS[0]}"
        python=$(downloaded_python "${AIRFLOW_PYTHONS[0]}")
        [[ $python ]] || die "the downloaded Python ${AIRFLOW_PYTHONS[0]} does not start; install a Python that Airflow supports: ${AIRFLOW_PYTHONS[*]}"
    fi
    discard "$AIRFLOW"
    stage "environment: $AIRFLOW with $("$python" -V)" "$UV" venv --quiet --no-project --prompt airflow --python "$python" "$AIRFLOW"
    stage "packages: $AIRFLOW_LOCK, compiled to bytecode" sync_airflow
    airflow_state >"$AIRFLOW/.setup.new"
    mv "$AIRFLOW/.setup.new" "$AIRFLOW/.setup"
}

resolve_airflow_lock() {
    acquire_lock
    : >"$LOG"
    adopt_certificates
    install_uv
    adopt_pip_settings
    # From another folder, where uv does not find the limits that pyproject.toml sets for the pipeline's lock.
    cd .uv
    "$OLDPWD/$UV" pip compile - --no-config --quiet --universal --python-version 3.10 --generate-hashes --no-emit-index-url --no-header \
        --output-file "$OLDPWD/$AIRFLOW_LOCK" "$@" <"$OLDPWD/requirements/airflow.in"
}

case ${1:-} in
    "") airflow_is_set_up || set_up_airflow ;;
    lock) resolve_airflow_lock "${@:2}" ;;
    *) die "unknown argument '$1': use 'lock', or no argument" ;;
esac
