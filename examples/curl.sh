#!/bin/sh
# Calls an integration as a tenant, through the sidecar: curl.sh TENANT CREDENTIAL PATH [curl options].
# Reads SIDECAR_URL, APP_KEY_FILE (the demo's key that `make up` left) and CONNECTORS_STATE_DIR.
set -eu
tenant=$1 credential=$2 path=$3
shift 3
: "${SIDECAR_URL:=http://127.0.0.1:15001}"
: "${APP_KEY_FILE:=${CONNECTORS_STATE_DIR:-$HOME/.local/state/connectors}/keys/demo-app.key}"

# The key goes in by stdin, so that it stands in no process's arguments. printf is the shell's own.
printf 'Authorization: Bearer %s' "$(cat "$APP_KEY_FILE")" |
  curl --silent --show-error --fail-with-body -H @- "$@" "$SIDECAR_URL/~$tenant/$credential$path"
echo
