# The least policy of the Connectors server, for OpenBao and HashiCorp Vault alike. `connectors vault policy` prints it with all the rest
# that an operator sets up; the embedded OpenBao installs this very file.

# --- tenants' credentials: secret/{tenant}/{credential} -------------------------------------------------------------------------------
path "secret/data/+/+" {
  capabilities = ["create", "read", "update", "delete"]
}
# `list` is here too: a tenant's own list is at secret/metadata/{tenant}/, whose empty last segment this pattern matches, and it
# goes before the glob below.
path "secret/metadata/+/+" {
  capabilities = ["create", "read", "update", "delete", "list"]
}
path "secret/metadata/*" {
  capabilities = ["list"]
}
path "secret/detailed-metadata/*" {
  capabilities = ["list"]
}

# --- tenants' keys: transit/keys/{tenant}. Deleting one is how a tenant is shredded -----------------------------------------------------
path "transit/keys/+" {
  capabilities = ["create", "read", "update", "delete"]
}
path "transit/keys/+/config" {
  capabilities = ["update"]
}
path "transit/keys/+/rotate" {
  capabilities = ["update"]
}
path "transit/keys/+/trim" {
  capabilities = ["update"]
}
path "transit/encrypt/+" {
  capabilities = ["update"]
}
path "transit/decrypt/+" {
  capabilities = ["update"]
}
path "transit/rewrap/+" {
  capabilities = ["update"]
}
path "transit/datakey/plaintext/+" {
  capabilities = ["update"]
}

# --- the platform's own records --------------------------------------------------------------------------------------------------------
path "connectors/data/*" {
  capabilities = ["create", "read", "update", "delete"]
}
path "connectors/metadata/*" {
  capabilities = ["create", "read", "update", "delete", "list"]
}
path "connectors/detailed-metadata/*" {
  capabilities = ["list"]
}

# --- the platform's own key: one name, made by the operator, never deleted by the server ------------------------------------------------
path "connectors-transit/keys/platform" {
  capabilities = ["read"]
}
path "connectors-transit/keys/platform/config" {
  capabilities = ["update"]
}
path "connectors-transit/keys/platform/rotate" {
  capabilities = ["update"]
}
path "connectors-transit/keys/platform/trim" {
  capabilities = ["update"]
}
path "connectors-transit/encrypt/platform" {
  capabilities = ["update"]
}
path "connectors-transit/decrypt/platform" {
  capabilities = ["update"]
}
path "connectors-transit/rewrap/platform" {
  capabilities = ["update"]
}
path "connectors-transit/datakey/plaintext/platform" {
  capabilities = ["update"]
}

# --- key material never leaves transit; deny wins over any policy that is added to the role later ---------------------------------------
path "transit/export/*" {
  capabilities = ["deny"]
}
path "transit/backup/*" {
  capabilities = ["deny"]
}
path "connectors-transit/export/*" {
  capabilities = ["deny"]
}
path "connectors-transit/backup/*" {
  capabilities = ["deny"]
}

# --- what it may do (asked by `connectors vault validate`), its own token, and the exchange of its own secret id -------------------------
path "sys/capabilities-self" {
  capabilities = ["update"]
}
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
path "auth/approle/role/connectors-server/secret-id" {
  capabilities = ["update"]
}
path "auth/approle/role/connectors-server/secret-id/destroy" {
  capabilities = ["update"]
}
