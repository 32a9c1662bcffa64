#!/bin/sh
# Puts a release on a host and keeps it there, over ssh:
#
#     deploy/lightsail/deploy.sh install  HOST [--release DIR] [--env FILE]
#     deploy/lightsail/deploy.sh update   HOST [--release DIR] [--env FILE]
#     deploy/lightsail/deploy.sh rollback HOST
#     deploy/lightsail/deploy.sh status   HOST
#
# HOST is anything that ssh understands, such as admin@203.0.113.7, with Debian or Ubuntu and the
# right to use sudo. DIR is what `make release` made (default: dist/ of this checkout's version),
# whose images are in Docker on this machine; they are sent, the host builds and fetches nothing.
# FILE becomes the host's .env. docs/guides/deploy.md says it word by word.
#
# An update touches no data: everything is sent first, then containers are replaced, and if they do
# not become healthy the release before comes back by itself. Whatever breaks, run the same command
# again: what has arrived stays. KITE_SSH is how ssh is called ("ssh -i key -p 2222").
#
# Ends with 2 for what is refused, 75 while another deployment is at work, 1 for everything else.

set -eu

here=$(CDPATH='' cd -P -- "${0%/*}" && pwd -P)
checkout=${here%/deploy/lightsail}
tool=/opt/alpha-kite/bin/host.sh
# For hosts whose own packages have none that is new enough.
compose_image=docker/compose-bin:v2.40.3
step=0

say() { printf '%s\n' "$*"; }
next() { say "[$((step += 1))/$steps] $*"; }
fail() { say "deploy: $*" >&2 && exit 1; }
misused() { say "deploy: $*; see the top of $0" >&2 && exit 2; }

# -- the host --------------------------------------------------------------------------------------

ssh_there() { # ssh_there COMMAND...: one connection serves all of them
    # shellcheck disable=SC2086  # KITE_SSH is a command with its options
    ${KITE_SSH:-ssh} -o ConnectTimeout=15 -o ServerAliveInterval=15 -o ServerAliveCountMax=4 \
        -o ControlMaster=auto -o ControlPath="$scratch/ssh" -o ControlPersist=60 "$host" "$@"
}

on_host() { # on_host VERB [WORD...]: host.sh there, as root; standard input goes with it
    ssh_there "$sudo sh $root$tool $*"
}

connect() {
    next "connecting to $host"
    # shellcheck disable=SC2016  # expanded there
    about=$(ssh_there 'echo "$(id -u) ${KITE_HOST_ROOT:-}"' </dev/null) ||
        fail "no connection; try \`ssh $host\` by itself"
    root=${about#* }
    sudo=
    [ "${about%% *}" = 0 ] || sudo="sudo -n"
    file=$root$tool
    ssh_there "$sudo sh -c 'mkdir -p ${file%/*} && cat >$file.new && mv $file.new $file'" \
        <"$here/host.sh" || fail "cannot write $file as root there; has the login sudo?"
}

look() { # fills what the host tells
    current='' back='' architecture='' compose=''
    answer=$(on_host state </dev/null)
    eval "$(say "$answer" | grep -E '^(current|back|architecture|compose)=[A-Za-z0-9_.+-]*$')"
}

disconnect() {
    ssh_there -O exit >/dev/null 2>&1 || true
    rm -rf "$scratch"
}

# -- the release -----------------------------------------------------------------------------------

checksums() { # of the system at hand, Linux or macOS
    if command -v sha256sum >/dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi
}

read_release() { # fills version
    if [ -z "$release" ]; then
        version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$checkout/pyproject.toml")
        release=$checkout/dist/$version
    fi
    [ -f "$release/VERSION" ] ||
        fail "there is no release in $release: make one with \`make release\`"
    version=$(cat "$release/VERSION")
    (cd "$release" && checksums --check --quiet SHA256SUMS) ||
        fail "files in $release are not what was released; make the release again"
}

fingerprint() {
    docker image inspect --format '{{json .RootFS.Layers}}{{json .Config.Labels}}' "$1" \
        2>/dev/null | checksums | cut -c 1-64
}

machine() { # of a host or an image, by one name
    case $1 in x86_64 | amd64) say amd64 ;; aarch64 | arm64) say arm64 ;; *) say "$1" ;; esac
}

at_hand() { # at_hand IMAGE: it is in Docker on this machine, as released, and for that host
    noted=$(awk -v image="$1" '$1 == image {print $2}' "$release/images.tsv")
    if [ "$noted" = - ]; then
        docker image inspect "$1" >/dev/null 2>&1 ||
            docker pull --quiet --platform "linux/$(machine "$architecture")" "$1" ||
            fail "cannot fetch $1"
    else
        [ "$(fingerprint "$1")" = "$noted" ] ||
            fail "$1 in Docker on this machine is not the released one; make the release again"
    fi
    built_for=$(docker image inspect --format '{{.Architecture}}' "$1")
    [ "$(machine "$built_for")" = "$(machine "$architecture")" ] ||
        fail "$1 is for $built_for and the host is $architecture: make the release with" \
            "DOCKER_DEFAULT_PLATFORM=linux/$(machine "$architecture")"
}

# -- steps -----------------------------------------------------------------------------------------

send_settings() {
    next "settings"
    if [ -n "$settings" ]; then
        on_host put-env <"$settings"
    else
        say "  those of the host stay"
    fi
}

send_compose() {
    say "  its packages have no Compose that is new enough: sending $compose_image"
    docker pull --quiet --platform "linux/$(machine "$architecture")" "$compose_image" >/dev/null
    made=$(docker create "$compose_image" compose)
    docker cp "$made:/docker-compose" - | tar -xOf - | gzip -1 | on_host put-compose
    docker rm "$made" >/dev/null
}

send_files() {
    next "files of $version"
    COPYFILE_DISABLE=1 tar -C "$release" -cf - . | gzip | on_host stage "$version"
}

send_images() {
    next "images of $version"
    on_host missing "$version" </dev/null >"$scratch/missing"
    total=$(grep -c . "$scratch/missing") || { say "  all are there" && return; }
    number=0
    while read -r image <&3; do
        at_hand "$image"
        size=$(($(docker image inspect --format '{{.Size}}' "$image") / 1048576))
        say "  $((number += 1)) of $total: $image, $size MB before compression"
        docker save "$image" | gzip -1 | ssh_there "$sudo docker load --quiet" >/dev/null ||
            fail "$image did not arrive; run the same command again, the others stay there"
    done 3<"$scratch/missing"
    [ -z "$(on_host missing "$version" </dev/null)" ] ||
        fail "images did not arrive as they were sent: run the same command again"
}

switch_to() { # switch_to VERSION
    next "from ${current:-nothing} to $1"
    on_host switch "$1" "$current" </dev/null
}

install() {
    steps=6
    connect
    next "preparing the machine"
    on_host prepare </dev/null
    deliver
    say "The page: ssh -N -L 8080:127.0.0.1:8080 $host, then open http://127.0.0.1:8080"
}

update() {
    steps=5
    connect
    look
    [ -n "$current" ] || fail "nothing is installed there yet: install it"
    deliver
}

deliver() {
    look
    [ "$compose" = fits ] || send_compose
    send_settings
    send_files
    send_images
    switch_to "$version"
}

rollback() {
    steps=2
    connect
    look
    [ -n "$back" ] || fail "there is no release before ${current:-this}" \
        "on the host; update with an older one instead"
    switch_to "$back"
}

status() {
    steps=1
    connect
    on_host status </dev/null
}

[ $# -ge 2 ] || misused "a command and a host are needed"
command=$1
host=$2
shift 2
case $command in install | update | rollback | status) ;; *) misused "unknown: $command" ;; esac
case $host in -* | *[!A-Za-z0-9_.:@%-]*) misused "$host is no host" ;; esac
release='' settings=''
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || misused "$1 needs a value"
    case $1 in
    --release) release=${2%/} ;;
    --env) settings=$2 ;;
    *) misused "unknown: $1" ;;
    esac
    shift 2
done
[ -z "$settings" ] || [ -r "$settings" ] || misused "cannot read $settings"
case $command in install | update) read_release ;; esac

# Short: the path of a socket may have some hundred characters only.
scratch=$(mktemp -d /tmp/kite-deploy.XXXXXX)
trap disconnect EXIT
trap 'exit 130' INT TERM
"$command"
