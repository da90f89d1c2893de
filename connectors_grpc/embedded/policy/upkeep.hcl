# The policy of upkeep: `connectors backup` and `connectors seal rotate` on the embedded OpenBao. It reads no secret: a snapshot is
# ciphertext, of which nothing can be read without the seal key. The server does not have these rights, nor this role the server's.

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
