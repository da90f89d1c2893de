# What `connectors migrate finish` needs beside the first policy: to delete the old records, and with --destroy the old keys.

path "secret/metadata/tenants/*" {
  capabilities = ["list", "delete"]
}
path "secret/delete/tenants/+/+" {
  capabilities = ["update"]
}
path "secret/tenants/*" {
  capabilities = ["list", "read", "delete"]
}

# --- with --destroy. In place these are also the names of tenants' keys: derived ones are never deleted by it ---------------------------
path "transit/keys/+" {
  capabilities = ["read", "delete"]
}
path "transit/keys/+/config" {
  capabilities = ["update"]
}
