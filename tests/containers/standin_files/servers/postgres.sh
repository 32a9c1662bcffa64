#!/bin/bash
# What the official image does at a start, for the settings that we use: where there is no cluster
# yet, make one, start it on its socket alone, ask it something with the password, stop it. Then run
# what was asked for. That first server reads the caller's configuration, as the official one does.

set -euo pipefail

begin() { # begin OPTION...: make the cluster, and see that one can log in
    local password=${POSTGRES_PASSWORD:-}
    [ -z "${POSTGRES_PASSWORD_FILE:-}" ] || password=$(<"$POSTGRES_PASSWORD_FILE")
    if [ -z "$password" ]; then
        echo "neither POSTGRES_PASSWORD nor POSTGRES_PASSWORD_FILE says a password" >&2
        exit 1
    fi
    # shellcheck disable=SC2086 # several words, as the official image takes them
    initdb --pgdata="$PGDATA" --username=postgres --pwfile=<(printf '%s\n' "$password") \
        ${POSTGRES_INITDB_ARGS:-}
    printf '\nhost all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
    pg_ctl --pgdata="$PGDATA" --wait start \
        --options="$(printf '%q ' "$@" -c listen_addresses= -p 5432)"
    PGPASSWORD=$password psql --no-psqlrc --no-password --set=ON_ERROR_STOP=1 \
        --username=postgres --dbname=postgres --command='SELECT version()'
    pg_ctl --pgdata="$PGDATA" --mode=fast --wait stop
}

if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    begin "${@:2}"
fi
exec "$@"
