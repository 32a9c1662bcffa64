#!/bin/sh
# This is not Grafana, of which no package registry has a program: it draws nothing. It looks for
# what Grafana reads at its start where compose mounts it, as the account that Grafana runs under,
# and answers /api/health. Whatever is missing ends it with one line.

set -eu

provisioned=/etc/grafana/provisioning
[ -r "$GF_SECURITY_ADMIN_PASSWORD__FILE" ] || { echo "no password can be read" >&2; exit 1; }
for file in "$provisioned"/datasources/*.yml "$provisioned"/dashboards/*.yml; do
    [ -r "$file" ] || { echo "$file cannot be read" >&2; exit 1; }
done
boards=$(sed -n 's/^ *path: *//p' "$provisioned"/dashboards/*.yml)
for file in "$boards"/*.json; do
    [ -r "$file" ] || { echo "$file cannot be read, of which there should be boards" >&2; exit 1; }
done
touch /var/lib/grafana/written

mkdir -p /tmp/answers/api
echo '{"database": "ok", "version": "none, a stand-in"}' >/tmp/answers/api/health
echo "stand-in for Grafana: boards in $boards" >&2
exec busybox httpd -f -p 3000 -h /tmp/answers
