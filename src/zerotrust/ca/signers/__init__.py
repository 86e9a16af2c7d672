"""Where the CA's keys live."""
