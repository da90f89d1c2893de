# The policy of upkeep: `connectors backup`, `connectors seal rotate`, and at each start of the embedded OpenBao the policies of this version.
# It reads no secret itself: a snapshot is ciphertext, of which nothing can be read without the seal key. The server's tokens do not have these
# rights. (But whoever has this role can give the server's role more: it is worth as much, and lies in the same directory.)

path "sys/storage/raft/snapshot" {
  capabilities = ["read"]
}

# --- what a new seal key brings with it: a new root key, and a new key for all that is written from then on ------------------------------
path "sys/rotate/root" {
  capabilities = ["update", "sudo"]
}
path "sys/rotate/keyring" {
  capabilities = ["update", "sudo"]
}

# --- policies that an older version made ---------------------------------------------------------------------------------------------------
path "sys/policies/acl/connectors-server" {
  capabilities = ["read", "update"]
}
path "sys/policies/acl/connectors-upkeep" {
  capabilities = ["read", "update"]
}

# --- its own token, and its own secret id: a backup carries one that the running Vault does not know any more ----------------------------
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
path "auth/approle/role/connectors-upkeep/secret-id" {
  capabilities = ["update"]
}
path "auth/approle/role/connectors-upkeep/secret-id/destroy" {
  capabilities = ["update"]
}
