# What `connectors migrate plan`, `run`, `verify` and `cutover` need in the old records' Vault: to read them, and nothing else.
# `connectors migrate policy` prints it for your path; here it is secret/tenants, on a KV mount of version 1 or 2.

# --- the old records, KV version 2 ------------------------------------------------------------------------------------------------------
path "secret/metadata/tenants/*" {
  capabilities = ["list"]
}
path "secret/data/tenants/+/+" {
  capabilities = ["read"]
}

# --- the old records, KV version 1 ------------------------------------------------------------------------------------------------------
path "secret/tenants/*" {
  capabilities = ["list", "read"]
}

# --- the old keys, {integration}-{tenant}: to open what they sealed. One line an integration, if the mount holds other keys too ---------
path "transit/decrypt/+" {
  capabilities = ["update"]
}

# --- its own token ----------------------------------------------------------------------------------------------------------------------
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
