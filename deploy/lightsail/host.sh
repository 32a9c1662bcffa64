#!/bin/sh
# What deploy.sh does on the host, as root: deploy.sh copies this file there and calls it.
#
#     prepare                 Docker, swap, security updates, log limits, clock; what is missing
#     put-env, put-compose    keep what comes on standard input: settings, a program
#     stage VERSION           keep a release's files, a tar on standard input
#     state | missing VERSION what is installed; which images of a release are not here yet
#     switch VERSION FROM     replace the containers; back by itself if they do not become healthy
#     status                  for people; ends with 1 if something is wrong
#
# Everything may be repeated and may be cut off anywhere. `switch` goes on when the connection
# breaks, and only one of them runs. Releases lie in releases/VERSION, `current` and `previous` lead
# to them; .env, which holds secrets, lies beside them for all, and nothing of it is ever printed.
# Ends with 2 for what is refused, 75 while another one is at work.

set -eu
umask 022

root=${KITE_HOST_ROOT:-} # tests work below a directory of theirs
home=$root/opt/alpha-kite
releases=$home/releases
# Ours: as old as `required: false` below depends_on.
compose_min=2.20
swap_below_kib=1048576
swap_mib=1024
room_min_kib=524288
healthy_within_s=${KITE_DEPLOY_WAIT_S:-300}
# Service, state, exit code, policy, health.
how_it_is='{{index .Config.Labels "com.docker.compose.service"}} {{.State.Status}}'
how_it_is="$how_it_is {{.State.ExitCode}} restart={{.HostConfig.RestartPolicy.Name}}"
how_it_is="$how_it_is {{if .State.Health}}{{.State.Health.Status}}{{else}}unasked{{end}}"

say() { printf '%s\n' "$*"; }
refuse() { say "refused: $*" >&2 && exit 2; }

at_least() { # at_least VERSION MINIMUM
    [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]
}

# -- the machine -----------------------------------------------------------------------------------

installed() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }
candidate() { apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: \([0-9].*\)/\1/p'; }

put() { # put FILE MODE: write standard input there; true if that changed anything
    mkdir -p "${1%/*}"
    (umask 077 && cat >"$1.new")
    chmod "$2" "$1.new"
    if cmp -s "$1.new" "$1"; then rm "$1.new" && return 1; fi
    mv "$1.new" "$1"
}

compose_fits() {
    version=$(docker compose version --short 2>/dev/null) || return 1
    at_least "${version#v}" "$compose_min"
}

prepare() {
    # shellcheck source=/dev/null  # the host's own
    system=$(. "$root/etc/os-release" && echo "$ID $VERSION_ID")
    case $system in
    debian\ * | ubuntu\ *) say "  $system" ;;
    *) refuse "this is $system; only Debian and Ubuntu are known here" ;;
    esac
    limit_logs
    install_packages
    systemctl enable --now --quiet docker
    add_swap
    update_by_itself
    timedatectl set-ntp true
    mkdir -p "$releases" "$home/log"
    [ -e "$home/.env" ] || (umask 077 && : >"$home/.env")
}

limit_logs() { # before Docker is installed, so that it starts with it
    # live-restore: a security update of the daemon does not stop the containers.
    if [ ! -e "$root/etc/docker/daemon.json" ]; then
        put "$root/etc/docker/daemon.json" 644 <<'END' && say "  logs of containers are bounded"
{
  "log-driver": "json-file",
  "log-opts": {"max-size": "10m", "max-file": "3"},
  "live-restore": true
}
END
        if systemctl is-active --quiet docker; then systemctl restart docker; fi
    fi
    if put "$root/etc/systemd/journald.conf.d/alpha-kite.conf" 644 <<'END'; then
[Journal]
SystemMaxUse=100M
END
        systemctl restart systemd-journald
        say "  the journal is bounded to 100 MB"
    fi
}

install_packages() {
    wanted=
    for package in apparmor ca-certificates unattended-upgrades; do
        installed "$package" || wanted="$wanted $package"
    done
    # Chrony keeps the clock as well, and Docker's own packages serve as well.
    installed chrony || installed systemd-timesyncd || wanted="$wanted systemd-timesyncd"
    export DEBIAN_FRONTEND=noninteractive
    # A fresh machine updates itself first.
    patiently="-o DPkg::Lock::Timeout=300"
    if [ -n "$wanted" ] || ! compose_fits; then
        # shellcheck disable=SC2086  # an option with its value
        apt-get $patiently update -qq
        if ! command -v docker >/dev/null; then
            wanted="$wanted docker.io"
            [ -z "$(candidate docker-cli)" ] || wanted="$wanted docker-cli" # apart since Debian 13
        fi
        compose_fits || for package in docker-compose-v2 docker-compose; do
            # Debian 12 has Compose 1 only: then deploy.sh brings a newer one along.
            at_least "$(candidate $package)" "$compose_min" || continue
            wanted="$wanted $package" && break
        done
    fi
    [ -n "$wanted" ] || return 0
    say "  installing$wanted"
    # shellcheck disable=SC2086  # a list of words
    apt-get $patiently install -qq -y --no-install-recommends $wanted >/dev/null
}

add_swap() { # a nano has 512 MB; without swap one moment too big kills a process
    total_kib=$(awk '$1 == "MemTotal:" {print $2}' "$root/proc/meminfo")
    swap_kib=$(awk '$1 == "SwapTotal:" {print $2}' "$root/proc/meminfo")
    [ "$total_kib" -lt "$swap_below_kib" ] && [ "$swap_kib" -eq 0 ] || return 0
    file=$root/swapfile
    say "  adding $swap_mib MiB of swap"
    (umask 077 && fallocate -l "${swap_mib}M" "$file")
    mkswap "$file" >/dev/null
    swapon "$file"
    grep -q '^/swapfile ' "$root/etc/fstab" ||
        echo '/swapfile none swap sw 0 0' >>"$root/etc/fstab"
    if echo 'vm.swappiness = 10' | put "$root/etc/sysctl.d/60-alpha-kite.conf" 644; then
        sysctl --quiet --load "$root/etc/sysctl.d/60-alpha-kite.conf"
    fi
}

update_by_itself() { # a reboot that an update needs comes while every American market is closed
    if put "$root/etc/apt/apt.conf.d/52alpha-kite" 644 <<'END'; then
APT::Periodic::Update-Package-Lists "1";
APT::Periodic::Unattended-Upgrade "1";
Unattended-Upgrade::Automatic-Reboot "true";
Unattended-Upgrade::Automatic-Reboot-Time "07:30";
END
        say "  security updates install themselves, with reboots at 07:30 of the host's clock"
    fi
}

# -- what is sent here -----------------------------------------------------------------------------

put_env() {
    if put "$home/.env" 600; then say "  settings are new"; else say "  settings are the same"; fi
}

put_compose() {
    plugin=$root/usr/local/lib/docker/cli-plugins/docker-compose
    if gzip -dc | put "$plugin" 755; then say "  Compose is installed"; fi
    compose_fits || refuse "the Compose that was sent does not run here"
}

stage() { # stage VERSION
    part=$releases/.$1.$$
    mkdir -p "$part"
    trap 'rm -rf "$part"' EXIT
    tar -xzf - --no-same-owner -C "$part"
    (cd "$part" && sha256sum --check --quiet SHA256SUMS) ||
        refuse "the files of $1 did not arrive as they were sent: try again"
    if [ ! -e "$releases/$1" ]; then
        # `docker compose` finds the settings, also when a person calls it in this folder.
        ln -s ../../.env "$part/.env"
        mv -T "$part" "$releases/$1"
        say "  $1 is new here"
    elif cmp -s "$part/SHA256SUMS" "$releases/$1/SHA256SUMS"; then
        say "  $1 is here already"
    else
        refuse "another $1 is on this host; what was released once stays: take a new version"
    fi
}

# -- releases --------------------------------------------------------------------------------------

leads_to() { basename "$(readlink "$home/$1" 2>/dev/null)"; } # current, previous; empty if absent

compose() { # compose VERSION ARGUMENT...: Compose with this release's files
    of=$releases/$1
    shift
    docker compose --project-directory "$of" --file "$of/docker-compose.yml" \
        --env-file "$home/.env" "$@"
}

fingerprint() { # of an image: the same before and after its journey, whoever keeps it
    docker image inspect --format '{{json .RootFS.Layers}}{{json .Config.Labels}}' "$1" \
        2>/dev/null | sha256sum | cut -c 1-64
}

missing() { # missing VERSION: images that its containers need and that are not here as released
    images=$(compose "$1" config --images)
    printf '%s\n' "$images" | sort -u | while read -r image; do
        noted=$(awk -v image="$image" '$1 == image {print $2}' "$releases/$1/images.tsv")
        if [ "${noted:--}" = - ]; then
            docker image inspect "$image" >/dev/null 2>&1 || say "$image"
        else
            [ "$(fingerprint "$image")" = "$noted" ] || say "$image"
        fi
    done
}

state() {
    say "current=$(leads_to current)"
    # A switch that was cut off is undone by going to what was current before it.
    if [ -e "$home/switching" ]; then say "back=$(leads_to current)"; else
        say "back=$(leads_to previous)"
    fi
    say "architecture=$(uname -m)"
    if compose_fits; then say "compose=fits"; else say "compose=old"; fi
}

newer_tables() { # newer_tables A B: migrations of B that A lacks, and who can live with them
    awk 'NR == FNR {known[$1]; next} !($1 in known)' \
        "$releases/$1/migrations.tsv" "$releases/$2/migrations.tsv"
}

live_with() { # live_with OLDER NEWER: the older release works on the newer one's tables
    newer_tables "$1" "$2" | while read -r migration since; do
        [ "$since" = - ] || at_least "$1" "$since" ||
            refuse "$migration of $2 takes away what releases before $since need, and $1 is one:" \
                "go by way of $since; back from $2 leads only a restored backup"
    done
}

# -- the switch ------------------------------------------------------------------------------------

switch() { # switch VERSION FROM: in a session of its own, followed as long as somebody listens
    log=$home/log/$(date -u +%Y%m%dT%H%M%SZ).log
    find "$home/log" -name '*.log' -mtime +90 -delete
    : >"$log"
    setsid sh "$0" switch-now "$@" </dev/null >"$log" 2>&1 &
    tail -n +1 -f --pid=$! "$log" || true
    wait $!
}

switch_now() { # switch_now VERSION FROM
    exec 9>>"$home/lock"
    if ! flock -n 9; then
        say "another deployment is at work on this host; try again when it is through" >&2
        exit 75
    fi
    current=$(leads_to current)
    [ "$current" = "$2" ] ||
        refuse "it was ${2:-empty} when you began, and somebody made it ${current:-empty} since"
    # Whose tables these are: a switch that was cut off may have changed them already.
    origin=$current
    if [ -e "$home/switching" ]; then
        origin=$(cat "$home/switching")
        say "  a switch to $origin was cut off; going on from there"
    fi
    before_switch "$1" "$origin"
    # Who is ill already does not count against the new release, and for the account a person
    # must log in first.
    ill=$([ -z "$current" ] || unwell "$current" | cut -d ' ' -f 1)
    [ -n "$current" ] || ill=$(sed -n 's/^COMPOSE_PROFILES=..*/ingest/p' "$home/.env")
    say "$1" >"$home/switching"
    if start "$1" "$origin" && all_well "$1" "$ill"; then
        arrive "$1" "$current"
        return 0
    fi
    say "$1 does not run as it should:"
    complain "$1"
    go_back "$1" "$current"
    exit 1
}

before_switch() { # before_switch VERSION ORIGIN: whatever can be known before anything changes
    [ -z "$(missing "$1")" ] || refuse "images of $1 are missing here: run update with it again"
    if [ -n "$2" ] && [ "$1" != "$2" ]; then
        live_with "$1" "$2"
        live_with "$2" "$1"
    fi
    room_kib=$(df -Pk "$home" | awk 'NR == 2 {print $4}')
    [ "$room_kib" -ge "$room_min_kib" ] || refuse "the disk has only $room_kib KiB left"
}

start() { # start VERSION ORIGIN: replace what differs; each container is away for its own restart
    if [ -z "$2" ] || [ -z "$(newer_tables "$1" "$2")" ]; then
        compose "$1" up --detach --no-build --pull never --remove-orphans
        return
    fi
    # Back: the older `init` would refuse tables that are newer than it, and has nothing to do.
    say "  the tables stay as they are, newer than $1"
    compose "$1" run --rm --no-deps -T secrets || return
    # shellcheck disable=SC2046  # a list of words
    compose "$1" up --detach --no-build --pull never --no-deps --remove-orphans \
        $(compose "$1" config --services | grep -vx -e init -e secrets) || return
    compose "$1" rm --force --stop init secrets
}

unwell() { # unwell VERSION: "SERVICE STATE" of each container that is not as it should be
    containers=$(compose "$1" ps --all --quiet) || { say "Compose fails" && return; }
    [ -n "$containers" ] || { say "everything absent" && return; }
    # shellcheck disable=SC2086  # a list of words
    docker inspect --format "$how_it_is" $containers 2>/dev/null |
        awk '$2 == "exited" && $3 == 0 && $4 == "restart=no" {next}
            $2 == "running" && $4 != "restart=no" && ($5 == "healthy" || $5 == "unasked") {next}
            {print $1, $2 "," ($2 == "running" ? $5 : $3)}'
}

all_well() { # all_well VERSION ILL: wait until everybody is, but for those who are ill anyway
    until_s=$(($(date +%s) + healthy_within_s))
    last=
    while :; do
        waiting=$(unwell "$1" | while read -r service how; do
            printf '%s\n' "$2" | grep -qx "$service" || printf ' %s (%s)' "$service" "$how"
        done)
        [ -n "$waiting" ] || break
        [ "$waiting" = "$last" ] || say "  waiting for$waiting"
        last=$waiting
        [ "$(date +%s)" -lt "$until_s" ] || return 1
        sleep 1
    done
    # shellcheck disable=SC2086  # a list of words
    [ -z "$2" ] || printf '  %s did not count: ill before, or without a login yet\n' $2
}

complain() { # complain VERSION: the last words of those who are not well
    for service in $(unwell "$1" | cut -d ' ' -f 1); do
        say "--- $service"
        compose "$1" logs --no-color --no-log-prefix --tail 5 "$service" || true
    done
}

go_back() { # go_back VERSION TO
    if [ -z "$2" ] || [ "$1" = "$2" ]; then
        rm "$home/switching"
        say "there is no other release to go back to; mend what the lines above say, and try again"
        return
    fi
    say "going back to $2"
    if start "$2" "$1" && all_well "$2" "$ill"; then
        rm "$home/switching"
        say "$2 runs as before; nothing was lost"
    else
        say "$2 does not run either; the data is untouched. The log is $home/log; see status"
    fi
}

link() { # link NAME VERSION
    ln -sfn "releases/$2" "$home/.$1"
    mv -T "$home/.$1" "$home/$1"
}

arrive() { # arrive VERSION FROM
    if [ -n "$2" ] && [ "$1" != "$2" ]; then
        # After going back there is no way further back: older releases are gone.
        if [ "$1" = "$(leads_to previous)" ]; then rm "$home/previous"; else link previous "$2"; fi
    fi
    link current "$1"
    rm -f "$home/switching"
    clean_up
    say "$1 runs, everything is healthy"
}

clean_up() { # releases but the current one and the one before, and the images only they used
    kept=" $(leads_to current) $(leads_to previous) "
    for release in "$releases"/*; do
        version=${release##*/}
        case $kept in *" $version "*) continue ;; esac
        cut -f 1 "$release/images.tsv" | while read -r image; do
            # shellcheck disable=SC2086  # a list of words
            for keeper in $kept; do
                cut -f 1 "$releases/$keeper/images.tsv" | grep -qxF "$image" && continue 2
            done
            docker image rm "$image" >/dev/null 2>&1 || true # not here, or somebody's own
        done
        rm -rf "$release"
        say "  removed $version"
    done
}

# -- for people ------------------------------------------------------------------------------------

status() {
    current=$(leads_to current)
    [ -n "$current" ] || refuse "nothing is installed here"
    say "release   $current (before it: $(leads_to previous | grep . || echo none))"
    wrong=0
    if [ -e "$home/switching" ]; then
        if flock -n "$home/lock" true; then
            say "WRONG     a switch to $(cat "$home/switching") was cut off: update, or rollback"
            wrong=1
        else
            say "now       switching to $(cat "$home/switching")"
        fi
    fi
    docker ps --all --filter name=alpha-kite- --format 'table {{.Names}}\t{{.Status}}'
    for service in $(unwell "$current" | tr ' ' :); do
        say "WRONG     $service"
        wrong=1
    done
    df -Ph "$home" | awk 'NR == 2 {print "disk      " $4 " free of " $2}'
    awk '/^(MemTotal|MemAvailable|SwapTotal|SwapFree):/ {printf "%-10s%d MiB\n", $1, $2 / 1024}' \
        "$root/proc/meminfo"
    [ ! -e "$root/var/run/reboot-required" ] || say "note      an update waits for a reboot"
    timedatectl show --property=NTPSynchronized --value | grep -qx yes ||
        { say "WRONG     the clock is not synchronized" && wrong=1; }
    open_ports
    return $wrong
}

open_ports() { # the firewall in front must let ssh in and nothing else; this says what it hides
    ss -H -l -t -n | awk '{print $4}' | grep -v -e '^127\.' -e '^\[::1\]' -e ':22$' |
        sed 's/^/note      listens beyond this machine: /' || true
}

verb=${1:?verb}
shift
case $verb in
prepare | stage | state | missing | switch | status) "$verb" "$@" ;;
put-env) put_env ;;
put-compose) put_compose ;;
switch-now) switch_now "$1" "${2:-}" ;; # an empty word is lost on the way here
*) refuse "unknown: $verb" ;;
esac
