"""Local servers: a real Postgres and a real nats-server out of Python wheels, without root.

Each server class does four things and leaves the rest to whoever supervises it:

- `prepare()` makes directories, configuration and (once) the data, and refuses with one clear line
  what cannot work. It is idempotent and is called before every start; it blocks, for under a second
  the first time and some milliseconds later.
- `command()` says what to spawn: arguments, environment, directory, account, stop signal.
- `wait_ready()` returns when the server answers as itself.
- `stop_leftover()` stops the same server when an earlier supervisor died and left it behind.
"""
