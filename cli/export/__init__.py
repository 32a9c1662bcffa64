"""Rows out of the database into files for other programs: CSV and Parquet.

- Numbers keep every decimal: text in CSV, decimal types in Parquet. Times are instants, UTC.
- One snapshot of the database, read by a login that cannot write, as a stream: memory does not grow
  with what is exported.
- A file appears under its name when it is whole, or not at all; none is overwritten unasked.
- The CSV of one ticker's minute candles is one that `./kite up --csv` plays.

`tables` says what there is to export, `asked` what was asked for, `source` reads, `files` writes,
`commands` is what `./kite export` calls.
"""
