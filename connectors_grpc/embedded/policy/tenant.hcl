# What a tenant's own token may do, generic: one policy for all tenants, by the identity that the token was made from. `connectors vault
# policy --tenant ACCESSOR` prints it for one auth method; ACCESSOR is that method's accessor, and the alias' metadata `tenant` the tenant's id.
#
# It shows that credentials exist, how old they are, and their ciphertext. It opens none: whoever could decrypt would hold the secret itself, and
# could send it to any host. Use `connectors call` or a sidecar for that.
# What an operator laid beside them for `vault.path` is plain text, though, and this shows it.
#
# OpenBao refuses to put in a value with `*`, `+` or `/`, so that no tenant's name can reach further than itself. On HashiCorp Vault hold the
# claim to the grammar of tenants' ids in the login role (`bound_claims`): a name with a wildcard would be put in as it is.

path "secret/data/{{identity.entity.aliases.ACCESSOR.metadata.tenant}}/+" {
  capabilities = ["read"]
}
path "secret/metadata/{{identity.entity.aliases.ACCESSOR.metadata.tenant}}/+" {
  capabilities = ["read"]
}
path "secret/metadata/{{identity.entity.aliases.ACCESSOR.metadata.tenant}}/" {
  capabilities = ["list"]
}
path "transit/keys/{{identity.entity.aliases.ACCESSOR.metadata.tenant}}" {
  capabilities = ["read"]
}
