#!/bin/sh
# Checks an RWKV checkpoint in continuous integration: its recurrent and its parallel form agree, and a file converted from it
# keeps within thresholds. action.yml, docs/ci.md and tests/ci_steps.rs run nothing else. Everything is set by variables, whose
# meaning docs/ci.md lists:
#
#   check-checkpoint.sh key      prints what a cache of the installed program may go by
#   check-checkpoint.sh install  builds rwkv-forge, unless the same sources are installed already
#   check-checkpoint.sh check    checks CHECK_MODEL; ends with the exit code of the step that went worst
set -eu

source=${CHECK_SOURCE:-$(cd "$(dirname "$0")/.." && pwd)}
prefix=${CHECK_PREFIX:-$PWD/.rwkv-forge}
repository=${CHECK_REPOSITORY:-https://github.com/rwkv-forge/rwkv-forge}

usage() {
    printf 'check-checkpoint: %s\n' "$1" >&2
    exit 2
}

# A file that later steps of a GitHub workflow read, when there is one.
github() { # VARIABLE LINE
    eval "file=\${$1:-}"
    if [ -n "$file" ]; then printf '%s\n' "$2" >> "$file"; fi
}

# --- the program ---------------------------------------------------------------------------------------------------------------

# What the program is built from: a revision, or the checksum of a checkout.
key() {
    if [ -n "${CHECK_REVISION:-}" ]; then
        case $CHECK_REVISION in
            *[!0-9a-f]*) usage "CHECK_REVISION is no commit: $CHECK_REVISION; give all 40 digits, names of branches move" ;;
        esac
        [ ${#CHECK_REVISION} -eq 40 ] || usage "CHECK_REVISION has ${#CHECK_REVISION} digits; give all 40"
        printf '%s\n' "$CHECK_REVISION"
    elif [ -f "$source/crates/cli/Cargo.toml" ]; then
        (cd "$source" && find Cargo.toml Cargo.lock crates -type f | LC_ALL=C sort | xargs cksum | cksum | tr ' ' '-')
    else
        usage "$source is no checkout of rwkv-forge; set CHECK_REVISION, CHECK_SOURCE or CHECK_FORGE"
    fi
}

install() {
    if [ -n "${CHECK_FORGE:-}" ]; then
        printf 'using %s\n' "$CHECK_FORGE"
        return
    fi
    key=$(key)
    if [ -x "$prefix/bin/rwkv-forge" ] && [ "$(cat "$prefix/key" 2> /dev/null)" = "$key" ]; then
        printf 'rwkv-forge of %s is installed\n' "$key"
        return
    fi
    if [ -n "${CHECK_REVISION:-}" ]; then
        cargo install --locked --force --root "$prefix" --git "$repository" --rev "$CHECK_REVISION" rwkv-forge
    else
        cargo install --locked --force --root "$prefix" --path "$source/crates/cli"
    fi
    printf '%s\n' "$key" > "$prefix/key"
}

# --- the steps -----------------------------------------------------------------------------------------------------------------

xml() { # text in an attribute
    printf '%s' "$1" | tr '\n\t\r' '   ' | tr -d '\000-\037' | sed 's/&/\&amp;/g; s/</\&lt;/g; s/>/\&gt;/g; s/"/\&quot;/g'
}

escape() { # text in a workflow command of GitHub
    printf '%s' "$1" | sed 's/%/%25/g' | tr '\r' ' ' | awk 'NR > 1 { printf "%%0A" } { printf "%s", $0 }'
}

# What went wrong: the error, or the sentences about thresholds and bounds in the step's document.
reason() { # STEP
    if grep -q '^error\[' "$work/$1.err"; then
        sed -n '/^error\[/,$p' "$work/$1.err"
    elif [ -f "$results/$1.json" ]; then
        awk '/"violations": \[$/ { on = 1; next } on && /\]/ { on = 0 } on || sub(/^ *"message": /, "") { gsub(/^ *"|",?$/, ""); gsub(/\\"/, "\""); print }' \
            "$results/$1.json"
    fi
}

# Runs one step; its document becomes RESULTS/STEP.json when it is complete.
step() { # STEP WHAT ARGUMENTS...
    name=$1 what=$2
    shift 2
    total=$((total + 1))
    if [ "$stop" != no ]; then
        skipped=$((skipped + 1))
        cases="$cases    <testcase name=\"$name\" classname=\"rwkv-forge\"><skipped message=\"$(xml "$stop")\"/></testcase>
"
        table="$table| $what | skipped | $stop |
"
        return
    fi
    begun=$(date +%s)
    printf '== %s\n' "$what"
    status=0
    "$forge" --json --quiet "$@" > "$work/$name.json" 2> "$work/$name.err" || status=$?
    cat "$work/$name.err" >&2
    seconds=$(($(date +%s) - begun))
    if [ -s "$work/$name.json" ]; then mv "$work/$name.json" "$results/$name.json"; fi
    if [ $status -eq 0 ]; then
        cases="$cases    <testcase name=\"$name\" classname=\"rwkv-forge\" time=\"$seconds\"/>
"
        table="$table| $what | passed | |
"
        printf 'passed\n'
    else
        failed "$name" "$what"
    fi
}

failed() { # STEP WHAT, after a step that ended with $status
    why=$(reason "$1")
    [ -n "$why" ] || why="ended with exit code $status"
    # 1 is a threshold, and the other checks still say something; anything else spoils them.
    if [ $status -eq 1 ]; then kind=failure result=failed; else kind=error result=error stop="$1 ended with exit code $status"; fi
    if [ $status -gt $worst ]; then worst=$status; fi
    if [ $kind = failure ]; then failures=$((failures + 1)); else errors=$((errors + 1)); fi
    cases="$cases    <testcase name=\"$1\" classname=\"rwkv-forge\" time=\"$seconds\"><$kind type=\"exit code $status\" message=\"$(xml "$why")\"/></testcase>
"
    table="$table| $2 | $result ($status) | $(printf '%s' "$why" | tr '\n' ' ' | sed 's/|/\\|/g') |
"
    printf '%s: %s\n' "$result" "$why"
    # The comparison of the forms writes its own annotations, with layer and position.
    if [ "${GITHUB_ACTIONS:-}" = true ] && ! grep -q '^::error' "$work/$1.err"; then
        printf '::error file=%s,title=rwkv-forge %s::%s\n' "$(escape "$model" | sed 's/:/%3A/g; s/,/%2C/g')" "$1" "$(escape "$why")"
    fi
}

finish() {
    {
        printf '<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n'
        printf '  <testsuite name="rwkv-forge" tests="%s" failures="%s" errors="%s" skipped="%s">\n' $total $failures $errors $skipped
        printf '%s  </testsuite>\n</testsuites>\n' "$cases"
    } > "$work/steps.xml"
    {
        printf '### rwkv-forge: %s\n\n' "$model"
        printf '| check | result | why |\n|---|---|---|\n%s' "$table"
    } > "$work/summary.md"
    if [ -n "${GITHUB_STEP_SUMMARY:-}" ]; then cat "$work/summary.md" >> "$GITHUB_STEP_SUMMARY"; fi
    mv "$work/steps.xml" "$work/summary.md" "$results/"
    github GITHUB_OUTPUT "exit-code=$worst"
    github GITHUB_OUTPUT "results=$results"
}

check() {
    model=${CHECK_MODEL:-}
    [ -n "$model" ] || usage "CHECK_MODEL names the checkpoint to check"
    container=${CHECK_CONTAINER:-gguf} type=${CHECK_TYPE:-q8_0} forms=${CHECK_FORMS:-full}
    forge=${CHECK_FORGE:-$prefix/bin/rwkv-forge}
    [ -x "$forge" ] || usage "$forge is not there or cannot be run: 'check-checkpoint.sh install' builds it, or CHECK_FORGE names one"
    case $forms in full | quick | no) ;; *) usage "CHECK_FORMS is full, quick or no, not $forms" ;; esac
    thresholds=${CHECK_MAX_KL:-}${CHECK_MIN_TOP1:-}${CHECK_MAX_ABS:-}${CHECK_MAX_PPL_RATIO:-}
    if [ "$container" != none ] && [ -z "$thresholds" ]; then
        usage "no threshold for the converted file: set CHECK_MAX_KL, CHECK_MIN_TOP1, CHECK_MAX_ABS or CHECK_MAX_PPL_RATIO"
    fi
    results=${CHECK_RESULTS:-rwkv-forge-results}
    mkdir -p "$results"
    rm -f "$results/inspect.json" "$results/forms.json" "$results/forms.xml" "$results/convert.json" "$results/verify.json" \
        "$results/steps.xml" "$results/summary.md"
    work=$(mktemp -d "$results/.work.XXXXXX")
    # Signals end the shell, and leaving removes what is not complete.
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    total=0 failures=0 errors=0 skipped=0 worst=0 stop=no cases='' table=''

    step inspect "reads the checkpoint" inspect --hashes "$model"
    set --
    if [ -n "${CHECK_VOCAB:-}" ]; then set -- "$@" --vocab "$CHECK_VOCAB"; fi
    if [ -n "${CHECK_TEXT:-}" ]; then set -- "$@" --text "$CHECK_TEXT"; fi
    if [ "$forms" != no ]; then
        if [ "$forms" = quick ]; then
            step forms "recurrent and parallel form agree" forms "$model" --quick --junit "$results/forms.xml" "$@"
        else
            step forms "recurrent and parallel form agree" forms "$model" --junit "$results/forms.xml" "$@"
        fi
    fi
    set -- "$@" --probe-tokens "${CHECK_PROBE_TOKENS:-512}"
    if [ -n "${CHECK_MAX_KL:-}" ]; then set -- "$@" --max-kl "$CHECK_MAX_KL"; fi
    if [ -n "${CHECK_MIN_TOP1:-}" ]; then set -- "$@" --min-top1 "$CHECK_MIN_TOP1"; fi
    if [ -n "${CHECK_MAX_ABS:-}" ]; then set -- "$@" --max-abs "$CHECK_MAX_ABS"; fi
    if [ -n "${CHECK_MAX_PPL_RATIO:-}" ]; then set -- "$@" --max-ppl-ratio "$CHECK_MAX_PPL_RATIO"; fi
    if [ "$container" != none ]; then
        # The name that the caller wants to keep is written by the program itself, which never leaves half a file there.
        converted=${CHECK_OUTPUT:-$work/converted}
        step convert "converts to $container $type within thresholds" \
            convert "$model" --to "$container" --type "$type" --force -o "$converted" "$@"
        if [ "$forms" != no ]; then
            if [ "$stop" = no ] && [ "$status" -ne 0 ]; then stop="there is no converted file"; fi
            step verify "the converted file follows the parallel form" verify "$model" "$converted" --against-parallel "$@"
        fi
    fi
    finish
    return $worst
}

case ${1:-} in
    key) github GITHUB_OUTPUT "key=$(key)" && key ;;
    install) install ;;
    check) check ;;
    *) usage "say key, install or check" ;;
esac
