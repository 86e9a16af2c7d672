"""Write shop.db anew."""

import sqlite3
from pathlib import Path

Path("shop.db").unlink(missing_ok=True)
with sqlite3.connect("shop.db") as db:
    db.execute("create table orders (id integer primary key, item text, euros integer)")
    db.executemany("insert into orders values (?, ?, ?)", [(1, "lamp", 40), (2, "desk", 310)])
db.close()
