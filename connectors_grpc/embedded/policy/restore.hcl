# The policy of `connectors restore`, on an embedded OpenBao that is empty: the snapshot replaces this policy and its role as well.

path "sys/storage/raft/snapshot-force" {
  capabilities = ["update"]
}
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
path "auth/approle/role/connectors-restore/secret-id" {
  capabilities = ["update"]
}
path "auth/approle/role/connectors-restore/secret-id/destroy" {
  capabilities = ["update"]
}
