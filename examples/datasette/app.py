"""Datasette as it comes from PyPI, on one SQLite file; nothing of it is changed."""

from datasette.app import Datasette

app = Datasette(["shop.db"]).app()
