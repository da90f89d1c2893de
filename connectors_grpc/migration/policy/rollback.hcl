# What `connectors migrate rollback` needs beside the first policy, for credentials that the new side has refreshed.

# --- in the old records' Vault: to put the newer tokens back, sealed as they were -------------------------------------------------------
path "secret/data/tenants/+/+" {
  capabilities = ["read", "update"]
}
path "secret/tenants/*" {
  capabilities = ["list", "read", "update"]
}
path "transit/encrypt/+" {
  capabilities = ["update"]
}

# --- in the new layout's Vault: to read them there. The server never gives a refresh token away -----------------------------------------
path "secret/data/+/+" {
  capabilities = ["read"]
}
path "connectors/data/tenants/+" {
  capabilities = ["read"]
}
path "transit/decrypt/+" {
  capabilities = ["update"]
}
