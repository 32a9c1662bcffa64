"""Backups of the rows and the streams together, and what can be done with them.

A backup is a directory of parts and a manifest. What every part of this package keeps:

- **One moment that fits together.** The rows are read in one snapshot of the database, and only
  then the streams, those that are derived before those that they are derived from. So no position
  in the copy lies beyond the end of its stream, and whoever starts on the copy replays the rest,
  exactly as after a crash.
- **Whole or absent.** The manifest is written last, and a backup counts by its manifest alone.
- **Nothing damaged is used.** Every part and the manifest itself carry a SHA-256, looked at before
  anything is changed; after a restore the rows and messages are read again and compared.

`manifest` says what a backup is, `streams` and `rows` read and write the two halves, `take` and
`restore` put them together, `place`, `place_s3` and `place_ssh` are where backups are kept,
`retention` says which may go, `service` does it every evening.
"""
