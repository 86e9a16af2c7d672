"""Where an identity comes from; the file name is the URL scheme."""
