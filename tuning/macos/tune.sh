#!/bin/sh
# Checks, applies and reverts the settings of settings.conf beside this file, on macOS.
#
#   tune.sh check                        compare; exit code 1 when something is to do
#   tune.sh apply [--dry-run]            set what is too small, now and for the next start (needs root)
#   tune.sh revert [--dry-run] [--force] put back what apply has found (needs root)
#
# Exit codes: 0 fine, 1 something is to do or went wrong, 2 wrong command line, 3 not macOS or not root.
# All rules are "at least": a value that is larger is left alone.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
settings="$here/settings.conf"
# The tests set this; it is empty on a real system.
root="${ANTQUIC_TUNING_ROOT:-}"
record="$root/Library/Application Support/antquic-server/tuning.tsv"
label="antquic-server.tuning"
plist="$root/Library/LaunchDaemons/$label.plist"
tab=$(printf '\t')
dry_run=no
force=no

fail() { # CODE TEXT
    echo "tune.sh: error: $2" >&2
    exit "$1"
}

wanted() { sed -n 's/^\([a-z][a-z0-9_.]*\) = \([0-9][0-9]*\)$/\1 \2/p' "$settings"; }

now_of() { sysctl -n "$1" 2>/dev/null || true; }

is_number() {
    case "$1" in '' | *[!0-9]*) return 1 ;; *) return 0 ;; esac
}

# The line of one key in the record, or nothing.
recorded() { [ ! -f "$record" ] || grep "^$1$tab" "$record" || true; }

row() { printf '%-24s  %12s  %12s  %s\n' "$@"; }

require_root() {
    [ "$(id -u)" = 0 ] || fail 3 "$1 changes settings of the kernel: run it as root; --dry-run needs no rights"
}

write_record() { # reads the lines from standard input
    mkdir -p "$(dirname "$record")"
    cat >"$record.new"
    mv "$record.new" "$record"
}

# The value found first stays, whatever is applied later.
add_to_record() { # KEY FOUND APPLIED
    line=$(recorded "$1")
    found=$2
    [ -z "$line" ] || found=$(printf '%s\n' "$line" | cut -f 2)
    { [ ! -f "$record" ] || grep -v "^$1$tab" "$record" || true; printf '%s\t%s\t%s\n' "$1" "$found" "$3"; } | write_record
}

drop_from_record() { # KEY
    rest=$(grep -v "^$1$tab" "$record" || true)
    if [ -n "$rest" ]; then printf '%s\n' "$rest" | write_record; else rm -f "$record"; fi
}

# A launchd job that sets what is recorded as applied at every start.
write_plist() {
    if [ ! -f "$record" ]; then
        rm -f "$plist"
        return 0
    fi
    mkdir -p "$(dirname "$plist")"
    {
        echo '<?xml version="1.0" encoding="UTF-8"?>'
        echo '<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">'
        echo '<plist version="1.0">'
        echo '<dict>'
        echo "    <key>Label</key><string>$label</string>"
        echo '    <key>ProgramArguments</key>'
        echo '    <array>'
        echo '        <string>/usr/sbin/sysctl</string>'
        cut -f 1,3 "$record" | while IFS="$tab" read -r key value; do
            echo "        <string>$key=$value</string>"
        done
        echo '    </array>'
        echo '    <key>RunAtLoad</key><true/>'
        echo '</dict>'
        echo '</plist>'
    } >"$plist.new"
    chmod 644 "$plist.new"
    mv "$plist.new" "$plist"
}

check() {
    code=0
    row setting now 'at least' verdict
    while read -r key value; do
        now=$(now_of "$key")
        if ! is_number "$now"; then
            row "$key" - "$value" 'not there'
        elif [ "$now" -ge "$value" ]; then
            row "$key" "$now" "$value" fine
        else
            row "$key" "$now" "$value" 'to do'
            code=1
        fi
    done <<LIST
$(wanted)
LIST
    return $code
}

apply() {
    [ "$dry_run" = yes ] || require_root apply
    code=0
    changed=0
    row setting found 'at least' verdict
    while read -r key value; do
        now=$(now_of "$key")
        if ! is_number "$now"; then
            row "$key" - "$value" 'not there'
        elif [ "$now" -ge "$value" ]; then
            row "$key" "$now" "$value" fine
        elif [ "$dry_run" = yes ]; then
            row "$key" "$now" "$value" 'would set'
        else
            before=$(recorded "$key")
            # First the record: an interruption must leave the way back.
            add_to_record "$key" "$now" "$value"
            if sysctl -w "$key=$value" >/dev/null 2>&1 && [ "$(now_of "$key")" = "$value" ]; then
                row "$key" "$now" "$value" changed
                changed=$((changed + 1))
            else
                row "$key" "$now" "$value" 'failed: the kernel refuses this value'
                [ -n "$before" ] || drop_from_record "$key"
                code=1
            fi
        fi
    done <<LIST
$(wanted)
LIST
    if [ "$dry_run" = no ]; then
        write_plist
        if [ "$changed" -gt 0 ]; then
            echo "$record written: what was found"
            echo "$plist written: read at every start"
        elif [ "$code" = 0 ]; then
            echo 'nothing to change: every setting is as wanted'
        fi
    fi
    return $code
}

revert() {
    if [ ! -f "$record" ]; then
        echo 'nothing to revert: nothing is recorded'
        return 0
    fi
    [ "$dry_run" = yes ] || require_root revert
    code=0
    row setting now 'found' verdict
    # Last to first: the maximum is lowered after what must fit below it.
    lines=$(sed '1!G;h;$!d' "$record")
    while IFS="$tab" read -r key found applied; do
        now=$(now_of "$key")
        if ! is_number "$now"; then
            row "$key" - "$found" 'no longer there'
        elif [ "$now" = "$found" ]; then
            row "$key" "$now" "$found" 'as found'
        elif [ "$now" != "$applied" ] && [ "$force" = no ]; then
            row "$key" "$now" "$found" "kept: changed by somebody since it was set to $applied; --force restores it"
            code=1
            continue
        elif [ "$dry_run" = yes ]; then
            row "$key" "$now" "$found" 'would restore'
        elif sysctl -w "$key=$found" >/dev/null 2>&1 && [ "$(now_of "$key")" = "$found" ]; then
            row "$key" "$now" "$found" restored
        else
            row "$key" "$now" "$found" 'failed: the kernel refuses this value'
            code=1
            continue
        fi
        [ "$dry_run" = yes ] || drop_from_record "$key"
    done <<LIST
$lines
LIST
    if [ "$dry_run" = no ]; then
        write_plist
        rmdir "$(dirname "$record")" 2>/dev/null || true
    fi
    return $code
}

usage='expected check, apply [--dry-run] or revert [--dry-run] [--force]'
[ $# -ge 1 ] || fail 2 "no action given: $usage"
action=$1
shift
for option in "$@"; do
    case "$action $option" in
        'apply --dry-run' | 'revert --dry-run') dry_run=yes ;;
        'revert --force') force=yes ;;
        *) fail 2 "$action $option: $usage" ;;
    esac
done
case "$action" in
    check | apply | revert) ;;
    *) fail 2 "$action: $usage" ;;
esac
[ "$(uname -s)" = Darwin ] || fail 3 "this is $(uname -s), not macOS: antquic-server tune is for Linux"
"$action"
