"""A Vision Bonnet in software, for the kit's own client."""
