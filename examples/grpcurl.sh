#!/bin/sh
# The walk of a platform engineer by grpcurl: a tenant, an integration with its OAuth client, a connect link, the list.
# Reads CONNECTORS_SERVER, CONNECTORS_STATE_DIR and TENANT. May be run again: the request ids make it the same calls.
set -eu
: "${CONNECTORS_SERVER:=127.0.0.1:50051}" "${TENANT:=walk}"
CONNECTORS_KEY=$(cat "${CONNECTORS_STATE_DIR:-$HOME/.local/state/connectors}/keys/admin.key")
export CONNECTORS_KEY

# rpc SERVICE/METHOD, the request on stdin. grpcurl itself puts the key in, from the environment.
rpc() {
  # shellcheck disable=SC2016
  grpcurl -plaintext -expand-headers -H 'authorization: Bearer ${CONNECTORS_KEY}' -d @ \
    "$CONNECTORS_SERVER" "connectors.v1.$1"
}

echo "== A tenant"
rpc TenantService/CreateTenant <<JSON
{"tenant_id": "$TENANT", "tenant": {"display_name": "Walk Ltd"}, "request_id": "5f0c4f0e-6c0b-4c9a-9d57-0a3c7b1f1a01"}
JSON

echo "== Notion of the catalogue, with an OAuth client of ours"
rpc IntegrationService/CreateIntegration <<'JSON'
{
  "integration_id": "notion",
  "integration": {"oauth_client": {"client_id": "not-a-real-client", "client_secret": "not-a-real-secret"}},
  "request_id": "5f0c4f0e-6c0b-4c9a-9d57-0a3c7b1f1a02"
}
JSON

echo "== A link for a person of that tenant"
rpc CredentialService/StartAuthorization <<JSON
{"tenant": "$TENANT", "integration": "notion"}
JSON

echo "== What the tenant has: nothing, until somebody follows the link"
rpc CredentialService/ListCredentials <<JSON
{"tenant": "$TENANT"}
JSON
