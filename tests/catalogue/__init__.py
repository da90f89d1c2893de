"""What each vendor documents, as fixtures of their own, and the catalogue held against them."""
