"""How useful synthetic images are, measured on unseen real ones."""
