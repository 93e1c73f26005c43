"""A folder of images to a store of codes, and what a person asks about either."""
