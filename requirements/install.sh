#!/usr/bin/env bash
# Makes the project's Python environment, .venv/, from requirements/lock.txt. Outside of the checkout it writes only uv's
# download cache.
#
#   requirements/install.sh            set up or repair .venv/; do nothing if it matches the lock
#   requirements/install.sh lock ...   resolve requirements/lock.txt again; options go to `uv pip compile`
#
# .uv/ holds uv (tool/), the log (setup.log), and a downloaded Python if the machine has none (python/).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

LOCK=requirements/lock.txt
LOG=.uv/setup.log
UV=.uv/tool/bin/uv
STATE=.venv/.setup
PYTHON_VERSION=$(<.python-version)

say() { printf '[setup] %s\n' "$*"; }

die() {
    printf '[setup] %s\n' "$@" >&2
    exit 1
}

seconds_since() {
    local tenths=$(((${EPOCHREALTIME//[!0-9]/} - $1) / 100000))
    printf '%d.%d s' $((tenths / 10)) $((tenths % 10))
}

# stage LABEL COMMAND...: runs the command, and prints one line with its time, or on failure the end of its log.
stage() {
    local label=$1 start=${EPOCHREALTIME//[!0-9]/} status=0
    shift
    if [[ -t 1 ]]; then printf '[setup] %s ...\r' "$label"; fi
    printf '\n== %s\n' "$label" >>"$LOG"
    "$@" >>"$LOG" 2>&1 </dev/null || status=$?
    if ((status)); then
        printf '[setup] failed after %s: %s (exit code %d). %s ends with:\n' "$(seconds_since "$start")" "$label" "$status" "$LOG" >&2
        tail -n 20 "$LOG" | sed 's/^/    /' >&2
        die "Fix this and run the same command again: it continues from here and keeps the downloads."
    fi
    printf '[setup] %-66s %8s\n' "$label" "$(seconds_since "$start")"
}

# A hash of everything that .venv/ is made from. It includes the folder, because an environment cannot be moved.
wanted_state() {
    { pwd && cat "$LOCK" pyproject.toml .python-version requirements/install.sh; } | sha256sum | cut -d ' ' -f 1
}

is_set_up() { [[ -x .venv/bin/python && -f $STATE && $(<"$STATE") == "$(wanted_state)" ]]; }

check_platform() {
    local platform
    platform="$(uname -s) $(uname -m)"
    if [[ $platform != "Linux x86_64" ]] || ! getconf GNU_LIBC_VERSION >/dev/null 2>&1; then
        die "TFX 1.16 has no wheels for this machine ($platform): use Linux on x86-64 with glibc."
    fi
}

# Only one set-up runs at a time. The lock lasts until the last program that this script started has ended.
acquire_lock() {
    mkdir -p .uv
    command -v flock >/dev/null || return 0
    exec 9>.uv/lock
    if ! flock --nonblock 9; then
        say "waiting for another set-up in this checkout"
        flock 9
    fi
}

# A python3 that starts: pyenv's fails in a folder whose .python-version it has not installed.
starting_python() {
    local candidate
    for candidate in python3 /usr/bin/python3; do
        if "$candidate" -c "" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

install_uv() {
    local version python
    version=$(sed -n 's/^uv==\([^ ]*\).*/\1/p' requirements/uv.txt)
    if [[ "$("$UV" --version 2>/dev/null || true) " == "uv $version "* ]]; then return; fi
    python=$(starting_python)
    [[ $python ]] || die "python3 is missing. On Debian and Ubuntu: sudo apt-get install python3 python3-venv"
    "$python" -c "import ensurepip, venv" 2>/dev/null ||
        die "python3 cannot create environments. On Debian and Ubuntu: sudo apt-get install python3-venv"
    stage "installer: uv $version" pip_environment "$python" .uv/tool requirements/uv.txt
}

# pip_environment PYTHON FOLDER REQUIREMENTS
pip_environment() {
    "$1" -m venv --clear "$2" &&
        PIP_USER=0 "$2/bin/python" -m pip install --require-hashes --only-binary=:all: --no-deps --disable-pip-version-check -r "$3"
}

pip_setting() { .uv/tool/bin/python -m pip config get "global.$1" 2>/dev/null || true; }

# uv does not read pip's configuration, but a user's index for pip is meant for uv too.
adopt_pip_settings() {
    local index extra links certificates
    if ! grep -qs index "${XDG_CONFIG_HOME:-$HOME/.config}/uv/uv.toml" /etc/uv/uv.toml &&
        [[ -z ${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-} ]]; then
        index=${PIP_INDEX_URL:-$(pip_setting index-url)}
        extra=${PIP_EXTRA_INDEX_URL:-$(pip_setting extra-index-url)}
        if [[ $index ]]; then export UV_DEFAULT_INDEX=$index; fi
        # As in pip, all indexes are equal; the hashes in the lock decide.
        if [[ $extra ]]; then export UV_INDEX=${UV_INDEX:-${extra//$'\n'/ }} UV_INDEX_STRATEGY=${UV_INDEX_STRATEGY:-unsafe-best-match}; fi
    fi
    links=${PIP_FIND_LINKS:-$(pip_setting find-links)}
    if [[ $links && -z ${UV_FIND_LINKS:-} ]]; then export UV_FIND_LINKS=${links//[[:space:]]/,}; fi
    certificates=${PIP_CERT:-$(pip_setting cert)}
    if [[ $certificates && -z ${SSL_CERT_FILE:-} ]]; then export SSL_CERT_FILE=$certificates; fi
}

has_headers() { [[ -e $("$1" -c "import sysconfig; print(sysconfig.get_path('include'))")/Python.h ]]; }

# Prints the interpreter for .venv/: the machine's own if it has headers to compile against, otherwise one from uv.
find_python() {
    local python folder="$PWD/.uv/python"
    python=$("$UV" python find --system --no-python-downloads "cpython@$PYTHON_VERSION" 2>>"$LOG" || true)
    if [[ $python ]] && has_headers "$python"; then
        echo "$python"
        return
    fi
    if "$UV" python install --no-bin --install-dir "$folder" "$PYTHON_VERSION" >>"$LOG" 2>&1; then
        UV_PYTHON_INSTALL_DIR=$folder "$UV" python find --system --managed-python "cpython@$PYTHON_VERSION"
        return
    fi
    tail -n 3 "$LOG" | sed 's/^/    /' >&2
    if [[ $python ]]; then
        die "$python lacks Python.h, and uv could not download another Python $PYTHON_VERSION: see $LOG." \
            "On Debian and Ubuntu: sudo apt-get install python$PYTHON_VERSION-dev"
    fi
    die "Python $PYTHON_VERSION is not installed, and uv could not download it: see $LOG." \
        "Give uv access to the network or a mirror (UV_PYTHON_INSTALL_MIRROR), or put python$PYTHON_VERSION on the PATH; then run this again."
}

# Only an environment that was once complete is updated. Others may hold incomplete packages that look installed.
make_venv() {
    local python state
    state=$(cat "$STATE" 2>/dev/null || echo unfinished)
    if [[ -x .venv/bin/python && $state != unfinished ]] && grep -qs "^version_info = $PYTHON_VERSION\." .venv/pyvenv.cfg; then
        return
    fi
    python=$(find_python)
    discard .venv
    stage "environment: .venv with $("$python" -V)" "$UV" venv --quiet --no-project --prompt bitsum --python "$python" .venv
}

# Rename first, so that a half-removed folder is not taken for an environment.
discard() {
    rm -rf .uv/discarded
    if [[ -e $1 || -L $1 ]]; then mv "$1" .uv/discarded; fi
    rm -rf .uv/discarded
}

compiles() {
    local include probe=.uv/probe.so
    include=$(.venv/bin/python -c "import sysconfig; print(sysconfig.get_path('include'))")
    # CC and CXX may contain options, so they are split into words.
    # shellcheck disable=SC2086
    printf '#include <Python.h>\n' | $1 -x c -shared -fPIC -I "$include" -o "$probe" - 2>>"$LOG" &&
        printf '#include <Python.h>\n#include <string>\n' | $2 -x c++ -shared -fPIC -I "$include" -o "$probe" - 2>>"$LOG"
}

find_compiler() {
    local pair wanted
    wanted=$(.venv/bin/python -c "import sysconfig; print(*map(sysconfig.get_config_var, ('CC', 'CXX')), sep='|')")
    for pair in "${CC:-}|${CXX:-}" "$wanted" "gcc|g++" "cc|c++" "clang|clang++"; do
        if [[ ${pair%|*} && ${pair#*|} ]] && compiles "${pair%|*}" "${pair#*|}"; then
            export CC=${pair%|*} CXX=${pair#*|}
            return
        fi
    done
    return 1
}

built_before() {
    "$UV" pip install --offline --no-deps --no-build-isolation --python .venv/bin/python --require-hashes -r .uv/pyfarmhash.txt
}

# pyfarmhash is the only package with compiled code and no wheel. uv caches the build, so this is needed once per machine.
provide_compiler() {
    if find_compiler; then return; fi
    awk '/^[^ ]/ { inside = /^pyfarmhash==/ } inside' "$LOCK" >.uv/pyfarmhash.txt
    if built_before >>"$LOG" 2>&1; then return; fi
    stage "compiler: from a wheel, as the machine has none for C++" \
        pip_environment .uv/tool/bin/python .uv/compiler requirements/compiler.txt
    wrap_compiler cc
    wrap_compiler c++
    export PATH="$PWD/.uv/compiler/wrapped:$PATH" CC=cc CXX=c++
    export ZIG_GLOBAL_CACHE_DIR="$PWD/.uv/compiler/cache" ZIG_LOCAL_CACHE_DIR="$PWD/.uv/compiler/cache"
}

# A named target keeps this machine's special instructions and newer glibc out of the build.
wrap_compiler() {
    local folder="$PWD/.uv/compiler"
    mkdir -p "$folder/wrapped"
    printf '#!/bin/sh\nexec "%s" -m ziglang %s -target x86_64-linux-gnu.2.28 "$@"\n' "$folder/bin/python" "$1" >"$folder/wrapped/$1"
    chmod +x "$folder/wrapped/$1"
}

install_lock() {
    UV_COMPILE_BYTECODE=1 "$UV" pip sync --python .venv/bin/python --require-hashes --build-constraints "$LOCK" "$LOCK"
}

install_project() {
    "$UV" pip install --python .venv/bin/python --no-deps --no-build-isolation --editable .
}

set_up() {
    check_platform
    acquire_lock
    if is_set_up; then return; fi
    say "$(date '+%F %T')  $PWD" >"$LOG"
    install_uv
    adopt_pip_settings
    make_venv
    echo unfinished >"$STATE"
    provide_compiler
    stage "packages: $(grep -c '==' "$LOCK") of $LOCK, compiled to bytecode" install_lock
    stage "project: bitsum, editable" install_project
    if [[ -d .uv/compiler ]]; then stage "compiler: removed" rm -rf .uv/compiler; fi
    rm -f .uv/probe.so .uv/pyfarmhash.txt
    wanted_state >"$STATE.new"
    mv "$STATE.new" "$STATE"
}

resolve_lock() {
    acquire_lock
    : >"$LOG"
    install_uv
    adopt_pip_settings
    "$UV" pip compile pyproject.toml requirements/lock.in --quiet --extra test --extra lint --python-version "$PYTHON_VERSION" \
        --python-platform x86_64-manylinux_2_28 --override requirements/overrides.txt --constraint requirements/constraints.txt \
        --generate-hashes --no-emit-index-url --no-header --output-file "$LOCK" "$@"
}

main() {
    case ${1:-} in
        "") is_set_up || set_up ;;
        lock) resolve_lock "${@:2}" ;;
        *) die "unknown argument '$1': use 'lock', or no argument" ;;
    esac
}

# When sourced, the script only defines its functions.
if [[ ${BASH_SOURCE[0]} == "$0" ]]; then main "$@"; fi
