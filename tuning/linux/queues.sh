#!/bin/sh
# Spreads the work of one network interface over the processors: interrupts (IRQ affinity), receiving (RPS), sending (XPS).
#
#   queues.sh check INTERFACE               compare; exit code 1 when something is to do
#   queues.sh apply INTERFACE [--dry-run]   set it until the next start, and record what was found (needs root)
#   queues.sh revert INTERFACE [--dry-run] [--force]   put back what apply has found (needs root)
#
# Exit codes: 0 fine, 1 something is to do or went wrong, 2 wrong command line, 3 no such interface or not root.
#
# What is set, for N processors:
#   interrupts   queue i of a card that has several goes to processor i modulo N; irqbalance, where it runs, is to be stopped
#                first, as it would move them again
#   rps_cpus     fewer queues than processors: every queue hands packets to all of them, by a hash of the addresses;
#                otherwise none, for the card has spread them already
#   xps_cpus     several queues: queue i sends for the processors i, i + queues, ...; one queue: nothing
# RFS (rps_sock_flow_entries, rps_flow_cnt) is left off: the kernel learns where a flow is read from connected sockets only,
# and those of a node serve many peers each.
set -eu

# The tests set this; it is empty on a real system.
root="${ANTQUIC_TUNING_ROOT:-}"
tab=$(printf '\t')
dry_run=no
force=no

fail() { # CODE TEXT
    echo "queues.sh: error: $2" >&2
    exit "$1"
}

row() { printf '%-52s  %14s  %14s  %s\n' "$@"; }

require_root() {
    [ -n "$root" ] || [ "$(id -u)" = 0 ] || fail 3 "$1 changes settings of the kernel: run it as root; --dry-run needs no rights"
}

count() { # of directories whose names begin with $1
    set -- "$1"*
    if [ -e "$1" ]; then echo $#; else echo 0; fi
}

# A mask of processors as the kernel wants it: FIRST, FIRST + STEP, ... below COUNT; 32 bits between two commas.
mask() { # FIRST STEP COUNT
    awk -v first="$1" -v step="$2" -v count="$3" 'BEGIN {
        for (low = 0; low < count; low += 4) {
            digit = 0
            for (bit = 0; bit < 4; bit++) {
                cpu = low + bit
                if (cpu < count && cpu >= first && (cpu - first) % step == 0) digit += 2 ^ bit
            }
            text = sprintf("%x", digit) text
        }
        while (length(text) > 8) {
            rest = "," substr(text, length(text) - 7) rest
            text = substr(text, 1, length(text) - 8)
        }
        print text rest
    }'
}

# Two spellings of one mask compare equal; lists of interrupts stay as they are.
normal() {
    case "$2" in
        *_cpus) printf '%s\n' "$1" | tr -d ',' | sed 's/^0*//; s/^$/0/' ;;
        *) printf '%s\n' "$1" ;;
    esac
}

# Lines "file<tab>value" of everything that should be set.
wanted() {
    cpus=$(getconf _NPROCESSORS_ONLN)
    [ -z "$root" ] || cpus=$(cat "$root/cpus")
    net="$root/sys/class/net/$interface"
    receive=$(count "$net/queues/rx-")
    send=$(count "$net/queues/tx-")
    if [ -d "$net/device/msi_irqs" ]; then
        number=0
        for irq in $(find "$net/device/msi_irqs" -mindepth 1 -maxdepth 1 | sed 's,.*/,,' | sort -n); do
            printf '%s\t%s\n' "$root/proc/irq/$irq/smp_affinity_list" $((number % cpus))
            number=$((number + 1))
        done
    fi
    number=0
    while [ "$number" -lt "$receive" ]; do
        value=0
        [ "$receive" -ge "$cpus" ] || value=$(mask 0 1 "$cpus")
        printf '%s\t%s\n' "$net/queues/rx-$number/rps_cpus" "$value"
        number=$((number + 1))
    done
    [ "$send" -gt 1 ] || return 0
    number=0
    while [ "$number" -lt "$send" ]; do
        first=$((number % cpus))
        printf '%s\t%s\n' "$net/queues/tx-$number/xps_cpus" "$(mask "$first" "$send" "$cpus")"
        number=$((number + 1))
    done
}

read_value() { cat "$1" 2>/dev/null || true; }

set_value() { # FILE VALUE
    (printf '%s\n' "$2" >"$1") 2>/dev/null && [ "$(normal "$(read_value "$1")" "$1")" = "$(normal "$2" "$1")" ]
}

recorded() { [ ! -f "$record" ] || awk -F "$tab" -v file="$1" '$1 == file' "$record"; }

without() { [ ! -f "$record" ] || awk -F "$tab" -v file="$1" '$1 != file' "$record"; }

keep() { # the new record, from standard input; none where nothing is left
    mkdir -p "$(dirname "$record")"
    cat >"$record.new"
    if [ -s "$record.new" ]; then mv "$record.new" "$record"; else rm -f "$record.new" "$record"; fi
}

# The value found first stays, whatever is applied later.
add_to_record() { # FILE FOUND APPLIED
    line=$(recorded "$1")
    found=$2
    [ -z "$line" ] || found=$(printf '%s\n' "$line" | cut -f 2)
    { without "$1"; printf '%s\t%s\t%s\n' "$1" "$found" "$3"; } | keep
}

each() { # check or apply
    code=0
    changed=0
    row file found wanted verdict
    while IFS="$tab" read -r file value; do
        now=$(read_value "$file")
        short=${file#"$root"}
        if [ -z "$now" ]; then
            row "$short" - "$value" 'not there'
        elif [ "$(normal "$now" "$file")" = "$(normal "$value" "$file")" ]; then
            row "$short" "$now" "$value" fine
        elif [ "$1" = check ]; then
            row "$short" "$now" "$value" 'to do'
            code=1
        elif [ "$dry_run" = yes ]; then
            row "$short" "$now" "$value" 'would set'
        else
            before=$(recorded "$file")
            # First the record: an interruption must leave the way back.
            add_to_record "$file" "$now" "$value"
            if set_value "$file" "$value"; then
                row "$short" "$now" "$value" changed
                changed=$((changed + 1))
            else
                row "$short" "$now" "$value" 'failed: the kernel refuses this value'
                [ -n "$before" ] || without "$file" | keep
                code=1
            fi
        fi
    done <<LIST
$(wanted)
LIST
    if [ "$1 $dry_run $changed $code" = 'apply no 0 0' ]; then
        echo 'nothing to change: every queue is as wanted'
    fi
    return $code
}

revert() {
    if [ ! -f "$record" ]; then
        echo 'nothing to revert: nothing is recorded'
        return 0
    fi
    code=0
    row file now found verdict
    lines=$(cat "$record")
    while IFS="$tab" read -r file found applied; do
        now=$(read_value "$file")
        short=${file#"$root"}
        if [ -z "$now" ]; then
            row "$short" - "$found" 'no longer there'
        elif [ "$(normal "$now" "$file")" = "$(normal "$found" "$file")" ]; then
            row "$short" "$now" "$found" 'as found'
        elif [ "$(normal "$now" "$file")" != "$(normal "$applied" "$file")" ] && [ "$force" = no ]; then
            row "$short" "$now" "$found" "kept: changed by somebody since it was set to $applied; --force restores it"
            code=1
            continue
        elif [ "$dry_run" = yes ]; then
            row "$short" "$now" "$found" 'would restore'
        elif set_value "$file" "$found"; then
            row "$short" "$now" "$found" restored
        else
            row "$short" "$now" "$found" 'failed: the kernel refuses this value'
            code=1
            continue
        fi
        [ "$dry_run" = yes ] || without "$file" | keep
    done <<LIST
$lines
LIST
    return $code
}

usage='expected check INTERFACE, apply INTERFACE [--dry-run] or revert INTERFACE [--dry-run] [--force]'
[ $# -ge 2 ] || fail 2 "$usage"
action=$1
interface=$2
shift 2
for option in "$@"; do
    case "$action $option" in
        'apply --dry-run' | 'revert --dry-run') dry_run=yes ;;
        'revert --force') force=yes ;;
        *) fail 2 "$action $option: $usage" ;;
    esac
done
case "$action" in check | apply | revert) ;; *) fail 2 "$action: $usage" ;; esac
case "$interface" in */* | .*) fail 2 "$interface: expected the name of an interface, as in ip link" ;; esac
# Gone at the next start, as the settings are; and nobody but root can put anything there.
record="$root/run/antquic-server-queues-$interface.tsv"
[ -d "$root/sys/class/net/$interface/queues" ] || fail 3 "there is no interface $interface: ip link lists them"
[ "$action" = check ] || [ "$dry_run" = yes ] || require_root "$action"
case "$action" in revert) revert ;; *) each "$action" ;; esac
